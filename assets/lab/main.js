// The page itself: one state, one orbit on show, and what happens between them.

const session = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join("");
const opened = new Map(); // orbits by request, newest last: Back and forth cost nothing
const OPENED_LIMIT = 6;
const PRELOAD_PAUSE_MS = 250;

let catalogue = null;
let state = null; // what the visitor asked for
let shown = null; // { orbit, state, paint, ... }: what is on the page
let latestTicket = 0;
let addressTimer = 0;

const setKnob = drawDialRing(ui.dial);
const dialContext = ui.dialImage.getContext("2d");
// For tests and for the curious in the console.
// Milliseconds since the last sample was asked for: until its reply, decoded, and painted.
const lab = { paints: 0, angle: 0, paintMs: 0, isReady: false, ticket: 0, shownTicket: 0, replyMs: 0, decodedMs: 0, shownMs: 0 };
window.sreLab = lab;

function setWaiting(words) {
  ui.result.setAttribute("aria-busy", String(words !== null));
  ui.root.classList.toggle("is-busy", words !== null);
  if (words !== null && !shown) ui.headline.textContent = words;
}

// asking for an orbit

/** Show what `wanted` says. The earlier result stays until the new one is ready, or for good on an error. */
async function show(wanted, { isNew = false } = {}) {
  state = wanted;
  const ticket = (latestTicket += 1);
  lab.ticket = ticket;
  const request = {
    dataset: state.dataset, sample: state.sample, upload: state.upload,
    protocol: state.protocol, target: state.target,
  };
  setWaiting("Turning the image through 72 angles and asking three networks…");
  const began = performance.now();
  let orbit = await openedOrbit(request, ticket);
  if (ticket !== latestTicket || orbit.dropped) return; // the visitor has moved on
  lab.replyMs = performance.now() - began;
  if (!orbit.error) {
    await orbit.open(state.stage).catch((problem) => {
      orbit = { error: `The pictures cannot be decoded (${problem.message}); use a newer browser` };
    });
  }
  if (ticket !== latestTicket) return;
  lab.decodedMs = performance.now() - began;
  setWaiting(null);
  lab.shownTicket = ticket;
  if (orbit.error) {
    complain(orbit.error);
    if (shown) state = { ...shown.state, angle: lab.angle };
    else ui.headline.textContent = "Nothing to show yet: choose another sample or data set above.";
    syncPickers();
    return;
  }
  ui.errors.replaceChildren();
  // Once per new sample an entry in the history, and only when it is really there.
  present(orbit);
  lab.shownMs = performance.now() - began;
  writeAddress(state, { isNew });
  preload(orbit, ticket);
}

async function openedOrbit(request, ticket) {
  const key = JSON.stringify(request);
  let orbit = opened.get(key);
  if (!orbit) {
    const bundle = await call("get_orbit", { ...request, ticket, session });
    if (bundle.error || bundle.dropped) return bundle;
    orbit = openBundle(bundle);
  }
  opened.delete(key);
  opened.set(key, orbit);
  if (opened.size > OPENED_LIMIT) opened.delete(opened.keys().next().value);
  return orbit;
}

/** Decode the other stages while nothing else happens. */
async function preload(orbit, ticket) {
  for (const name of orbit.bundle.stages) {
    await new Promise((resolve) => { setTimeout(resolve, PRELOAD_PAUSE_MS); });
    if (ticket !== latestTicket) return;
    await orbit.load(name);
  }
}

// putting it on the page

function present(orbit) {
  const { bundle } = orbit;
  shown = { orbit, state, subject: subjectOf(bundle) };
  shown.paintModels = buildModelRow(ui.modelRow, ui.keys, orbit);
  shown.paintAnswers = buildAnswers(ui.answers, orbit);
  shown.features = buildFeatures(ui.featureRow, orbit, (channel) => changeView({ channel }));
  shown.cams = buildCams(ui.camRow, orbit);
  buildCost(ui.cost, bundle);
  writeWords(bundle, shown.subject, entryOf(bundle.dataset.name));
  ui.root.style.setProperty("--lab-columns", bundle.models.length);
  ui.dialImage.width = ui.dialImage.height = bundle.side;
  ui.dial.classList.toggle("is-square", bundle.protocol.name === "paper");
  ui.result.classList.remove("is-waiting");
  drawPlots();
  syncPickers();
  gallery.follow();
  relabel();
  paint();
  lab.isReady = true;
  lab.bundle = bundle;
}

