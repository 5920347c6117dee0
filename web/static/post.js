// Requests to our own JSON API.
import { _ } from "./words.js";

const token = () => document.querySelector("meta[name=csrf-token]").content;

/** The server said no; `message` is its sentence for the person. */
export class Refusal extends Error {
  constructor(status, error) {
    super(error?.message ?? _("The server answered {status}. Please try again.", { status: String(status) }));
    this.status = status;
    this.code = error?.code ?? "unknown";
  }
}

/** Send JSON. Throws Refusal when the server said no, TypeError when it could not be reached. */
export async function send(method, path, body, options = {}) {
  const answer = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": token() },
    body: body === undefined ? undefined : JSON.stringify(body),
    ...options,
  });
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refusal(answer.status, told?.error);
  return told;
}
