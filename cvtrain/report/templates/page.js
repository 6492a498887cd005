
"use strict";

// Sorts and filters tables, switches series, shows values, copies commands. The page is whole without it, and it keeps
// nothing: no storage, no network. Places on a drawing come from the axes that the drawing tells (data-x, data-y).

const NOTHING = "–";

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function makeSvg(tag, className, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  node.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// ---- tables ----

function sortKey(row, column, isNumber) {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return isNumber || text === NOTHING || text === "" ? null : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sortTable(table, head, column) {
  const isNumber = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const direction = before === null ? (isNumber ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column, isNumber), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", "", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortTable(table, head, column));
    head.replaceChildren(button);
  });
}

for (const box of document.querySelectorAll("[data-filter]")) {
  const input = make("input", "filter");
  const matches = make("span", "matches", `${box.dataset.filter} rows`);
  Object.assign(input, { type: "search", placeholder: "Filter rows", autocomplete: "off" });
  input.setAttribute("aria-label", "Filter rows");
  matches.setAttribute("role", "status");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of box.querySelector("tbody").rows) {
      const fits = row.textContent.toLowerCase().includes(wanted);
      row.classList.toggle("hidden", !fits);
      shown += fits;
    }
    matches.textContent = wanted ? `${shown} of ${box.dataset.filter} rows` : `${box.dataset.filter} rows`;
  });
  box.prepend(input, matches);
}

// ---- commands ----

