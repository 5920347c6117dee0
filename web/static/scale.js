// The strength scale: the reply that is picked, and the time it took.
import { Clock } from "./clock.js";
import { _ } from "./words.js";

/** Wires a form.choice; `submit` gets {scale_position, verdict, milliseconds, signals, justification}. Returns {open, stop, choose}. */
export function wireScale(form, submit) {
  const fieldset = form.querySelector("fieldset");
  const chosen = form.querySelector(".chosen");
  const radios = [...form.querySelectorAll("input[type=radio]")];
  // It runs from the moment both replies are whole; a reload goes on with it.
  const clock = new Clock(`turn:${form.dataset.turn}`, form);

  const show = () => {
    const radio = radios.find((each) => each.checked);
    form.querySelectorAll(".candidate").forEach((card) => card.classList.toggle("picked", card.dataset.position === radio?.dataset.side));
    chosen.classList.toggle("set", Boolean(radio));
    chosen.textContent = radio ? `${radio.dataset.sentence}.` : _("Choose a step, then send.");
  };

  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const radio = radios.find((each) => each.checked);
    if (!radio || fieldset.disabled) return;
    const box = form.elements.justification;
    const reason = box?.value.trim() || null;
    if ("asksWhy" in radio.dataset && !reason) { // what is bad about both is all that such an answer can teach
      box.closest("details").open = true;
      box.focus();
      chosen.textContent = _("Please say why, in a few words.");
      return;
    }
    const placed = /^\d+$/.test(radio.value);
    submit({
      scale_position: placed ? Number(radio.value) : null,
      verdict: placed ? "picked" : radio.value,
      ...clock.measured(),
      justification: reason,
    });
  });

  return {
    /** Both replies are there. */
    open() {
      fieldset.disabled = false;
      show();
      clock.start();
    },
    /** The page shows something else now. */
    stop() { clock.stop(); },
    /** A step by its key; Enter on the chosen step then sends. */
    choose(radio) {
      radio.checked = true;
      radio.focus();
      show();
    },
  };
}
