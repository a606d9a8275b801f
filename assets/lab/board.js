// The three columns. build*() makes the elements once per bundle and returns a paint(view) that only
// changes pixels, widths and words; view = { index, angleDeg, stage, channel, maps }.

/** What the plots and the cost table follow: the true class or, without one, the class explained. */
function subjectOf(bundle) {
  const { label } = bundle.sample;
  const index = Number.isInteger(label) ? label : bundle.target.class;
  const isTrue = isTrueClass(bundle, index);
  return { index, isTrue, name: `${isTrue ? "the true class" : "the explained class"}, ${shortName(bundle.dataset.classes[index])}` };
}

function isTrueClass(bundle, index) {
  const { label } = bundle.sample;
  return Array.isArray(label) ? label[index] === 1 : label === index;
}

/** The classes that a network answers with: one, or any number of them if several may be true. */
function answered(model, index) {
  const prediction = model.predictions[index];
  return Array.isArray(prediction) ? prediction.flatMap((on, k) => (on ? [k] : [])) : [prediction];
}

function isRight({ sample: { label } }, model, index) {
  const prediction = model.predictions[index];
  return Array.isArray(prediction) ? prediction.every((on, k) => on === label[k]) : prediction === label;
}

const classNames = (bundle, classes) => classes.map((k) => shortName(bundle.dataset.classes[k])).join(", ") || "none of the classes";
const answerColour = (classes) => (classes.length ? classColour(classes[0]) : "var(--lab-line)");

/**
 * The head of each column: what the network sees, its name, and its answer. `keys` repeats the names
 * and answers in short beside the dial, which stays in view on a phone.
 */
function buildModelRow(row, keys, orbit, { entry, choose }) {
  const { bundle } = orbit;
  keys.replaceChildren();
  const hasLabel = bundle.sample.label !== null;
  row.replaceChildren(make("div", { class: "lab-gutter" }, make("span", { class: "lab-small", text: "The network sees" })));
  const cells = bundle.models.map((model, column) => {
    const canvas = pixelCanvas(bundle.side, `What ${model.title} sees: the turned image`);
    const swatch = make("i", { class: "lab-swatch" });
    const answer = make("span");
    const verdict = make("span", { class: "lab-verdict" });
    const brief = make("span");
    keys.append(make("div", {}, lineKey(armOf(model)), make("b", { text: model.short }), brief));
    row.append(make("div", { class: "lab-model" }, canvas, make("div", {},
      make("h3", {}, lineKey(armOf(model)), model.title),
      make("p", { class: "lab-answer" }, swatch, answer), verdict), networkPicker(entry, bundle.networks, column, choose)));
    return { model, swatch, answer, verdict, brief, context: canvas.getContext("2d"), said: null };
  });
  return ({ index }) => {
    for (const cell of cells) {
      const { model, swatch, answer, verdict, brief, context } = cell;
      context.putImageData(orbit.colour[index], 0, 0);
      if (cell.said === String(model.predictions[index])) continue;
      cell.said = String(model.predictions[index]);
      const classes = answered(model, index);
      swatch.style.background = answerColour(classes);
      const words = classNames(bundle, classes);
      setText(answer, words);
      const right = hasLabel && isRight(bundle, model, index);
      setText(brief, hasLabel ? `${right ? "✓" : "✗"} ${words}` : words);
      if (!hasLabel) continue;
      setText(verdict, right ? "✓ right" : "✗ wrong");
      verdict.classList.toggle("is-wrong", !right);
    }
  };
}

/** Where there are more networks than columns: which one this column shows. */
function networkPicker(entry, names, column, choose) {
  if (!entry || entry.networks.length <= names.length) return null;
  const select = make("select", { class: "lab-choose", "aria-label": `Network of column ${column + 1}` },
    ...entry.networks.map(({ name, title }) => make("option", { value: name, text: title })));
  select.value = names[column];
  select.title = select.selectedOptions[0]?.text ?? "";
  select.addEventListener("change", () => choose(column, select.value));
  return select;
}

/** A row of a table whose columns are the networks. */
function tableRow(head, cells, attributes = {}) {
  return make("div", { class: "lab-row", role: "row", ...attributes },
    make("div", { class: "lab-gutter", role: "rowheader" }, ...head),
    ...cells.map((cell) => make("div", { role: "cell" }, cell)));
}

/** A header row for those who hear the table. */
function headerRow(first, models) {
  return make("div", { role: "row", class: "lab-spoken" }, make("span", { role: "columnheader", text: first }),
    ...models.map((model) => make("span", { role: "columnheader", text: model.title })));
}

