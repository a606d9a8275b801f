// Turning small maps in the browser, for the views "turned back" and "difference to 0°".
//
// Angles are degrees counter-clockwise as displayed; rows count downwards. The turn is bilinear about
// the centre of the grid, and exact at quarter turns, like the one that the networks' input went through.

const turnTables = new Map();

/** For each pixel of the turned map: its four sources, their weights, and whether it is in the disc. */
function turnTable(side, angleDeg) {
  const key = `${side}:${angleDeg}`;
  if (turnTables.has(key)) return turnTables.get(key);
  const area = side * side;
  const table = { sources: new Int32Array(4 * area), weights: new Float32Array(4 * area), inside: new Uint8Array(area) };
  const centre = (side - 1) / 2;
  const angle = (angleDeg * Math.PI) / 180;
  // Rounded, so that a quarter turn meets pixel centres and not points next to them.
  const cos = Math.round(Math.cos(angle) * 1e9) / 1e9;
  const sin = Math.round(Math.sin(angle) * 1e9) / 1e9;
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const pixel = y * side + x;
      const right = x - centre;
      const up = centre - y;
      table.inside[pixel] = right * right + up * up <= (side / 2) ** 2 ? 1 : 0;
      // What lands here came from the place that this turn, undone, leads to.
      const fromX = centre + right * cos + up * sin;
      const fromY = centre - (up * cos - right * sin);
      const left = Math.floor(fromX + 1e-7);
      const top = Math.floor(fromY + 1e-7);
      const shareX = Math.max(0, fromX - left);
      const shareY = Math.max(0, fromY - top);
      for (let corner = 0; corner < 4; corner += 1) {
        const sx = left + (corner & 1);
        const sy = top + (corner >> 1);
        const within = sx >= 0 && sy >= 0 && sx < side && sy < side;
        table.sources[4 * pixel + corner] = within ? sy * side + sx : 0;
        table.weights[4 * pixel + corner] = within ? (corner & 1 ? shareX : 1 - shareX) * (corner >> 1 ? shareY : 1 - shareY) : 0;
      }
    }
  }
  turnTables.set(key, table);
  return table;
}

/** Turn one tile counter-clockwise, into `out` (Float32Array). */
function turnTile(values, start, side, angleDeg, out) {
  const { sources, weights } = turnTable(side, angleDeg);
  for (let pixel = 0, at = 0; pixel < side * side; pixel += 1, at += 4) {
    out[pixel] = weights[at] * values[start + sources[at]]
      + weights[at + 1] * values[start + sources[at + 1]]
      + weights[at + 2] * values[start + sources[at + 2]]
      + weights[at + 3] * values[start + sources[at + 3]];
  }
}

const scratch = new Float32Array(64 * 64);

/** Frame `index` of a sheet as 256-colour words, in one of the three views. `slot` is the channel. */
function paintTile(picture, sheet, { slot = 0, index, angleDeg, angles, maps, table, scale, limit }) {
  const { side, values, low, high } = sheet;
  const area = side * side;
  const words = new Uint32Array(picture.data.buffer);
  const start = (slot * angles + index) * area;
  // From the sheet's bytes to the shared scale: t = (low + span * v / 255 - lo) / (hi - lo).
  const width = scale[1] - scale[0] || 1;
  const gain = (high - low) / width;
  const offset = (255 * (low - scale[0])) / width;
  if (maps === "as-is") {
    for (let i = 0; i < area; i += 1) words[i] = table[clampByte(offset + gain * values[start + i])];
    return;
  }
  const { inside } = turnTable(side, angleDeg);
  turnTile(values, start, side, (360 - angleDeg) % 360, scratch);
  if (maps === "turned-back") {
    for (let i = 0; i < area; i += 1) words[i] = inside[i] ? table[clampByte(offset + gain * scratch[i])] : 0;
    return;
  }
  const upright = slot * angles * area;
  const unit = (127.5 * (high - low)) / (255 * limit);
  for (let i = 0; i < area; i += 1) {
    words[i] = inside[i] ? table[clampByte(127.5 + unit * (scratch[i] - values[upright + i]))] : 0;
  }
}

function clampByte(value) {
  return value <= 0 ? 0 : value >= 255 ? 255 : Math.round(value);
}

/** The largest difference to 0° of any network, channel and angle: the shared end of the colour bar. */
function differenceLimit(sheets, anglesDeg) {
  let limit = 0;
  for (const { side, values, count: tiles, low, high } of sheets) {
    const area = side * side;
    let largest = 0;
    for (let tile = 0; tile < tiles; tile += 1) {
      const index = tile % anglesDeg.length;
      if (index === 0) continue;
      const upright = (tile - index) * area;
      const { inside } = turnTable(side, anglesDeg[index]);
      turnTile(values, tile * area, side, (360 - anglesDeg[index]) % 360, scratch);
      for (let i = 0; i < area; i += 1) {
        if (inside[i]) largest = Math.max(largest, Math.abs(scratch[i] - values[upright + i]));
      }
    }
    // Eight grey levels at least, so that the rounding to bytes never fills the scale.
    limit = Math.max(limit, (Math.max(largest, 8) * (high - low)) / 255);
  }
  return limit || 1;
}
