// The strength scale: keys, the reply that is picked, and the time it took.

import { _ } from "./words.js";

/** Wires a form.choice; `submit` gets {scale_position, milliseconds, justification}. Returns {open, key}. */
export function wireScale(form, submit) {
  const fieldset = form.querySelector("fieldset");
  const chosen = form.querySelector(".chosen");
  const radios = [...form.querySelectorAll("input[type=radio]")];
  const started = `whetstone:read:${form.dataset.turn}`;

  // From the moment both replies are whole and the page is in sight; a reload does not start the time anew.
  const startClock = () => {
    if (document.visibilityState !== "visible") {
      document.addEventListener("visibilitychange", startClock, { once: true });
    } else if (!sessionStorage.getItem(started)) {
      sessionStorage.setItem(started, String(Date.now()));
    }
  };

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
    const began = Number(sessionStorage.getItem(started)) || Date.now();
    const justification = form.elements.justification.value.trim() || null;
    submit({ scale_position: Number(radio.value), milliseconds: Math.max(0, Date.now() - began), justification });
  });

  return {
    /** Both replies are there. */
    open() {
      fieldset.disabled = false;
      show();
      startClock();
    },
    /** A number key anywhere outside a text box chooses; Enter on the chosen step then sends. */
    key(event) {
      const radio = radios.find((each) => each.value === event.key);
      if (!radio || fieldset.disabled || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      radio.checked = true;
      radio.focus();
      show();
    },
  };
}
