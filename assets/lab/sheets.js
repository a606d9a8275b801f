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

/** A bundle with its sheets decoded stage by stage, on first need. */
function openBundle(bundle) {
  const stages = new Map();
  const orbit = { bundle, angles: bundle.angles_deg, colour: null, stage: null };
  const greys = [];
  let [wanted, input] = [null, null];

  // First what is painted large, then the single channels, which are half of all pixels. Of each all
  // at once: the browser decodes pictures on threads of its own.
  function decodeStage(name) {
    const given = bundle.models.map((model) => model.stages.find((one) => one.name === name));
    // The mean at the stage's own side, the eight channels perhaps at a smaller one.
    const models = given.map(({ side, channels }) => ({ side, channels, mean: null, cam: null, features: null }));
    const decode = (kinds) => Promise.all(given.flatMap((stage, m) => kinds.map(async (kind) => {
      models[m][kind] = await decodeValues(stage[kind]);
    })));
    const first = decode(["mean", "cam"]);
    const whole = Promise.all([first, decodeInput()]).then(() => decode(["features"]));
    whole.catch(() => {}); // whoever waits for it hears of it
    return { models, first, whole };
  }
  function stageOf(name) {
    if (!stages.has(name)) stages.set(name, decodeStage(name));
    return stages.get(name);
  }
  function decodeInput() {
    input ??= decodePictures(bundle.input).then((pictures) => { orbit.colour = pictures; });
    return input;
  }
  orbit.grey = (index) => (greys[index] ??= toGrey(orbit.colour[index]));
  /** Decode all of a stage. */
  orbit.load = (name) => stageOf(name).whole;
  /** Tell whether the single channels of the stage to paint are there, too. */
  orbit.isWhole = () => orbit.stage.models.every((model) => model.features);
  /** Make a stage the one to paint, if need be before its channels; of several asked for, the last. */
  orbit.open = async (name, { withChannels = true } = {}) => {
    wanted = name;
    const { models, first, whole } = stageOf(name);
    await Promise.all([withChannels ? whole : first, decodeInput()]);
    if (wanted === name && orbit.stage?.name !== name) orbit.stage = { name, models, limits: {} };
  };
  return orbit;
}
