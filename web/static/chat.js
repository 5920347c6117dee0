// The chat page. The server renders every state; this fetches the next one in place, streams the replies and minds the keys.
import "./alive.js";
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
const outbox = new Outbox(person, document.querySelector("#outbox"), {
  delivered(told) { show(told); },
  refused({ path, body }) { if (body.justification || path.startsWith(`/api/campaigns/${slug}/`)) keepTyped(path, body).then((kept) => { if (kept) refresh(); }); },
});
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

/** Show what came of something that was sent; the focus goes to what is next, and that is said. */
async function show(told, path = "") {
  await refresh(told?.conversation?.status === "finished" ? "?complete=1" : told?.report ? "?reported=1" : "");
  const next = chat.querySelector(".reply, #written, #message, .empty");
  const typed = next?.matches("textarea");
  if (next?.matches(".empty")) next.tabIndex = -1;
  if (typed) focusBox();
  else next?.focus({ preventScroll: true });
  bringIntoView(chat.querySelector(".composer, .ranking"));
  const notice = chat.querySelector(".notice[role=status]:not([hidden])");
  if (notice) { // a region speaks only of what changes while it is there
    const words = [...notice.childNodes];
    notice.replaceChildren();
    setTimeout(() => notice.replaceChildren(...words), 100);
  } else announce(path.endsWith("/undo") ? _("Choice taken back") : typed ? _("Stored. Go on writing.") : chat.querySelector("form.choice[data-status=sampling]") ? _("Both replies are being written …") : next?.matches(".reply") ? _("Stored. The next one is here.") : "");
}

/** Send one thing through the outbox; afterwards the page shows what came of it, or why not. */
async function deliver(path, body, controls, goOn = () => {}) {
  if (busy) return;
  busy = true;
  controls.forEach((control) => { control.disabled = true; });
  let away = false;
  try {
    const told = await outbox.post(path, body, () => {
      if (away) return;
      away = true;
      busy = false; // it is kept, so other things can be done meanwhile
      bringIntoView(document.querySelector("#outbox"));
      goOn();
    });
    if (!outbox.pending.size) await show(told, path); // else the last one does
  } catch (error) {
    controls.forEach((control) => { control.disabled = false; });
    if (!away) busy = false; // they may mend it and send again at once
    await keepTyped(path, body);
    // Signed out: it is kept. Everything else that is refused stands in the outbox, with the reason.
    if (error.status === 401) {
      tell(`${error.message} `);
      const link = document.createElement("a");
      link.href = `/sign-in?next=${encodeURIComponent(location.pathname)}`;
      link.textContent = _("Sign in");
      connection.append(link);
    }
    // The server has moved on (another tab, an expired conversation): show how it stands.
    if (["conflict", "already_done", "not_found"].includes(error.code)) await refresh();
  } finally {
    if (!away) busy = false;
  }
}

/** The box that a text came from, by where it was sent to. */
function placeOf(path) {
  const [, turn, kind] = path.match(/^\/api\/turns\/(\d+)\/(demonstration|edit)$/) ?? [];
  return turn ? `${kind}:${turn}` : `${path.endsWith("/prompts") ? "prompt" : "message"}:${campaign}`;
}

/** What was refused may have been typed too fast for any draft, or come from the outbox: keep it for its box. Whether there was any. */
async function keepTyped(path, body) {
  const turn = path.match(/^\/api\/turns\/(\d+)\//)?.[1];
  const typed = [[body.text, placeOf(path)], [body.justification, `justification:${turn}`]].filter(([text]) => text);
  for (const [text, place] of typed) {
    try {
      await send("PUT", `/api/drafts/${place}`, { text });
    } catch (error) {
      if (!(error instanceof Refusal || error instanceof TypeError)) throw error; // still in the box, or in the outbox
    }
  }
  return typed.length > 0;
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
    await deliver(`/api/turns/${turnId}/comparison`, body, [...form.querySelectorAll(".decide button")], () => writeOn(form));
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
    failed() { announce(""); refresh(); }, // which has an alert of its own
    away(lost) { tell(lost ? _("The connection is lost. The replies are written on; they appear when it is back.") : ""); },
  });
  bringIntoView(form);
}

/** The choice waits for the connection: its conversation can go on meanwhile, and what is written waits behind it. */
function writeOn(form) {
  const template = chat.querySelector("#write-on");
  if (!template) return;
  form.querySelector("fieldset").disabled = true;
  template.replaceWith(template.content.cloneNode(true));
  const composer = chat.querySelector("form.composer");
  composer.elements.idempotency_key.value = crypto.getRandomValues(new Uint32Array(4)).join("-");
  wireComposer(composer);
  focusBox();
  bringIntoView(composer);
}

/** What a form sends when it works without a script goes through the outbox too. */
function wireSmall(selector, path, body) {
  chat.querySelectorAll(selector).forEach((form) => form.addEventListener("submit", (event) => {
    event.preventDefault();
    deliver(path(form), body(form), [...form.querySelectorAll("button")]);
  }));
}

/** Send an answer with what every answer carries. */
const answer = (form, path) => (said) => deliver(path, { ...said, idempotency_key: form.elements.idempotency_key.value, instructions_id: instructions }, [...form.querySelectorAll(".decide button")]);

function wireWritten(form) {
  const { kind, turn } = form.dataset;
  const path = kind === "prompt" ? `/api/campaigns/${slug}/prompts` : `/api/turns/${turn}/${kind}`;
  writings.push(wireWriting(form, answer(form, path), keepDraft));
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
  wireSmall("form[data-withdraw]", (form) => `/api/campaigns/${slug}/prompts/${form.dataset.withdraw}/withdraw`, () => ({}));
  wireSmall("form[data-undo]", () => `/api/campaigns/${slug}/undo`, (form) => ({ turn_id: Number(form.elements.turn_id.value) }));
  wireSmall("form[data-skip]", (form) => `/api/turns/${form.dataset.skip}/skip`, (form) => ({ reason: form.elements.reason.value }));
  wireSmall("form[data-report]", (form) => `/api/turns/${form.dataset.report}/report`, (form) => ({ reason: form.elements.reason.value, note: form.elements.note.value, position: form.elements.position?.value ? Number(form.elements.position.value) : null }));
  if (chat.querySelector("[data-being-written]")) lookAgain = setTimeout(refresh, 2000);
  const newest = chat.querySelector("[data-newest]");
  newest.hidden = (Number(newest.dataset.newest) || null) === instructions;
  chat.dataset.live = ""; // from here on keys and buttons are the script's
}

// What is done by a key stands beside the key: `data-action` names it, as the settings do.
addEventListener("keydown", (event) => {
  const action = actionOf(event);
  const control = action === undefined ? null : chat.querySelector(`[data-action="${action}"]`);
  // A ranking has letters and digits of its own; one that the person has given to something on the page is not among them.
  if (!(chat.querySelector("form.ranking") && (control || action === "sheet"))) work?.key?.(event);
  if (event.defaultPrevented || action === undefined) return;
  if (action === "sheet") { document.querySelector("#keys").showModal(); event.preventDefault(); return; }
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
if (outbox.waiting().length) outbox.run();
else focusBox();

// Read is read: the page stays as it is, and the panel folds.
document.querySelector("form[data-read]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  try {
    await send("POST", `/api/campaigns/${slug}/door/instructions`, { instructions_id: Number(form.elements.instructions_id.value) });
    form.closest("details").open = false;
    form.remove();
  } catch (error) {
    tell(error.message);
  }
});
