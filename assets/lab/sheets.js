// A bundle carries its frames as sheets: one picture with a grid of tiles. Each is decoded once, into
// one typed array, so that a position of the slider costs no decoding and no request.

// One canvas reads all pictures out: making one a picture costs more than the reading.
const reader = make("canvas").getContext("2d", { willReadFrequently: true });

/** The pixels of a sheet's picture. Not fetch(): a data URL is on the page already. */
async function sheetPixels(sheet) {
  const [head, body] = sheet.src.split(",", 2);
  const blob = new Blob([bytesOf(body)], { type: head.slice(5).split(";")[0] });
  // No colour management: a grey value is a measurement here, not a colour.
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const { canvas } = reader;
  if (canvas.width < width || canvas.height < height) {
    [canvas.width, canvas.height] = [Math.max(canvas.width, width), Math.max(canvas.height, height)];
  }
  reader.clearRect(0, 0, width, height);
  reader.drawImage(bitmap, 0, 0);
  bitmap.close();
  return reader.getImageData(0, 0, width, height);
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function forEachRow(sheet, width, visit) {
  for (let tile = 0; tile < sheet.count; tile += 1) {
    const x = (tile % sheet.columns) * sheet.tile;
    const y = Math.floor(tile / sheet.columns) * sheet.tile;
    for (let row = 0; row < sheet.side; row += 1) {
      visit((tile * sheet.side + row) * sheet.side, (y + row) * width + x);
    }
  }
}

/** Measured values: one byte a pixel, tile after tile. */
async function decodeValues(sheet) {
  const { data, width } = await sheetPixels(sheet);
  const values = new Uint8Array(sheet.count * sheet.side * sheet.side);
  forEachRow(sheet, width, (to, from) => {
    for (let x = 0; x < sheet.side; x += 1) values[to + x] = data[4 * (from + x)];
  });
  return { ...sheet, src: null, values };
}

/** Pictures: one ImageData a tile. */
async function decodePictures(sheet) {
  const { data, width } = await sheetPixels(sheet);
  const words = new Uint32Array(data.buffer);
  const area = sheet.side * sheet.side;
  const pictures = Array.from({ length: sheet.count }, () => new ImageData(sheet.side, sheet.side));
  const targets = pictures.map((picture) => new Uint32Array(picture.data.buffer));
  forEachRow(sheet, width, (to, from) => {
    const target = targets[Math.floor(to / area)];
    for (let x = 0; x < sheet.side; x += 1) target[(to % area) + x] = words[from + x];
  });
  return pictures;
}

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
