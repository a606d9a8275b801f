// Confusion matrices that follow the angle, which answers change into which, and a cell's images.

/** A matrix made once, whose numbers follow the angle. Arrow keys move; Tab reaches one cell of it. */
function confusionMatrix({ model, classes, onCell }) {
  const cells = classes.map((truth, row) => classes.map((answer, col) => {
    const cell = make("button", {
      type: "button", class: `evaluate-cell${row === col ? " is-right" : ""}`, tabindex: row + col === 0 ? "0" : "-1",
      "aria-pressed": "false", onclick: () => onCell({ row, column: col, cell }),
    });
    return cell;
  }));
  const table = make("table", {}, make("caption", {}, lineKey(model), ` ${model.title}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "true" }),
      ...classes.map((name) => make("th", { scope: "col", title: name }, make("span", { text: shortName(name) }))))),
    make("tbody", {}, ...classes.map((name, row) => make("tr", {}, make("th", { scope: "row", title: name, text: shortName(name) }),
      ...cells[row].map((cell) => make("td", {}, cell))))));
  table.addEventListener("keydown", (event) => {
    const row = cells.findIndex((some) => some.includes(event.target));
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (row < 0 || !step) return;
    event.preventDefault();
    const to = cells[row + step[0]]?.[cells[row].indexOf(event.target) + step[1]];
    if (!to) return;
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
  return {
    node: make("div", { class: "evaluate-matrix" }, table),
    cells,
    mark(index) {
      model.confusion[index].forEach((counts, row) => {
        const total = counts.reduce((sum, n) => sum + n, 0);
        counts.forEach((n, col) => {
          const cell = cells[row][col];
          setText(cell, n ? String(n) : "·");
          cell.style.setProperty("--share", total ? n / total : 0);
          cell.setAttribute("aria-label", `${n} of ${total} ${shortName(classes[row])} answered ${shortName(classes[col])}`);
        });
      });
    },
  };
}

/** The most frequent changes of the answer from the first angle to this one. */
function changeList({ model, number, classes, index, onChange }) {
  const found = model.changes[index].slice(0, 6);
  const items = found.map(([row, col, n]) => {
    const button = make("button", { type: "button", class: "evaluate-change", "aria-pressed": "false", "data-change": `${number}-${row}-${col}` },
      make("span", { text: `${shortName(classes[row])} → ${shortName(classes[col])}` }), make("span", { text: n }));
    button.addEventListener("click", () => onChange({ row, column: col, cell: button }));
    return make("li", {}, button);
  });
  const none = make("p", { class: "lab-small", text: "No answer changes." });
  return make("div", { class: "evaluate-list" }, make("h4", {}, lineKey(model), ` ${model.title}`),
    found.length ? make("ul", {}, ...items) : none);
}

/** Links into the Lab: the sample, at this angle. */
function labLink({ dataset, sample, angle, protocol, network }) {
  return `./?${new URLSearchParams({ dataset, sample, angle, protocol, network })}`;
}

function imageLinks({ indices, pictures, dataset, angle, protocol, network }) {
  return indices.map((sample, i) => {
    const canvas = make("canvas", { width: pictures[i].width, height: pictures[i].height, "aria-hidden": "true", style: `--turn:${-angle}deg` });
    canvas.getContext("2d").putImageData(pictures[i], 0, 0);
    return make("a", { class: "lab-thumb", href: labLink({ dataset, sample, angle, protocol, network }), "aria-label": `Open test image ${sample} in the Lab at ${angle} degrees` },
      canvas, make("span", { text: sample }));
  });
}
