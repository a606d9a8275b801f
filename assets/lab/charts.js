// The plots under the columns: probability against the angle, straight and polar, and the
// equivariance error of each stage. Drawn once per bundle and width; after that only markers move.

const PLOT_LEFT = 44;

function legend(models, ...others) {
  return make("div", { class: "lab-legend" }, ...models.map((model) => make("span", {}, lineKey(armOf(model)), model.title)), ...others);
}

/** The classes that any network answers with, for the colours of the ribbons. */
function answersLegend(bundle) {
  const seen = bundle.models.flatMap((model) => bundle.angles_deg.flatMap((_, index) => answered(model, index)));
  const classes = [...new Set(seen)].sort((a, b) => a - b);
  return make("div", { class: "lab-legend is-classes" }, ...classes.map((k) => make("span", {},
    make("i", { class: "lab-swatch", style: `background:${classColour(k)}` }), shortName(bundle.dataset.classes[k]))));
}

/** Runs of equal answers: { from, length, classes }. */
function runs(model) {
  const found = [];
  model.predictions.forEach((_, i) => {
    const classes = answered(model, i);
    const last = found.at(-1);
    if (last && String(last.classes) === String(classes)) last.length += 1;
    else found.push({ from: i, length: 1, classes });
  });
  return found;
}

/** Probability of one class against the angle; under it, what each network answers at each angle. */
function straightPlot({ bundle, subject, width, onAngle }) {
  const { models, angles_deg: angles } = bundle;
  const [top, height, ribbon] = [14, Math.min(260, Math.max(170, width * 0.42)), 13];
  const right = width - 12;
  const bottom = top + height;
  const x = (angle) => PLOT_LEFT + (angle / 360) * (right - PLOT_LEFT);
  const y = (probability) => bottom - probability * height;
  const ribbonsTop = bottom + 46;
  const total = ribbonsTop + models.length * (ribbon + 5) + 8;
  const plot = draw("svg", {
    viewBox: `0 0 ${width} ${total}`, width, height: total, role: "img", class: "lab-plot is-scrubbable",
    "aria-label": `Probability of ${subject.name} from 0 to 355 degrees for ${models.map((m) => m.title).join(", ")}`,
  });
  for (const p of [0, 0.25, 0.5, 0.75, 1]) {
    plot.append(draw("line", { x1: PLOT_LEFT, x2: right, y1: y(p), y2: y(p), class: "lab-grid" }));
    plot.append(text(PLOT_LEFT - 8, y(p) + 4, String(p), { class: "lab-tick", "text-anchor": "end" }));
  }
  for (const angle of [0, 90, 180, 270, 360]) {
    plot.append(draw("line", { x1: x(angle), x2: x(angle), y1: top, y2: bottom, class: "lab-grid" }));
    plot.append(text(x(angle), bottom + 17, `${angle}°`, { class: "lab-tick", "text-anchor": "middle" }));
  }
  plot.append(text(12, top + height / 2, "probability", {
    class: "lab-axis", "text-anchor": "middle", transform: `rotate(-90 12 ${top + height / 2})`,
  }));
  plot.append(text((PLOT_LEFT + right) / 2, bottom + 36, "angle, counter-clockwise", { class: "lab-axis", "text-anchor": "middle" }));

  const step = 360 / angles.length;
  models.forEach((model, row) => {
    const top_ = ribbonsTop + row * (ribbon + 5);
    const { dash, colour } = armOf(model);
    plot.append(draw("line", {
      x1: PLOT_LEFT - 36, x2: PLOT_LEFT - 8, y1: top_ + ribbon / 2, y2: top_ + ribbon / 2,
      "stroke-dasharray": dash, style: `stroke:${colour}`, class: "lab-line",
    }));
    for (const { from, length, classes } of runs(model)) {
      const x1 = x(from * step);
      plot.append(draw("rect", { x: x1, y: top_, width: Math.max(0.5, x((from + length) * step) - x1), height: ribbon, style: `fill:${answerColour(classes)}` },
        draw("title", { text: `${model.title}: ${classNames(bundle, classes)}` })));
    }
  });

  const marker = draw("line", { y1: top - 4, y2: total - 4, class: "lab-marker" });
  plot.append(marker);
  const series = models.map((model) => model.probabilities.map((row) => row[subject.index]));
  // Drawn last to first, so that the network the page is about lies on top.
  const dots = models.map((model, i) => {
    const { dash, colour } = armOf(model);
    const closed = [...angles.map((angle, a) => [x(angle), y(series[i][a])]), [x(360), y(series[i][0])]];
    const line = draw("path", { d: linePath(closed), "stroke-dasharray": dash, style: `stroke:${colour}`, class: "lab-line" });
    const dot = draw("circle", { r: 4.5, style: `fill:${colour}`, class: "lab-dot" });
    return { line, dot };
  });
  for (const { line } of [...dots].reverse()) plot.append(line);
  for (const { dot } of [...dots].reverse()) plot.append(dot);
  scrub(plot, (event) => {
    const box = plot.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    return Math.min(355, Math.max(0, ((at - PLOT_LEFT) / (right - PLOT_LEFT)) * 360));
  }, onAngle);

  return {
    node: plot,
    mark(index) {
      const at = x(angles[index]).toFixed(1);
      marker.setAttribute("x1", at);
      marker.setAttribute("x2", at);
      dots.forEach(({ dot }, i) => {
        dot.setAttribute("cx", at);
        dot.setAttribute("cy", y(series[i][index]).toFixed(1));
      });
    },
  };
}

