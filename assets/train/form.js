// The form: presets fill it, its cost is asked whenever it rests.

const REST_MS = 500;
const ESTIMATE_REST_MS = 900;
const WHOLE = ["width", "epochs", "seed", "batch_size", "side_px"];
const session = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16)).join("");

/** Seconds as a person would say them. */
function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const countOf = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;

function connectForm(form, { catalogue, asked, onStart }) {
  const fields = ui.form.elements;
  let ticket = 0;
  let describeTimer = 0;
  let estimateTimer = 0;
  let isDownloading = false;

  const number = (name) => (fields[name].value.trim() === "" ? null : Number(fields[name].value));
  const entryNow = () => catalogue.datasets.find(({ name }) => name === fields.dataset.value);

  /** What the form says, for the server to check. */
  function read() {
    const settings = {
      dataset: fields.dataset.value, model: fields.model.value, protocol: fields.protocol.value,
      rotate: fields.rotate.checked, balance: fields.balance.checked, blur_pools: fields.blur_pools.checked,
      minutes: number("minutes"), learning_rate: number("learning_rate"),
      scale: number("scale"), shift: number("shift"), mask_rate: number("mask_rate"),
      kernel_sizes: fields.kernel_sizes.value.split(/[\s,;]+/).filter(Boolean).map((side) => (/^-?\d{1,9}$/.test(side) ? Number(side) : side)),
    };
    for (const name of WHOLE) settings[name] = number(name);
    return settings;
  }

  function fill(settings) {
    for (const [name, value] of Object.entries(settings)) {
      if (fields[name].type === "checkbox") fields[name].checked = value;
      else fields[name].value = Array.isArray(value) ? value.join(", ") : value ?? "";
    }
    follow();
  }

  function follow() {
    const model = form.models.find(({ name }) => name === fields.model.value);
    setText(ui.modelWords, model?.summary ?? "");
    fields.kernel_sizes.disabled = model?.family === "plain";
    fields.balance.disabled = model?.family === "plain";
    fields.kernel_sizes.title = model?.family === "plain" ? "Ordinary networks have kernels of side 3" : "";
    writeDataset();
    const preset = ui.presets.querySelector("input:checked")?.value ?? null;
    remember("train", { asked, preset, settings: read() });
    ticket += 1;
    clearTimeout(describeTimer);
    clearTimeout(estimateTimer);
    describeTimer = setTimeout(describe, REST_MS, ticket);
  }

  function writeDataset() {
    if (isDownloading) return;
    const entry = entryNow();
    if (!entry) return;
    const { train, val } = entry.counts;
    const words = `${entry.classes.length} classes · ${train} training and ${val} validation images · ${entry.licence}`;
    ui.datasetWords.replaceChildren(make("span", { class: "lab-small", text: words }));
    if (entry.note) ui.datasetWords.append(make("span", { class: "lab-small is-wrong", text: ` ${entry.note}` }));
    const isMissing = entry.status === "missing";
    ui.start.disabled = isMissing || !form.is_allowed;
    if (!isMissing) return;
    const words_ = make("span", { class: "lab-small", role: "status" });
    const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": `Download of ${entry.title}` });
    const button = make("button", { type: "button", class: "lab-button", text: `Download ${entry.download_is_bound ? "up to " : ""}${bytes(entry.download_bytes)}` });
    button.addEventListener("click", async () => {
      isDownloading = button.disabled = true;
      bar.hidden = false;
      const problem = await followDownload(entry, (progress) => {
        bar.value = progress.total ? progress.done / progress.total : 0;
        words_.textContent = progress.done ? `${bytes(progress.done)} of ${bytes(progress.total || entry.download_bytes)}` : progress.message;
      }, call);
      isDownloading = false;
      if (problem !== null) complain(problem);
      else entry.status = "other"; // it is there; whether it is the official file does not matter here
      follow();
    });
    ui.datasetWords.append(make("div", { class: "lab-download" }, button, bar, words_));
  }

  async function describe(mine) {
    const settings = read();
    const found = await call("describe", { settings });
    if (mine !== ticket) return;
    setText(ui.fault, found.error ? sentence(found.error) : "");
    setText(ui.parameters, found.error ? "–" : count(found.parameters));
    setText(ui.multiplyAdds, found.error ? "–" : count(found.multiply_adds));
    setText(ui.command, found.command ?? "");
    const isThere = entryNow()?.status !== "missing";
    const cannot = found.error ? "–" : !form.is_allowed ? "not measured here" : !isThere ? "known when the data is here" : null;
    setText(ui.time, cannot ?? "measuring a few steps…");
    if (cannot === null) estimateTimer = setTimeout(estimate, ESTIMATE_REST_MS - REST_MS, mine, settings);
  }

  async function estimate(mine, settings) {
    const found = await call("estimate", { settings, ticket: mine, session });
    if (mine !== ticket || found.dropped) return;
    if (found.error) {
      setText(ui.fault, sentence(found.error));
      return setText(ui.time, "unknown");
    }
    const beside = found.is_alone ? "" : ", measured beside a run";
    setText(ui.time, `about ${duration(found.total_s)}, ${countOf(found.epochs, "epoch")}${beside}`);
  }

  function applyPreset(name) {
    showPreset(name);
    fill(form.presets.find((one) => one.name === name).settings);
  }

  function showPreset(name) {
    for (const input of ui.presets.querySelectorAll("input")) input.checked = input.value === name;
    setText(ui.presetWords, form.presets.find((one) => one.name === name)?.description ?? "Settings of your own.");
  }

  /** The settings from before a reload of this address, if there were any and what they name is still here. */
  function settingsBefore() {
    const kept = recall("train");
    const isKnown = images.some(({ name }) => name === kept?.settings?.dataset) && form.models.some(({ name }) => name === kept.settings.model);
    return isKnown && JSON.stringify(kept.asked) === JSON.stringify(asked) ? kept : null;
  }

  for (const { name, title } of form.presets) {
    const input = make("input", { type: "radio", name: "preset", value: name });
    input.addEventListener("change", () => applyPreset(name));
    ui.presets.append(make("label", {}, input, make("span", { text: title })));
  }
  const images = catalogue.datasets.filter(({ dimensions }) => dimensions === 2);
  fields.dataset.replaceChildren(...images.map(({ name, title, status }) => make("option", { value: name, text: status === "missing" ? `${title} (to download)` : title })));
  fields.model.replaceChildren(...form.models.map(({ name, title, architecture }) => make("option", { value: name, text: `${title} (${architecture})` })));
  fields.protocol.replaceChildren(...form.protocols.map((name) => make("option", { value: name, text: name })));
  for (const name of ["width", "epochs", "batch_size", "minutes"]) fields[name].max = form.most[name];
  fields.dataset.value = images.some(({ name }) => name === asked.dataset) ? asked.dataset : catalogue.start.dataset;
  const kept = settingsBefore();
  if (kept) {
    showPreset(kept.preset);
    fill(kept.settings);
  } else {
    applyPreset(form.presets[0].name);
    if (form.models.some(({ name }) => name === asked.model)) fill({ model: asked.model });
  }

  ui.form.addEventListener("input", ({ target }) => {
    if (target.name === "preset") return;
    ui.errors.replaceChildren(); // what was wrong with the settings of before
    if (target.name !== "dataset") showPreset(null);
    follow();
  });
  ui.form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (ui.start.disabled) return;
    ui.start.disabled = true;
    await onStart(read());
    ui.start.disabled = false;
    writeDataset();
  });
  return { fill };
}
