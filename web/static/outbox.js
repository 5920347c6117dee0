// What must not be lost: messages and answers stay in the browser, in order, until the server has them. Each is sent again with
// its own idempotency key, so that however often the connection breaks, it is stored once. The list is one per person, shared by
// all tabs; one tab at a time sends. What the server refuses stays in sight with the reason until it is put away.
import { Refusal, send } from "./post.js";
import { _, ngettext } from "./words.js";

const WAIT_MS = [500, 1000, 2000, 4000, 8000, 15_000, 30_000];
const PATIENCE_MS = 60_000; // a connection that only seems to be there
const SHOWN_CHARS = 60;
const temporary = (error) => error instanceof Refusal ? error.status >= 500 || error.status === 429 : error instanceof TypeError || error instanceof DOMException;

/** What an entry is, for the person who made it. */
function describe({ path, body }, most = SHOWN_CHARS) {
  const kind = path.split("/").at(-1);
  const text = (body.text ?? body.note ?? "").replace(/\s+/g, " ").trim();
  const begins = text.length > most ? `${text.slice(0, most)}…` : text;
  if (kind === "comparison" && body.scale_position) return _("Choice: step {n} of the scale", { n: body.scale_position });
  if (kind === "comparison") return body.verdict === "tie" ? _("Choice: both are about equal") : _("Choice: both are bad");
  if (kind === "messages") return _("Message: {text}", { text: begins });
  if (kind === "ranking") return [_("Ranking"), orderOf(body.places)].filter(Boolean).join(": ");
  if (kind === "skip") return _("Skipped");
  if (kind === "withdraw") return _("Prompt taken back");
  if (kind === "report") return _("Report: {text}", { text: begins || "–" });
  if (kind === "undo") return _("Choice taken back");
  return _("Text: {text}", { text: begins });
}

/** "B 1, A 2, C 2": each reply's letter with its place, the best first. */
function orderOf(places = []) {
  const placed = places.filter((each) => each.place).sort((one, other) => one.place - other.place);
  return placed.map((each) => `${"ABCDEFGHI"[each.position]} ${each.place}`).join(", ");
}

function element(name, text, ...inside) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...inside);
  return made;
}

