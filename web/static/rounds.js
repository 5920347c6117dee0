// A round as it advances: numbers from server-sent events, and the page's own rendering whenever a step changes.
// Without this script the page reloads itself.

const REDRAW_MS = 4000; // curves are drawn by the server, so not with every number

let live = document.getElementById("live");
const said = document.getElementById("said");
let statuses = signature([...live.querySelectorAll(".step")].map((step) => step.className.split(" ")[1]), live.dataset.status);
let drawn = Date.now();
let drawing = false;

function signature(steps, status) {
  return `${status} ${steps.join(" ")}`;
}

function typing() {
  const at = document.activeElement;
  return live.contains(at) && ["INPUT", "TEXTAREA"].includes(at.tagName);
}

async function redraw() {
  if (drawing || typing()) return;
  drawing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || typing()) return;
    const opened = [...live.querySelectorAll("details")].map((each) => each.open);
    fresh.querySelectorAll("details").forEach((each, place) => { each.open = opened[place] ?? each.open; });
    live.replaceWith(fresh);
    live = fresh;
    drawn = Date.now();
  } finally {
    drawing = false;
  }
}

function show(step) {
  const row = live.querySelector(`[data-step="${step.name}"]`);
  if (!row || step.status !== "running") return;
  const { step: done = 0, of } = step.progress;
  const bar = row.querySelector("[data-progress]");
  const note = row.querySelector("[data-note]");
  if (bar && of) { bar.max = of; bar.value = done; }
  const time = step.elapsed === null ? "" : ` · ${step.elapsed} s`;
  const attempt = step.attempts > 1 ? ` · attempt ${step.attempts}` : "";
  if (note) note.textContent = (of ? `${done} of ${of}` : "starting") + time + attempt;
}

const over = ["done", "failed", "cancelled"];
if (!over.includes(live.dataset.status)) {
  const source = new EventSource(`/api/rounds/${live.dataset.round}/events`);
  source.addEventListener("round", async (event) => {
    const round = JSON.parse(event.data);
    const now = signature(round.steps.map((step) => step.status), round.status);
    if (now !== statuses) {
      statuses = now;
      const at = round.steps.find((step) => ["running", "queued", "held", "failed"].includes(step.status));
      said.textContent = at ? `${at.name.replace("_", " ")}: ${at.status}` : `Round ${round.number} is ${round.status}`;
      await redraw();
    } else if (round.status === "running" && Date.now() - drawn > REDRAW_MS) {
      await redraw();
    }
    round.steps.forEach(show);
  });
  source.addEventListener("over", () => { source.close(); redraw(); });
}
