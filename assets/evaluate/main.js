// The Evaluate page: one choice, one result on show, and one evaluation at a time on the server.

const POLL_EVERY_MS = 400;
// Of the form, what is no part of a link: a reload and another data set leave it as it was.
const left = new Set(recall("evaluate")?.left ?? []); // networks that are not to take part

let choices = null;
let state = { dataset: "", protocol: "disc", angle: 0 };
let shown = null; // { result, models, ... }: what is on the page
let latest = 0; // counts what was asked for, so that a late answer does not overwrite a newer choice
let polling = null; // the id of the evaluation that is being followed
let boardWidth = 0;
let addressTimer = 0;
// For tests and for the curious in the console.
const evaluate = { isReady: false, result: null, state: "idle", angle: 0 };
window.sreEvaluate = evaluate;

const rowOf = (name) => choices.datasets.find((row) => row.name === name);

// the address

function readChoice() {
  const query = new URLSearchParams(location.search);
  const notices = [];
  const wanted = { ...choices.start, angle: 0 };
  const dataset = query.get("dataset");
  if (dataset !== null && rowOf(dataset)?.is_ready) wanted.dataset = dataset;
  else if (dataset !== null) notices.push(`The address asks for data set “${brief(dataset)}”, which ${rowOf(dataset) ? "is not on disk or has no networks yet" : "does not exist here"}; showing “${wanted.dataset}”.`);
  const protocol = query.get("protocol");
  if (choices.protocols.some(({ name }) => name === protocol)) wanted.protocol = protocol;
  else if (protocol !== null) notices.push(`The address asks for protocol “${brief(protocol)}”, which does not exist; showing “${wanted.protocol}”.`);
  const angle = query.get("angle");
  if (angle !== null && angle.trim() !== "" && Number.isFinite(Number(angle))) wanted.angle = ((Number(angle) % 360) + 360) % 360;
  else if (angle !== null) notices.push(`The address asks for angle “${brief(angle)}”, which is no number; showing 0.`);
  return { wanted, notices };
}

function writeChoice({ isNew = false } = {}) {
  const query = new URLSearchParams(location.search); // keeps what is not ours, such as __theme
  for (const [name, value] of Object.entries(state)) query.set(name, value);
  history[isNew ? "pushState" : "replaceState"](history.state, "", `${location.pathname}?${query}${location.hash}`);
}

// choosing

function fillChoices() {
  ui.dataset.replaceChildren(...choices.datasets.map((row) => make("option", {
    value: row.name, disabled: !row.is_ready, text: row.is_ready ? row.title : `${row.title} (${row.status === "missing" ? "not on disk" : "no networks"})`,
  })));
  segments(ui.protocol, "evaluate-protocol", choices.protocols.map(({ name, description }) => ({ value: name, text: name, title: description })),
    (protocol) => choose({ protocol }));
  ui.step.replaceChildren(...choices.steps_deg.map((step) => make("option", { value: step, text: `${360 / step}, every ${step}°` })));
  const kept = recall("evaluate");
  if (choices.steps_deg.includes(kept?.step)) ui.step.value = kept.step;
  for (const name of OPTIONS) ui[name].checked = kept?.[name] === true;
}

const OPTIONS = ["average", "placings"];

function rememberForm() {
  for (const { value, checked } of ui.networks.querySelectorAll("input")) left[checked ? "delete" : "add"](value);
  const options = Object.fromEntries(OPTIONS.map((name) => [name, ui[name].checked]));
  remember("evaluate", { left: [...left], step: Number(ui.step.value), ...options });
}

function syncChoices() {
  ui.dataset.value = state.dataset;
  checkSegment(ui.protocol, state.protocol);
  if (ui.networks.dataset.of === state.dataset) return;
  ui.networks.dataset.of = state.dataset;
  for (const label of ui.networks.querySelectorAll("label")) label.remove();
  let room = choices.most_networks;
  for (const network of rowOf(state.dataset)?.networks ?? []) {
    const input = make("input", { type: "checkbox", value: network.file });
    input.checked = !left.has(network.file) && room > 0;
    room -= input.checked;
    ui.networks.append(make("label", {}, input, make("b", { text: network.title }),
      make("span", { class: "lab-small", text: `${count(network.parameters)} parameters · ${count(network.multiply_adds)} multiply-adds` })));
  }
}