function drawPlots() {
  const { orbit, subject } = shown;
  const { bundle } = orbit;
  const options = { bundle, subject, onAngle: (angleDeg) => { turning.pause(); turnTo(wrapAngle(angleDeg)); } };
  const width = Math.max(280, ui.board.clientWidth); // 0 while Gradio has not laid out the page
  const widths = width < 740 ? [width, Math.min(300, width)] : [width - 336, 300];
  shown.plots = [straightPlot({ ...options, width: widths[0] }), polarPlot({ ...options, width: widths[1] })];
  shown.errors = errorPlot({ bundle, width });
  ui.straight.replaceChildren(legend(bundle.models), shown.plots[0].node, answersLegend(bundle));
  ui.polar.replaceChildren(shown.plots[1].node);
  ui.equivariance.replaceChildren(shown.errors.node);
  shown.errors.describe(orbit.angles.indexOf(state.angle));
  shown.plotWidth = ui.board.clientWidth;
}

/** Everything that depends on the pickers but not on the angle. */
function relabel() {
  shown.features.label(shown.orbit, state);
  shown.cams.label(shown.orbit, state);
}

// turning: no request, every position painted

function turnTo(angleDeg) {
  if (!shown) return;
  state.angle = angleDeg;
  paint();
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    writeAddress(state);
    shown.errors.describe(shown.orbit.angles.indexOf(state.angle));
  }, 250);
}

function paint() {
  const began = performance.now();
  const angleDeg = state.angle;
  const view = { ...state, angleDeg, index: shown.orbit.angles.indexOf(angleDeg) };
  dialContext.putImageData(shown.orbit.colour[view.index], 0, 0);
  setKnob(angleDeg);
  setText(ui.angleText, `${angleDeg}°`);
  ui.slider.value = angleDeg;
  ui.slider.setAttribute("aria-valuetext", `${angleDeg} degrees counter-clockwise`);
  shown.paintModels(view);
  shown.paintAnswers(view);
  shown.features.paint(shown.orbit, view);
  shown.cams.paint(shown.orbit, view);
  for (const plot of shown.plots) plot.mark(view.index);
  shown.errors.mark(view.index, view.stage);
  lab.paints += 1;
  lab.angle = angleDeg;
  lab.paintMs = performance.now() - began;
}

// pickers

async function changeView(change) {
  if (!shown) return;
  Object.assign(state, change);
  const { orbit } = shown;
  if (change.stage) await orbit.open(change.stage);
  if (orbit !== shown.orbit || orbit.stage.name !== state.stage) return;
  syncPickers();
  relabel();
  paint();
  writeAddress(state);
}

function syncPickers() {
  if (!state) return;
  checkSegment(ui.stagePicker, state.stage);
  checkSegment(ui.channelPicker, state.channel);
  checkSegment(ui.mapsPicker, state.maps);
  checkSegment(ui.protocol, state.protocol);
  const entry = entryOf(state.dataset);
  ui.datasetName.textContent = entry?.title ?? state.dataset;
  const explained = shown?.orbit.bundle;
  if (!explained) return;
  ui.target.replaceChildren(make("option", { value: "", text: "what each network answers at 0°" }),
    ...explained.dataset.classes.map((name, k) => make("option", { value: k, text: shortName(name) })));
  ui.target.value = state.target === null ? "" : String(state.target);
}

function entryOf(name) {
  return catalogue?.datasets.find((entry) => entry.name === name);
}

function togglePanel(button, panel, onOpen) {
  const isOpening = panel.hidden;
  for (const [otherButton, other] of [[ui.datasetButton, ui.datasetPanel], [ui.galleryButton, ui.galleryPanel]]) {
    other.hidden = true;
    otherButton.setAttribute("aria-expanded", "false");
  }
  if (!isOpening) return;
  panel.hidden = false;
  button.setAttribute("aria-expanded", "true");
  onOpen();
}

function closePanel(button, panel) {
  if (!panel.hidden) togglePanel(button, panel);
}

function openDatasets() {
  fillDatasets(ui.datasetPanel, catalogue, {
    current: state.dataset, call, say: complain, choose: chooseDataset, arrived: datasetArrived,
  });
}

function chooseDataset(name) {
  closePanel(ui.datasetButton, ui.datasetPanel);
  const sample = name === catalogue.start.dataset ? catalogue.start.sample : 0;
  show({ ...state, dataset: name, sample, upload: null, target: null }, { isNew: true });
}

