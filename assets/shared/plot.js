// What plots are drawn with, on every page.

/** A short stretch of a network's line. */
function lineKey({ dash, colour }) {
  return draw("svg", { width: 32, height: 8, "aria-hidden": "true" },
    draw("line", { x1: 1, x2: 31, y1: 4, y2: 4, "stroke-dasharray": dash, style: `stroke:${colour}`, class: "lab-line" }));
}

function linePath(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function text(x, y, words, attributes = {}) {
  return draw("text", { x, y, ...attributes, text: words });
}

/** Let a pointer on a plot set the angle. */
function scrub(plot, angleAt, onAngle) {
  plot.addEventListener("pointerdown", (event) => {
    plot.setPointerCapture(event.pointerId);
    onAngle(angleAt(event));
  });
  plot.addEventListener("pointermove", (event) => {
    if (plot.hasPointerCapture(event.pointerId)) onAngle(angleAt(event));
  });
}

/** Where a pointer is around an element's centre: 0 at the top, counter-clockwise, in degrees. */
function pointerAngle(node, event) {
  const box = node.getBoundingClientRect();
  const right = event.clientX - (box.left + box.width / 2);
  const down = event.clientY - (box.top + box.height / 2);
  return ((Math.atan2(-right, -down) * 180) / Math.PI + 360) % 360;
}
