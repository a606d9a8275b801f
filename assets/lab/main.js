// The page itself: one state, one orbit on show, and what happens between them.

const session = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join("");
const opened = new Map(); // orbits by request, newest last: Back and forth cost nothing
const OPENED_LIMIT = 6;
const PRELOAD_PAUSE_MS = 250;
const BUSY_AFTER_MS = 150;
// Parts of the page that are made anew for each orbit.
const ROWS = ["modelRow", "keys", "answers", "featureRow", "camRow", "straight", "polar", "equivariance", "cost"];

let catalogue = null;
let state = null; // what the visitor asked for
let shown = null; // { orbit, state, paint, ... }: what is on the page
let latestTicket = 0;
let addressTimer = 0;
let busyTimer = 0;
let boardWidth = 0; // as last laid out: to ask for it in the midst of changes would lay out anew

// What a position changes in each section of the board. Out of sight it follows when the turning rests.
const REST_MS = 250;
const sections = new Map([
  ["answers", (view) => shown.paintAnswers(view)],
  ["featureRow", (view) => shown.features.paint(shown.orbit, view)],
  ["camRow", (view) => shown.cams.paint(shown.orbit, view)],
  ["straight", (view) => shown.plots.forEach((plot) => plot.mark(view.index))],
  ["equivariance", (view) => shown.errors.mark(view.index, view.stage)],
].map(([row, paintSection]) => [ui[row].closest("section"), paintSection]));
const outdated = new Set(); // sections that still show an earlier position
let isInSight = () => true; // until the first result gives all sections their places
let restTimer = 0;

const setKnob = drawDialRing(ui.dial);
const dialContext = ui.dialImage.getContext("2d");
// For tests and for the curious in the console.
// Milliseconds from asking for the last sample: to its reply, decoded, and painted; and when that was.
const lab = { paints: 0, angle: 0, paintMs: 0, isReady: false, ticket: 0, shownTicket: 0, replyMs: 0, decodedMs: 0, paintedMs: 0, paintedAt: 0 };
window.sreLab = lab;

function setWaiting(words) {
  ui.result.setAttribute("aria-busy", String(words !== null));
  clearTimeout(busyTimer);
  // What comes at once should not flash, and drawing that would delay it.
  if (words === null) ui.root.classList.remove("is-busy");
  else busyTimer = setTimeout(() => ui.root.classList.add("is-busy"), BUSY_AFTER_MS);
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
    protocol: state.protocol, target: state.target, networks: state.networks,
  };
  setWaiting("Turning the image through 72 angles and asking the networks…");
  const began = performance.now();
  let orbit = await openedOrbit(request, ticket);
  if (ticket !== latestTicket || orbit.dropped) return; // the visitor has moved on
  lab.replyMs = performance.now() - began;
  let board = null;
  if (!orbit.error) {
    const opening = openShown(orbit); // on threads of the browser's own
    board = build(orbit);
    await opening.catch((problem) => { orbit = { error: undecodable(problem) }; });
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
  if (isNew) ui.notices.replaceChildren(); // they spoke of the sample before
  present(board);
  finish(board, { ticket, isNew, began });
}

const undecodable = (problem) => `The pictures cannot be decoded (${problem.message}); use a newer browser`;

/** Decode what the visitor's choice shows large; the choice may change meanwhile. */
async function openShown(orbit) {
  do await orbit.open(state.stage, { withChannels: state.channel !== 0 });
  while (orbit.stage.name !== state.stage || (state.channel !== 0 && !orbit.isWhole()));
}

/** What can wait for the first paint: the address, the single channels, and the other stages. */
async function finish(board, { ticket, isNew, began }) {
  const { orbit } = board;
  await nextPaint();
  lab.paintedAt = performance.now();
  lab.paintedMs = lab.paintedAt - began;
  // Once per new sample an entry in the history, and only when it is really there.
  if (ticket === latestTicket) writeAddress(state, { isNew });
  if (!orbit.isWhole()) {
    await orbit.load(orbit.stage.name).catch((problem) => complain(undecodable(problem)));
    if (shown === board) paint();
  }
  for (const name of orbit.bundle.stages) {
    await new Promise((resolve) => { setTimeout(resolve, PRELOAD_PAUSE_MS); });
    if (ticket !== latestTicket) return;
    await orbit.load(name).catch(() => {}); // whoever opens that stage hears of it
  }
}

async function openedOrbit(request, ticket) {
  const key = JSON.stringify(request);
  let orbit = opened.get(key);
  if (!orbit) {
    const reply = await call("get_orbit", { ...request, ticket, session });
    if (reply.error || reply.dropped) return reply;
    const bundle = JSON.parse(reply.bundle);
    const target = { ...bundle.target, chosen: reply.is_target_chosen };
    giveLines(bundle.models);
    orbit = openBundle({ ...bundle, sample: reply.sample, networks: reply.networks, target });
  }
  opened.delete(key);
  opened.set(key, orbit);
  if (opened.size > OPENED_LIMIT) opened.delete(opened.keys().next().value);
  return orbit;
}

// putting it on the page

