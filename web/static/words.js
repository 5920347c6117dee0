// The sentences of the scripts in the page's language. They are written in English where they are said; in every other
// language the page brings a table of them (the JSON block #words). `{name}` is filled in after the translation.
const table = JSON.parse(document.querySelector("#words")?.textContent || "{}");
const language = document.documentElement.lang || "en";

const filled = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (place, name) => {
  const value = values[name];
  if (value === undefined) return place;
  return typeof value === "number" ? value.toLocaleString(language) : String(value);
});

/** Say a sentence: _("Wait {n} s.", { n: 3 }). */
export function _(sentence, values = {}) {
  return filled(table[sentence] ?? sentence, values);
}

/** Say a sentence about n things: ngettext("{n} answer", "{n} answers", n). */
export function ngettext(one, many, n, values = {}) {
  const category = new Intl.PluralRules(language).select(n);
  const forms = table[one] ?? { one, other: many };
  return filled(forms[category] ?? forms.other, { n, ...values });
}