/** The same on a circle: 0° at the top and on counter-clockwise, as the image turns. */
function polarPlot({ bundle, subject, width, onAngle }) {
  const { models, angles_deg: angles } = bundle;
  const size = Math.min(width, 320);
  const centre = size / 2;
  const radius = centre - 32;
  const place = (angleDeg, r) => {
    const angle = (angleDeg * Math.PI) / 180;
    return [centre - Math.sin(angle) * r * radius, centre - Math.cos(angle) * r * radius];
  };
  const plot = draw("svg", {
    viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: "img", class: "lab-plot is-scrubbable",
    "aria-label": `Probability of ${subject.name} around the circle: a circle means that turning changes nothing`,
  });
  for (const r of [0.25, 0.5, 0.75, 1]) {
    plot.append(draw("circle", { cx: centre, cy: centre, r: r * radius, class: "lab-grid" }));
  }
  for (const angle of [0, 90, 180, 270]) {
    const [x2, y2] = place(angle, 1);
    const [tx, ty] = place(angle, 1 + 18 / radius);
    plot.append(draw("line", { x1: centre, y1: centre, x2, y2, class: "lab-grid" }));
    plot.append(text(tx, ty + 4, `${angle}°`, { class: "lab-tick", "text-anchor": "middle" }));
  }
  for (const r of [0.5, 1]) {
    const [tx, ty] = place(315, r);
    plot.append(text(tx + 3, ty - 3, String(r), { class: "lab-tick" }));
  }
  const spoke = draw("line", { x1: centre, y1: centre, class: "lab-marker" });
  plot.append(spoke);
  const series = models.map((model) => model.probabilities.map((row) => row[subject.index]));
  const parts = models.map((model, i) => {
    const { dash, colour } = armOf(model);
    const d = `${linePath(angles.map((angle, a) => place(angle, series[i][a])))}Z`;
    return {
      line: draw("path", { d, "stroke-dasharray": dash, style: `stroke:${colour}`, class: "lab-line" }),
      dot: draw("circle", { r: 4.5, style: `fill:${colour}`, class: "lab-dot" }),
    };
  });
  for (const { line } of [...parts].reverse()) plot.append(line);
  for (const { dot } of [...parts].reverse()) plot.append(dot);
  scrub(plot, (event) => pointerAngle(plot, event), onAngle);

  return {
    node: plot,
    mark(index) {
      const [x2, y2] = place(angles[index], 1);
      spoke.setAttribute("x2", x2.toFixed(1));
      spoke.setAttribute("y2", y2.toFixed(1));
      parts.forEach(({ dot }, i) => {
        const [cx, cy] = place(angles[index], series[i][index]);
        dot.setAttribute("cx", cx.toFixed(1));
        dot.setAttribute("cy", cy.toFixed(1));
      });
    },
  };
}

const ERROR_FLOOR = 1e-4; // smaller errors are rounding; they sit on the base line, with their number

