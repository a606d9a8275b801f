// The page: one run on show, followed with one small request a second.

const FOLLOW_MS = 1000;
const IDLE_MS = 5000;

let form = null;
let chosen = new URLSearchParams(location.search).get("job");
let history_ = emptyHistory();
let shown = null; // the run as the server last told it
let timer = 0;
let round = 0; // a reply of an earlier round is not shown

// For tests, and for the curious in the console.
const train = { isReady: false, state: null, epochs: 0, replies: 0 };
window.sreTrain = train;

function choose(name, { isNew = true } = {}) {
  if (name !== chosen) {
    chosen = name;
    history_ = emptyHistory();
    shown = null;
  }
  const query = new URLSearchParams(location.search);
  if (name === query.get("job")) return poll();
  if (name === null) query.delete("job");
  else query.set("job", name);
  history[isNew ? "pushState" : "replaceState"](history.state, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
  return poll();
}

async function poll() {
  clearTimeout(timer);
  const mine = (round += 1);
  const found = await call("follow", { job: chosen, since: history_.next });
  if (mine !== round) return;
  let pause = IDLE_MS;
  if (found.error) {
    complain(found.error);
    // Another page may have removed it; a server that does not answer keeps what is shown.
    const isGone = shown === null || /^there is no run/.test(found.error);
    if (chosen !== null && isGone) return choose(null, { isNew: false });
  } else {
    show(found);
    if (found.jobs.some(({ state }) => state === "running" || state === "queued")) pause = FOLLOW_MS;
  }
  train.replies += 1;
  timer = setTimeout(poll, document.hidden ? Math.max(pause, IDLE_MS) : pause);
}

/** What a visitor without a link sees: the run under way, or else the newest. */
const usual = (jobs) => (jobs.find(({ state }) => state === "running") ?? jobs[0])?.name ?? null;

function show({ jobs, job, events, next }) {
  if (!job && chosen === null && jobs.length) choose(usual(jobs), { isNew: false });
  listRuns(jobs, { form, chosen, choose });
  ui.root.classList.toggle("has-run", Boolean(job));
  if (!job) {
    if (!jobs.length && ui.example.hidden) {
      reset();
      showExample();
    }
    return;
  }
  ui.example.hidden = true;
  const hasNews = shown === null || events.length > 0;
  addEvents(history_, events);
  history_.next = next;
  shown = { ...job, place: jobs.find(({ name }) => name === job.name)?.place ?? null };
  setText(ui.headline, runHeadline(shown, history_));
  setText(ui.subject, runTitle(shown, form));
  const progress = progressOf(shown);
  ui.progressRow.hidden = progress === null;
  if (progress) {
    ui.progress.value = progress.share;
    setText(ui.progressWords, progress.words);
  }
  const notes = runNotes(shown, history_);
  if (ui.runNotes.dataset.key !== notes.join()) {
    ui.runNotes.dataset.key = notes.join();
    ui.runNotes.replaceChildren(...notes.map((text) => make("li", { text })));
  }
  ui.runNotes.classList.toggle("is-wrong", shown.state === "failed");
  actionsFor(shown, { act, isAllowed: form.is_allowed });
  if (hasNews) drawCurves();
  if (ui.result.dataset.key !== `${shown.name}${shown.checkpoint}`) {
    ui.result.dataset.key = `${shown.name}${shown.checkpoint}`;
    ui.result.replaceChildren(...(shown.status.test ? [resultNode(shown.status.test)] : []));
  }
  Object.assign(train, { state: shown.state, epochs: history_.epochs.length });
}

/** While nothing was trained here, a run that was measured shows what to expect. */
function showExample() {
  const { example, models } = form;
  ui.example.hidden = !example;
  if (!example) return;
  addEvents(history_, example.events);
  const model = models.find(({ name }) => name === example.model)?.title ?? example.model;
  const { epochs } = history_;
  const best = epochs.filter((e) => e.is_best).at(-1);
  setText(ui.example, `An example: “${example.preset}”, ${model} on ${example.dataset}. After ${duration(example.took_s)} and ${countOf(epochs.length, "epoch")} ${percent(best.upright)} of the validation images were right upright and ${percent(best.turned)} turned, in epoch ${best.epoch}. Measured ${example.date} on ${example.machine}, with ${example.made_by}.`);
  drawCurves();
}

function drawCurves() {
  const isEmpty = history_.points.length === 0 && history_.epochs.length === 0;
  ui.plots.hidden = isEmpty;
  if (isEmpty) return;
  const epochs = Math.max(history_.planned?.epochs ?? 1, history_.epochs.length, 1);
  const width = Math.max(240, Math.floor(ui.lossPlot.clientWidth));
  ui.lossPlot.replaceChildren(curveLegend([...(history_.points.length ? ["steps"] : []), "train", "val"]), lossPlot(history_, epochs, width));
  ui.accuracyPlot.replaceChildren(curveLegend(["upright", "turned"]), accuracyPlot(history_, epochs, width));
}

async function act(name, job, button) {
  button.disabled = true;
  const found = await call(name, { job: job.name });
  button.disabled = false;
  if (found.error) return complain(found.error);
  ui.errors.replaceChildren();
  if (name === "stop" && job.state === "running") {
    setText(button, "Stopping…");
    button.disabled = true;
  }
  const isGone = !found.jobs.some((one) => one.name === job.name);
  if (isGone && job.name === chosen) {
    reset();
    await choose(found.jobs[0]?.name ?? null);
    if (document.activeElement === document.body) ui.headline.focus(); // the button that had it is gone
    return;
  }
  poll();
}

function reset() {
  setText(ui.headline, "No run yet: choose on this page what to train, and start.");
  setText(ui.subject, "");
  for (const node of [ui.actions, ui.runNotes, ui.result]) {
    node.replaceChildren();
    delete node.dataset.key;
  }
  ui.progressRow.hidden = ui.plots.hidden = true;
  history_ = emptyHistory();
}

async function begin(settings) {
  const found = await call("start", { settings });
  if (found.error) return complain(found.error);
  ui.errors.replaceChildren();
  ui.notices.replaceChildren();
  await choose(found.job);
  if (!found.is_new) notice("This very run is under way or waits already, and the same settings give the same network; for another, change the seed");
  if (matchMedia("(max-width: 900px)").matches) ui.headline.scrollIntoView({ block: "start" });
}

window.addEventListener("popstate", () => {
  const name = new URLSearchParams(location.search).get("job");
  if (form && name !== chosen) choose(name, { isNew: false });
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && form) poll(); });
let plotWidth = 0;
new ResizeObserver(() => {
  const width = ui.run.clientWidth;
  if (Math.abs(width - plotWidth) < 2) return;
  plotWidth = width;
  if (form) drawCurves();
}).observe(ui.run);

