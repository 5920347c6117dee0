// Single keys: which action of the page a pressed key stands for, as the person has set them (/settings).
const keys = JSON.parse(document.body.dataset.shortcuts ?? "{}");
const actions = new Map(Object.entries(keys).filter(([, key]) => key).map(([action, key]) => [key, action]));

/** The action, or undefined. Whoever types into a box types, and browsers and systems keep their own combinations. */
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return undefined;
  if (event.target.closest?.("textarea, input:not([type=radio], [type=checkbox]), select, dialog")) return undefined;
  const found = actions.get(event.key.toLowerCase());
  if (found || event.shiftKey || event.key.length > 2) return found;
  // Where the row of digits or the letters write something else (French digits, Cyrillic letters), the place on the keyboard counts.
  const place = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1] ?? (/[^\x00-\x7f]/.test(event.key) ? /^Key([A-Z])$/.exec(event.code)?.[1].toLowerCase() : undefined);
  return actions.get(place);
}

/** The key of an action, or "". */
export const keyOf = (action) => keys[action] ?? "";

/** Whether the person has switched single keys off. */
export const shortcutsOff = actions.size === 0;
