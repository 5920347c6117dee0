// The chat page. The server renders every state; this fetches the next one in place, streams the replies and minds the keys.
import { Draft } from "./draft.js";
import { actionOf } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Refusal, send } from "./post.js";
import { wireRanking } from "./rank.js";
import { wireScale } from "./scale.js";
import { follow } from "./stream.js";
import { wireWriting } from "./write.js";
import { _ } from "./words.js";

const chat = document.querySelector("#chat");
const { slug, person, campaign } = chat.dataset;
// The version that stands on this page; a newer one may come while it is open.
const instructions = Number(document.querySelector("[data-instructions]").dataset.instructions) || null;
const connection = document.querySelector("#connection");
const tell = (sentence) => { connection.textContent = sentence; connection.hidden = !sentence; };
const announce = (sentence) => { document.querySelector("#said").textContent = sentence; };
const outbox = new Outbox(`${person}:${campaign}`, tell);
const drafts = new Map();
let stopStream = () => {};
let work = null; // the scale or the ranking in hand: {stop, key}
let writings = [];
let lookAgain = null;
let busy = false;

const moves = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const bringIntoView = (element) => element?.scrollIntoView({ block: "nearest", behavior: moves ? "smooth" : "auto" });

// A keyboard that slides over a phone's page would hide the reply that was just chosen.
const focusBox = () => { if (matchMedia("(pointer: fine)").matches) chat.querySelector("#written, #message")?.focus({ preventScroll: true }); };

/** Show the chat as the server now has it. */
async function refresh(query = "") {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const answer = await fetch(`/chat/${slug}/conversation${query}`, { headers: { Accept: "text/html" } });
      // Signed out, or the campaign was closed: the whole page says which. Only what may pass is worth waiting for.
      if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) { location.reload(); return; }
      if (answer.ok) { chat.innerHTML = await answer.text(); break; } // our own page: the server has sanitised all texts in it
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    tell(_("The connection is lost. The page goes on by itself when it is back."));
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  tell("");
  wire();
}

/** Send one thing through the outbox; afterwards the page shows what came of it, or why not. */
async function deliver(path, body, controls) {
  if (busy) return;
  busy = true;
  controls.forEach((control) => { control.disabled = true; });
  try {
    const told = await outbox.post(path, body);
    await refresh(told?.conversation?.status === "finished" ? "?complete=1" : "");
    focusBox();
    bringIntoView(chat.querySelector(".composer, .ranking"));
  } catch (error) {
    controls.forEach((control) => { control.disabled = false; });
    tell(error.message);
    if (body.text) await keepTyped(body.text, placeOf(path));
    // The server has moved on (another tab, an expired conversation): show how it stands, keep the sentence.
    if (error.code === "conflict" || error.code === "not_found") { await refresh(); tell(error.message); }
  } finally {
    busy = false;
  }
}

/** The box that a text came from, by where it was sent to. */
function placeOf(path) {
  const [, turn, kind] = path.match(/^\/api\/turns\/(\d+)\/(demonstration|edit)$/) ?? [];
  return turn ? `${kind}:${turn}` : `${path.endsWith("/prompts") ? "prompt" : "message"}:${campaign}`;
}

/** A text that was refused may have been typed too fast for any draft, or come from the outbox: keep it for the box. */
async function keepTyped(text, place) {
  try {
    await send("PUT", `/api/drafts/${place}`, { text });
  } catch (error) {
    if (!(error instanceof Refusal || error instanceof TypeError)) throw error; // still in the box, which nobody has emptied
  }
}

function keepDraft(box, shown) {
  const draft = new Draft(box, (sentence) => { if (shown) shown.textContent = sentence; });
  drafts.set(box.dataset.place, draft);
  return draft;
}

function wireComposer(form) {
  const box = form.elements.text;
  const draft = keepDraft(box, form.querySelector(".draft-state"));
  let promptId = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!box.value.trim() || busy) return;
    const conversation = form.elements.conversation_id;
    const body = {
      text: box.value,
      idempotency_key: form.elements.idempotency_key.value,
      prompt_id: promptId,
      conversation_id: conversation ? Number(conversation.value) : null,
    };
    const controls = [...form.querySelectorAll("button")];
    controls.forEach((control) => { control.disabled = true; });
    await draft.stop();
    await deliver(`/api/campaigns/${slug}/messages`, body, controls);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  chat.querySelectorAll(".chips form").forEach((chip) => chip.addEventListener("submit", (event) => {
    event.preventDefault(); // with a script a suggestion goes into the box, where it can be changed
    box.value = chip.elements.text.value;
    promptId = Number(chip.elements.prompt_id.value);
    box.dispatchEvent(new Event("input"));
    box.focus();
  }));
}