/** What the address asks for and is not here; the form then begins with something else. */
function strangers(query, catalogue) {
  const found = [];
  const [dataset, model] = [query.get("dataset"), query.get("model")];
  const entry = catalogue.datasets.find(({ name }) => name === dataset);
  if (dataset !== null && entry?.dimensions !== 2) found.push(`The address asks for data set “${brief(dataset)}”, ${entry ? "whose samples are volumes, and training here takes images" : "which does not exist"}; choose one from the list.`);
  if (model !== null && !form.models.some(({ name }) => name === model)) found.push(`The address asks for model “${brief(model)}”, which does not exist or is none for classes of images; choose one from the list.`);
  return found;
}

async function start() {
  const [found, catalogue] = await Promise.all([call("get_form"), call("get_catalogue")]);
  const problem = found.error ?? catalogue.error;
  if (problem) {
    setText(ui.presetWords, "The page could not load what can be trained.");
    return complain(problem);
  }
  form = found;
  ui.off.hidden = form.is_allowed;
  setText(ui.off, sentence(form.off));
  const query = new URLSearchParams(location.search);
  for (const words of strangers(query, catalogue)) notice(words);
  connectForm(form, { catalogue, asked: { dataset: query.get("dataset"), model: query.get("model") }, onStart: begin });
  chosen ??= usual(form.jobs);
  await poll();
  train.isReady = true;
}
start();
