// The graph of a flow: dagre places the cards of the ordered list, and the edges are drawn behind them.
// The list is what phones, screen readers and browsers without scripts show.
import { Graph, layout } from "./vendor/dagre-3.1.3.esm.js";

const SVG = "http://www.w3.org/2000/svg";
const SMALLEST = 0.55;
const wide = matchMedia("(min-width: 641px)");
let zoom = 0; // 0 fits the graph into its panel

// dagre keeps nodes in plain objects, which have a 'constructor' of their own
const named = (node) => `node ${node}`;

const graphOf = () => document.getElementById("graph");
const cardsOf = (graph) => [...graph.querySelectorAll(".node")];
const edgesOf = (graph) => [...graph.querySelectorAll(".next > [data-target]")].map((item) => ({ source: item.closest(".node").dataset.node, target: item.dataset.target, item }));

function drawn(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function curve(points) {
  const [first, ...rest] = points;
  let path = `M${first.x},${first.y}`;
  rest.forEach((point, index) => {
    const next = rest[index + 1];
    path += next ? ` Q${point.x},${point.y} ${(point.x + next.x) / 2},${(point.y + next.y) / 2}` : ` L${point.x},${point.y}`;
  });
  return path;
}

function clear(graph) {
  graph.classList.remove("drawn");
  graph.querySelectorAll(".edges, .labels").forEach((each) => each.remove());
  for (const part of [graph.firstElementChild, ...cardsOf(graph)]) part.removeAttribute("style");
  graph.removeAttribute("style");
}

function draw() {
  const graph = graphOf();
  if (!graph) return;
  clear(graph);
  document.querySelector(".graph-tools").hidden = !wide.matches;
  if (!wide.matches) return;
  graph.classList.add("drawn");
  const inner = graph.firstElementChild;
  const labels = document.createElement("div");
  labels.className = "labels";
  labels.setAttribute("aria-hidden", "true");
  inner.append(labels);
  const plan = new Graph({ multigraph: true });
  plan.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 44, edgesep: 18, marginx: 12, marginy: 12 });
  for (const card of cardsOf(graph)) plan.setNode(named(card.dataset.node), { width: card.offsetWidth, height: card.offsetHeight });
  const edges = edgesOf(graph);
  for (const edge of edges) {
    edge.label = edge.item.querySelector(".edge-label").cloneNode(true);
    edge.label.hidden = false;
    if (edge.label.textContent.trim()) labels.append(edge.label);
    plan.setEdge(named(edge.source), named(edge.target), { width: edge.label.offsetWidth, height: edge.label.offsetHeight, labelpos: "c" });
  }
  layout(plan);
  const { width, height } = plan.graph();
  for (const card of cardsOf(graph)) {
    const at = plan.node(named(card.dataset.node));
    card.style.left = `${at.x - at.width / 2}px`;
    card.style.top = `${at.y - at.height / 2}px`;
  }
  const canvas = drawn("svg", { class: "edges", width, height, "aria-hidden": "true", focusable: "false" }, inner);
  const marks = drawn("defs", {}, canvas);
  for (const name of ["tip", "tip-lit"]) {
    const tip = drawn("marker", { id: name, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse" }, marks);
    drawn("path", { d: "M0,0.5 L7.5,4 L0,7.5 z" }, tip);
  }
  for (const edge of edges) {
    const at = plan.edge(named(edge.source), named(edge.target));
    drawn("path", { d: curve(at.points), class: "edge", "data-source": edge.source, "data-target": edge.target }, canvas);
    if (edge.label.parentElement) {
      edge.label.style.left = `${at.x - edge.label.offsetWidth / 2}px`;
      edge.label.style.top = `${at.y - edge.label.offsetHeight / 2}px`;
      Object.assign(edge.label.dataset, { source: edge.source, target: edge.target });
    }
  }
  inner.prepend(canvas);
  graph.dataset.width = width;
  graph.dataset.height = height;
  fit();
  choose();
  reveal();
}

function fit() {
  const graph = graphOf();
  const { width, height } = graph.dataset;
  const room = Math.max(480, innerHeight - 300);
  const whole = Math.min(1, (graph.clientWidth - 2) / width, room / height);
  const scale = zoom || Math.max(whole, SMALLEST);
  const inner = graph.firstElementChild;
  Object.assign(inner.style, { width: `${width}px`, height: `${height}px`, transform: `scale(${scale})`, marginLeft: `${Math.max(0, (graph.clientWidth - width * scale) / 2)}px` });
  Object.assign(graph.style, { height: `${Math.min(height * scale + 4, Math.max(room, 480))}px` });
  inner.style.marginBottom = `${height * (scale - 1)}px`;
  inner.style.marginRight = `${width * (scale - 1)}px`;
  graph.dataset.scale = scale;
}

function choose() {
  const graph = graphOf();
  const name = document.getElementById("node-panel")?.dataset.node;
  for (const card of cardsOf(graph)) {
    const chosen = card.dataset.node === name;
    card.classList.toggle("chosen", chosen);
    card.querySelector(".node-card").toggleAttribute("aria-current", chosen);
    if (chosen) card.querySelector(".node-card").setAttribute("aria-current", "true");
  }
  for (const edge of graph.querySelectorAll(".edge, .labels .edge-label")) edge.classList.toggle("lit", [edge.dataset.source, edge.dataset.target].includes(name));
}

function reveal() {
  const graph = graphOf();
  const card = graph.querySelector(".node.chosen");
  if (!card || !graph.classList.contains("drawn")) return;
  const [frame, box] = [graph.getBoundingClientRect(), card.getBoundingClientRect()];
  if (box.top < frame.top || box.bottom > frame.bottom) graph.scrollTop += box.top - frame.top - frame.height / 3;
  if (box.left < frame.left || box.right > frame.right) graph.scrollLeft += box.left - frame.left - frame.width / 3;
}

function neighbour(card, key) {
  const graph = graphOf();
  const name = card.dataset.node;
  const edges = edgesOf(graph);
  if (key === "ArrowDown") return edges.find((edge) => edge.source === name)?.target;
  if (key === "ArrowUp") return edges.find((edge) => edge.target === name)?.source;
  const box = card.getBoundingClientRect();
  const beside = cardsOf(graph)
    .map((each) => ({ name: each.dataset.node, box: each.getBoundingClientRect() }))
    .filter((each) => each.box.top < box.bottom && each.box.bottom > box.top && (key === "ArrowRight" ? each.box.left > box.left : each.box.left < box.left));
  return beside.sort((one, other) => Math.abs(one.box.left - box.left) - Math.abs(other.box.left - box.left))[0]?.name;
}

document.addEventListener("keydown", (event) => {
  const card = event.target.closest?.(".graph.drawn .node");
  if (!card || !event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
  const next = neighbour(card, event.key);
  if (!next) return;
  event.preventDefault();
  document.querySelector(`#node-${CSS.escape(next)} .node-card`).focus();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (!button) return;
  const now = Number(graphOf().dataset.scale);
  zoom = { fit: 0, in: Math.min(now * 1.25, 2), out: Math.max(now / 1.25, 0.2) }[button.dataset.zoom];
  fit();
});

document.addEventListener("htmx:after:swap", () => {
  if (!graphOf()) return;
  if (graphOf().querySelector(".edges") || !wide.matches) choose();
  else draw();
});
wide.addEventListener("change", draw);
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => graphOf()?.classList.contains("drawn") && fit(), 100);
});
// cards are measured in the fonts that they are shown in
document.fonts.ready.then(draw);

// -- editing ------------------------------------------------------------------

let typedIn = null;
document.addEventListener("focusin", (event) => {
  if (event.target.matches(".prompt textarea")) typedIn = event.target;
});

document.addEventListener("click", (event) => {
  const insert = event.target.closest("[data-insert]");
  if (insert) {
    const field = typedIn?.isConnected ? typedIn : [...document.querySelectorAll(".prompt textarea")].pop();
    field.focus();
    field.setRangeText(insert.dataset.insert, field.selectionStart, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const place = event.target.closest("[data-place]");
  const field = place && document.getElementById(place.dataset.place);
  if (field?.matches("textarea")) {
    const before = field.value.split("\n").slice(0, place.dataset.line - 1).join("\n");
    const at = before.length + (before ? 1 : 0) + Number(place.dataset.column) - 1;
    field.focus();
    field.setSelectionRange(at, at);
  }
});

function openNamed() {
  const named = location.hash && document.querySelector(`details${CSS.escape(location.hash).replace("\\#", "#")}`);
  if (named) named.open = true;
}
openNamed();
