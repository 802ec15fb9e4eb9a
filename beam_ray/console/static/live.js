// What goes on, told once a second: one stream for all tabs of the browser, whose leader passes the hints on.
// A hint only says that something moved; each tab then asks for its page again. Without locks, tabs ask by the clock.
const channel = "BroadcastChannel" in window ? new BroadcastChannel("beam_ray") : null;
const POLL_MS = 2000;
// what ends without a hint, such as the verdict that another process writes after its last run
const LATE_MS = 5000;
let wanted = false;
let started = false;

function moved() {
  if (wanted && !document.hidden) document.body.dispatchEvent(new CustomEvent("moved"));
}

function lead() {
  // the stream is open as long as this tab lives; when it goes, the lock goes to another one
  return new Promise(() => {
    const stream = new EventSource("/events");
    let clock;
    const tell = (event) => {
      channel.postMessage(event?.data);
      moved();
    };
    stream.onmessage = (event) => {
      clock = clearInterval(clock);
      tell(event);
    };
    // there are as many streams as there may be; the browser asks for one again later
    stream.addEventListener("full", () => (clock ??= setInterval(tell, POLL_MS)));
    stream.onerror = () => clock || strip(true);
    stream.onopen = () => {
      strip(false);
      moved();
    };
  });
}

function strip(shown) {
  let element = document.querySelector(".strip");
  if (shown && !element) {
    element = document.createElement("p");
    element.className = "strip";
    element.setAttribute("role", "status");
    element.textContent = "Reconnecting";
    document.body.append(element);
  }
  if (!shown) element?.remove();
}

function start() {
  if (started) return;
  started = true;
  if (channel && navigator.locks) {
    channel.onmessage = moved;
    navigator.locks.request("beam_ray events", lead);
  } else {
    setInterval(moved, POLL_MS);
  }
  setInterval(moved, LATE_MS);
  document.addEventListener("visibilitychange", moved);
}

export function watch(on) {
  wanted = on;
  if (on) start();
}
