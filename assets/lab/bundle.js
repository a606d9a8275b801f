// A bundle: what the networks answered at every angle, with its frames as sheets.

/** A grey copy, to lie under a map in colours. */
function toGrey({ data, width, height }) {
  const copy = new ImageData(new Uint8ClampedArray(data), width, height);
  for (let i = 0; i < data.length; i += 4) {
    copy.data.fill(0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2], i, i + 3);
  }
  return copy;
}

/**
 * A bundle with its sheets decoded stage by stage, on first need: first what is painted large, then
 * the single channels, which are half of all pixels and wait for the paint. Until then they have no values.
 */
function openBundle(bundle) {
  const stages = new Map();
  const orbit = { bundle, angles: bundle.angles_deg, colour: null, stage: null };
  const greys = [];
  let [wanted, input] = [null, null];

  // All at once, as the browser decodes pictures on threads of its own; and put in place together.
  async function decode(models, kinds) {
    const found = await Promise.all(models.map((model) => Promise.all(kinds.map((kind) => decodeValues(model[kind])))));
    models.forEach((model, m) => kinds.forEach((kind, k) => { model[kind] = found[m][k]; }));
  }
  function stageOf(name) {
    if (!stages.has(name)) {
      // The mean at the stage's own side, the eight channels perhaps at a smaller one.
      const models = bundle.models.map((model) => ({ ...model.stages.find((one) => one.name === name) }));
      stages.set(name, { name, models, limits: {}, large: decode(models, ["mean", "cam"]), whole: null });
    }
    return stages.get(name);
  }
  function decodeInput() {
    input ??= decodePictures(bundle.input).then((pictures) => { orbit.colour = pictures; });
    return input;
  }
  orbit.grey = (index) => (greys[index] ??= toGrey(orbit.colour[index]));
  /** Decode all of a stage. */
  orbit.load = (name) => {
    const stage = stageOf(name);
    stage.whole ??= stage.large.then(() => decode(stage.models, ["features"]));
    return stage.whole;
  };
  /** Tell whether the stage to paint has its single channels, too. */
  orbit.isWhole = () => orbit.stage.models.every((model) => model.features.values);
  /** Make a stage the one to paint, if need be before its channels; of several asked for, the last. */
  orbit.open = async (name, { withChannels = true } = {}) => {
    wanted = name;
    await Promise.all([withChannels ? orbit.load(name) : stageOf(name).large, decodeInput()]);
    if (wanted === name) orbit.stage = stageOf(name);
  };
  return orbit;
}
