"use strict";
// The page: filters, plots, hover card, profile, table. Reads the records embedded as JSON.

const $ = id => document.getElementById(id);
const { layers: LAYERS, columns: COLUMNS, records: RECORDS, generator: GENERATOR } = JSON.parse($("data").textContent);

/// An HTML element; text is always set as text, never as markup.
function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

// --- amounts ---------------------------------------------------------------------------------------

function scaled(value, units) {
  const [factor, unit] = units.find(([f]) => value >= f * 0.9995) ?? units[units.length - 1];
  const v = value / factor;
  return [v, unit];
}
const digits = v => (v >= 99.95 || Number.isInteger(v) ? v.toFixed(0) : v >= 9.995 ? v.toFixed(1) : v.toFixed(2));
const TIME = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
const SIZE = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
const COUNT = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const shown = units => value => { const [v, unit] = scaled(value, units); return `${digits(v)} ${unit}`.trim(); };
const time = shown(TIME), size = shown(SIZE), count = shown(COUNT);
const share = value => `${(value * 100).toFixed(2).replace(/0$/, "")} %`;
const short = units => value => { const [v, unit] = scaled(value, units); return `${+v.toPrecision(3)} ${unit}`; };
const FORMATS = { time, size, share, rate: v => v.toFixed(1), factor: v => `${v.toFixed(2)}×`, text: v => v };

// --- records ---------------------------------------------------------------------------------------

const resident = r => r.memory.weight_bytes + r.memory.activation_bytes + r.memory.scratch_bytes;
const roofline = r => r.predicted.roofline_ns;
const chosen = layer => r => String(r.point[layer]);
/// Numbers by value, texts by the alphabet.
const byValue = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
const choicesOf = layer => [...new Set(RECORDS.map(chosen(layer)))].sort(byValue);
const NETWORKS = choicesOf("network"), BACKENDS = choicesOf("backend");
const colourOf = r => `var(--c${NETWORKS.indexOf(r.point.network) % 8})`;
const shapeOf = r => BACKENDS.indexOf(r.point.backend);
const stackOf = r => LAYERS.filter(l => l.name !== "hw").map(l => r.point[l.name]).join(" / ");

/// Wilson's 95 % interval, as in the crate.
function interval({ top1: p, images: n }) {
  const z = 1.959964, centre = p + z * z / (2 * n), half = z * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)];
}

// --- state -----------------------------------------------------------------------------------------

/// Per layer, the choices that are switched off.
const off = Object.fromEntries(LAYERS.map(l => [l.name, new Set()]));
let selected = null;
let sort = { column: "latency_median_ns", down: false };
let visible = RECORDS;

const passes = r => LAYERS.every(l => !off[l.name].has(chosen(l.name)(r)));

// --- filters ---------------------------------------------------------------------------------------

function drawFilters() {
  const groups = LAYERS.map(layer => {
    const choices = choicesOf(layer.name);
    const title = html("legend", { title: `Layer ${layer.level} of the stack` }, layer.name);
    const only = () => html("span", { class: "fixed" }, choices[0] ?? "–");
    const chip = choice => html("button", {
      type: "button", class: "chip", "aria-pressed": String(!off[layer.name].has(choice)),
      "data-testid": `filter-${layer.name}-${choice}`, title: "Click to switch; double-click for this one alone",
      onclick: event => { toggle(layer.name, choice); event.currentTarget.setAttribute("aria-pressed", String(!off[layer.name].has(choice))); },
      ondblclick: () => { off[layer.name] = new Set(choices.filter(c => c !== choice)); update(true); },
    }, choice);
    return html("fieldset", { class: "group", "data-testid": `layer-${layer.name}` }, title, ...(choices.length > 1 ? choices.map(chip) : [only()]));
  });
  $("chips").replaceChildren(...groups);
}

function toggle(layer, choice) {
  const set = off[layer];
  if (!set.delete(choice)) set.add(choice);
  update(false);
}

function drawLegend() {
  const grey = "var(--muted)";
  const networks = NETWORKS.map((n, i) => html("span", {}, markIcon(`var(--c${i % 8})`, 0), n));
  const backends = BACKENDS.map((b, i) => html("span", {}, markIcon(grey, i), b));
  const noisy = RECORDS.some(r => r.latency.noisy) ? [html("span", {}, markIcon(grey, 0, "noisy"), "noisy latency")] : [];
  const line = node("svg", { width: 26, height: 8, viewBox: "0 0 26 8", "aria-hidden": "true" }, node("path", { class: "front", d: "M0,4H26" }));
  $("legend").replaceChildren(...networks, ...backends, ...noisy, html("span", {}, line, "Pareto front"));
}

// --- plots -----------------------------------------------------------------------------------------