function choose(change) {
  state = { ...state, ...change };
  ui.errors.replaceChildren(); // they were of another choice
  writeChoice({ isNew: true });
  open();
}

// results

/** Show the newest result of the choice; where there is none, have a quick one made. */
async function open({ mayLook = true } = {}) {
  const ticket = (latest += 1);
  syncChoices();
  ui.board.classList.toggle("is-old", !isShown());
  ui.result.setAttribute("aria-busy", "true");
  const reply = await call("get_result", { dataset: state.dataset, protocol: state.protocol });
  if (ticket !== latest) return;
  ui.result.setAttribute("aria-busy", "false");
  if (reply.error) return complain(reply.error);
  if (reply.result) return show(reply.result);
  const title = rowOf(state.dataset)?.title ?? state.dataset;
  hideResult(`Nothing is known of ${title} under this protocol yet: press Start.`);
  const now = await call("get_progress");
  if (ticket !== latest) return;
  if (now.state === "running") {
    ui.headline.textContent = `Nothing is known of ${title} under this protocol yet: a quick look follows what is under way.`;
    return follow(now);
  }
  if (!mayLook) return;
  ui.headline.textContent = "Nothing is kept of this choice yet: taking a quick look at a part of the images…";
  const begun = await call("look_quickly", { dataset: state.dataset, protocol: state.protocol });
  if (begun.error) return complain(begun.error);
  follow(begun);
}

const isShown = () => shown !== null && shown.result.dataset === state.dataset && shown.result.protocol === state.protocol;

function hideResult(words) {
  shown = null;
  evaluate.result = null;
  evaluate.isReady = true;
  ui.board.hidden = true;
  ui.headline.textContent = words;
  ui.subject.textContent = "";
}

function show(result) {
  const models = dressModels(result.models);
  shown = { result, models, angles: result.angles_deg, matrices: [] };
  ui.board.hidden = false;
  ui.board.classList.remove("is-old");
  // The server names files; the page names networks.
  ui.headline.textContent = [...models].sort((a, b) => b.name.length - a.name.length)
    .reduce((words, model) => words.replaceAll(model.name, model.short), result.headline);
  ui.subject.replaceChildren(...subjectWords(result, models));
  ui.table.replaceChildren(overallTable(models));
  ui.conditions.replaceChildren(conditionsTable(models));
  ui.pairsSection.hidden = result.pairs.length === 0;
  if (result.pairs.length) ui.pairs.replaceChildren(pairsTable(result.pairs, models));
  ui.legend.replaceChildren(make("div", { class: "lab-legend" }, ...models.map((model) => make("span", {}, lineKey(model), model.title))));
  ui.matrixSection.hidden = result.is_multi_label;
  if (!result.is_multi_label) {
    shown.matrices = models.map((model, i) => confusionMatrix({
      model, classes: result.classes, onCell: (cell) => listImages("confusion", i, cell),
    }));
    ui.matrices.replaceChildren(...shown.matrices.map(({ node }) => node));
  }
  ui.slider.max = shown.angles.length - 1;
  setText(ui.commandWords, result.settings.quick ? "From a shell, for all images and angles:" : "From a shell, the same is:");
  ui.command.textContent = commandOf(result);
  drawAccuracy();
  mark(nearest(state.angle));
  evaluate.isReady = true;
  evaluate.result = result.id;
  returnToPlace();
}

