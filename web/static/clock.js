// How long somebody worked on one item: time in sight, and of it the time in which they did something. What was measured
// is evidence that is stored beside the answer; a reload goes on where it stood, and so does a tab that was closed and opened again.

const TICK_MS = 1000;
// Reading needs no key: for so long after the last sign of life somebody is still taken to be there.
const ACTIVE_MS = 30_000;
export const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart", "scroll"];

const KEPT_MS = 7 * 86_400_000; // longer than any item is lent
const PREFIX = "whetstone:clock:";

/** Forget what was measured long ago. */
function tidy() {
  const old = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX) && Date.now() - (JSON.parse(localStorage.getItem(name)).at ?? 0) > KEPT_MS);
  old.forEach((name) => localStorage.removeItem(name));
}

export class Clock {
  /** `name` tells items apart; typed and pasted characters are counted in the boxes of `form`. */
  constructor(name, form) {
    // People who share a browser are lent the same items.
    this.name = `${PREFIX}${document.querySelector("#chat").dataset.person}:${name}`;
    this.load();
    this.running = false;
    tidy();
    form.addEventListener("paste", (event) => { this.counts.pasted += event.clipboardData?.getData("text").length ?? 0; });
    form.addEventListener("input", (event) => { if (event.inputType?.startsWith("insert") && event.data) this.counts.typed += event.data.length; });
  }

  /** What was counted so far: here earlier, or in another tab with the same item. */
  load() { this.counts = JSON.parse(localStorage.getItem(this.name) ?? "null") ?? { visible: 0, active: 0, typed: 0, pasted: 0 }; }

  store() { localStorage.setItem(this.name, JSON.stringify({ ...this.counts, at: Date.now() })); }

  start() {
    if (this.running) return;
    this.running = true;
    this.alive = this.last = performance.now();
    this.wires = new AbortController();
    const { signal } = this.wires;
    const sign = () => { this.alive = performance.now(); };
    SIGNS.forEach((name) => addEventListener(name, sign, { passive: true, capture: true, signal }));
    document.addEventListener("visibilitychange", () => { this.advance(); if (document.hidden) this.store(); else this.load(); sign(); }, { signal });
    this.timer = setInterval(() => this.advance(), TICK_MS);
    addEventListener("pagehide", () => this.advance(), { signal });
  }

  /** The item is off the page: without this the clocks of a whole day would tick on beside each other. */
  stop() {
    if (!this.running) return;
    this.advance();
    this.running = false;
    clearInterval(this.timer);
    this.wires.abort();
  }

  /** Count what went by since the last look, if the page was in sight. */
  advance() {
    if (!this.running) return;
    const now = performance.now();
    const gone = now - this.last;
    this.last = now;
    // While the page is hidden browsers look seldom: a gap much longer than a tick was not spent here.
    if (document.visibilityState === "visible" && gone < 5 * TICK_MS) {
      this.counts.visible += gone;
      if (now - this.alive < ACTIVE_MS) this.counts.active += gone;
      this.store();
    }
  }

  /** {milliseconds, signals} as the API takes them; the time is the active one. */
  measured() {
    this.advance();
    const { visible, active, typed, pasted } = this.counts;
    const signals = { visible_ms: Math.round(visible), active_ms: Math.round(active), typed_chars: typed, pasted_chars: pasted };
    return { milliseconds: Math.round(active), signals };
  }
}
