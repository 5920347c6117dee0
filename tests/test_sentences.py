"""No sentence that a crowdworker can meet stands in English alone: in templates, scripts and what services raise.

Pages and services that only researchers and admins meet are in English, and are named here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import nodes

from server.pages import environment
from server.static import WEB

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = WEB / "templates"
ENGLISH_TEMPLATES = ("admin/", "rounds/", "snapshots/", "wins/", "home/_numbers.html", "_parts.html")
ENGLISH_MODULES = {
    "server/services": {
        "agreement", "audit", "best_of", "instructions", "campaign_settings", "campaigns", "checks", "item_lines", "items", "kept", "conversations", "dataset_edits", "dataset_member", "dataset_rankings",
        "dataset_selection", "dataset_split", "datasets", "deployments", "jobs", "ledger", "demonstration_pairs", "lost", "members", "outlook", "panel_roster", "panel_settings", "panel_webhooks", "payrolls", "prolific", "prompt_review", "registry", "roster", "round_settings",
        "rounds", "runs", "schedules", "seed", "selection", "serving", "simulated", "statistics", "strengths", "wins",
    },
    "server/routes": {
        "admin_campaigns", "admin_conversations", "admin_data", "admin_door", "admin_notices", "admin_panels", "admin_pay", "admin_people", "admin_prompts", "admin_reports", "api_rounds", "jobs", "rounds", "snapshots", "wins",
    },
}  # fmt: skip
ERRORS = {"BadInput", "Conflict", "NotAllowed", "NotFound", "NotSignedIn", "TooLarge", "TooMany", "Unavailable"}
# The frame says these of and to researchers and admins; the last is our name.
FRAME_WORDS = {
    "Rounds",
    "Snapshots",
    "Wins",
    "Data",
    "People",
    "Campaigns",
    "Prompts",
    "Reports",
    "Jobs",
    "Pay",
    "Panels",
    "Whetstone",
}
WORD = re.compile(r"[A-Za-z]{2,}")
SPOKEN_ATTRIBUTES = re.compile(r'\b(?:aria-label|aria-description|placeholder|title|alt)="([^"]*)"')


def templates() -> list[Path]:
    """Those that a crowdworker can meet."""
    return [
        path
        for path in sorted(TEMPLATES.glob("**/*.html"))
        if not str(path.relative_to(TEMPLATES)).startswith(ENGLISH_TEMPLATES)
    ]


def bare_text(source: str) -> list[str]:
    """English between the tags and in the attributes that are shown or read out, outside of any expression."""
    source = re.sub(r"\{% block main_class %\}[a-z -]*\{% endblock %\}", " ", source)
    plain = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", source, flags=re.DOTALL)
    plain = re.sub(r"<kbd[^>]*>[^<]*</kbd>|<!doctype[^>]*>", " ", plain)  # names of keys are names
    spoken = SPOKEN_ATTRIBUTES.findall(plain)
    between = re.sub(r"<[^>]*>", "\n", plain).split("\n")
    return [text.strip() for text in [*spoken, *between] if WORD.search(text) and text.strip(" ·") not in FRAME_WORDS]


def bare_constants(source: str) -> list[str]:
    """Texts in expressions that look like something said and are not inside `_()` or `ngettext()`."""
    tree = environment().parse(source)
    said = {
        id(constant)
        for call in tree.find_all(nodes.Call)
        if isinstance(call.node, nodes.Name) and call.node.name in ("_", "ngettext")
        for constant in call.find_all(nodes.Const)
    }
    return [
        constant.value
        for constant in tree.find_all(nodes.Const)
        if id(constant) not in said and isinstance(constant.value, str)
        if re.search(r"[A-Z][a-z]+|[a-z]{2,} [a-z]{2,}", constant.value) and constant.value not in FRAME_WORDS
        if not constant.value.startswith(("/", "<", "?"))
    ]


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_templates_say_everything_through_the_translation(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not bare_text(source)
    assert not bare_constants(source)


def test_the_search_for_bare_english_finds_it() -> None:
    assert bare_text('<p>{{ name }} is here</p><img alt="A cat">') == ["A cat", "is here"]
    assert bare_text('<p class="muted">{{ _("All is well") }} <kbd>Enter</kbd> · 5</p>') == []
    assert bare_constants('{{ parts.button("Send it", kind="primary") }}{{ _("Well said") }}') == ["Send it"]


def modules() -> list[Path]:
    """Services and routes that a crowdworker's request can reach, and what surrounds all requests."""
    found = [ROOT / "server" / name for name in ("app.py", "edge.py", "shell.py")]
    for folder, english in ENGLISH_MODULES.items():
        found += [path for path in sorted((ROOT / folder).glob("**/*.py")) if path.stem not in english]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_errors_speak_the_language_of_who_meets_them(path: Path) -> None:
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if name in ERRORS and isinstance(first, ast.Constant):
            wrong.append(f"{node.lineno}: {ast.unparse(node)}")
        # Put together before the translation, a sentence could not be found.
        if (
            name in ("_", "ngettext", "later")
            and isinstance(node.func, ast.Name)
            and isinstance(first, ast.JoinedStr | ast.BinOp)
        ):
            wrong.append(f"{node.lineno}: {ast.unparse(node)}")
        if (
            name in ERRORS
            and isinstance(first, ast.JoinedStr)
            and any(
                isinstance(part, ast.Constant) and re.search(r"[a-z]{2,} [a-z]", str(part.value))
                for part in first.values
            )
        ):
            wrong.append(f"{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def test_scripts_say_everything_through_the_translation() -> None:
    """Sentences in scripts, outside of comments; `rounds.js` serves a page that is in English."""
    wrong = []
    for path in sorted((WEB / "static").glob("*.js")):
        if path.name in ("rounds.js", "words.js"):
            continue
        code = re.sub(r"//.*|/\*.*?\*/", "", path.read_text(encoding="utf-8"))
        code = re.sub(r'\b(?:_|ngettext)\(\s*"(?:[^"\\]|\\.)*"(?:,\s*"(?:[^"\\]|\\.)*")?', "", code)
        wrong += [f"{path.name}: {text}" for text in re.findall(r'["`]([^"`\n]*[A-Za-z]{2,} [^"`\n]*[A-Za-z]{2,}[ .][^"`\n]*)["`]', code)
                  if re.match(r"[A-Z]", text)]  # fmt: skip
    assert not wrong
