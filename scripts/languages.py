"""Write web/languages/*.po anew from the sentences in the sources, keeping every translation that still fits.

    .venv/bin/python scripts/languages.py            after changing a sentence; new ones come without a translation,
                                                     which tests/server/test_language.py does not let pass
    .venv/bin/python scripts/languages.py --check    exit with 1 if the files would change

Sentences stand in `_()`, `ngettext()` and `later()` in server/ and workers/, in `_()` and `ngettext()` in templates and scripts.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "web" / "languages"
SOURCES = (
    ("server/**/*.py", "python"),
    ("workers/**/*.py", "python"),
    ("web/templates/**/*.html", "jinja2.ext:babel_extract"),
    ("web/static/*.js", "javascript"),
)
KEYWORDS = {"_": None, "later": None, "ngettext": (1, 2)}
# They would differ at every run.
LEFT_OUT = ("POT-Creation-Date", "PO-Revision-Date", "Last-Translator", "Language-Team", "Generated-By")


def extract() -> Catalog:
    """All sentences of the sources, each with the files that say it."""
    found = Catalog(project="Whetstone", charset="utf-8", fuzzy=False, header_comment="# Whetstone, Apache-2.0")
    for pattern, method in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            for _line, sentence, comments, _context in extract_from_file(
                method, path, keywords=KEYWORDS, comment_tags=("Translators:",), options={"silent": "false"}
            ):
                found.add(sentence, locations=[(name, 1)], auto_comments=comments)
    return found


def render(catalog: Catalog) -> str:
    """The file's text: sorted by file, without line numbers and dates, so that only sentences make a difference."""
    written = BytesIO()
    write_po(written, catalog, width=120, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
    lines = written.getvalue().decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(tuple(f'"{name}' for name in LEFT_OUT)))


def brought_up_to_date(path: Path, template: Catalog) -> str:
    """A language's catalog with the sentences of now; a changed sentence is a new one."""
    with path.open("rb") as file:
        catalog = read_po(file, locale=path.stem.replace("-", "_"))
    catalog.fuzzy = False
    catalog.update(template, no_fuzzy_matching=True, update_header_comment=True)
    return render(catalog)


def main() -> None:
    """Write the files, or compare them."""
    template = extract()
    texts = {path: brought_up_to_date(path, template) for path in sorted(FOLDER.glob("*.po"))}
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        names = ", ".join(path.name for path in changed)
        sys.exit(f"web/languages would change: {names}; run scripts/languages.py" if changed else 0)
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    print(f"{len(template)} sentences, {len(texts)} languages, {len(changed)} files changed")


if __name__ == "__main__":
    main()