const AXES = {
  latency: { title: "latency, median", of: r => r.latency.median_ns, units: TIME, kind: "time", down: true },
  memory: { title: "memory, resident", of: resident, units: SIZE, kind: "size", down: true },
  accuracy: { title: "top-1 accuracy", of: r => r.accuracy.top1, kind: "share", down: false },
  predicted: { title: "latency predicted by the roofline", of: roofline, units: TIME, kind: "time", down: true },
  measured: { title: "latency measured", of: r => r.latency.median_ns, units: TIME, kind: "time", down: true },
};
const PLOTS = [
  { id: "accuracy-latency", title: "Accuracy × latency", x: "latency", y: "accuracy" },
  { id: "accuracy-memory", title: "Accuracy × memory", x: "memory", y: "accuracy" },
  { id: "latency-memory", title: "Latency × memory", x: "memory", y: "latency" },
  { id: "predicted-measured", title: "Predicted × measured", x: "predicted", y: "measured", diagonal: true },
];

function makePlots() {
  for (const plot of PLOTS) {
    const kinds = [...new Set([AXES[plot.x].kind, AXES[plot.y].kind])].filter(k => k !== "share");
    const button = kind => html("button", {
      type: "button", class: "chip", "aria-pressed": "true", "data-testid": `log-${plot.id}-${kind}`,
      onclick: event => {
        plot.linear = { ...plot.linear, [kind]: !plot.linear?.[kind] };
        event.currentTarget.setAttribute("aria-pressed", String(!plot.linear[kind]));
        drawPlots();
      },
    }, kinds.length > 1 ? `log ${kind === "time" ? "latency" : "memory"}` : "log");
    plot.svg = node("svg", { role: "group", tabindex: 0, "aria-label": `${plot.title}: scatter plot, arrow keys walk from mark to mark`, "data-testid": `plot-${plot.id}` });
    plot.svg.addEventListener("keydown", event => walk(plot, event));
    plot.svg.addEventListener("blur", leave);
    $("plots").append(html("section", { class: "card plot", "aria-label": plot.title },
      html("div", { class: "head" }, html("h2", {}, plot.title), html("span", { class: "scale" }, ...kinds.map(button))), plot.svg));
  }
  let width = 0;
  new ResizeObserver(() => { if ($("plots").clientWidth !== width) { width = $("plots").clientWidth; drawPlots(); } }).observe($("plots"));
}

function drawPlots() {
  for (const plot of PLOTS) {
    const axis = name => {
      const a = AXES[name];
      const log = a.kind !== "share" && !plot.linear?.[a.kind];
      return { ...a, log, format: a.units ? short(a.units) : v => `${+(v * 100).toFixed(2)} %` };
    };
    const [x, y] = [axis(plot.x), axis(plot.y)];
    // A logarithm has no place for 0, and not every machine's roofline is known.
    const fits = a => r => a.of(r) !== null && a.of(r) !== undefined && (!a.log || a.of(r) > 0);
    plot.marks = visible.filter(fits(x)).filter(fits(y)).map(r => ({
      record: r, id: r.id, x: x.of(r), y: y.of(r), colour: colourOf(r), shape: shapeOf(r), noisy: r.latency.noisy,
      selected: r === selected, label: `${stackOf(r)}: ${share(r.accuracy.top1)}, ${time(r.latency.median_ns)}, ${size(resident(r))}`,
    }));
    drawPlot(plot.svg, plot.marks, { x, y, diagonal: plot.diagonal, on: {
      enter: (mark, element) => enter(mark.record, element), leave, click: mark => select(mark.record),
    } });
  }
}

function walk(plot, event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const order = plot.marks.slice().sort((a, b) => a.x - b.x || a.y - b.y);
  if (event.key === "Escape") return leave();
  if ((event.key === "Enter" || event.key === " ") && plot.at) { event.preventDefault(); select(plot.at); return; }
  if (!step || !order.length) return;
  event.preventDefault();
  const at = order.findIndex(m => m.record === plot.at);
  plot.at = order[(at + step + order.length) % order.length].record;
  enter(plot.at, plot.svg.querySelector(`[data-id="${plot.at.id}"]`));
}

// --- hover card ------------------------------------------------------------------------------------

function facts(...pairs) {
  return html("dl", { class: "facts" }, ...pairs.filter(Boolean).flatMap(([key, value]) => [html("dt", {}, key), html("dd", {}, value)]));
}

