// The run on show and the list of all runs.

const STATES = { queued: "waiting", running: "under way", interrupted: "broken off", done: "done", failed: "failed" };

function runTitle({ settings }, form) {
  if (!settings.model) return "A run whose settings are damaged";
  const model = form.models.find(({ name }) => name === settings.model)?.title ?? settings.model;
  return `${model}${settings.rotate ? " + rotation" : ""}, width ${settings.width}${settings.side_px === 28 ? "" : `, at ${settings.side_px} px`}, on ${settings.dataset}`;
}

function runState(job) {
  if (job.state === "queued") return job.place === 1 ? "next" : `waiting, number ${job.place}`;
  if (job.state === "running") return job.epochs ? `under way, epoch ${job.epoch || 1} of ${job.epochs}` : "under way";
  return STATES[job.state] ?? job.state;
}

/** When a run was asked for, as this visitor's clock has it; its name holds the time in UTC. */
function startOf(name) {
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)/.exec(name);
  const at = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  return at.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** In the list, where runs of one network stand side by side: how far, which seed, how long a training. */
function runWords(job) {
  const { seed, epochs } = job.settings;
  const settings = Number.isInteger(seed) ? ` · seed ${seed}, up to ${countOf(epochs, "epoch")}` : "";
  return `${runState(job)}${settings} · ${startOf(job.name)}`;
}

/** The sentence at the top: what is happening, or what came of it. */
function runHeadline(job, history) {
  const { status } = job;
  const last = history.epochs.at(-1);
  const best = history.epochs.filter((e) => e.is_best).at(-1);
  const soFar = best ? ` So far the best is epoch ${best.epoch}, with ${percent(best.upright)} of the validation images right upright and ${percent(best.turned)} turned.` : "";
  if (job.state === "queued") return job.place === 1 ? "About to start: the worker is loading." : `Waiting: ${countOf(job.place - 1, "run")} before it.`;
  if (job.state === "done" && status.test) {
    const { accuracy_at_0: upright, accuracy_mean: turned } = status.test;
    return `Done: ${percent(upright)} of the test images right upright, ${percent(turned)} on average over all angles.`;
  }
  if (job.state === "failed") return `It failed.${soFar}`;
  if (job.state === "interrupted") return `It broke off${last ? ` after epoch ${last.epoch}` : ""}.${soFar}`;
  if (status.phase === "loading") return "Loading the data…";
  if (status.phase.startsWith("testing")) return `Training is over; now it is tested.${soFar}`;
  return last ? `Epoch ${Math.max(status.epoch, last.epoch)} of ${status.epochs}.${soFar}` : `The first of ${countOf(status.epochs, "epoch")}…`;
}

function progressOf({ state, status }) {
  if (state !== "running") return null;
  if (status.phase.startsWith("testing")) {
    return { share: status.steps ? status.step / status.steps : 0, words: `${status.phase}: angle ${status.step} of ${status.steps}` };
  }
  if (!status.epochs || status.phase === "loading") return { share: 0, words: "loading the data" };
  const share = status.steps ? (status.epoch - 1 + status.step / status.steps) / status.epochs : 0;
  const left = status.left_s === null ? "" : `, about ${duration(status.left_s)} left`;
  return { share, words: status.steps ? `epoch ${status.epoch} of ${status.epochs}, step ${status.step} of ${status.steps}${left}` : `${countOf(status.epochs, "epoch")} planned${left}` };
}

function runNotes(job, history) {
  const notes = [];
  if (job.message) notes.push(sentence(job.message[0].toUpperCase() + job.message.slice(1)));
  for (const { epoch, batch_size: size } of history.halved) notes.push(`Memory ran out in epoch ${epoch}: batches of ${size} images from there.`);
  if (history.resumed) notes.push(`Resumed ${history.resumed === 1 ? "once" : `${history.resumed} times`}; the epoch under way was begun anew.`);
  if (job.settings.minutes && history.planned && history.planned.epochs < job.settings.epochs) {
    notes.push(`${history.planned.epochs} of ${countOf(job.settings.epochs, "epoch")} ${history.planned.epochs === 1 ? "is" : "are"} planned, which is what ${job.settings.minutes} min are likely to be good for.`);
  }
  return notes;
}

function labAddress(job) {
  return `./?${new URLSearchParams({ dataset: job.settings.dataset, network: `trained:${job.checkpoint}` })}`;
}

const RESULTS = [
  ["Test accuracy, upright", "accuracy_at_0"], ["Mean over angles", "accuracy_mean"],
  ["Worst angle", "accuracy_worst"], ["Consistency with 0°", "consistency"],
];

function resultNode(test) {
  return make("dl", { class: "train-result" }, ...RESULTS.filter(([, key]) => Number.isFinite(test[key]))
    .map(([title, key]) => make("div", {}, make("dt", { text: title }), make("dd", { text: percent(test[key]) }))));
}

/** Buttons are made anew only where they differ, so that the focus stays. */
function actionsFor(job, { act, isAllowed }) {
  const wanted = [];
  const isOver = !["queued", "running"].includes(job.state);
  if (job.state === "done") wanted.push(["lab", "Open in the Lab"]);
  if (isAllowed && job.state === "running" && !job.status.phase.startsWith("testing")) wanted.push(["stop", "Stop and keep the best so far"]);
  if (isAllowed && ["interrupted", "failed"].includes(job.state)) wanted.push(["resume", "Resume"]);
  if (isAllowed && job.state === "queued") wanted.push(["stop", "Take out of the queue"]);
  if (isAllowed && isOver) wanted.push(["remove", job.state === "done" ? "Remove from the list" : "Remove"]);
  const key = `${job.name} ${wanted.join()}`;
  if (ui.actions.dataset.key === key) return;
  ui.actions.dataset.key = key;
  ui.actions.replaceChildren(...wanted.map(([name, text], i) => (name === "lab"
    ? make("a", { class: "lab-button is-strong", href: labAddress(job), text })
    : make("button", { type: "button", class: `lab-button${i === 0 && name === "resume" ? " is-strong" : ""}`, text, onclick: (event) => act(name, job, event.target) }))));
}

function listRuns(jobs, { form, chosen, choose }) {
  ui.runsSection.hidden = jobs.length === 0;
  const key = JSON.stringify([jobs.map((job) => [job.name, runState(job)]), chosen]);
  if (ui.runs.dataset.key === key) return;
  ui.runs.dataset.key = key;
  const focused = document.activeElement?.dataset?.job;
  ui.runs.replaceChildren(...jobs.map((job) => make("li", {}, make("button", {
    type: "button", class: "train-pick", "data-job": job.name, "aria-current": job.name === chosen ? "true" : null, onclick: () => choose(job.name),
  }, make("b", { text: runTitle(job, form) }), make("span", { class: "lab-small", text: runWords(job) })))));
  if (focused) ui.runs.querySelector(`[data-job="${CSS.escape(focused)}"]`)?.focus();
}
