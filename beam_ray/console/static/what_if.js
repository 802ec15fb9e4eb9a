// The number of tasks beside the slider, while it moves; all else on the page comes from the server.
document.addEventListener("input", (event) => {
  if (event.target.id === "count") document.getElementById("count-shown").value = event.target.value;
});