function enter(r, element) {
  leave();
  for (const mark of document.querySelectorAll(`.point[data-id="${r.id}"]`)) mark.classList.add("active");
  const [low, high] = interval(r.accuracy);
  const card = $("card");
  const notes = [r.latency.noisy ? `Noisy: ${r.latency.noise ?? "the machine was unsteady"}` : null, ...r.notes].filter(Boolean);
  card.replaceChildren(
    html("h3", {}, markIcon(colourOf(r), shapeOf(r), r.latency.noisy ? "noisy" : ""), r.point.network),
    facts(...LAYERS.filter(l => l.name !== "network").map(l => [l.name, String(r.point[l.name])])),
    html("hr"),
    facts(
      ["accuracy", `${share(r.accuracy.top1)} top-1 (95 %: ${(low * 100).toFixed(1)} to ${(high * 100).toFixed(1)}), ${share(r.accuracy.top5)} top-5`],
      ["measured on", `${r.accuracy.images} images of ${r.accuracy.dataset}`],
      ["latency", `${time(r.latency.median_ns)} (p10 ${time(r.latency.p10_ns)}, p90 ${time(r.latency.p90_ns)}, ${r.latency.samples} samples)`],
      roofline(r) ? ["roofline", `${time(roofline(r))}, measured takes ${(r.latency.median_ns / roofline(r)).toFixed(2)}×`] : null,
      ["throughput", `${r.throughput_images_per_s.toFixed(1)} images/s`],
      ["memory", `${size(resident(r))} (weights ${size(r.memory.weight_bytes)}, activations ${size(r.memory.activation_bytes)}, scratch ${size(r.memory.scratch_bytes)})`],
      ["disk", size(r.memory.disk_bytes)],
      ["start", `load ${time(r.startup.load_ns)}, prepare ${time(r.startup.prepare_ns)}`],
      r.energy_joules === null ? null : ["energy", `${r.energy_joules.toPrecision(3)} J`],
    ),
    ...notes.map(note => html("div", { class: "warn" }, note)),
  );
  card.hidden = false;
  const box = element.getBoundingClientRect(), own = card.getBoundingClientRect(), gap = 12;
  const right = box.right + gap + own.width <= innerWidth;
  const x = right ? box.right + gap : box.left - gap - own.width;
  const y = box.top + box.height / 2 - own.height / 2;
  card.style.left = `${Math.max(8, Math.min(x, innerWidth - own.width - 8))}px`;
  card.style.top = `${Math.max(8, Math.min(y, innerHeight - own.height - 8))}px`;
}

function leave() {
  $("card").hidden = true;
  for (const mark of document.querySelectorAll(".point.active")) mark.classList.remove("active");
}

// --- profile ---------------------------------------------------------------------------------------

function select(r) {
  selected = r;
  drawPlots();
  drawProfile();
  for (const row of document.querySelectorAll("#table tbody tr")) row.classList.toggle("selected", row.dataset.id === r.id);
}

function drawProfile() {
  const r = selected;
  if (!r) return $("profile").replaceChildren(html("p", { class: "muted" }, "No point passes the filters."));
  const what = html("p", { class: "what", "data-testid": "profile-point" }, markIcon(colourOf(r), shapeOf(r)), ` ${stackOf(r)}: ${time(r.latency.median_ns)}`);
  if (!r.layers.length) return $("profile").replaceChildren(what, html("p", { class: "muted" }, "This point was measured as a whole; it has no layers."));
  const rows = r.layers.slice();
  if ($("by-time").checked) rows.sort((a, b) => b.median_ns - a.median_ns);
  const total = rows.reduce((sum, l) => sum + l.median_ns, 0) || 1;
  const longest = Math.max(...rows.map(l => Math.max(l.median_ns, l.roofline_ns ?? 0))) || 1;
  const width = ns => `width:${(100 * ns / longest).toFixed(2)}%`;
  const cells = rows.flatMap(l => {
    const bound = l.roofline_ns;
    const tip = `${l.layer}: ${l.op}\n${l.kernel}\n${count(l.macs)} MACs, ${size(l.bytes)} moved, ${(2 * l.macs / l.median_ns).toFixed(1)} GFLOP/s`;
    return [
      html("span", { class: "name", title: tip, "data-testid": "layer" }, l.layer),
      html("span", { class: "ops", title: tip }, l.op),
      html("span", { class: "ops kernel", title: tip }, l.kernel),
      html("span", { class: "track", title: tip }, html("i", { style: width(l.median_ns) }), bound === null ? null : html("b", { style: width(bound) })),
      html("span", { class: "figures" }, `${time(l.median_ns)} · ${(100 * l.median_ns / total).toFixed(1)} %` + (bound === null || !(l.median_ns > 0) ? "" : ` · ${(100 * bound / l.median_ns).toFixed(0)} % of roofline`)),
    ];
  });
  const head = ["layer", "operation", "kernel", null, "time · share"].map(text => text === null
    ? html("span", { class: "h" }, html("span", { class: "key measured" }), " measured  ", html("span", { class: "key" }), " roofline")
    : html("span", { class: `h ${text.startsWith("time") ? "figures" : ""}` }, text));
  $("profile").replaceChildren(what, html("div", { class: "layers" }, ...head, ...cells));
}

// --- table -----------------------------------------------------------------------------------------

