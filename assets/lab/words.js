// The sentences around the pictures.

/** The words that belong to the sample, not to the angle. */
function writeWords(bundle, subject, entry) {
  const { sample, dataset, protocol } = bundle;
  const isUpload = sample.source === "upload";
  const names = (Array.isArray(sample.label) ? sample.label.flatMap((on, k) => (on ? [k] : [])) : [sample.label])
    .map((k) => dataset.classes[k]).filter(Boolean).map(shortName);
  ui.headline.textContent = bundle.headline;
  ui.subject.replaceChildren(...(isUpload
    ? [make("b", { text: "Your own image, " }), `not from ${dataset.title}: the networks must call it one of `
      + "its classes all the same, and none of them is true."]
    : [make("b", { text: `${dataset.title}, ${sample.split} image ${sample.index}` }),
      names.length ? `, labelled ${names.join(", ")}. ` : ", labelled with nothing. ", provenanceWords(dataset)]));
  ui.answersCaption.textContent = isUpload
    ? "Probabilities at this angle; the strongest bar is the answer. There is no true class to compare with."
    : "Probabilities at this angle; the strongest bar is the answer, the true class is marked.";
  ui.turnCaption.textContent = `The probability of ${subject.name}, at all ${bundle.angles_deg.length} angles. `
    + "A network that ignores rotation draws a level line, or a circle. The ribbons show the answer at each angle.";
  ui.about.replaceChildren(
    make("p", { text: `${dataset.title}. ${sentence(dataset.note || "")} Licence: ${dataset.licence}. ${entry?.citation ?? ""}` }),
    make("p", {}, make("b", { text: `Protocol “${protocol.title}”: ` }), sentence(protocol.description)),
    make("p", {}, "Disc turns the image bilinearly and masks what lies outside the inscribed circle with mid-grey, which is what the ",
      "convolutions pad with, so that nothing enters or leaves. Paper follows the authors’ released evaluation: nearest neighbour, after normalising, so ",
      "that corners fill with mid-grey."));
}

function provenanceWords(dataset) {
  return { official: "Official file.", other: "Not the official file.", "built-in": "Built in: not a MedMNIST set, and no medical image." }[dataset.provenance] ?? "";
}