async function copy(pre, button) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = "Copied";
  } catch {  // not allowed for this file: the text is selected, ready for the keys
    getSelection().selectAllChildren(pre);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

for (const button of document.querySelectorAll(".copy")) {
  button.disabled = false;
  button.addEventListener("click", () => copy(button.previousElementSibling, button));
}

// ---- values, as cvtrain.report.words writes them ----

function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  const two = (n) => String(n).padStart(2, "0");
  return minutes < 90 ? `${minutes} min ${two(Math.round(seconds) % 60)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

function number(value) {
  const shown = Number(value.toPrecision(4));
  if (shown && (Math.abs(shown) < 1e-4 || Math.abs(shown) >= 1e6)) return shown.toExponential().replace("e+", "e");
  if (Math.abs(value) >= 1000) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return shown.toLocaleString("en-US", { maximumFractionDigits: 10 });
}

function written(axis, value) {
  if (axis.names.length) return axis.names[Math.round(value)];
  if (axis.kind === "percent") return `${(100 * value).toFixed(1)} %`;
  if (axis.kind === "count") return Math.round(value).toLocaleString("en-US");
  return axis.kind === "seconds" ? duration(value) : number(value);
}

function interval(axis, low, high) {
  const ends = [low, high].map((end) => written(axis, end).replace(" %", ""));
  return ` [${ends.join(", ")}]`;
}

// ---- charts ----

function place(axis, value) {
  const [low, high, at] = [axis.low, axis.high, value].map((v) => (axis.log ? Math.log(v) : v));
  return axis.start + Math.min(Math.max((at - low) / (high - low), 0), 1) * (axis.end - axis.start);
}

function pointerOn(svg, event) {
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [at.x, at.y];
}

function pointsOf(svg, x, y) {
  return [...svg.querySelectorAll(".series")].flatMap((group) =>
    JSON.parse(group.dataset.values).map(([px, py, low, high, words]) => ({
      group, low, high, words, x: px, y: py, left: place(x, px), top: place(y, py),
    })));
}

function lineOf(point, axis, value) {
  const line = make("div", point.group.classList[1]);
  const ends = point.low == null || point.high == null ? "" : interval(axis, point.low, point.high);
  line.append(make("i"), make("span", "", `${point.group.dataset.name}: ${written(axis, value)}${ends}${point.words ? ` · ${point.words}` : ""}`));
  return line;
}

// The points that belong to a place of the pointer: of each series the nearest above each other, or the nearest of all.
function nearest(points, mode, [left, top]) {
  const far = (p) => (mode === "x" ? Math.abs(p.left - left) : mode === "y" ? Math.abs(p.top - top) : Math.hypot(p.left - left, p.top - top));
  const first = points.reduce((best, p) => (best === null || far(p) < far(best) ? p : best), null);
  if (first === null) return [];
  if (mode === "point") return points.filter((p) => Math.hypot(p.left - first.left, p.top - first.top) < 1);
  const apart = (p) => (mode === "x" ? Math.abs(p.left - first.left) : Math.abs(p.top - first.top));
  const bySeries = new Map();
  for (const p of points) {
    const kept = bySeries.get(p.group);
    if (apart(p) < 6 && (kept === undefined || apart(p) < apart(kept))) bySeries.set(p.group, p);
  }
  return [...bySeries.values()];
}

// What is shown beside a place of a drawing, within its box.
class Reading {
  constructor(svg, box) {
    [this.svg, this.box] = [svg, box];
    this.words = make("div", "reading hidden");
    this.words.setAttribute("role", "status");
    this.marks = makeSvg("g", "hover", {});
    box.append(this.words);
    svg.append(this.marks);
  }

  show([left, top], lines, marks) {
    this.words.replaceChildren(...lines);
    this.marks.replaceChildren(...marks);
    this.words.classList.remove("hidden");
    const at = new DOMPoint(left, top).matrixTransform(this.svg.getScreenCTM());
    const around = this.box.getBoundingClientRect();
    const [x, y, room] = [at.x - around.left, at.y - around.top, around.width - this.words.offsetWidth];
    const beside = x + 14 <= room ? x + 14 : x - this.words.offsetWidth - 14;
    this.words.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    this.words.style.top = `${Math.max(0, y - this.words.offsetHeight - 8)}px`;
  }

  hide() {
    this.words.classList.add("hidden");
    this.marks.replaceChildren();
  }
}

const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

// A pointer or a finger points at a place; the arrow keys step, Escape ends.
function listen(svg, { point, step, hide }) {
  for (const type of ["pointermove", "pointerdown"]) svg.addEventListener(type, (event) => point(pointerOn(svg, event)));
  for (const type of ["pointerleave", "blur"]) svg.addEventListener(type, hide);
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    step(...STEPS[event.key]);
  });
}

const MOST_LINES = 10;

function readChart(box) {
  const svg = box.querySelector("svg[data-x]");
  const [x, y, mode] = [JSON.parse(svg.dataset.x), JSON.parse(svg.dataset.y), box.dataset.hover];
  const [keyAxis, key, axis, value] = y.names.length ? [y, "y", x, "x"] : [x, "x", y, "y"];
  const side = mode === "y" ? "top" : "left";
  const all = pointsOf(svg, x, y);
  const reading = new Reading(svg, box);
  const hasSpots = mode !== "y" && !svg.querySelector(".bar");
  let at = null;

  const visible = () => all.filter((p) => !p.group.classList.contains("off"));
  const hide = () => {
    at = null;
    reading.hide();
  };

  function point(pointer) {
    const points = nearest(visible(), mode, pointer);
    if (!points.length) return hide();
    const far = (p) => (mode === "y" ? Math.abs(p.left - pointer[0]) : Math.abs(p.top - pointer[1]));
    const shown = points.length <= MOST_LINES ? points : [...points].sort((a, b) => far(a) - far(b)).slice(0, MOST_LINES).sort((a, b) => a.top - b.top);
    const first = shown[0];
    const name = written(keyAxis, first[key]);
    const lines = [make("b", "", keyAxis.names.length ? name : `${keyAxis.label} ${name}`), ...shown.map((p) => lineOf(p, axis, p[value]))];
    if (shown.length < points.length) lines.push(make("small", "", `and ${points.length - shown.length} more`));
    const marks = hasSpots ? shown.map((p) => makeSvg("circle", "spot", { cx: p.left, cy: p.top, r: 5 })) : [];
    if (mode === "x") marks.push(makeSvg("line", "ruler", { x1: first.left, x2: first.left, y1: y.start, y2: y.end }));
    at = first;
    reading.show([first.left, first.top], lines, marks);
  }

  function step(right, down) {
    const order = visible().sort((a, b) => a[side] - b[side] || a.top - b.top);
    const direction = right + down;
    let next = at === null ? (direction > 0 ? 0 : order.length - 1) : order.indexOf(at) + direction;
    while (at !== null && mode !== "point" && order[next] && Math.abs(order[next][side] - at[side]) < 0.5) next += direction;
    if (order[next]) point([order[next].left, order[next].top]);
  }

  listen(svg, { point, step, hide });
  switchSeries(box, svg, hide);
}

function switchSeries(box, svg, changed) {
  const keys = [...box.querySelectorAll(".key")];
  const turn = (key, isOn) => {
    key.setAttribute("aria-pressed", isOn);
    svg.querySelector(`.series[data-series="${key.dataset.series}"]`).classList.toggle("off", !isOn);
    changed();
  };
  for (const key of keys) {
    key.disabled = false;
    key.addEventListener("click", () => turn(key, key.getAttribute("aria-pressed") !== "true"));
  }
  for (const isOn of keys.length > 5 ? [false, true] : []) {
    const button = make("button", "all", isOn ? "Show all" : "Hide all");
    button.type = "button";
    button.addEventListener("click", () => keys.forEach((key) => turn(key, isOn)));
    keys[0].parentElement.prepend(button);
  }
}

function readMatrix(box) {
  const svg = box.querySelector("svg");
  const names = JSON.parse(svg.dataset.names);
  const counts = svg.dataset.counts.split(" ").map(Number);
  const [left, top, cell] = [svg.dataset.left, svg.dataset.top, svg.dataset.cell].map(Number);
  const reading = new Reading(svg, box);
  let at = null;

  const hide = () => {
    at = null;
    reading.hide();
  };

  function show(column, row) {
    if (Math.min(row, column) < 0 || Math.max(row, column) >= names.length) return hide();
    at = [column, row];
    const inRow = counts.slice(row * names.length, (row + 1) * names.length);
    const total = inRow.reduce((a, b) => a + b, 0);
    const share = total ? ` (${((100 * inRow[column]) / total).toFixed(1)} %)` : "";
    const lines = [`${svg.dataset.rows}: ${names[row]}`, `${svg.dataset.columns}: ${names[column]}`].map((text) => make("div", "", text));
    lines.push(make("b", "", `${inRow[column].toLocaleString("en-US")} of ${total.toLocaleString("en-US")}${share}`));
    const place = { x: left + column * cell - 0.5, y: top + row * cell - 0.5, width: cell, height: cell };
    reading.show([left + (column + 1) * cell, top + row * cell], lines, [makeSvg("rect", "spot", place)]);
  }

  const within = (i) => Math.min(Math.max(i, 0), names.length - 1);
  listen(svg, {
    point: ([x, y]) => show(Math.floor((x - left) / cell), Math.floor((y - top) / cell)),
    step: (right, down) => (at === null ? show(0, 0) : show(within(at[0] + right), within(at[1] + down))),
    hide,
  });
}

for (const box of document.querySelectorAll(".chart[data-hover]")) (box.dataset.hover === "cell" ? readMatrix : readChart)(box);