/** All that an orbit shows, in rows of their own: made while its pictures are still being decoded. */
function build(orbit) {
  const { bundle } = orbit;
  const rows = Object.fromEntries(ROWS.map((name) => [name, ui[name].cloneNode(false)]));
  buildCost(rows.cost, bundle);
  const board = {
    orbit, state, rows, subject: subjectOf(bundle),
    paintModels: buildModelRow(rows.modelRow, rows.keys, orbit, { entry: entryOf(bundle.dataset.name), choose: chooseNetwork }),
    paintAnswers: buildAnswers(rows.answers, orbit),
    features: buildFeatures(rows.featureRow, orbit, (channel) => changeView({ channel })),
    cams: buildCams(rows.camRow, orbit),
  };
  drawPlots(board);
  return board;
}

function present(board) {
  shown = board;
  const { orbit, rows } = board;
  const { bundle } = orbit;
  for (const [name, row] of Object.entries(rows)) {
    ui[name].replaceWith(row);
    ui[name] = row;
  }
  writeWords(bundle, shown.subject, entryOf(bundle.dataset.name));
  ui.root.style.setProperty("--lab-columns", bundle.models.length);
  ui.dialImage.width = ui.dialImage.height = bundle.side;
  ui.dial.classList.toggle("is-square", bundle.protocol.name === "paper");
  ui.result.classList.remove("is-waiting");
  syncPickers();
  gallery.follow();
  relabel();
  paint();
  if (!lab.isReady) isInSight = watchSight(sections.keys(), paintRest);
  lab.isReady = true;
  lab.bundle = bundle;
}

function drawPlots(board) {
  const { orbit, subject, rows } = board;
  const { bundle } = orbit;
  const options = { bundle, subject, onAngle: (angleDeg) => { turning.pause(); turnTo(wrapAngle(angleDeg)); } };
  const width = Math.max(280, boardWidth);
  const widths = width < 740 ? [width, Math.min(300, width)] : [width - 336, 300];
  board.plots = [straightPlot({ ...options, width: widths[0] }), polarPlot({ ...options, width: widths[1] })];
  board.errors = errorPlot({ bundle, width });
  rows.straight.replaceChildren(legend(bundle.models), board.plots[0].node, answersLegend(bundle));
  rows.polar.replaceChildren(board.plots[1].node);
  rows.equivariance.replaceChildren(board.errors.node);
  board.errors.describe(orbit.angles.indexOf(state.angle));
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
  addressTimer = setTimeout(() => writeAddress(state), REST_MS);
}

function viewNow() {
  return { ...state, angleDeg: state.angle, index: shown.orbit.angles.indexOf(state.angle) };
}

function paint() {
  const began = performance.now();
  const view = viewNow();
  dialContext.putImageData(shown.orbit.colour[view.index], 0, 0);
  setKnob(view.angleDeg);
  setText(ui.angleText, `${view.angleDeg}°`);
  ui.slider.value = view.angleDeg;
  ui.slider.setAttribute("aria-valuetext", `${view.angleDeg} degrees counter-clockwise`);
  shown.paintModels(view);
  for (const [section, paintSection] of sections) {
    outdated.add(section);
    if (!isInSight(section)) continue;
    paintSection(view);
    outdated.delete(section);
  }
  clearTimeout(restTimer);
  restTimer = setTimeout(paintRest, REST_MS);
  lab.paints += 1;
  lab.angle = view.angleDeg;
  lab.paintMs = performance.now() - began;
}

function paintRest() {
  const view = viewNow();
  for (const section of outdated) sections.get(section)(view);
  outdated.clear();
  shown.errors.describe(view.index);
}

// pickers

async function changeView(change) {
  if (!shown) return;
  const before = { ...state };
  Object.assign(state, change);
  const { orbit } = shown;
  try {
    await orbit.open(state.stage);
  } catch (problem) {
    Object.assign(state, { stage: before.stage, channel: before.channel, maps: before.maps });
    syncPickers();
    return complain(undecodable(problem));
  }
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
  show({ ...state, dataset: name, sample, upload: null, target: null, networks: null }, { isNew: true });
}

/** Show another network in a column; one that stands in another column already changes places with it. */
async function chooseNetwork(column, name) {
  const entry = entryOf(state.dataset);
  await show({ ...state, networks: namesOrUsual(entry, placeNetwork(shown.orbit.bundle.networks, column, name)) }, { isNew: true });
  ui.modelRow.querySelectorAll("select")[column]?.focus();
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
  const found = await call("find_sample", { dataset, kind, after: state.sample, protocol: state.protocol, networks: state.networks });
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

async function restore() {
  const { state: asked, notices } = readAddress(location.search, catalogue);
  ui.notices.replaceChildren();
  if (notices.length) notice(notices.join(" "));
  turning.pause();
  const upload = history.state?.upload ?? null;
  if (upload !== null) {
    const ticket = latestTicket + 1;
    await show({ ...asked, upload });
    if (ticket !== latestTicket || shown?.state.upload === upload) return;
    ui.errors.replaceChildren();
    notice("The picture of your own is no longer kept on the server, so this is a sample of the data set; choose the file again.");
  }
  show(asked);
}
window.addEventListener("popstate", () => catalogue && restore());

new ResizeObserver(() => {
  if (Math.abs(ui.board.clientWidth - boardWidth) < 2) return;
  boardWidth = ui.board.clientWidth;
  if (!shown) return;
  drawPlots(shown);
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
  restore();
}
start();
