// The next and the previous pair are fetched while one reads this one, and put in its place without a load.
const kept = new Map();

async function fetched(address) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

function prefetch() {
  for (const link of document.querySelectorAll("a[data-next], a[data-previous]")) {
    if (!kept.has(link.href)) kept.set(link.href, fetched(link.href).catch(() => null));
  }
  while (kept.size > 8) kept.delete(kept.keys().next().value);
}

function show(page) {
  for (const part of ["main", "footer"]) document.querySelector(part).replaceWith(document.adoptNode(page.querySelector(part)));
  document.title = page.title;
  document.dispatchEvent(new CustomEvent("htmx:after:swap"));
  scrollTo(0, 0);
  document.getElementById("main").focus({ preventScroll: true });
  document.getElementById("announce").textContent = document.querySelector("h1").textContent;
  prefetch();
}

async function open(address, remember) {
  const page = await (kept.get(address) ?? fetched(address).catch(() => null));
  if (!page) {
    location.assign(address);
    return;
  }
  kept.delete(address);
  if (remember) history.pushState(null, "", address);
  show(page);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-next], a[data-previous]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  open(link.href, true);
});
addEventListener("popstate", () => open(location.href, false));
prefetch();

// m, then the letter of a mark
let marking = false;
document.addEventListener(
  "keydown",
  (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    if (localStorage.getItem("single-keys") === "off" || ["Shift", "CapsLock"].includes(event.key)) return;
    const form = document.getElementById("mark");
    if (!form || (!marking && event.key !== "m")) return;
    const found = marking && form.querySelector(`[data-mark="${CSS.escape(event.key)}"]`);
    marking = !marking;
    form.classList.toggle("waits", marking);
    document.getElementById("announce").textContent = marking ? "Mark: r real, n noise, j judge is wrong, e expected is wrong, u take back" : "";
    event.preventDefault();
    event.stopImmediatePropagation();
    if (found) found.click();
  },
  true,
);