/** Class probabilities: one row a class, one bar a network. */
function buildAnswers(table, { bundle }) {
  table.replaceChildren(headerRow("Class", bundle.models));
  const bars = bundle.models.map(() => []);
  bundle.dataset.classes.forEach((name, k) => {
    const isTrue = isTrueClass(bundle, k);
    const cells = bundle.models.map((model, m) => {
      const fill = make("i", { style: `background:${classColour(k)}` });
      const number = make("span", { class: "lab-number" });
      const bar = make("div", { class: "lab-bar" }, make("span", { class: "lab-track" }, fill), number);
      bars[m].push({ bar, fill, number, length: null });
      return bar;
    });
    const mark = isTrue ? make("span", { class: "lab-true", text: "true" }) : null;
    table.append(tableRow([make("span", { class: "lab-class", text: shortName(name), title: name }), mark], cells, { class: `lab-row${isTrue ? " is-true" : ""}` }));
  });
  return ({ index }) => {
    bundle.models.forEach((model, m) => {
      const row = model.probabilities[index];
      const classes = answered(model, index);
      bars[m].forEach((cell, k) => {
        cell.bar.classList.toggle("is-predicted", classes.includes(k));
        setText(cell.number, wholePercent(row[k]));
        const length = row[k].toFixed(3); // finer than a pixel, so that most stay as they are
        if (cell.length !== length) cell.fill.style.transform = `scaleX(${length})`;
        cell.length = length;
      });
    });
  };
}

