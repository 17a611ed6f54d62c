"use strict";
// Scatter plots as SVG: axes, marks, fronts. Knows nothing of records: a mark is {x, y, colour, shape, ...}.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = [
  r => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  r => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
  r => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}H${-r * 1.15}z`,
  r => `M0,${-r * 1.35}L${r * 1.35},0L0,${r * 1.35}L${-r * 1.35},0z`,
  r => `M${-r * 0.4},${-r * 1.1}h${r * 0.8}v${r * 0.7}h${r * 0.7}v${r * 0.8}h${-r * 0.7}v${r * 0.7}h${-r * 0.8}v${-r * 0.7}h${-r * 0.7}v${-r * 0.8}h${r * 0.7}z`,
];

function node(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function markPath(shape, r) {
  return SHAPES[shape % SHAPES.length](r);
}

/// The mark of a legend or table, as an element of its own.
function markIcon(colour, shape, classes = "") {
  const path = node("path", { class: `point on-front ${classes}`, d: markPath(shape, 5) });
  path.style.color = colour;
  return node("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, path);
}

/// Round values that divide low..high into about `count` parts.
function linearTicks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-12) + 1e-12; i++) ticks.push(i * step);
  return ticks;
}

/// Powers of ten; with less than two of them, also 2 and 5 times those.
function logTicks(low, high) {
  for (const factors of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]]) {
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.ceil(Math.log10(high)); e++)
      for (const f of factors) if (f * 10 ** e >= low * 0.999 && f * 10 ** e <= high * 1.001) ticks.push(f * 10 ** e);
    if (ticks.length >= 3) return ticks;
  }
  return linearTicks(low, high, 4);
}

/// Maps values to 0..1 over a little more than their range.
function scaleOf(values, log) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!values.length) [low, high] = log ? [1, 10] : [0, 1];
  if (log) {
    const pad = Math.max((high / low) ** 0.06, 1.05);
    [low, high] = [low / pad, high * pad];
    const span = Math.log(high / low);
    return { map: v => Math.log(v / low) / span, ticks: logTicks(low, high), low, high };
  }
  const pad = Math.max((high - low) * 0.06, Math.abs(high) * 0.004) || 1;
  [low, high] = [low - pad, high + pad];
  return { map: v => (v - low) / (high - low), ticks: linearTicks(low, high, 5), low, high };
}

/// Indices of the marks that none beats: `xDown` and `yDown` say whether less is better. Of equal marks
/// all stay.
function frontOf(marks, xDown, yDown) {
  const sx = xDown ? 1 : -1, sy = yDown ? 1 : -1;
  const order = marks.map((_, i) => i).sort((a, b) => sx * (marks[a].x - marks[b].x) || sy * (marks[a].y - marks[b].y));
  const front = [];
  let best = Infinity, bestX = NaN;
  for (const i of order) {
    const y = sy * marks[i].y;
    if (y < best || (y === best && marks[i].x === bestX)) { front.push(i); best = y; bestX = marks[i].x; }
  }
  return front;
}

/// Draws `marks` into `svg`. `view` is {x, y: {title, format, log, down}, diagonal, on: {enter, leave, click}}.
function drawPlot(svg, marks, view) {
  const narrow = svg.clientWidth && svg.clientWidth < 430;
  const W = narrow ? 400 : 600, H = narrow ? 330 : 380, L = 66, R = 14, T = 12, B = 46;
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.replaceChildren();
  let xs = marks.map(m => m.x), ys = marks.map(m => m.y);
  if (view.diagonal) xs = ys = [...xs, ...ys];
  const sx = scaleOf(xs, view.x.log), sy = scaleOf(ys, view.y.log);
  const px = v => L + sx.map(v) * (W - L - R), py = v => H - B - sy.map(v) * (H - T - B);

  for (const t of sx.ticks) {
    svg.append(node("line", { class: "grid", x1: px(t), x2: px(t), y1: T, y2: H - B }));
    svg.append(node("text", { x: px(t), y: H - B + 17, "text-anchor": "middle" }, view.x.format(t)));
  }
  for (const t of sy.ticks) {
    svg.append(node("line", { class: "grid", x1: L, x2: W - R, y1: py(t), y2: py(t) }));
    svg.append(node("text", { x: L - 8, y: py(t) + 4, "text-anchor": "end" }, view.y.format(t)));
  }
  svg.append(node("path", { class: "axis", fill: "none", d: `M${L},${T}V${H - B}H${W - R}` }));
  svg.append(node("text", { class: "title", x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, view.x.title));
  svg.append(node("text", { class: "title", transform: `translate(14 ${(T + H - B) / 2}) rotate(-90)`, "text-anchor": "middle" }, view.y.title));

  let front = [];
  if (view.diagonal) {
    for (const [factor, label] of [[1, "= roofline"], [2, "2×"], [5, "5×"], [20, "20×"]]) {
      const from = Math.max(sx.low, sy.low / factor), to = Math.min(sx.high, sy.high / factor);
      if (from >= to) continue;
      svg.append(node("line", { class: "guide", "stroke-dasharray": factor === 1 ? "none" : "2 4", x1: px(from), y1: py(from * factor), x2: px(to), y2: py(to * factor) }));
      const left = px(to) - L < 60;
      svg.append(node("text", { x: px(to) + (left ? 6 : -6), y: py(to * factor) + 14, "text-anchor": left ? "start" : "end" }, label));
    }
  } else {
    front = frontOf(marks, view.x.down, view.y.down);
    // Stairs: between two members the worse of both is all that is known to be reachable.
    const corners = front.map(i => [px(marks[i].x), py(marks[i].y)]);
    if (corners.length) {
      let d = `M${corners[0]}`;
      for (let i = 1; i < corners.length; i++) d += `H${corners[i][0]}V${corners[i][1]}`;
      svg.append(node("path", { class: "front", d, "data-testid": "front" }));
    }
    const end = view.x.down ? "start" : "end";
    const up = !view.y.down;
    svg.append(node("text", { class: "better", x: view.x.down ? L + 8 : W - R - 8, y: up ? T + 12 : H - B - 8, "text-anchor": end }, up ? "↖ better" : "↙ better"));
  }

  // Front last, so that it lies on top.
  const members = new Set(front);
  const order = marks.map((_, i) => i).sort((a, b) => members.has(a) - members.has(b));
  for (const i of order) {
    const m = marks[i];
    const classes = ["point", members.has(i) || view.diagonal ? "on-front" : "", m.noisy ? "noisy" : "", m.selected ? "selected" : ""];
    const path = node("path", {
      class: classes.filter(Boolean).join(" "), d: markPath(m.shape, 6), transform: `translate(${px(m.x)} ${py(m.y)})`,
      "data-id": m.id, "data-testid": "point", role: "img", "aria-label": m.label,
    });
    path.style.color = m.colour;
    path.addEventListener("pointerenter", event => view.on.enter(m, path, event));
    path.addEventListener("pointerleave", () => view.on.leave());
    path.addEventListener("click", () => view.on.click(m));
    svg.append(path);
  }
  return front;
}
