// A ranking: each reply alone to be rated, then all of them to be ordered by drag, by keys, or by the lists of the form itself.
// The form's own fields hold everything; what is drawn here is a view of them.
import { Clock } from "./clock.js";
import { Draft } from "./draft.js";
import { shortcutsOff } from "./keys.js";
import { _ } from "./words.js";

const LETTERS = "abcdefghi";
const DRAG_PX = 6; // less is a click

/** Wires a form.ranking; `submit` gets {places, milliseconds, signals, justification}. Returns {stop, key, drafts}. */
export function wireRanking(form, submit, keep) {
  const cards = [...form.querySelectorAll(".candidate")];
  const board = form.querySelector(".board");
  const chosen = form.querySelector(".chosen");
  const hint = chosen.textContent;
  const buttons = { back: form.querySelector(".step-back"), on: form.querySelector(".step-on"), send: form.querySelector(".send") };
  const rated = "rated" in form.dataset;
  const clock = new Clock(`turn:${form.dataset.turn}`, form);
  const reason = form.elements.justification ? keep(form.elements.justification, null) : null;
  // The whole form is one draft: what was rated and placed so far.
  const box = document.createElement("textarea");
  box.dataset.place = form.dataset.draft;
  const draft = new Draft(box, () => {});
  let at = null; // the reply in hand while they are rated; null while they are ordered

  const select = (card) => card.querySelector("select");
  const place = (card) => Number(select(card).value) || null;
  const rating = (card) => Number(card.querySelector(".rating :checked")?.value) || null;
  const flags = (card) => [...card.querySelectorAll(".flags :checked")].map((each) => each.value);
  const letter = (card) => LETTERS[card.dataset.position].toUpperCase();
  // Placed here, and never known to have reached the server. Not before the lines above: it reads the cards as they do.
  for (const each of JSON.parse(box.value || "[]")) restore(each);
  const said = () => cards.map((card) => ({ position: Number(card.dataset.position), place: place(card), rating: rating(card), flags: flags(card) }));

  /** The opposite of said(). */
  function restore({ position, place: at, rating: step, flags: marked }) {
    const card = cards.find((each) => Number(each.dataset.position) === position);
    if (!card) return;
    select(card).value = at ?? "";
    card.querySelectorAll(".rating input").forEach((each) => { each.checked = Number(each.value) === step; });
    card.querySelectorAll(".flags input").forEach((each) => { each.checked = marked.includes(each.value); });
  }

  function show() {
    const ordering = at === null;
    form.classList.toggle("ordering", ordering);
    cards.forEach((card, index) => { card.hidden = !ordering && index !== at; });
    board.hidden = !ordering;
    buttons.on.hidden = ordering;
    buttons.send.hidden = !ordering;
    buttons.back.hidden = ordering ? !rated : at === 0;
    draw();
  }

  function draw() {
    board.querySelectorAll(".chips").forEach((chips) => chips.replaceChildren());
    for (const card of cards) {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.className = "chip-letter";
      chip.dataset.position = card.dataset.position;
      chip.textContent = rated && rating(card) ? `${letter(card)} · ${rating(card)}` : letter(card);
      chip.setAttribute("aria-label", place(card) ? _("Reply {letter}, place {place}", { letter: letter(card), place: place(card) }) : _("Reply {letter}, no place yet", { letter: letter(card) }));
      board.querySelector(`[data-place="${place(card) ?? ""}"] .chips`).append(chip);
    }
    const missing = cards.filter((card) => !place(card)).length;
    if (at !== null) chosen.textContent = _("Reply {n} of {count}", { n: at + 1, count: cards.length });
    else chosen.textContent = missing ? hint : order();
    chosen.classList.toggle("set", at === null && !missing);
  }

  /** "B > A = D > C" */
  function order() {
    const sorted = [...cards].sort((one, other) => place(one) - place(other));
    return sorted.map((card, index) => (index ? (place(card) === place(sorted[index - 1]) ? " = " : " > ") : "") + letter(card)).join("");
  }

  function put(card, value) {
    select(card).value = value ?? "";
    changed();
  }

  function changed() {
    box.value = JSON.stringify(said());
    box.dispatchEvent(new Event("input"));
    draw();
  }

  function go(index) {
    at = index;
    show();
    (at === null ? (cards.find((card) => !place(card)) ?? cards[0]) : cards[at]).focus({ preventScroll: at !== null });
  }

  function stepOn() {
    if (!rating(cards[at])) {
      chosen.textContent = _("Rate this reply first: press 1 to 7.");
      return;
    }
    go(at + 1 < cards.length ? at + 1 : null);
  }

  form.addEventListener("change", changed);
  buttons.on.addEventListener("click", stepOn);
  buttons.back.addEventListener("click", () => go(at === null ? cards.length - 1 : at - 1));
  board.querySelector("[data-by-ratings]")?.addEventListener("click", () => {
    const steps = [...new Set(cards.map(rating))].sort((one, other) => other - one);
    cards.forEach((card) => { select(card).value = String(steps.indexOf(rating(card)) + 1); });
    changed();
  });

  board.addEventListener("pointerdown", (event) => {
    const chip = event.target.closest(".chip-letter");
    if (!chip || event.button > 0) return;
    const card = cards[chip.dataset.position];
    const from = { x: event.clientX, y: event.clientY };
    let dragging = false;
    chip.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const [x, y] = [moved.clientX - from.x, moved.clientY - from.y];
      dragging ||= Math.hypot(x, y) > DRAG_PX;
      if (!dragging) return;
      chip.classList.add("dragged");
      chip.style.transform = `translate(${x}px, ${y}px)`;
    };
    const drop = (dropped) => {
      chip.removeEventListener("pointermove", move);
      chip.classList.remove("dragged");
      chip.style.transform = "";
      if (dropped.type !== "pointerup") return;
      if (!dragging) { card.focus(); return; }
      const target = document.elementsFromPoint(dropped.clientX, dropped.clientY).map((each) => each.closest("[data-place]")).find((each) => each && board.contains(each));
      if (target) put(card, Number(target.dataset.place) || null);
    };
    chip.addEventListener("pointermove", move);
    chip.addEventListener("pointerup", drop, { once: true });
    chip.addEventListener("pointercancel", drop, { once: true });
  });

  // A chip in focus goes up and down by the arrow keys.
  board.addEventListener("keydown", (event) => {
    const chip = event.target.closest(".chip-letter");
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!chip || !step) return;
    event.preventDefault();
    const card = cards[chip.dataset.position];
    put(card, Math.min(cards.length, Math.max(1, (place(card) ?? (step > 0 ? 0 : cards.length + 1)) + step)));
    board.querySelector(`.chip-letter[data-position="${card.dataset.position}"]`).focus();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (at !== null) { stepOn(); return; }
    const unplaced = cards.find((card) => !place(card));
    if (unplaced) {
      chosen.textContent = _("Give reply {letter} a place first.", { letter: letter(unplaced) });
      unplaced.focus();
      return;
    }
    const why = form.elements.justification?.value.trim() || null;
    if (!why && form.elements.justification?.required) {
      chosen.textContent = _("Please say why, in a few words.");
      form.elements.justification.focus();
      return;
    }
    await Promise.all([draft.stop(), reason?.stop()]);
    const places = said().map((each) => (rated ? each : { position: each.position, place: each.place }));
    submit({ places, ...clock.measured(), justification: why });
  });

  form.noValidate = true; // the list of a hidden reply cannot be pointed at by the browser; the sentences above are
  go(rated && cards.some((card) => !rating(card)) ? cards.findIndex((card) => !rating(card)) : null);
  clock.start();

  return {
    stop() { clock.stop(); },
    /** Letters go to a reply; numbers rate it, or give it its place; Enter goes on. */
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest?.("textarea, input:not([type=radio], [type=checkbox]), select, dialog")) return;
      const here = event.target.closest?.(".candidate");
      if (event.key === "Enter" && !event.target.closest?.("button, summary, a")) {
        event.preventDefault();
        form.requestSubmit();
      } else if (shortcutsOff) {
        return;
      } else if (at === null && LETTERS.indexOf(event.key) >= 0 && LETTERS.indexOf(event.key) < cards.length) {
        event.preventDefault();
        cards[LETTERS.indexOf(event.key)].focus();
      } else if (at !== null && /^[1-7]$/.test(event.key)) {
        event.preventDefault();
        cards[at].querySelector(`.rating input[value="${event.key}"]`).checked = true;
        changed();
      } else if (at === null && /^[0-9]$/.test(event.key) && Number(event.key) <= cards.length) {
        event.preventDefault();
        const card = here ?? cards.find((each) => !place(each));
        if (!card) return;
        put(card, Number(event.key) || null);
        (cards.find((each) => !place(each)) ?? card).focus({ preventScroll: false });
      }
    },
  };
}