export class Outbox {
  /** `place` is where the list is shown; `on.delivered(told)` and `on.refused(entry, error)` hear of what an earlier page had left. */
  constructor(person, place, on) {
    this.name = `whetstone:outbox:${person}`;
    this.on = on;
    this.pending = new Map(); // id to what this page waits for
    this.wake = () => {};
    this.said = element("div");
    this.said.setAttribute("role", "status");
    this.refused = element("ul");
    place.append(this.said, this.refused);
    addEventListener("online", () => this.wake());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.wake(); });
    addEventListener("storage", (event) => { if (event.key === this.name) this.hearFromOutside(); });
    this.show();
  }

  read() { return JSON.parse(localStorage.getItem(this.name) ?? "[]"); }

  /** Change the list as it is now: another tab may have written since. */
  write(change) {
    const list = change(this.read());
    if (list.length) localStorage.setItem(this.name, JSON.stringify(list));
    else localStorage.removeItem(this.name);
    this.show();
  }

  waiting() { return this.read().filter((entry) => !entry.error); }

  /** Whether something could not be sent: here, in another tab, or before the page was left. */
  get away() { return this.waiting().some((entry) => entry.failures); }

  /** Keep it, send it after what is there already; resolves with the answer, throws Refusal when the server will not have it. */
  post(path, body, onAway = () => {}) {
    const entry = { id: crypto.getRandomValues(new Uint32Array(4)).join("-"), path, body, where: document.querySelector("h1")?.textContent ?? "" };
    this.write((list) => [...list, entry]);
    return new Promise((resolve, reject) => {
      this.pending.set(entry.id, { resolve, reject, onAway });
      if (this.away) onAway();
      this.run();
    });
  }

  /** Send what is waiting, in order, until nothing is. */
  async run() {
    if (this.running) { this.again = true; return; }
    this.running = true;
    const work = () => this.sendAll();
    try {
      // Without locks (plain http) two tabs may send the same thing; its key makes that one.
      await (navigator.locks ? navigator.locks.request(this.name, work) : work());
    } finally {
      this.running = false;
      if (this.again) { this.again = false; this.run(); }
    }
  }

  async sendAll() {
    for (let failures = 0; ;) { // of this attempt; the entry counts all of its own
      const [entry] = this.waiting();
      if (!entry) break;
      try {
        const told = await send("POST", entry.path, entry.body, { signal: AbortSignal.timeout(PATIENCE_MS) });
        failures = 0;
        // What was refused at this place has been mended by this.
        this.write((list) => list.filter((each) => each.id !== entry.id && !(each.error && each.path === entry.path)));
        this.settle(entry.id, (waiter) => waiter.resolve(told), () => this.on.delivered(told));
      } catch (error) {
        if (error.status === 401) { // kept until they are signed in again
          this.write((list) => list.map((each) => ({ ...each, failures: 0 })));
          this.pending.forEach((waiter) => waiter.reject(error));
          this.pending.clear();
          return;
        }
        if (!temporary(error) && !(error instanceof Refusal)) throw error;
        if (temporary(error)) {
          this.write((list) => list.map((each) => each.id === entry.id ? { ...each, failures: (each.failures ?? 0) + 1 } : each));
          this.pending.forEach((waiter) => waiter.onAway());
          await this.pause(WAIT_MS[Math.min(failures, WAIT_MS.length - 1)]);
          failures += 1;
        } else {
          this.write((list) => list.map((each) => each.id === entry.id ? { ...each, error: error.message, code: error.code, status: error.status } : each));
          this.settle(entry.id, (waiter) => waiter.reject(error), () => this.on.refused(entry, error));
        }
      }
    }
  }

  settle(id, ours, others) {
    const waiter = this.pending.get(id);
    this.pending.delete(id);
    if (waiter) ours(waiter);
    else others();
  }

  /** Another tab has sent what this one waits for, or could not. */
  hearFromOutside() {
    this.show();
    if (this.away) this.pending.forEach((waiter) => waiter.onAway());
    const now = new Map(this.read().map((entry) => [entry.id, entry]));
    for (const id of [...this.pending.keys()]) {
      const entry = now.get(id);
      if (!entry) this.settle(id, (waiter) => waiter.resolve(null), () => {});
      else if (entry.error) this.settle(id, (waiter) => waiter.reject(new Refusal(entry.status, { message: entry.error, code: entry.code })), () => {});
    }
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }

  /** The list in sight: what waits while the connection is away, and what was refused. */
  show() {
    const list = this.read();
    const waiting = list.filter((entry) => !entry.error);
    const line = (entry, most) => [element("span", describe(entry, most)), ...(entry.where ? [" ", element("small", entry.where)] : [])];
    if (this.away && waiting.length) {
      this.said.replaceChildren(
        element("p", _("The connection is lost. What you sent is kept here, also when you close this page, and goes out by itself when the connection is back.")),
        element("p", ngettext("{n} thing is waiting:", "{n} things are waiting:", waiting.length)),
        element("ol", "", ...waiting.map((entry) => element("li", "", ...line(entry)))),
      );
    } else this.said.replaceChildren();
    this.refused.hidden = !list.some((entry) => entry.error);
    this.refused.replaceChildren(...list.filter((entry) => entry.error).map((entry) => {
      const again = element("button", _("Send again"));
      again.addEventListener("click", () => { this.write((all) => all.map((each) => each.id === entry.id ? { ...each, error: undefined, failures: 0 } : each)); this.run(); });
      const away = element("button", _("Put away"));
      away.addEventListener("click", () => this.write((all) => all.filter((each) => each.id !== entry.id)));
      // What is done already is refused when it is sent again, unless that is taken back; then the page asks anew.
      const buttons = entry.code === "already_done" ? element("span", "", away) : element("span", "", again, " ", away);
      [again, away].forEach((button) => { button.className = "small"; button.type = "button"; });
      const reason = entry.body.justification ? [element("blockquote", entry.body.justification)] : [];
      const item = element("li", "", element("p", "", ...line(entry, Infinity)), ...reason, element("p", entry.error), buttons);
      item.className = "notice bad";
      item.setAttribute("role", "alert");
      return item;
    }));
  }
}