const VALUES = Object.fromEntries(RECORDS.map(r => [r.id, {
  ...Object.fromEntries(LAYERS.map(l => [l.name, String(r.point[l.name])])),
  accuracy_top1: r.accuracy.top1, latency_median_ns: r.latency.median_ns, latency_p90_ns: r.latency.p90_ns,
  throughput_images_per_s: r.throughput_images_per_s, memory_resident_bytes: resident(r), disk_bytes: r.memory.disk_bytes,
  roofline_factor: roofline(r) ? r.latency.median_ns / roofline(r) : null, images: `${r.accuracy.images} ${r.accuracy.dataset}`,
}]));

/// A layer on which all records made the same choice needs no column (it stands in the filters above).
const SHOWN = COLUMNS.filter(c => c.name === "network" || c.format !== "text" || new Set(Object.values(VALUES).map(v => v[c.name])).size > 1);

function drawTable() {
  const sign = sort.down ? -1 : 1;
  const rows = visible.slice().sort((a, b) => {
    const [x, y] = [VALUES[a.id][sort.column], VALUES[b.id][sort.column]];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * byValue(x, y) || byValue(a.id, b.id);
  });
  const heading = c => html("th", { scope: "col", class: c.format === "text" ? "" : "number", "aria-sort": sort.column === c.name ? (sort.down ? "descending" : "ascending") : undefined },
    html("button", { type: "button", "data-testid": `sort-${c.name}`, onclick: () => { sort = { column: c.name, down: sort.column === c.name && !sort.down }; drawTable(); } }, c.title));
  const cell = (r, c) => {
    const value = VALUES[r.id][c.name];
    const text = value === null ? "–" : FORMATS[c.format](value);
    if (c.name === "network") return html("td", {}, markIcon(colourOf(r), shapeOf(r), r.latency.noisy ? "noisy" : ""), " ", text);
    return html("td", { class: c.format === "text" ? "" : "number" }, text);
  };
  const row = r => html("tr", { "data-id": r.id, "data-testid": "row", class: r === selected ? "selected" : "", onclick: () => select(r) }, ...SHOWN.map(c => cell(r, c)));
  $("table").replaceChildren(html("thead", {}, html("tr", {}, ...SHOWN.map(heading))), html("tbody", {}, ...rows.map(row)));
}

// --- provenance ------------------------------------------------------------------------------------

function drawProvenance() {
  const groups = new Map();
  for (const r of RECORDS) {
    const { unix_ms, ...rest } = r.provenance;
    const key = JSON.stringify([rest, r.point.hw]);
    const group = groups.get(key) ?? { ...rest, hw: r.point.hw, from: unix_ms, to: unix_ms, count: 0 };
    groups.set(key, { ...group, from: Math.min(group.from, unix_ms), to: Math.max(group.to, unix_ms), count: group.count + 1 });
  }
  const date = ms => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
  const boxes = [...groups.values()].map(g => html("div", {}, facts(
    ["machine", g.machine], ["fingerprint", g.hw], ["system", g.os], ["DLIS", `${g.dlis_version}${g.git_revision ? `, revision ${g.git_revision}` : ""}`],
    ["compiler", g.rustc ?? "not known"], ["measured", `${g.from === g.to ? date(g.from) : `${date(g.from)} to ${date(g.to)}`} UTC`], ["points", String(g.count)],
  ), html("pre", { style: "margin-top:8px" }, g.machine_summary)));
  $("provenance").replaceChildren(html("div", { class: "machines" }, ...boxes), html("p", { class: "muted", style: "margin-top:12px" }, `Page written by ${GENERATOR}.`));
}

// --- the whole -------------------------------------------------------------------------------------

function update(filtersToo) {
  leave();
  visible = RECORDS.filter(passes);
  if (!visible.includes(selected)) selected = visible.reduce((best, r) => (!best || r.latency.median_ns < best.latency.median_ns ? r : best), null);
  if (filtersToo) drawFilters();
  $("count").textContent = `${visible.length} of ${RECORDS.length} points`;
  $("reset").disabled = visible.length === RECORDS.length;
  drawPlots();
  drawProfile();
  drawTable();
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(prefersDark.matches);
prefersDark.addEventListener("change", event => setTheme(event.matches));
$("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
$("by-time").addEventListener("change", drawProfile);
$("reset").addEventListener("click", () => { for (const set of Object.values(off)) set.clear(); update(true); });
addEventListener("scroll", leave, { passive: true, capture: true });

const machines = choicesOf("hw").length;
$("summary").textContent = `${RECORDS.length} stack points, ${NETWORKS.length} network${NETWORKS.length === 1 ? "" : "s"}, ${machines} machine${machines === 1 ? "" : "s"}${machines === 1 ? `: ${RECORDS[0].provenance.machine}` : ""}`;
drawLegend();
drawProvenance();
makePlots();
update(true);