function subjectWords(result, models) {
  const { settings, images, of_images: all } = result;
  const exact = models.filter((model) => model.is_exact_at_quarter_turns).map(({ title }) => title);
  const what = `${result.title}, protocol ${result.protocol}, ${result.angles_deg.length} angles, ${result.resamples} bootstrap samples. `;
  const odd = rowOf(result.dataset)?.status === "other" ? "Not MedMNIST’s official file. " : "";
  return [
    settings.quick
      ? make("b", { text: `A quick look, so that this page does not open empty: ${images < all ? `${images} of ${all}` : `all ${all}`} test images. Press Start for all images and angles. ` })
      : make("b", { text: `All ${images} test images. ` }),
    `${what}${odd}Made ${result.made.slice(0, 16).replace("T", " ")} UTC. `,
    result.is_multi_label ? "Accuracy is the mean over labels, most of which are no for most images: the area under the curve tells more. " : "",
    exact.length ? `Quarter turns change no answer of ${exact.join(" and ")} (measured on up to 64 images): asked at one of each four angles.` : "",
  ];
}

function commandOf({ dataset, protocol, settings }) {
  const files = settings.checkpoints.map((file) => (file.startsWith("trained:") ? `CACHE_DIR/trained/${file.slice("trained:".length)}` : `checkpoints/${file}`)).join(" ");
  return ["python -m sre evaluate", dataset, files, `--protocol ${protocol}`, settings.quick || settings.step_deg === 10 ? "" : `--step-deg ${settings.step_deg}`,
    settings.average ? "--average-rotations 8" : "", settings.placings ? "--with-placings" : ""].filter(Boolean).join(" ");
}

function drawAccuracy() {
  const { models, angles } = shown;
  boardWidth = ui.board.clientWidth;
  const width = Math.max(280, boardWidth);
  const onAngle = (angle) => turnTo(nearest(angle));
  const widths = width < 740 ? [width, Math.min(300, width)] : [Math.min(900, width - 336), 300];
  shown.plots = [straightAccuracy({ models, angles, width: widths[0], onAngle }), polarAccuracy({ models, angles, width: widths[1], onAngle })];
  ui.straight.replaceChildren(shown.plots[0].node);
  ui.polar.replaceChildren(shown.plots[1].node);
}

// the angle

function nearest(angleDeg) {
  const away = (angle) => Math.min(Math.abs(angle - angleDeg), 360 - Math.abs(angle - angleDeg));
  return shown.angles.reduce((best, angle, i) => (away(angle) < away(shown.angles[best]) ? i : best), 0);
}

function turnTo(index) {
  state.angle = shown.angles[index];
  mark(index);
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => writeChoice(), 250);
}

function mark(index) {
  const { result, models, angles } = shown;
  const angle = angles[index];
  ui.slider.value = index;
  ui.slider.setAttribute("aria-valuetext", `${angle} degrees counter-clockwise`);
  setText(ui.angleText, `${angle}°`);
  for (const plot of shown.plots) plot.mark(index);
  ui.labelsCaption.textContent = `One ${result.is_multi_label ? "label" : "class against the rest"}, at ${angle}°.`;
  ui.labels.replaceChildren(labelsTable(models, result.classes, index));
  for (const matrix of shown.matrices) matrix.mark(index);
  if (!result.is_multi_label) {
    ui.changesTitle.textContent = index ? `Which answers change from ${angles[0]}° to ${angle}°` : `Which answers change from ${angles[0]}° to the angle above`;
    ui.changes.replaceChildren(...models.map((model, i) => changeList({
      model, number: i, classes: result.classes, index, onChange: (cell) => listImages("change", i, cell),
    })));
  }
  closeImages();
  evaluate.angle = angle;
}

// the images of a cell

let listings = 0; // counts them, so that a late answer does not overwrite a newer one
let listed = null; // the cell whose images are shown, and how many of them

function closeImages() {
  ui.images.hidden = true;
  for (const pressed of element.querySelectorAll("[aria-pressed=true]")) pressed.setAttribute("aria-pressed", "false");
}

/** The file of a result's model; an average comes after the network that it asks. */
function fileOf({ models, settings }, model) {
  const networks = models.slice(0, model + 1).filter(({ averaged_rotations: turns }) => turns === 1).length;
  return settings.checkpoints[networks - 1];
}

