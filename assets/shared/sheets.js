// Sheets: one picture with a grid of tiles. Each is decoded once, into one typed array, so that what
// is painted from it later costs no decoding and no request.

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