function wireChoice(form) {
  const turnId = form.dataset.turn;
  const draft = form.elements.justification ? keepDraft(form.elements.justification, null) : null;
  const scale = wireScale(form, async (choice) => {
    await draft?.stop();
    const body = { ...choice, idempotency_key: form.elements.idempotency_key.value, instructions_id: instructions };
    await deliver(`/api/turns/${turnId}/comparison`, body, [...form.querySelectorAll(".decide button")]);
  });
  work = scale;
  if (form.dataset.status === "ready") { scale.open(); return; }
  const reply = (position) => form.querySelector(`[data-position="${position}"] .reply`);
  form.querySelectorAll(".reply").forEach((each) => each.classList.add("plain"));
  stopStream = follow(turnId, {
    text(position, piece) { reply(position).append(piece); },
    restart(position) { reply(position).textContent = ""; },
    done(position) { reply(position).closest(".candidate").classList.remove("writing"); },
    ready(turn) {
      for (const { position, html } of turn.candidates) {
        reply(position).innerHTML = html; // sanitised by the server
        reply(position).classList.remove("plain");
        reply(position).closest(".candidate").classList.remove("writing");
      }
      scale.open();
      announce(form.dataset.lastKey ? _("Both replies are complete. Choose with the keys 1 to {last}.", { last: form.dataset.lastKey }) : _("Both replies are complete."));
      bringIntoView(form.querySelector("fieldset"));
    },
    failed() { refresh(); },
    away(lost) { tell(lost ? _("The connection is lost. The replies are written on; they appear when it is back.") : ""); },
  });
  bringIntoView(form);
}

/** Send an answer with what every answer carries. */
const answer = (form, path) => (said) => deliver(path, { ...said, idempotency_key: form.elements.idempotency_key.value, instructions_id: instructions }, [...form.querySelectorAll(".decide button")]);

function wireWritten(form) {
  const { kind, turn } = form.dataset;
  const path = kind === "prompt" ? `/api/campaigns/${slug}/prompts` : `/api/turns/${turn}/${kind}`;
  writings.push(wireWriting(form, answer(form, path), keepDraft));
}

function wireWithdrawal(form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    deliver(`/api/campaigns/${slug}/prompts/${form.dataset.withdraw}/withdraw`, {}, [...form.querySelectorAll("button")]);
  });
}

function wire() {
  stopStream();
  stopStream = () => {};
  work?.stop();
  work = null;
  writings.forEach((each) => each.stop());
  writings = [];
  drafts.clear();
  clearTimeout(lookAgain);
  const composer = chat.querySelector("form.composer:not(.written)");
  const choice = chat.querySelector("form.choice");
  const ranking = chat.querySelector("form.ranking");
  if (composer) wireComposer(composer);
  if (choice) wireChoice(choice);
  if (ranking) work = wireRanking(ranking, answer(ranking, `/api/turns/${ranking.dataset.turn}/ranking`), keepDraft);
  chat.querySelectorAll("form.written").forEach(wireWritten);
  chat.querySelectorAll("form[data-withdraw]").forEach(wireWithdrawal);
  if (chat.querySelector("[data-being-written]")) lookAgain = setTimeout(refresh, 2000);
  chat.dataset.live = ""; // from here on keys and buttons are the script's
}

// What is done by a key stands beside the key: `data-action` names it, as the settings do.
addEventListener("keydown", (event) => {
  work?.key?.(event);
  if (event.defaultPrevented) return;
  const action = actionOf(event);
  if (action === undefined) return;
  if (action === "sheet") { document.querySelector("#keys").showModal(); event.preventDefault(); return; }
  const control = chat.querySelector(`[data-action="${action}"]`);
  if (!control || control.matches(":disabled")) return;
  event.preventDefault();
  const folded = control.closest("details:not([open])");
  if (folded) {
    folded.open = true;
    control.focus();
  } else if (control.matches("[type=radio]")) work.choose(control);
  else if (control.matches("textarea")) control.focus();
  else control.click();
});
document.querySelector("#show-keys").addEventListener("click", () => document.querySelector("#keys").showModal());
addEventListener("pagehide", () => drafts.forEach((draft) => draft.leave()));

wire();
const left = outbox.waiting();
if (left) deliver(left.path, left.body, []);
else focusBox();
