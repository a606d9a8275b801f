// The panel of samples: by class, by index, page after page.

const GALLERY_PAGE = 48;

/** Wire the panel once. `choose(index)` opens a sample; `context()` says which data set is shown. */
function connectGallery(ui, { call, choose, context, complain }) {
  let offset = 0;
  let shownFor = null;
  let latest = 0;

  async function show() {
    const { entry } = context();
    const ticket = (latest += 1);
    const label = ui.galleryClass.value === "" ? null : Number(ui.galleryClass.value);
    ui.galleryPanel.setAttribute("aria-busy", "true");
    const page = await call("get_gallery", { dataset: entry.name, label, offset, limit: GALLERY_PAGE });
    const pictures = page.sheet ? await decodePictures(page.sheet) : []; // none of that class: no sheet
    if (ticket !== latest) return; // another class or page was asked for meanwhile
    ui.galleryPanel.removeAttribute("aria-busy");
    if (page.error) return complain(page.error);
    ui.galleryThumbs.replaceChildren(...page.items.map((item, i) => thumb(entry, item, pictures[i])));
    mark();
    const last = Math.min(offset + GALLERY_PAGE, page.total);
    ui.galleryCount.textContent = page.total ? `${offset + 1}–${last} of ${page.total}` : "none of this class";
    ui.galleryBack.disabled = offset === 0;
    ui.galleryOn.disabled = last >= page.total;
  }

  function thumb(entry, { index, label }, picture) {
    const names = (Array.isArray(label) ? label.flatMap((on, k) => (on ? [k] : [])) : [label]).map((k) => entry.classes[k]);
    const words = names.join(", ") || "no finding";
    const canvas = make("canvas", { width: picture.width, height: picture.height, "aria-hidden": "true" });
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return make("button", {
      type: "button", class: "lab-thumb", title: `${index}: ${words}`, "aria-label": `Test image ${index}: ${words}`,
      "data-index": index, onclick: () => choose(index),
    }, canvas, make("span", { text: index }));
  }

  function mark() {
    const { entry, sample } = context();
    for (const node of ui.galleryThumbs.children) {
      if (shownFor === entry.name && node.dataset.index === String(sample)) node.setAttribute("aria-current", "true");
      else node.removeAttribute("aria-current");
    }
  }

  ui.galleryClass.addEventListener("change", () => { offset = 0; show(); });
  ui.galleryBack.addEventListener("click", () => { offset = Math.max(0, offset - GALLERY_PAGE); show(); });
  ui.galleryOn.addEventListener("click", () => { offset += GALLERY_PAGE; show(); });
  ui.galleryForm.addEventListener("submit", (event) => {
    event.preventDefault();
    const last = context().entry.counts.test - 1;
    const wanted = ui.galleryIndex.valueAsNumber;
    if (Number.isInteger(wanted) && wanted >= 0 && wanted <= last) choose(wanted);
    else complain(`Index ${ui.galleryIndex.value || "(empty)"} is not in this data set; give a whole number from 0 to ${last}`);
  });

  return {
    /** Keep in step with the sample on show. */
    follow() {
      if (!ui.galleryPanel.hidden && shownFor !== context().entry.name) this.open();
      else mark();
    },
    /** Show the page that holds the current data set, from its start if it is a new one. */
    open() {
      const { entry } = context();
      if (shownFor !== entry.name) {
        shownFor = entry.name;
        offset = 0;
        ui.galleryClass.replaceChildren(make("option", { value: "", text: "all" }),
          ...entry.classes.map((name, k) => make("option", { value: k, text: shortName(name) })));
        ui.galleryIndex.max = entry.counts.test - 1;
      }
      return show();
    },
  };
}
