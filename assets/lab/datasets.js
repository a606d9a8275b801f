// The panel of data sets: what is here, what one click fetches, and what has to be trained first.

function stateWords(entry) {
  return {
    official: "on disk, official file", other: "on disk, not the official file",
    missing: "not on disk", "built-in": "built in, made for this page",
  }[entry.status] ?? entry.status;
}

const downloads = new Map(); // elements of downloads, by data set

/** Show the catalogue in a panel. `choose(name)` opens a data set; `arrived(entry)` hears of a download. */
function fillDatasets(panel, catalogue, { current, choose, arrived, call, say }) {
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
    const facts = `${entry.classes.length} classes · ${entry.counts.test} test images · ${entry.licence}`;
    const card = make("li", { class: "lab-card" });
    const title = make("b", { text: entry.title });
    const about = [make("span", { class: "lab-small", text: facts }), make("span", { class: "lab-small", text: entry.note || stateWords(entry) })];
    if (isShowable(entry)) {
      card.append(make("button", {
        type: "button", class: "lab-pick", "aria-current": entry.name === current ? "true" : null,
        onclick: () => choose(entry.name),
      }, title, ...about));
      return card;
    }
    card.append(title, ...about);
    if (entry.dimensions !== 2) return card;
    if (entry.status === "missing") card.append(downloadPart(entry));
    if (entry.checkpoints === 0) {
      const address = `./train?${new URLSearchParams({ dataset: entry.name })}`;
      card.append(make("span", { class: "lab-small" }, "To see it here, ", make("a", { href: address, text: "train a network" }), "."));
    }
    return card;
  }

  /** A running download keeps its elements when the panel is filled again. */
  function downloadPart(entry) {
    if (!downloads.has(entry.name)) downloads.set(entry.name, buildDownload(entry));
    return downloads.get(entry.name);
  }

  function buildDownload(entry) {
    const button = make("button", { type: "button", class: "lab-button", text: `Download ${entry.download_is_bound ? "up to " : ""}${bytes(entry.download_bytes)}` });
    const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": `Download of ${entry.title}` });
    const words = make("span", { class: "lab-small", role: "status" });
    button.addEventListener("click", async () => {
      button.disabled = true;
      bar.hidden = false;
      words.classList.remove("is-wrong");
      words.textContent = "Starting…";
      const problem = await followDownload(entry, (progress) => {
        bar.value = progress.total ? progress.done / progress.total : 0;
        const done = progress.done ? `${bytes(progress.done)} of ${bytes(progress.total || entry.download_bytes)}` : "";
        words.textContent = [done, progress.message].filter(Boolean).join(", ");
      }, call);
      bar.hidden = true;
      button.disabled = false;
      words.textContent = problem ?? "";
      words.classList.toggle("is-wrong", problem !== null);
      if (problem !== null) return say(problem);
      downloads.delete(entry.name);
      arrived(entry);
    });
    return make("div", { class: "lab-download" }, button, bar, words);
  }
}
