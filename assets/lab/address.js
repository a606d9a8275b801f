// The address holds the state, so that a link restores it and Back returns to the sample before.

const MAPS_VIEWS = [
  { value: "as-is", text: "as it is", title: "What the network computes from the turned image" },
  { value: "turned-back", text: "turned back", title: "The same maps, turned clockwise by the angle" },
  { value: "difference", text: "difference to 0°", title: "Turned back, minus the maps at 0°" },
];
const PROTOCOLS = ["disc", "paper"];
const STAGES = ["stem", "stage1", "stage2", "stage3", "stage4"];
const CHANNEL_SLOTS = 9; // the mean and the eight strongest channels
const STEP_DEG = 5;

const wrapAngle = (angleDeg) => ((Math.round((angleDeg % 360) / STEP_DEG) * STEP_DEG) % 360 + 360) % 360;

/** Read the address. What cannot be shown is named in `notices`, and the nearest sane value taken. */
function readAddress(search, catalogue) {
  const query = new URLSearchParams(search);
  const notices = [];
  const given = (name) => (query.has(name) && query.get(name).trim() !== "" ? query.get(name).trim() : null);
  const { dataset, sample, note } = catalogue.start;
  const state = { dataset, sample, angle: 0, stage: "stage2", channel: 0, protocol: "disc", maps: "as-is", target: null, upload: null, networks: null };

  function choose(name, allowed) {
    const value = given(name);
    if (value === null) return;
    if (allowed.includes(value)) state[name] = value;
    else notices.push(`The address asks for ${name} “${brief(value)}”, which does not exist; showing “${state[name]}”.`);
  }
  function number(name, fallback, nearest) {
    const value = given(name);
    if (value === null) return fallback;
    const parsed = Number(value);
    if (!Number.isFinite(parsed)) {
      notices.push(`The address asks for ${name} “${brief(value)}”, which is no number; showing ${fallback ?? "none"}.`);
      return fallback;
    }
    const sane = nearest(parsed);
    if (sane !== parsed) notices.push(`The address asks for ${name} ${value}; showing the nearest that there is, ${sane}.`);
    return sane;
  }

  const shown = catalogue.datasets.filter(isShowable).map((entry) => entry.name);
  const wanted = given("dataset");
  if (wanted !== null && !shown.includes(wanted)) {
    const entry = catalogue.datasets.find(({ name }) => name === wanted);
    notices.push(`The address asks for data set “${brief(wanted)}”, ${whyNotShown(entry)}; showing “${state.dataset}”.`);
  } else if (wanted !== null && wanted !== state.dataset) {
    state.dataset = wanted;
    state.sample = 0;
  }
  const entry = catalogue.datasets.find(({ name }) => name === state.dataset);
  const isRefused = wanted !== null && wanted !== state.dataset;
  if (!isRefused) {
    const last = Math.max(0, (entry?.counts?.test ?? 1) - 1);
    state.sample = number("sample", state.sample, (value) => Math.min(last, Math.max(0, Math.round(value))));
  }
  if (!isRefused) state.networks = readNetworks(query, entry, notices);
  state.angle = number("angle", 0, wrapAngle);
  choose("stage", STAGES);
  choose("protocol", PROTOCOLS);
  choose("maps", MAPS_VIEWS.map(({ value }) => value));
  if (given("channel") !== "mean") {
    state.channel = number("channel", 0, (value) => Math.min(CHANNEL_SLOTS - 1, Math.max(0, Math.round(value))));
  }
  const target = Number(given("target"));
  if (given("target") !== null) {
    if (Number.isInteger(target) && target >= 0 && target < (entry?.classes.length ?? 0)) state.target = target;
    else notices.push(`The address asks for target “${brief(given("target"))}”, which is no class here; explaining the predicted one.`);
  }
  if (note && !query.has("sample") && state.dataset === dataset) notices.push(note);
  return { state, notices };
}

/** `networks`: one a column; `network`: one that takes the column of its arm, or else the last. */
function readNetworks(query, entry, notices) {
  const one = query.get("network");
  const names = one ? [one] : (query.get("networks") ?? "").split(",").filter(Boolean).slice(0, entry.usual.length);
  const missing = names.filter((name) => !entry.networks.some((network) => network.name === name));
  if (missing.length) {
    notices.push(`The address asks for the network “${brief(missing[0])}”, which ${entry.title} does not have; showing the usual ones.`);
    return null;
  }
  if (!one) return names.length && new Set(names).size === names.length ? namesOrUsual(entry, names) : null;
  const armOfName = (name) => entry.networks.find((network) => network.name === name).arm;
  const column = entry.usual.findIndex((name) => armOfName(name) === armOfName(one));
  return namesOrUsual(entry, placeNetwork(entry.usual, column < 0 ? entry.usual.length - 1 : column, one));
}

/** Names with one of them in a column; if it stood in another, the two change places. */
function placeNetwork(names, column, name) {
  const found = [...names];
  const before = found.indexOf(name);
  if (before >= 0) found[before] = found[column];
  found[column] = name;
  return found;
}

/** What is shown anyway needs no words in the address. */
const namesOrUsual = (entry, names) => (String(names) === String(entry.usual) ? null : names);

function isShowable(entry) {
  return entry.dimensions === 2 && entry.status !== "missing" && entry.checkpoints > 0;
}

function whyNotShown(entry) {
  if (!entry) return "which does not exist";
  if (entry.dimensions !== 2) return "whose samples are volumes, not images";
  if (entry.status === "missing") return "which is not on disk yet";
  return "which has no trained networks yet";
}

/**
 * Write the state. `isNew` starts an entry that Back leads out of: for a new sample, not for a turn.
 * A picture of the visitor's own is in no link, only in this tab's history.
 */
function writeAddress(state, { isNew = false } = {}) {
  const query = new URLSearchParams(location.search); // keeps what is not ours, such as __theme
  const own = {
    dataset: state.dataset, sample: state.upload ? null : state.sample, angle: state.angle, stage: state.stage,
    channel: state.channel === 0 ? "mean" : state.channel, protocol: state.protocol,
    maps: state.maps === "as-is" ? null : state.maps, target: state.target,
    networks: state.networks?.join(",") ?? null, network: null,
  };
  for (const [name, value] of Object.entries(own)) {
    if (value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const address = `${location.pathname}?${query}${location.hash}`;
  history[isNew ? "pushState" : "replaceState"]({ ...history.state, upload: state.upload }, "", address);
}
