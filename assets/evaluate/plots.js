// Accuracy over the angle, straight and polar: lines with their intervals as bands.

/** The scale of both plots: from a round number below all intervals to 1, or to one above them. */
function accuracyScale(models) {
  const all = models.flatMap((model) => model.angles.flatMap(({ accuracy }) => [accuracy.low, accuracy.high]));
  const step = Math.max(...all) - Math.min(...all) > 0.25 ? 0.1 : 0.05;
  const low = Math.max(0, Math.floor((Math.min(...all) - 0.005) / step) * step);
  const high = Math.min(1, Math.ceil((Math.max(...all) + 0.005) / step) * step);
  const ticks = [];
  for (let value = low; value < high + 1e-9; value += step) ticks.push(value);
  return { low, high, ticks, step };
}

const tickText = (value) => `${Math.round(100 * value)} %`;

function plotFrame(width, height, words) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "lab-plot is-scrubbable", "aria-label": words });
}

function describePlot(models) {
  return models.map((m) => `${m.title}: mean ${points(m.accuracy_mean.value)} %, worst ${points(m.accuracy_worst.value)} % at ${m.worst_angle_deg} degrees`).join("; ");
}

function straightAccuracy({ models, angles, width, onAngle }) {
  const { low, high, ticks } = accuracyScale(models);
  const [top, left, height] = [14, 50, Math.min(300, Math.max(190, width * 0.45))];
  const [right, bottom] = [width - 12, top + height];
  const x = (angle) => left + (angle / 360) * (right - left);
  const y = (value) => bottom - ((value - low) / (high - low)) * height;
  const plot = plotFrame(width, bottom + 42, `Accuracy from 0 to 360 degrees. ${describePlot(models)}`);
  for (const value of ticks) {
    plot.append(draw("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "lab-grid" }),
      text(left - 8, y(value) + 4, tickText(value), { class: "lab-tick", "text-anchor": "end" }));
  }
  for (const angle of [0, 90, 180, 270, 360]) {
    plot.append(draw("line", { x1: x(angle), x2: x(angle), y1: top, y2: bottom, class: "lab-grid" }),
      text(x(angle), bottom + 17, `${angle}°`, { class: "lab-tick", "text-anchor": "middle" }));
  }
  plot.append(text((left + right) / 2, bottom + 36, "angle, counter-clockwise", { class: "lab-axis", "text-anchor": "middle" }));
  const closed = [...angles.keys(), 0];
  const at = (i, k) => x(k === closed.length - 1 ? 360 : angles[i]);
  for (const model of models) {
    const upper = closed.map((i, k) => [at(i, k), y(model.angles[i].accuracy.high)]);
    const lower = closed.map((i, k) => [at(i, k), y(model.angles[i].accuracy.low)]).reverse();
    plot.append(draw("path", { d: `${linePath([...upper, ...lower])}Z`, style: `fill:${model.colour}`, class: "evaluate-band" }));
  }
  const marker = draw("line", { y1: top - 4, y2: bottom, class: "lab-marker" });
  plot.append(marker);
  for (const model of [...models].reverse()) {
    plot.append(draw("path", { d: linePath(closed.map((i, k) => [at(i, k), y(model.angles[i].accuracy.value)])), "stroke-dasharray": model.dash, style: `stroke:${model.colour}`, class: "lab-line" }));
  }
  const dots = [...models].reverse().map((model) => ({ model, dot: draw("circle", { r: 4.5, style: `fill:${model.colour}`, class: "lab-dot" }) }));
  plot.append(...dots.map(({ dot }) => dot));
  scrub(plot, (event) => {
    const box = plot.getBoundingClientRect();
    return Math.min(360, Math.max(0, ((((event.clientX - box.left) / box.width) * width - left) / (right - left)) * 360));
  }, onAngle);
  return { node: plot, mark: (index) => {
    marker.setAttribute("x1", x(angles[index]));
    marker.setAttribute("x2", x(angles[index]));
    for (const { model, dot } of dots) {
      dot.setAttribute("cx", x(angles[index]));
      dot.setAttribute("cy", y(model.angles[index].accuracy.value));
    }
  } };
}

function polarAccuracy({ models, angles, width, onAngle }) {
  const { low, high, ticks } = accuracyScale(models);
  const size = Math.min(width, 320);
  const [centre, radius] = [size / 2, size / 2 - 32];
  const floor = 0.15; // the lowest value has a circle, too
  const place = (angleDeg, value) => {
    const [angle, r] = [(angleDeg * Math.PI) / 180, radius * (floor + (1 - floor) * ((value - low) / (high - low)))];
    return [centre - Math.sin(angle) * r, centre - Math.cos(angle) * r];
  };
  const plot = plotFrame(size, size, `Accuracy around the circle. ${describePlot(models)}`);
  const shown = ticks.length > 5 ? ticks.filter((_, i) => i % 2 === (ticks.length - 1) % 2) : ticks;
  for (const value of shown) plot.append(draw("circle", { cx: centre, cy: centre, r: centre - place(0, value)[1], class: "lab-grid" }));
  for (const angle of [0, 90, 180, 270]) {
    const [x2, y2] = place(angle, high);
    const rad = (angle * Math.PI) / 180;
    plot.append(draw("line", { x1: centre, y1: centre, x2, y2, class: "lab-grid" }),
      text(centre - Math.sin(rad) * (radius + 18), centre - Math.cos(rad) * (radius + 18) + 4, `${angle}°`, { class: "lab-tick", "text-anchor": "middle" }));
  }
  const band = (model) => {
    const ring = (name) => `${linePath(angles.map((angle, i) => place(angle, model.angles[i].accuracy[name])))}Z`;
    return draw("path", { d: `${ring("high")}${ring("low")}`, "fill-rule": "evenodd", style: `fill:${model.colour}`, class: "evaluate-band" });
  };
  plot.append(...models.map(band));
  const spoke = draw("line", { x1: centre, y1: centre, class: "lab-marker" });
  plot.append(spoke);
  for (const model of [...models].reverse()) {
    plot.append(draw("path", { d: `${linePath(angles.map((angle, i) => place(angle, model.angles[i].accuracy.value)))}Z`, "stroke-dasharray": model.dash, style: `stroke:${model.colour}`, class: "lab-line" }));
  }
  for (const value of [shown[0], shown.at(-1)]) {
    const [tx, ty] = place(315, value);
    plot.append(text(tx + 3, ty - 3, tickText(value), { class: "lab-tick" }));
  }
  const dots = [...models].reverse().map((model) => ({ model, dot: draw("circle", { r: 4.5, style: `fill:${model.colour}`, class: "lab-dot" }) }));
  plot.append(...dots.map(({ dot }) => dot));
  scrub(plot, (event) => pointerAngle(plot, event), onAngle);
  return { node: plot, mark: (index) => {
    const [x2, y2] = place(angles[index], high);
    spoke.setAttribute("x2", x2);
    spoke.setAttribute("y2", y2);
    for (const { model, dot } of dots) {
      const [cx, cy] = place(angles[index], model.angles[index].accuracy.value);
      dot.setAttribute("cx", cx);
      dot.setAttribute("cy", cy);
    }
  } };
}
