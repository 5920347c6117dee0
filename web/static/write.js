// A box to write in: a demonstration, a prompt, or a better version of a reply.
import { Clock } from "./clock.js";

/** Wires a form.written; `submit` gets {text, milliseconds, signals}. Returns {stop}. */
export function wireWriting(form, submit, keep) {
  const box = form.elements.text;
  const draft = keep(box, form.querySelector(".draft-state"));
  const clock = new Clock(`${form.dataset.kind}:${form.dataset.turn || form.elements.idempotency_key.value}`, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!box.value.trim()) return;
    await draft.stop();
    submit({ text: box.value, ...clock.measured() });
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  clock.start();
  return { stop() { clock.stop(); } };
}
