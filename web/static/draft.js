// Keeps what is typed on the server at each pause, so that a reload, a crash or another browser finds it again; and in this browser
// at once, so that it is there too when the connection is away and the page is closed.
import { send } from "./post.js";
import { _ } from "./words.js";

const PAUSE_MS = 500;

export class Draft {
  /** `box` is a textarea with data-place; `tell` shows how it stands. */
  constructor(box, tell) {
    this.box = box;
    this.tell = tell;
    this.kept = box.value;
    this.name = `whetstone:draft:${document.querySelector("#chat").dataset.person}:${box.dataset.place}`;
    this.saving = Promise.resolve();
    const here = localStorage.getItem(this.name);
    if (here !== null) { // typed here, and never known to have reached the server
      box.value = here;
      this.save();
    }
    box.addEventListener("input", () => {
      localStorage.setItem(this.name, box.value);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.save(), PAUSE_MS);
    });
  }

  save(options) {
    const text = this.box.value;
    if (text === this.kept) {
      localStorage.removeItem(this.name);
      return this.saving;
    }
    const path = `/api/drafts/${encodeURIComponent(this.box.dataset.place)}`;
    this.saving = this.saving.then(() => send("PUT", path, { text }, options)).then(
      () => {
        this.kept = text;
        if (localStorage.getItem(this.name) === text) localStorage.removeItem(this.name);
        this.tell(_("Draft kept."));
      },
      () => this.tell(_("Draft kept on this device: no connection.")),
    );
    return this.saving;
  }

  /** The page goes away: save what no pause has saved. */
  leave() { this.save({ keepalive: this.box.value.length < 15000 }); }

  /** No save is under way or to come, so that none can arrive after the message itself. */
  stop() {
    clearTimeout(this.timer);
    this.kept = this.box.value;
    localStorage.removeItem(this.name);
    return this.saving;
  }
}