function colourBar(title) {
  const canvas = make("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const [low, high] = [make("span"), make("span")];
  const node = make("div", { class: "lab-scale" }, make("span", { class: "lab-small", text: title }),
    canvas, make("div", { class: "lab-ends" }, low, high));
  return {
    node,
    set(table, from, to) {
      paintColourBar(canvas, table);
      low.textContent = figure(from);
      high.textContent = figure(to);
    },
  };
}

/** Words for a channel slot: the mean, or the n-th strongest, which each network counts for itself. */
function channelWords(channels, slot) {
  return slot === 0 ? `mean of all channels` : `channel ${channels[slot]}`;
}

/** A canvas that takes on the side of whatever stage it shows. */
function fitCanvas(canvas, side) {
  if (canvas.width !== side) canvas.width = canvas.height = side;
}

function paintFrame(pane, sheet, options) {
  const { side, values } = sheet;
  if (!values) return; // still being decoded: what is there stays
  if (pane.picture?.width !== side) {
    fitCanvas(pane.canvas, side);
    pane.picture = new ImageData(side, side);
  }
  paintTile(pane.picture, sheet, options);
  pane.canvas.getContext("2d").putImageData(pane.picture, 0, 0);
}

/** The scale and the colours of one kind of map, shared by all networks, channels and angles. */
function sharedScale(orbit, kind, maps) {
  const { bundle, stage } = orbit;
  const scale = bundle.scales[kind][stage.name];
  const isThere = stage.models[0][kind].values; // of one network, and so of all
  if (maps !== "difference" || !isThere) return { scale, limit: 1, table: kind === "cam" ? veil : viridis, ends: scale };
  stage.limits[kind] ??= differenceLimit(stage.models.map((model) => model[kind]), bundle.angles_deg);
  const limit = stage.limits[kind];
  return { scale, limit, table: diverging(), ends: [-limit, limit] };
}

/** Feature maps: the chosen channel large, and all nine of the stage small. */
function buildFeatures(row, { bundle }, onChannel) {
  const bar = colourBar("activation");
  const note = make("p", { class: "lab-small", text: "One scale for all networks and angles of a stage, one for the mean and one for single channels; the highest 0.1 % are cut." });
  row.replaceChildren(make("div", { class: "lab-gutter" }, bar.node, note));
  const cells = bundle.models.map((model) => {
    const large = { canvas: pixelCanvas(28, "") };
    const small = Array.from({ length: CHANNEL_SLOTS }, (_, slot) => {
      const pane = { canvas: make("canvas", { width: 28, height: 28, "aria-hidden": "true" }) };
      pane.canvas.addEventListener("click", () => onChannel(slot));
      return pane;
    });
    const strip = make("div", { class: "lab-strip", role: "group", "aria-label": `${model.title}: nine channels, small` },
      ...small.map((pane) => pane.canvas));
    const words = make("p", { class: "lab-small" });
    row.append(make("figure", { class: "lab-figure" }, make("div", { class: "lab-map" }, large.canvas),
      make("figcaption", {}, words), strip));
    return { model, large, small, words };
  });

  return {
    paint(orbit, { index, angleDeg, channel, maps }) {
      const view = { index, angleDeg, angles: bundle.angles_deg.length, maps };
      const options = { mean: { ...view, ...sharedScale(orbit, "mean", maps) }, features: { ...view, ...sharedScale(orbit, "features", maps) } };
      cells.forEach(({ large, small }, m) => {
        const paintSlot = (pane, slot) => (slot === 0
          ? paintFrame(pane, orbit.stage.models[m].mean, { ...options.mean, slot: 0 })
          : paintFrame(pane, orbit.stage.models[m].features, { ...options.features, slot: slot - 1 }));
        paintSlot(large, channel);
        small.forEach(paintSlot);
      });
    },
    /** What changes with the pickers and not with the angle. */
    label(orbit, { channel, maps, stage }) {
      const { table, ends } = sharedScale(orbit, channel === 0 ? "mean" : "features", maps);
      bar.set(table, ...ends);
      bar.node.firstChild.textContent = maps === "difference" ? "difference to 0°" : "activation";
      cells.forEach(({ model, large, small, words }, m) => {
        const { channels, side, mean, features } = orbit.stage.models[m];
        const shownSide = (channel === 0 ? mean : features).side;
        const size = shownSide === side ? `${side}×${side}` : `${side}×${side}, averaged to ${shownSide}×${shownSide}`;
        words.textContent = `${channelWords(channels, channel)} · ${size}`;
        large.canvas.setAttribute("aria-label", `Feature map of ${model.title}, ${stageName(stage)}, ${channelWords(channels, channel)}`);
        small.forEach(({ canvas }, slot) => {
          canvas.classList.toggle("is-chosen", slot === channel);
          canvas.title = channelWords(channels, slot);
        });
      });
    },
  };
}

/** Grad-CAM over the image. */
function buildCams(row, { bundle }) {
  const bar = colourBar("Grad-CAM");
  const note = make("p", { class: "lab-small", text: "One scale for all networks and angles of a stage; the image shines through where it is low." });
  row.replaceChildren(make("div", { class: "lab-gutter" }, bar.node, note));
  const cells = bundle.models.map((model) => {
    const under = make("canvas", { width: bundle.side, height: bundle.side, "aria-hidden": "true" });
    const over = { canvas: pixelCanvas(28, "") };
    const figure_ = make("div", { class: "lab-map is-overlay" }, under, over.canvas);
    const words = make("p", { class: "lab-small" });
    row.append(make("figure", { class: "lab-figure" }, figure_, make("figcaption", {}, words)));
    return { model, over, words, figure: figure_, under: under.getContext("2d") };
  });

  return {
    paint(orbit, { index, angleDeg, maps }) {
      const shared = sharedScale(orbit, "cam", maps);
      const options = { index, angleDeg, angles: bundle.angles_deg.length, maps, ...shared };
      cells.forEach(({ over, under }, m) => {
        paintFrame(over, orbit.stage.models[m].cam, options);
        // Turned back, the map lies over the upright image again.
        under.putImageData(orbit.grey(maps === "as-is" ? index : 0), 0, 0);
      });
    },
    label(orbit, { maps, stage }) {
      const { table, ends } = sharedScale(orbit, "cam", maps);
      bar.set(table, ...ends);
      bar.node.firstChild.textContent = maps === "difference" ? "difference to 0°" : "Grad-CAM";
      cells.forEach(({ model, over, words, figure: figure_ }) => {
        const explained = shortName(bundle.dataset.classes[model.target ?? bundle.target.class]);
        words.textContent = `what speaks for ${explained}`;
        figure_.classList.toggle("is-difference", maps === "difference");
        over.canvas.setAttribute("aria-label", `Grad-CAM of ${model.title} for ${explained}, ${stageName(stage)}, over the image`);
      });
    },
  };
}

/** What each network costs and gives: the numbers that a comparison needs beside it. */
function buildCost(table, bundle) {
  const { models, angles_deg: angles } = bundle;
  const { index: k } = subjectOf(bundle);
  const tested = (key) => (model) => (Number.isFinite(model.test?.[key]) ? percent(model.test[key]) : "–");
  const worst = (model) => {
    const confidence = model.probabilities.map((row) => row[k]);
    const lowest = Math.min(...confidence);
    return `${angles[confidence.indexOf(lowest)]}° (${wholePercent(lowest)})`;
  };
  const lines = [
    ["Side of the image it sees", (m) => `${m.side_px} px`],
    ["Parameters", (m) => count(m.parameters)],
    ["Multiply-adds, one image", (m) => count(m.multiply_adds)],
    ["Angles with another answer than at 0°", (m) => `${m.changes} of ${angles.length}`],
    ["Consistency with 0°", (m) => percent(m.consistency)],
    [`Worst angle for ${shortName(bundle.dataset.classes[k])}`, worst],
    ["Test accuracy, upright", tested("accuracy_at_0")],
    ["Test accuracy, mean over angles", tested("accuracy_mean")],
    ["Test accuracy, worst angle", tested("accuracy_worst")],
    ["Test set, consistency with 0°", tested("consistency")],
  ];
  table.replaceChildren(headerRow("Measure", models), ...lines
    .filter(([, value]) => models.some((model) => value(model) !== "–"))
    .map(([name, value]) => tableRow([name], models.map((model) => make("span", { class: "lab-cost", text: value(model) })))));
}
