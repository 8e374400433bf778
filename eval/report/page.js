"use strict";
// Names of trackers, sequences and attributes come from files and folders of anybody: they are put into the page
// as text (textContent, setAttribute), never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
let curve = Object.keys(data.plots)[0];
const style = i => data.styles[i % data.styles.length];

function make(tag, attributes, ...children) {
  const svg = ["svg", "line", "text", "path", "rect", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function plot(lines, xs, xlabel, ylabel, height) {
  const W = 640, H = height, L = 46, B = 40, T = 10, R = 12;
  const x0 = xs[0], x1 = xs[1] === x0 ? x0 + 1 : xs[1];
  const px = x => L + (x - x0) / (x1 - x0) * (W - L - R), py = y => H - B - y * (H - B - T);
  const svg = make("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": ylabel});
  for (let i = 0; i <= 5; i++) {
    svg.append(make("line", {x1: L, x2: W - R, y1: py(i / 5), y2: py(i / 5), stroke: "#e6e6e6"}));
    svg.append(make("text", {x: L - 8, y: py(i / 5) + 4, "text-anchor": "end"}, (i / 5).toFixed(1)));
    const x = x0 + (x1 - x0) * i / 5;
    svg.append(make("text", {x: px(x), y: H - B + 18, "text-anchor": "middle"}, String(+x.toFixed(2))));
  }
  for (const line of lines) {
    let d = "", pen = false;
    for (const [x, y] of line.points) {
      if (y === null) { pen = false; continue; }
      d += (pen ? "L" : "M") + px(x).toFixed(1) + " " + py(Math.max(0, y)).toFixed(1); pen = true;
    }
    svg.append(make("path", {d, fill: "none", stroke: line.style.colour, "stroke-width": 2,
      "stroke-dasharray": line.style.dashes}, make("title", {}, line.name)));
  }
  svg.append(make("text", {x: (L + W) / 2, y: H - 4, "text-anchor": "middle"}, xlabel));
  return svg;
}

function sample(i) {
  const svg = make("svg", {viewBox: "0 0 30 10", class: "sample"});
  svg.append(make("line", {x1: 0, x2: 30, y1: 5, y2: 5, stroke: style(i).colour, "stroke-width": 3,
    "stroke-dasharray": style(i).dashes}));
  return svg;
}

function drawCurves() {
  const place = document.getElementById("curves"), buttons = document.getElementById("curve-buttons");
  if (!curve) return;
  buttons.replaceChildren(...Object.keys(data.plots).map(k => {
    const button = make("button", {"data-curve": k, "aria-pressed": k === curve}, data.plots[k].title);
    button.onclick = () => { curve = k; drawCurves(); };
    return button;
  }));
  const lines = data.trackers.map((t, i) => ({name: t.name, style: style(i), points: t.curves[curve] || []}))
    .filter((_, i) => !hidden.has(i));
  const all = data.trackers.flatMap(t => t.curves[curve] || []).map(p => p[0]);
  const ends = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  place.replaceChildren(plot(lines, ends, data.plots[curve].xlabel, data.plots[curve].title, 400));
  const key = data.plots[curve].key;
  const order = data.trackers.map((t, i) => [t, i]).sort((a, b) => (b[0].overall[key] ?? 0) - (a[0].overall[key] ?? 0));
  document.getElementById("legend").replaceChildren(...order.map(([t, i]) => {
    const box = make("input", {type: "checkbox"});
    box.checked = !hidden.has(i);
    box.onchange = () => { box.checked ? hidden.delete(i) : hidden.add(i); drawCurves(); };
    const value = t.overall[key];
    return make("label", {}, box, " ", sample(i), " ", t.name, " ",
      make("b", {}, value === undefined || value === null ? "" : value.toFixed(3)));
  }));
}

function drawAttributes() {
  const place = document.getElementById("attributes");
  if (!place) return;
  const n = data.trackers.length, bar = 9, gap = 12, L = 190, W = 760, group = n * bar + gap;
  const svg = make("svg", {viewBox: `0 0 ${W} ${data.attributes.length * group + 10}`});
  data.attributes.forEach((name, a) => {
    const top = a * group;
    const count = Math.max(...data.trackers.map(t => t.attributes[name]?.n ?? 0));
    svg.append(make("text", {x: L - 10, y: top + n * bar / 2 + 4, "text-anchor": "end"},
      `${name.replaceAll("_", " ")} (${count})`));
    data.trackers.forEach((t, i) => {
      const v = t.attributes[name]?.auc ?? 0;
      svg.append(make("rect", {x: L, y: top + i * bar, width: v * (W - L - 50), height: bar - 1, fill: style(i).colour},
        make("title", {}, `${t.name}: ${v.toFixed(3)}`)));
      svg.append(make("text", {x: L + v * (W - L - 50) + 4, y: top + i * bar + 8, class: "small"}, v.toFixed(2)));
    });
  });
  place.replaceChildren(svg);
}

function openSequence(row) {
  const name = data.sequences[Number(row.dataset.index)];
  document.querySelectorAll("#sequences tbody tr").forEach(r => r.classList.toggle("chosen", r === row));
  document.getElementById("chosen-name").textContent = name;
  const lines = data.trackers.map((t, i) => ({name: t.name, style: style(i), points: t.overlaps[Number(row.dataset.index)] || []}));
  const last = Math.max(0, ...lines.map(l => l.points.length ? l.points[l.points.length - 1][0] : 0));
  document.getElementById("overlap").replaceChildren(plot(lines, [0, last], "frame", "overlap", 320));
  document.getElementById("strip").replaceChildren(
    ...(data.strips[Number(row.dataset.index)] || []).map(src => make("img", {src, alt: `frame of ${name}`})));
}

document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.onclick = () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => { const c = row.cells[column]; return c.dataset.value === undefined ? c.textContent : Number(c.dataset.value); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = value(a), y = value(b), order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return down ? -order : order; });
    rows.forEach(row => table.tBodies[0].appendChild(row));
  });
});
document.querySelectorAll("#sequences tbody tr").forEach(row => {
  row.onclick = () => openSequence(row);
  row.onkeydown = event => { if (event.key === "Enter") openSequence(row); };
});
drawCurves(); drawAttributes();
const first = document.querySelector("#sequences tbody tr");
if (first) openSequence(first);
