// Colour maps and the colours of classes and networks.

// Viridis (Smith and van der Walt, CC0) at 20 even steps, linear between them.
const VIRIDIS = "440154 481567 482677 453781 404788 39568c 33638d 2d708e 287d8e 238a8d "
  + "1f968b 20a387 29af7f 3cbb75 55c667 73d055 95d840 b8de29 dce319 fde725";
// Diverging, for differences: nothing to see is the colour of the page, in light and in dark.
const DIVERGING_LIGHT = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f";
const DIVERGING_DARK = "9fd0ff 5aa9f0 2f7fcb 23568c 1c3550 18181b 552a22 94412f cf6242 f2936b ffcfae";

// Okabe and Ito's eight (black gives way to grey, which dark mode can show), then six of Paul Tol's.
const CLASS_COLOURS = [
  "#e69f00", "#56b4e9", "#009e73", "#d8c72c", "#0072b2", "#d55e00", "#cc79a7",
  "#808080", "#882255", "#999933", "#44aa99", "#aa4499", "#6699cc", "#a2664a",
];

/** 256 colours as the 32-bit words that ImageData holds. */
function lookupTable(stops) {
  const colours = stops.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const bytesOut = new Uint8ClampedArray(256 * 4);
  for (let v = 0; v < 256; v += 1) {
    const position = (v / 255) * (colours.length - 1);
    const left = Math.min(Math.floor(position), colours.length - 2);
    for (let c = 0; c < 3; c += 1) {
      const from = colours[left][c];
      bytesOut[4 * v + c] = from + (position - left) * (colours[left + 1][c] - from);
    }
    bytesOut[4 * v + 3] = 255;
  }
  return new Uint32Array(bytesOut.buffer);
}

const viridis = lookupTable(VIRIDIS);
const divergingLight = lookupTable(DIVERGING_LIGHT);
const divergingDark = lookupTable(DIVERGING_DARK);

/** Viridis that lets the image shine through where the value is low, for maps laid over an image. */
const veil = viridis.map((word, v) => ((word & 0xffffff) | ((45 + Math.round(170 * (v / 255))) << 24)) >>> 0);

const isDark = () => document.body.classList.contains("dark");
const diverging = () => (isDark() ? divergingDark : divergingLight);
const classColour = (index) => CLASS_COLOURS[index % CLASS_COLOURS.length];

// A network is told by the dash of its line as well as by its colour (set in lab.css for both themes).
const ARMS = {
  sre: { dash: "", colour: "var(--lab-sre)" },
  plain: { dash: "7 4", colour: "var(--lab-plain)" },
  augmented: { dash: "1.5 4", colour: "var(--lab-augmented)" },
};
const armOf = (model) => ARMS[model.line ?? model.arm] || ARMS.plain;

/** Give each network a line of its own: that of its arm, or where that is taken, the first that is free. */
function giveLines(models) {
  const free = new Set(Object.keys(ARMS));
  for (const model of models) if (free.delete(model.arm)) model.line = model.arm;
  for (const model of models) {
    if (model.line) continue;
    [model.line] = free;
    free.delete(model.line);
  }
}

/** Draw a table of 256 colours along a canvas of 256 by 1. */
function paintColourBar(canvas, table) {
  const picture = new ImageData(256, 1);
  new Uint32Array(picture.data.buffer).set(table);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
