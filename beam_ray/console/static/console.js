// What pages do beyond links and forms: times in the reader's zone, copying, single keys, ticks. Everything can be read without it.
import { watch } from "./live.js";

const main = () => document.getElementById("main");

function localTimes(root) {
  const day = new Date().toDateString();
  const year = new Date().getFullYear();
  const clock = { hour: "2-digit", minute: "2-digit" };
  for (const time of root.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    const date = when.toDateString() === day ? {} : { month: "short", day: "numeric", ...(when.getFullYear() === year ? {} : { year: "numeric" }) };
    time.textContent = (date.day ? "" : "today, ") + new Intl.DateTimeFormat(undefined, { ...date, ...clock }).format(when);
  }
}

function announce(text) {
  document.getElementById("announce").textContent = text;
}

function ticks() {
  const boxes = [...document.querySelectorAll("#ticked input[name=task]")];
  const count = boxes.filter((box) => box.checked).length;
  const all = document.querySelector("[data-tick-all]");
  if (all) {
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  }
  const bulk = document.querySelector("[data-bulk]");
  if (!bulk) return;
  bulk.classList.toggle("some", count > 0);
  const words = bulk.querySelector("[data-ticked-count]");
  words.dataset.none ??= words.textContent;
  words.textContent = count ? `${count} ticked` : words.dataset.none;
}

async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce(said);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    copy(button.dataset.copy, "copied");
    const label = button.querySelector("span");
    if (label) {
      const before = label.textContent;
      label.textContent = "Copied";
      setTimeout(() => (label.textContent = before), 1500);
    }
  }
  if (event.target.closest("[data-help]")) document.getElementById("keys").showModal();
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-tick-all]")) {
    for (const box of document.querySelectorAll("#ticked input[name=task]")) box.checked = event.target.checked;
  }
  if (event.target.matches("[data-single-keys]")) localStorage.setItem("single-keys", event.target.checked ? "on" : "off");
  ticks();
});

document.addEventListener("submit", (event) => {
  const input = event.target.querySelector("[data-jump]");
  // an address, or the id of a run, opens what it names
  if (input && /^\d{6}-[0-9a-f]{3,}/.test(input.value.trim())) {
    event.preventDefault();
    location.assign("/t/" + input.value.trim().split("/").map(encodeURIComponent).join("/"));
  }
  const form = event.target.closest("form[method=post]");
  if (form) for (const button of form.querySelectorAll("button")) setTimeout(() => (button.disabled = true));
});

// -- keys ---------------------------------------------------------------------

const GO = { h: "/", t: "/tasks", f: "/flows", r: "/runs", b: "/backtests", l: "/libraries", v: "/review" };
let waitingForPlace = false;

function rows() {
  const list = document.querySelector("[data-rows]");
  return list ? [...list.querySelectorAll("tbody tr, :scope > li")] : [];
}

function move(step) {
  const all = rows();
  if (!all.length) return;
  const chosen = all.findIndex((row) => row.classList.contains("at") || row.classList.contains("chosen"));
  const next = all[Math.min(Math.max(chosen + step, 0), all.length - 1)];
  for (const row of all) row.classList.toggle("at", row === next);
  const link = next.querySelector("[data-open]");
  if (!link) return;
  link.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  if (next.matches("li")) link.click();
}

// -- the list that a task was opened from, for going through it ----------------

const LIST = "tasks";

function remember() {
  const links = [...document.querySelectorAll("table.tasks [data-open]")].map((link) => link.getAttribute("href"));
  if (links.length) sessionStorage.setItem(LIST, JSON.stringify(links));
}

// a task's path names it but for a trial, and for an id that a browser would resolve
const named = (href) => {
  const url = new URL(href, location.origin);
  return [url.pathname, url.searchParams.get("trial"), url.searchParams.get("task")].join(" ");
};

function beside(step) {
  const links = JSON.parse(sessionStorage.getItem(LIST) ?? "[]");
  const at = links.findIndex((link) => named(link) === named(location.href));
  const next = at < 0 ? undefined : links[at + step];
  if (next) location.assign(next);
  else announce(at < 0 ? "this task was not opened from a list" : "the list ends here");
}

function nextDifference() {
  const all = [...main().querySelectorAll("ins, del")].filter((each) => each.checkVisibility());
  const at = all.findIndex((each) => each.classList.contains("at"));
  all[at]?.classList.remove("at");
  const next = all[(at + 1) % all.length];
  next?.classList.add("at");
  next?.scrollIntoView({ block: "center" });
}

function unfold(selector) {
  const fold = document.querySelector(selector);
  if (!fold) return;
  fold.open = true;
  fold.querySelector("summary").focus();
}

const press = (selector) => document.querySelector(selector)?.click();

const KEYS = {
  "/": () => (document.querySelector("[data-focus]") ?? document.querySelector("[data-jump]")).focus(),
  "?": () => document.getElementById("keys").showModal(),
  g: () => (waitingForPlace = true),
  j: () => move(1),
  k: () => move(-1),
  x: () => press("tr.at input[name=task]"),
  r: () => press("[data-rerun-here]"),
  R: () => press("[data-rerun-task]"),
  o: () => press("[data-optimise]"),
  t: () => press("[data-try]"),
  e: () => unfold("[data-expected]"),
  d: nextDifference,
  s: () => press("[data-swap]"),
  "[": () => beside(-1),
  "]": () => beside(1),
  ".": () => location.assign(document.querySelector("link[type='application/json']").href),
  n: () => press("[data-next]"),
  p: () => press("[data-previous]"),
  c: () => {
    const line = document.querySelector("[data-copy]");
    if (line) copy(line.dataset.copy, "command copied");
  },
  y: () => copy(location.href, "link copied"),
};
for (let number = 1; number <= 7; number++) KEYS[number] = () => press(`[data-tab="${number}"]`);

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, dialog");
  if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector("[data-jump]").focus();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || field || localStorage.getItem("single-keys") === "off") return;
  if (waitingForPlace) {
    waitingForPlace = false;
    if (GO[event.key]) location.assign(GO[event.key]);
    return;
  }
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

// -- beginning, and after a part of the page was replaced ------------------------

function refresh() {
  // a command's page becomes that of its result, which has an address of its own
  const result = document.querySelector("[data-address]")?.dataset.address;
  if (result && location.pathname.startsWith("/started/")) history.replaceState(null, "", result);
  localTimes(document);
  ticks();
  remember();
  if (matchMedia("(min-width: 1680px)").matches) for (const group of document.querySelectorAll("[data-wide-open]")) group.open = true;
  const live = document.querySelector("[hx-trigger^='moved']") !== null;
  document.body.toggleAttribute("data-live", live);
  watch(live);
}

document.querySelector("[data-single-keys]").checked = localStorage.getItem("single-keys") !== "off";
document.addEventListener("htmx:after:swap", refresh);
refresh();
