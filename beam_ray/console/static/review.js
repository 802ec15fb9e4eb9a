// Keys of the review page: a digit answers, Enter goes on, u takes back, z skips.
const press = (selector) => {
  const found = document.querySelector(selector);
  found?.click();
  return found;
};

document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, textarea, select, dialog, summary, a, button");
  if (event.ctrlKey || event.metaKey || event.altKey || localStorage.getItem("single-keys") === "off") return;
  if (event.target.closest("input, textarea, select, dialog")) return;
  const key = event.key;
  const done = /^[1-9]$/.test(key) ? press(`[data-answer="${key}"]`) : key === "u" ? press("[data-undo]") : key === "z" ? press("[data-skip]") : key === "Enter" && !busy ? press("[data-advance]") : null;
  if (done) event.preventDefault();
});