/** Show a cell's images: those of one sheet, or as many as were shown before. */
async function listImages(kind, model, { row, column: col, cell, atLeast = 0 }) {
  const { result, angles } = shown;
  const index = Number(ui.slider.value);
  closeImages();
  cell.setAttribute("aria-pressed", "true");
  const [from, to] = [shortName(result.classes[row]), shortName(result.classes[col])];
  const words = kind === "confusion" ? `${from}, answered ${to} by ${shown.models[model].title} at ${angles[index]}°.`
    : `Answered ${from} at ${angles[0]}° and ${to} at ${angles[index]}° by ${shown.models[model].title}.`;
  const mine = (listings += 1);
  const isStill = () => mine === listings && shown?.result === result && cell.getAttribute("aria-pressed") === "true";
  const caption = make("p");
  const more = make("button", { type: "button", class: "lab-button", text: "More", onclick: () => listMore() });
  let known = 0;

  /** Add the next images, as many as one sheet takes; false if the visitor has moved on. */
  async function listMore() {
    const hadFocus = document.activeElement === more; // what is disabled loses it
    more.disabled = true;
    const found = await call("get_cell", { result: result.id, model, angle: index, kind, row, column: col, since: known });
    const sheet = found.indices?.length ? await call("get_pictures", { dataset: result.dataset, indices: found.indices }) : { sheet: null };
    const problem = found.error ?? sheet.error;
    const pictures = sheet.sheet ? await decodePictures(sheet.sheet) : [];
    more.disabled = false;
    if (!isStill()) return false;
    if (problem) {
      complain(problem);
      return false;
    }
    const links = imageLinks({ ...found, pictures, dataset: result.dataset, angle: angles[index], protocol: result.protocol, network: fileOf(result, model) });
    if (!known) ui.images.replaceChildren(caption, more);
    more.before(...links);
    known += links.length;
    listed = { kind, model, row, column: col, known };
    caption.textContent = !found.total ? `No image is ${words}` : known < found.total ? `${words} The first ${known} of ${found.total}.` : words;
    more.hidden = known >= found.total;
    if (hadFocus) (more.hidden ? links[0] : more)?.focus();
    return true;
  }

  do {
    if (!(await listMore())) return;
  } while (known < atLeast && !more.hidden);
  ui.images.hidden = false;
  ui.images.scrollIntoView({ block: "nearest" });
}

// the place that one leaves for the Lab, so that Back returns to it


ui.images.addEventListener("click", ({ target }) => {
  if (!target.closest("a")) return;
  const place = { ...listed, result: shown.result.id, scroll: scrollY };
  history.replaceState({ ...history.state, evaluatePlace: place }, "");
});

async function returnToPlace() {
  const place = history.state?.evaluatePlace;
  if (!place || place.result !== shown.result.id) return;
  history.replaceState({ ...history.state, evaluatePlace: undefined }, "");
  const cell = place.kind === "confusion" ? shown.matrices[place.model]?.cells[place.row]?.[place.column]
    : ui.changes.querySelector(`[data-change="${place.model}-${place.row}-${place.column}"]`);
  if (cell) await listImages(place.kind, place.model, { row: place.row, column: place.column, cell, atLeast: place.known });
  scrollTo({ top: place.scroll });
}

// the evaluation under way

function paintProgress(now) {
  const isRunning = now.state === "running";
  evaluate.state = now.state;
  ui.start.disabled = isRunning;
  ui.stop.hidden = !isRunning;
  ui.progress.hidden = !isRunning;
  if (!isRunning) return;
  const share = now.total ? now.done / now.total : 0;
  ui.bar.value = share;
  const of = rowOf(now.settings.dataset)?.title ?? now.settings.dataset;
  const left = now.left_s === null || share < 0.02 ? "" : `, ${now.left_s < 90 ? `${Math.ceil(now.left_s)} s` : `${Math.round(now.left_s / 60)} min`} left`;
  const step = share >= 1 ? "summing up" : `${Math.floor(100 * share)} %${left}`;
  setText(ui.progressText, `${now.settings.quick ? "Quick look at " : ""}${of}: ${now.total ? step : "loading"}`);
}

