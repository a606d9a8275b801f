// The panel of data sets: what is here, what one click fetches, and what has to be trained first.

const POLL_MS = 500;

function stateWords(entry) {
  return {
    official: "on disk, official file", other: "on disk, not the official file",
    missing: "not on disk", "built-in": "built in, made for this page",
  }[entry.status] ?? entry.status;
}

function trainCommands(entry) {
  return `python -m sre train ${entry.name} sre_resnet18`;
}

/** Show the catalogue in a panel. `choose(name)` opens a data set; `refresh()` reads the catalogue again. */
function fillDatasets(panel, catalogue, { current, choose, refresh, call, say }) {
  const groups = [
    ["Ready to turn", (e) => isShowable(e)],
    ["One click away", (e) => e.dimensions === 2 && e.status === "missing" && e.checkpoints > 0],
    ["No trained networks yet", (e) => e.dimensions === 2 && e.checkpoints === 0],
    ["Volumes, not shown on this page", (e) => e.dimensions === 3],
  ];
  panel.replaceChildren(...groups.flatMap(([title, belongs]) => {
    const entries = catalogue.datasets.filter(belongs);
    if (!entries.length) return [];
    return [make("h2", { class: "lab-panel-title", text: title }),
      make("ul", { class: "lab-datasets" }, ...entries.map((entry) => datasetCard(entry)))];
  }));

  function datasetCard(entry) {
    const facts = `${entry.classes.length} classes · ${entry.counts?.test ?? "?"} test images · ${entry.licence}`;
    const card = make("li", { class: "lab-card" });
    const title = make("b", { text: entry.title });
    const about = [make("span", { class: "lab-small", text: facts }), make("span", { class: "lab-small", text: stateWords(entry) })];
    if (isShowable(entry)) {
      card.append(make("button", {
        type: "button", class: "lab-pick", "aria-current": entry.name === current ? "true" : null,
        onclick: () => choose(entry.name),
      }, title, ...about));
      return card;
    }
    card.append(title, ...about);
    if (entry.dimensions !== 2) return card;
    if (entry.status === "missing") card.append(downloadButton(entry));
    if (entry.checkpoints === 0) {
      card.append(make("span", { class: "lab-small", text: "To see it here, train the networks:" }), make("code", { text: trainCommands(entry) }));
    }
    return card;
  }

  function downloadButton(entry) {
    const button = make("button", { type: "button", class: "lab-button", text: `Download ${bytes(entry.download_bytes)}` });
    const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": `Download of ${entry.title}` });
    const words = make("span", { class: "lab-small" });
    button.addEventListener("click", async () => {
      button.disabled = true;
      bar.hidden = false;
      words.textContent = "Starting…";
      const problem = await followDownload(entry, (progress) => {
        bar.value = progress.total ? progress.done / progress.total : 0;
        words.textContent = `${bytes(progress.done)} of ${bytes(progress.total || entry.download_bytes)}`;
      }, call);
      bar.hidden = true;
      button.disabled = false;
      words.textContent = problem ?? "Done";
      words.classList.toggle("is-wrong", problem !== null);
      if (problem !== null) {
        say(`${entry.title} could not be downloaded: ${problem}.`);
        return;
      }
      await refresh();
      if (entry.checkpoints > 0) choose(entry.name);
    });
    return make("div", { class: "lab-download" }, button, bar, words);
  }
}

/** Start or join a download and report on it; what went wrong, or null. */
async function followDownload(entry, onProgress, call) {
  let progress = await call("start_download", { dataset: entry.name });
  while (!progress.error && progress.state === "running") {
    onProgress(progress);
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    progress = await call("get_download", { dataset: entry.name });
  }
  if (progress.error) return progress.error;
  return progress.state === "done" ? null : progress.message || "it stopped";
}
