// Follows the two replies while they are written.

/** `on` has text(position, piece), restart(position), done(position), ready(turn), failed(), away(bool). Returns a function that stops. */
export function follow(turnId, on) {
  const source = new EventSource(`/api/turns/${turnId}/events`);
  const hear = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  source.addEventListener("open", () => on.away(false));
  hear("text", ({ position, text }) => on.text(position, text));
  hear("restart", ({ position }) => on.restart(position));
  hear("done", ({ position }) => on.done(position));
  hear("ready", ({ turn }) => { source.close(); on.ready(turn); });
  hear("failed", () => { source.close(); on.failed(); });
  source.addEventListener("error", () => {
    // A broken connection is taken up again by the browser, from the last event; a refused one is not.
    on.away(true);
    if (source.readyState === EventSource.CLOSED) setTimeout(on.failed, 3000);
  });
  return () => source.close();
}
