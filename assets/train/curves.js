// The curves of a run: what its events tell, and two plots of it, drawn anew with each reply.

const PLOT_HEIGHT = 210;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 10, 12, 34];
const KINDS_OF_LINE = {
  steps: { title: "steps", css: "train-steps" },
  train: { title: "training", colour: "var(--lab-muted)", dash: "2 4" },
  val: { title: "validation", colour: "var(--lab-accent)", dash: "" },
  // The dashes and smaller dots lie on top, so that both lines show where they are equal.
  upright: { title: "upright", colour: "var(--lab-sre)", dash: "", size: 3.6 },
  turned: { title: "turned by 75° and 210°", colour: "var(--lab-augmented)", dash: "7 4", size: 2 },
};

function emptyHistory() {
  return { next: 0, points: [], epochs: [], halved: [], resumed: 0, planned: null };
}

/** Add events to a history. Where an epoch began anew, what was drawn of it before goes. */
function addEvents(history, events) {
  const keepUntil = (epoch) => { history.points = history.points.filter(({ x }) => x <= epoch + 1e-9); };
  for (const event of events) {
    if (event.kind === "planned") history.planned = event;
    else if (event.kind === "step") history.points.push(event);
    else if (event.kind === "epoch") history.epochs.push(event);
    else if (event.kind === "halved") {
      history.halved.push(event);
      keepUntil(event.epoch - 1);
    } else if (event.kind === "resumed") {
      history.resumed += 1;
      keepUntil(event.epoch);
    }
  }
}

/** Steps of 1, 2 or 5 times a power of ten, of which `count` or fewer fit. */
function niceStep(span, count) {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10);
}

function ticks(from, to, count) {
  const step = niceStep(to - from, count);
  const found = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to + step * 1e-9; k += 1) found.push(Number((k * step).toFixed(10)));
  return found;
}

/** lines: [{ kind, points: [[x, y]] }] */
function curvePlot({ width, epochs, from, to, label, lines, best, format }) {
  const x = (value) => LEFT + (value / epochs) * (width - LEFT - RIGHT);
  const y = (value) => TOP + ((to - value) / (to - from)) * (PLOT_HEIGHT - TOP - BOTTOM);
  const plot = draw("svg", { viewBox: `0 0 ${width} ${PLOT_HEIGHT}`, width, height: PLOT_HEIGHT, role: "img", class: "lab-plot", "aria-label": label });
  for (const value of ticks(from, to, 5)) {
    plot.append(draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "lab-grid" }),
      draw("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end", text: format(value) }));
  }
  for (const value of ticks(0, epochs, 5).filter(Number.isInteger)) {
    plot.append(draw("text", { x: x(value), y: PLOT_HEIGHT - BOTTOM + 16, "text-anchor": "middle", text: value }));
  }
  plot.append(draw("text", { x: (LEFT + width - RIGHT) / 2, y: PLOT_HEIGHT - 2, "text-anchor": "middle", text: "epoch" }));
  if (best) plot.append(draw("line", { x1: x(best), x2: x(best), y1: TOP, y2: PLOT_HEIGHT - BOTTOM, class: "lab-marker", "stroke-dasharray": "2 3" }));
  for (const { kind, points } of lines) {
    const { css, colour, dash, size } = KINDS_OF_LINE[kind];
    const at = points.map(([px, py]) => [x(px), y(Math.min(to, Math.max(from, py)))]);
    plot.append(draw("path", { d: linePath(at), class: css ?? "lab-line", style: colour ? `stroke:${colour}` : null, "stroke-dasharray": dash || null }));
    if (css) continue;
    at.forEach(([px, py], i) => {
      const value = points[i][1];
      // What lies above the scale is marked at its edge, with its value.
      if (value > to) plot.append(draw("path", { d: `M${px - 5} ${py + 8}L${px} ${py}L${px + 5} ${py + 8}Z`, class: "train-above", style: `fill:${colour}` }, draw("title", { text: `${figure(value)}, above the scale` })));
      else if (points.length <= 60) plot.append(draw("circle", { cx: px, cy: py, r: size ?? 2.6, style: `fill:${colour}` }));
    });
  }
  const above = lines.filter(({ kind }) => !KINDS_OF_LINE[kind].css).flatMap(({ points }) => points.map(([, py]) => py)).filter((value) => value > to);
  if (above.length) plot.append(draw("text", { x: width - RIGHT, y: TOP + 22, "text-anchor": "end", class: "train-above-words", text: `▲ above the scale: up to ${figure(Math.max(...above))}` }));
  return plot;
}

function curveLegend(kinds) {
  return make("div", { class: "train-legend" }, ...kinds.map((kind) => {
    const { title, colour, dash, css } = KINDS_OF_LINE[kind];
    return make("span", {}, draw("svg", { width: 28, height: 8, "aria-hidden": "true" },
      draw("line", { x1: 1, x2: 27, y1: 4, y2: 4, class: css ?? "lab-line", style: colour ? `stroke:${colour}` : null, "stroke-dasharray": dash || null })), title);
  }));
}

function lossPlot(history, epochs, width) {
  const { points } = history;
  const found = [...points.map(({ loss }) => loss), ...history.epochs.flatMap((e) => [e.train_loss, e.val_loss])].sort((a, b) => a - b);
  // The first steps, or the validation of an early epoch, may lie far above the rest.
  const usual = found[Math.floor(0.95 * (found.length - 1))] ?? 1;
  const top = Math.max(found.findLast((value) => value <= 3 * usual) ?? 1, history.epochs.at(-1)?.val_loss ?? 0, 1e-3);
  const last = history.epochs.at(-1);
  return curvePlot({
    width, epochs, from: 0, to: 1.08 * top, format: (value) => String(value), best: null,
    label: last ? `Loss after epoch ${last.epoch}: training ${figure(last.train_loss)}, validation ${figure(last.val_loss)}` : "Loss of the steps so far",
    lines: [
      { kind: "steps", points: points.map(({ x, loss }) => [x, loss]) },
      { kind: "train", points: history.epochs.map((e) => [e.epoch - 0.5, e.train_loss]) },
      { kind: "val", points: history.epochs.map((e) => [e.epoch, e.val_loss]) },
    ],
  });
}

function accuracyPlot(history, epochs, width) {
  const found = history.epochs.flatMap((e) => [e.upright, e.turned]);
  const from = Math.max(0, Math.floor(10 * Math.min(1, ...found) - 0.5) / 10);
  const best = history.epochs.filter((e) => e.is_best).at(-1);
  const last = history.epochs.at(-1);
  return curvePlot({
    width, epochs, from: found.length ? from : 0, to: 1, format: wholePercent, best: best?.epoch,
    label: last ? `Validation accuracy after epoch ${last.epoch}: ${percent(last.upright)} upright, ${percent(last.turned)} turned` : "Validation accuracy, after the first epoch",
    lines: [
      { kind: "upright", points: history.epochs.map((e) => [e.epoch, e.upright]) },
      { kind: "turned", points: history.epochs.map((e) => [e.epoch, e.turned]) },
    ],
  });
}
