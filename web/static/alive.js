// Tells the server every half minute that somebody is at work here: paid time is counted there, by its clock.
// Without this script the time between two signs of work counts up to two minutes.
import { SIGNS } from "./clock.js";
import { Refusal, send } from "./post.js";

const EVERY_MS = 30_000;
// Who reads moves little: a minute without a sign is still reading. What is longer than that the next sign makes good in part.
const ACTIVE_MS = 60_000;
const chat = document.querySelector("#chat");
const paid = document.querySelector("#paid span");
let alive = performance.now();
SIGNS.forEach((name) => addEventListener(name, () => { alive = performance.now(); }, { passive: true, capture: true }));

const atWork = () => document.visibilityState === "visible" && performance.now() - alive < ACTIVE_MS
  && chat.querySelector("form:is(.choice, .composer, .written, .ranking)");

const timer = setInterval(async () => {
  if (!atWork()) return;
  try {
    const { line } = await send("POST", `/api/campaigns/${chat.dataset.slug}/alive`);
    if (paid && line) paid.textContent = line;
  } catch (error) {
    // Signed out, or the campaign is gone: the next thing that is sent says so. Anything else may pass.
    if (error instanceof Refusal && [401, 403, 404].includes(error.status)) clearInterval(timer);
    else if (!(error instanceof Refusal || error instanceof TypeError)) throw error;
  }
}, EVERY_MS);