/** A download is done: open it, unless the visitor has gone on to something else. */
async function datasetArrived({ name, title }) {
  const fresh = await call("get_catalogue");
  if (fresh.error) return complain(fresh.error);
  catalogue = fresh;
  if (ui.datasetPanel.hidden) return notice(`${title} is on disk now; choose it from the data sets`);
  openDatasets();
  if (isShowable(entryOf(name))) chooseDataset(name);
}

async function findSample(button) {
  const kind = button.dataset.find;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  const { dataset } = state;
  const found = await call("find_sample", { dataset, kind, after: state.sample, protocol: state.protocol });
  button.disabled = false;
  button.removeAttribute("aria-busy");
  if (found.error) return complain(found.error);
  if (state.dataset !== dataset) return; // the visitor went elsewhere while we searched
  await show({ ...state, sample: found.index, upload: null, target: null }, { isNew: true });
  ui.notices.replaceChildren();
  if (found.note) notice(found.note);
}

const UPLOAD_LIMIT_BYTES = 20e6;

async function uploadImage(file) {
  if (file.size > UPLOAD_LIMIT_BYTES) return complain(`${file.name} has ${bytes(file.size)}; choose an image of at most ${bytes(UPLOAD_LIMIT_BYTES)}`);
  ui.uploadButton.disabled = true;
  const taken = await call("take_upload", { binary: true, data: { file, dataset: state.dataset } });
  ui.uploadButton.disabled = false;
  if (taken.error) return complain(taken.error);
  await show({ ...state, upload: taken.token, target: null }, { isNew: true });
  ui.notices.replaceChildren();
  notice(`${taken.name} is not from this data set. ${taken.note ?? ""}`);
}

// start

const turning = connectTurning(ui, { turnTo, angle: () => state?.angle ?? 0 });
const gallery = connectGallery(ui, {
  call, complain,
  context: () => ({ entry: entryOf(state.dataset), sample: state.upload ? null : state.sample }),
  choose: (sample) => show({ ...state, sample, upload: null, target: null }, { isNew: true }),
});

segments(ui.stagePicker, "stage", STAGES.map((name) => ({ value: name, text: name.replace("stage", ""), title: stageName(name) })), (stage) => changeView({ stage }));
segments(ui.channelPicker, "channel",
  Array.from({ length: CHANNEL_SLOTS }, (_, slot) => (slot === 0
    ? { value: 0, text: "mean", title: "Mean of all channels of the stage" }
    : { value: slot, text: slot, title: `Number ${slot} of each network's eight strongest channels` })),
  (channel) => changeView({ channel: Number(channel) }));
segments(ui.mapsPicker, "maps", MAPS_VIEWS, (maps) => changeView({ maps }));

ui.datasetButton.addEventListener("click", () => catalogue && togglePanel(ui.datasetButton, ui.datasetPanel, openDatasets));
ui.galleryButton.addEventListener("click", () => catalogue && togglePanel(ui.galleryButton, ui.galleryPanel, () => gallery.open()));
for (const button of element.querySelectorAll("[data-find]")) button.addEventListener("click", () => state && findSample(button));
for (const radio of ui.protocol.querySelectorAll("input")) {
  radio.addEventListener("change", () => state && show({ ...state, protocol: radio.value }));
}
ui.target.addEventListener("change", () => show({ ...state, target: ui.target.value === "" ? null : Number(ui.target.value) }));
ui.uploadButton.addEventListener("click", () => state && ui.uploadInput.click());
ui.uploadInput.addEventListener("change", () => {
  if (ui.uploadInput.files.length) uploadImage(ui.uploadInput.files[0]);
  ui.uploadInput.value = ""; // so that the same file can be chosen again
});

function restore({ isFirst }) {
  const { state: asked, notices } = readAddress(location.search, catalogue);
  ui.notices.replaceChildren();
  if (notices.length) notice(notices.join(" "));
  turning.pause();
  if (isFirst || !shown) show(asked);
  else show({ ...asked, upload: null });
}
window.addEventListener("popstate", () => catalogue && restore({ isFirst: false }));

new ResizeObserver(() => {
  if (!shown || Math.abs(ui.board.clientWidth - shown.plotWidth) < 2) return;
  drawPlots();
  paint();
}).observe(ui.board);
// Colours of the difference view depend on the theme.
new MutationObserver(() => shown && (relabel(), paint())).observe(document.body, { attributeFilter: ["class"] });

async function start() {
  const reply = await call("get_catalogue");
  if (reply.error) {
    setWaiting(null);
    ui.headline.textContent = "The page could not load its data sets.";
    return complain(reply.error);
  }
  catalogue = reply;
  restore({ isFirst: true });
}
start();
