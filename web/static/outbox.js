// What must not be lost: a message or a choice stays in the browser until the server has it. It is sent again with the same
// idempotency key, so that however often the connection breaks, it is stored once.
import { Refusal, send } from "./post.js";
import { _ } from "./words.js";

const WAIT_MS = [500, 1000, 2000, 4000, 8000];
const temporary = (error) => !(error instanceof Refusal) || error.status >= 500 || error.status === 429;

export class Outbox {
  /** `name` keeps people and campaigns of one browser apart; `tell` shows a sentence, or hides it when empty. */
  constructor(name, tell) {
    this.name = `whetstone:outbox:${name}`;
    this.tell = tell;
    this.wake = () => {};
    addEventListener("online", () => this.wake());
  }

  /** What was not known to have arrived when the page was left. */
  waiting() {
    const text = localStorage.getItem(this.name);
    return text === null ? null : JSON.parse(text);
  }

  /** Send until it arrives; throws Refusal when the server will not have it. */
  async post(path, body) {
    localStorage.setItem(this.name, JSON.stringify({ path, body }));
    for (let attempt = 0; ; attempt += 1) {
      try {
        const told = await send("POST", path, body);
        this.forget();
        return told;
      } catch (error) {
        if (!temporary(error)) {
          if (error.status !== 401) this.forget();
          throw error;
        }
        this.tell(_("The connection is lost. What you sent is kept here and goes out by itself when the connection is back."));
        await this.pause(WAIT_MS[Math.min(attempt, WAIT_MS.length - 1)]);
      }
    }
  }

  forget() {
    localStorage.removeItem(this.name);
    this.tell("");
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
}