/** Equivariance error of each stage at one angle, grouped by stage, on a logarithmic scale. */
function errorPlot({ bundle, width }) {
  const { models, stages } = bundle;
  const largest = Math.max(...models.flatMap((m) => m.stages.flatMap((s) => s.equivariance_error)), 0.1);
  const [top, height] = [12, 200];
  const bottom = top + height;
  const [low, high] = [Math.log10(ERROR_FLOOR), Math.ceil(Math.log10(largest) * 2) / 2];
  const right = width - 8;
  const y = (error) => bottom - ((Math.log10(Math.max(error, ERROR_FLOOR)) - low) / (high - low)) * height;
  const group = (right - PLOT_LEFT) / stages.length;
  const x = (stage, model) => PLOT_LEFT + group * (stage + 0.5 + (model - (models.length - 1) / 2) * 0.24);
  const plot = draw("svg", { viewBox: `0 0 ${width} ${bottom + 40}`, width, height: bottom + 40, role: "img", class: "lab-plot" });
  for (let power = low; power <= high; power += 1) {
    plot.append(draw("line", { x1: PLOT_LEFT, x2: right, y1: y(10 ** power), y2: y(10 ** power), class: "lab-grid" }));
    const tick = power === low ? `≤10${superscript(power)}` : power > -3 ? String(10 ** power) : `10${superscript(power)}`;
    plot.append(text(PLOT_LEFT - 8, y(10 ** power) + 4, tick, { class: "lab-tick", "text-anchor": "end" }));
  }
  const band = draw("rect", { x: PLOT_LEFT, width: right - PLOT_LEFT, class: "lab-floor" });
  const bandName = make("span");
  plot.append(band);
  const chosen = draw("rect", { y: top, height: height + 26, width: group - 8, rx: 5, class: "lab-chosen" });
  plot.insertBefore(chosen, plot.firstChild);
  const marks = stages.flatMap((name, s) => {
    plot.append(text(PLOT_LEFT + group * (s + 0.5), bottom + 18, stageName(name), { class: "lab-tick", "text-anchor": "middle" }));
    return models.map((model, m) => {
      const { dash, colour } = armOf(model);
      const stalk = draw("line", { x1: x(s, m), x2: x(s, m), y1: bottom, "stroke-dasharray": dash, style: `stroke:${colour}`, class: "lab-line" });
      const dot = draw("circle", { r: 5, cx: x(s, m), style: `fill:${colour}`, class: "lab-dot" });
      const number = text(x(s, m), 0, "", { class: "lab-tick is-number", "text-anchor": "middle" });
      plot.append(stalk, dot, number);
      const errors = model.stages.find((stage) => stage.name === name).equivariance_error;
      return { stalk, dot, number, errors, title: model.short, stage: name };
    });
  });
  plot.append(text((PLOT_LEFT + right) / 2, bottom + 36, "stage", { class: "lab-axis", "text-anchor": "middle" }));
  const hasRoom = group > 146; // three numbers side by side

  return {
    node: make("div", {}, legend(models, make("span", {}, make("i", { class: "lab-swatch is-floor" }), bandName)), plot),
    mark(index, stage) {
      const floor = bundle.interpolation_error[index];
      band.setAttribute("y", y(floor));
      band.setAttribute("height", Math.max(1, bottom - y(floor)));
      setText(bandName, `interpolation alone: ${figure(floor)}`);
      chosen.setAttribute("x", PLOT_LEFT + group * stages.indexOf(stage) + 4);
      for (const { stalk, dot, number, errors } of marks) {
        const at = y(errors[index]);
        stalk.setAttribute("y2", at);
        dot.setAttribute("cy", at);
        dot.classList.toggle("is-exact", errors[index] <= ERROR_FLOOR);
        setText(number, hasRoom ? figure(errors[index]) : "");
        number.setAttribute("y", at - 10);
      }
    },
    /** What the plot shows, for those who do not see it. */
    describe(index) {
      const at = `Equivariance error at ${bundle.angles_deg[index]} degrees. Interpolation alone ${figure(bundle.interpolation_error[index])}. `;
      plot.setAttribute("aria-label", at + marks.map((m) => `${stageName(m.stage)}, ${m.title}: ${figure(m.errors[index])}`).join("; "));
    },
  };
}

function stageName(name) {
  return name.replace(/^stage(\d)$/, "stage $1");
}
