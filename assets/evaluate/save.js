// Files for the visitor, made in the browser.

function saveFile(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-family", "font-size", "text-anchor"];

/** Copy a plot with the looks that the page's styles give it. */
function standalone(plot) {
  const copy = plot.cloneNode(true);
  const copies = copy.querySelectorAll("*");
  plot.querySelectorAll("*").forEach((node, i) => {
    const style = getComputedStyle(node);
    copies[i].setAttribute("style", DRAWN.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
  });
  return copy;
}

/** Draw plots side by side, under a title and over a key of the lines, as a PNG at twice the size. */
async function plotsAsPng(plots, { title, models, root }) {
  const style = getComputedStyle(root);
  const [ink, font, gap] = [style.color, style.fontFamily, 24];
  const page = getComputedStyle(document.body).backgroundColor;
  const sizes = plots.map((plot) => [Number(plot.getAttribute("width")), Number(plot.getAttribute("height"))]);
  const isWide = sizes.reduce((sum, [w]) => sum + w, 0) > 640;
  const width = 2 * gap + (isWide ? sizes.reduce((sum, [w]) => sum + w, gap * (plots.length - 1)) : Math.max(...sizes.map(([w]) => w)));
  const top = 62;
  const plotted = isWide ? Math.max(...sizes.map(([, h]) => h)) : sizes.reduce((sum, [, h]) => sum + h + gap, 0);
  const height = top + plotted + 24 * models.length + gap;
  const svg = draw("svg", { xmlns: SVG_NAMESPACE, width, height, viewBox: `0 0 ${width} ${height}` },
    draw("rect", { width, height, style: `fill:${page}` }));
  const line = (x, y, words, size) => text(x, y, words, { style: `fill:${ink};font-family:${font.replaceAll('"', "'")};font-size:${size}px` });
  svg.append(line(gap, 34, title, 16));
  let [x, y] = [gap, top];
  plots.forEach((plot, i) => {
    const copy = standalone(plot);
    copy.setAttribute("x", x);
    copy.setAttribute("y", y);
    copy.setAttribute("overflow", "visible"); // the last label reaches a little over the edge
    svg.append(copy);
    if (isWide) x += sizes[i][0] + gap;
    else y += sizes[i][1] + gap;
  });
  models.forEach((model, i) => {
    const at = top + plotted + 24 * i + 12;
    const stroke = getComputedStyle(root.querySelectorAll("[data-ref=legend] line")[i]).stroke;
    svg.append(draw("line", { x1: gap, x2: gap + 34, y1: at, y2: at, "stroke-dasharray": model.dash, style: `stroke:${stroke};stroke-width:2.2` }),
      line(gap + 44, at + 5, `${model.title}: mean ${points(model.accuracy_mean.value)} % (${bounds(model.accuracy_mean)}), worst ${points(model.accuracy_worst.value)} %`, 13));
  });
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(svg))}`;
  await picture.decode();
  const canvas = make("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(picture, 0, 0, 2 * width, 2 * height);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}
