"use strict";
// Small helpers. A page's files are joined into one function body by pages/component.py, in the order
// that the page gives, so a plain declaration here is visible in the files after it and nowhere else.
// Text from people or files only ever goes in through textContent.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

function assign(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function make(tag, attributes = {}, ...children) {
  return assign(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return assign(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

function pixelCanvas(side, label) {
  return make("canvas", { width: side, height: side, role: "img", "aria-label": label });
}

/** Change a text only where it differs, and in its place: laying out anew is what a position costs most. */
function setText(node, words) {
  const text = node.firstChild;
  if (!text) node.textContent = words;
  else if (text.data !== words) text.data = words;
}

/** Wait until what has changed is painted; where nothing is, as in a hidden tab, not for long. */
function nextPaint() {
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, 500);
  });
}

/** Tell which elements are in sight, or nearly; `onArrival` is called when one of them comes into sight. */
function watchSight(nodes, onArrival) {
  const outOfSight = new Set();
  const observer = new IntersectionObserver((changes) => {
    let isArrival = false;
    for (const { target, isIntersecting } of changes) {
      if (!isIntersecting) outOfSight.add(target);
      else if (outOfSight.delete(target)) isArrival = true;
    }
    if (isArrival) onArrival();
  }, { rootMargin: "25%" });
  for (const node of nodes) observer.observe(node);
  return (node) => !outOfSight.has(node);
}

/** Elements of the template by their data-ref. */
function references(root) {
  const found = {};
  // Not `dataset`: a form whose field has that name gives the field.
  for (const node of root.querySelectorAll("[data-ref]")) found[node.getAttribute("data-ref")] = node;
  return found;
}

/** What the visitor chose before a reload of this tab; null where there is nothing, or nothing is kept. */
function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`sreLab.${name}`));
  } catch {
    return null;
  }
}

/** Keep a choice for as long as the tab is open, if the browser keeps anything for this page. */
function remember(name, value) {
  try {
    sessionStorage.setItem(`sreLab.${name}`, JSON.stringify(value));
  } catch { /* a reload then begins anew */ }
}

/** Fill a fieldset with radio buttons that look like one segmented control. */
function segments(fieldset, name, options, onChoose) {
  for (const label of fieldset.querySelectorAll("label")) label.remove();
  for (const { value, text, title } of options) {
    const input = make("input", { type: "radio", name: `lab-${name}`, value });
    input.addEventListener("change", () => onChoose(input.value));
    fieldset.append(make("label", { title }, input, make("span", { text })));
  }
}

function checkSegment(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === String(value);
}

const percent = (value) => (value > 0.9995 ? "100 %" : `${(100 * value).toFixed(1)} %`);
const wholePercent = (value) => `${Math.round(100 * value)} %`;

/** What a visitor, or an address, says: as much of it as a sentence bears. */
const brief = (words) => (words.length > 40 ? `${words.slice(0, 39)}…` : words);

/** Class names carry explanations in brackets, which a table has no room for. */
const shortName = (name) => name.replace(/\s*[([].*$/, "") || name;

/** A count in the unit a person would say: 252 thousand, 35.1 million. */
function count(value) {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} billion`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(value >= 1e7 ? 1 : 2)} million`;
  return value >= 1e4 ? `${Math.round(value / 1e3)} thousand` : String(value);
}

function bytes(value) {
  return value >= 1e6 ? `${(value / 1e6).toFixed(value >= 1e7 ? 0 : 1)} MB` : `${Math.max(1, Math.round(value / 1e3))} kB`;
}

/** Three figures at most; powers of ten where the number is tiny. */
function figure(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) {
    const power = Math.floor(Math.log10(size));
    return `${(value / 10 ** power).toFixed(0)}·10${superscript(power)}`;
  }
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toFixed(3);
}

function superscript(power) {
  return String(power).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
}