/** Follow an evaluation to its end, and show its result if it is what the visitor looks at. */
async function follow(begun) {
  paintProgress(begun);
  if (polling === begun.id) return;
  polling = begun.id;
  let now = begun;
  while (now.state === "running") {
    await new Promise((resolve) => { setTimeout(resolve, POLL_EVERY_MS); });
    if (!element.isConnected) return;
    const reply = await call("get_progress");
    if (reply.error) { polling = null; paintProgress({ state: "failed" }); return complain(reply.error); }
    now = reply;
    polling = now.id ?? null; // another may have been started meanwhile
    paintProgress(now);
  }
  polling = null;
  if (now.state === "failed") complain(now.message);
  if (now.state === "stopped") notice("Stopped. What was answered is kept: the next Start of the same goes on from there");
  const { dataset, protocol } = now.settings ?? {};
  const isMine = dataset === state.dataset && protocol === state.protocol;
  if (now.state === "done" && isMine) open({ mayLook: false });
  else if (now.state === "done") {
    if (!now.settings.quick) notice(`The evaluation of ${rowOf(dataset)?.title ?? dataset} (${protocol}) is done`);
    if (!isShown()) open(); // now the quick look that had to wait
  } else if (!isShown()) hideResult("Nothing to show of this choice yet: press Start.");
}

ui.form.addEventListener("submit", async (event) => {
  event.preventDefault();
  ui.notices.replaceChildren();
  ui.errors.replaceChildren();
  const checkpoints = [...ui.networks.querySelectorAll("input:checked")].map(({ value }) => value);
  ui.start.disabled = true;
  const begun = await call("start_evaluation", {
    dataset: state.dataset, protocol: state.protocol, checkpoints,
    step_deg: Number(ui.step.value), average: ui.average.checked, placings: ui.placings.checked,
  });
  ui.start.disabled = false;
  if (begun.error) return complain(begun.error);
  follow(begun);
});
ui.stop.addEventListener("click", async () => {
  const now = await call("stop_evaluation", { id: polling ?? "" });
  if (now.error) complain(now.error);
});
ui.form.addEventListener("change", rememberForm);
ui.dataset.addEventListener("change", () => choose({ dataset: ui.dataset.value }));
ui.slider.addEventListener("input", () => shown && turnTo(Number(ui.slider.value)));
for (const button of element.querySelectorAll("[data-save]")) button.addEventListener("click", () => shown && save(button.dataset.save));

async function save(kind) {
  const { result, models, plots } = shown;
  const name = `${result.dataset}-${result.protocol}${result.settings.quick ? "-quick" : ""}.${kind}`;
  if (kind === "csv") return saveFile(name, new Blob([result.csv], { type: "text/csv" }));
  if (kind === "json") {
    const { csv, ...rest } = result;
    return saveFile(name, new Blob([JSON.stringify(rest, null, 1)], { type: "application/json" }));
  }
  const title = `${result.title}: accuracy over the angle, ${result.images} test images, ${result.angles_deg.length} angles, protocol ${result.protocol}`;
  saveFile(name, await plotsAsPng(plots.map(({ node }) => node), { title, models, root: ui.root }));
}

function restore() {
  const { wanted, notices } = readChoice();
  ui.notices.replaceChildren();
  if (notices.length) notice(notices.join(" "));
  state = wanted;
  if (isShown()) {
    syncChoices();
    mark(nearest(state.angle));
  } else open();
}
window.addEventListener("popstate", () => choices && element.isConnected && restore());

new ResizeObserver(() => {
  if (!shown || Math.abs(ui.board.clientWidth - boardWidth) < 2) return;
  drawAccuracy();
  for (const plot of shown.plots) plot.mark(Number(ui.slider.value));
}).observe(ui.board);

async function begin() {
  const reply = await call("get_choices");
  if (reply.error) {
    hideResult("The page could not load its data sets.");
    return complain(reply.error);
  }
  choices = reply;
  fillChoices();
  restore();
  const now = await call("get_progress");
  if (now.state === "running") follow(now);
}
begin();
