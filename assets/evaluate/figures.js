// The tables: figures with intervals, what each network lacks to the best, and networks in pairs.

// Three networks have the Lab's colours and dashes; further ones get what no other has.
const FURTHER = [
  ["10 3 2 3", "var(--evaluate-4)"], ["4 3", "var(--evaluate-5)"], ["12 4", "var(--evaluate-6)"],
  ["8 3 2 3 2 3", "var(--evaluate-7)"], ["2 2", "var(--evaluate-8)"], ["14 3 4 3", "var(--lab-sre)"],
  ["5 5", "var(--lab-plain)"], ["1 3", "var(--evaluate-4)"], ["9 2", "var(--evaluate-5)"], ["3 6", "var(--evaluate-6)"],
];
/** Give each network of a result a line of its own. */
function dressModels(models) {
  const taken = new Set();
  let further = 0;
  return models.map((model) => {
    if (model.arm in ARMS && !taken.has(model.arm) && model.averaged_rotations === 1) {
      taken.add(model.arm);
      return { ...model, ...ARMS[model.arm] };
    }
    const [dash, colour] = FURTHER[further % FURTHER.length];
    further += 1;
    return { ...model, dash, colour };
  });
}

const points = (value) => (100 * value).toFixed(1);
const bounds = ({ low, high }) => `${points(low)} to ${points(high)}`;
const signed = (value) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(100 * value).toFixed(1)}`;

function tableOf(head, rows) {
  return make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((words) => make("th", { scope: "col", text: words })))),
    make("tbody", {}, ...rows));
}

function nameCell(model, ...others) {
  return make("th", { scope: "row" }, lineKey(model), model.title, ...others);
}

/** One column: cells for all networks, the best marked, the others with what they lack. */
function column(models, valueOf, { note = () => "", isLess = false } = {}) {
  const values = models.map(valueOf);
  const known = values.filter(Boolean).map(({ value }) => value);
  const best = isLess ? Math.min(...known) : Math.max(...known);
  return values.map((found, i) => {
    if (!found) return make("td", { text: "–" });
    const gap = found.value - best;
    const isBest = points(found.value) === points(best);
    const interval = found.low === undefined ? "" : bounds(found);
    const lacks = isBest || models.length < 2 ? "" : `${signed(gap)} to the best`;
    return make("td", {}, make("span", { class: isBest && models.length > 1 ? "is-best" : null, text: points(found.value) }),
      ...[interval, note(models[i]), lacks].filter(Boolean).map((words) => make("small", { text: words })));
  });
}

function overallTable(models) {
  const columns = [
    ["Accuracy upright", column(models, (m) => m.angles[0].accuracy)],
    ["Accuracy, mean", column(models, (m) => m.accuracy_mean)],
    ["Accuracy, worst", column(models, (m) => m.accuracy_worst, { note: (m) => `at ${m.worst_angle_deg}°` })],
    ["Spread over angles", column(models, (m) => m.accuracy_spread, { isLess: true })],
    ["Same answer as upright", column(models, (m) => m.consistency)],
    ["Balanced accuracy, mean", column(models, (m) => m.balanced_accuracy_mean)],
    ["AUC, mean", column(models, (m) => m.auc_mean)],
    ["Parameters", models.map((m) => make("td", { text: count(m.card.parameters) }))],
    ["Multiply-adds an image", models.map((m) => make("td", {}, count(m.multiply_adds),
      ...(m.averaged_rotations > 1 ? [make("small", { text: `${m.averaged_rotations} times those of one pass` })] : [])))],
  ];
  return tableOf(["Network", ...columns.map(([name]) => name)],
    models.map((model, i) => make("tr", {}, nameCell(model), ...columns.map(([, cells]) => cells[i]))));
}

function conditionsTable(models) {
  const names = models[0].conditions;
  const columns = [["upright", column(models, (m) => m.angles[0].accuracy)],
    ...names.map(({ title }, c) => [title, column(models, (m) => m.conditions[c].accuracy,
      { note: (m) => `${points(m.conditions[c].consistency.value)} % stay (${bounds(m.conditions[c].consistency)})` })])];
  return tableOf(["Network", ...columns.map(([name]) => name)],
    models.map((model, i) => make("tr", {}, nameCell(model), ...columns.map(([, cells]) => cells[i]))));
}

function pValue(p) {
  return p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(p < 0.1 ? 3 : 2)}`;
}

function pairsTable(pairs, models) {
  const of = (name) => models.find((model) => model.name === name);
  const told = (found, p) => make("td", {}, make("span", { class: p < 0.05 ? "is-best" : null, text: `${signed(found.value)} points` }),
    make("small", { text: `${signed(found.low)} to ${signed(found.high)}` }), make("small", { text: `${pValue(p)}: ${p < 0.05 ? "more than chance explains" : "may be chance"}` }));
  return tableOf(["Network", "less", "Upright", "Mean over angles"], pairs.map((pair) => make("tr", {},
    nameCell(of(pair.first)), make("td", {}, lineKey(of(pair.second)), of(pair.second).title),
    told(pair.upright, pair.upright_p), told(pair.mean, pair.mean_p))));
}

function labelsTable(models, classes, index) {
  return tableOf(["Network", ...classes.map(shortName)], models.map((model) => make("tr", {}, nameCell(model),
    ...model.angles[index].auc_by_label.map((area) => (area
      ? make("td", {}, area.value.toFixed(3), make("small", { text: `${area.low.toFixed(3)} to ${area.high.toFixed(3)}` })) : make("td", { text: "–" }))))));
}
