"""A script and what it imports as one: each module once, behind those it needs, and no form of import or export unseen."""

from __future__ import annotations

import re

import pytest

from server import static
from server.modules import joined

FILES = {
    "page.js": 'import "./alive.js";\nimport { send, Refusal } from "./post.js";\nimport { _ as say } from "./words.js";\nsend(say);\n',
    "alive.js": 'import { send } from "./post.js";\nlet count = 0;\n',
    "post.js": 'import { _ } from "./words.js";\nexport class Refusal extends Error {}\nexport async function send(x) {}\n',
    "words.js": "const hidden = 1;\nexport function _(x) {}\nexport const N = 2;\n",
    "alone.js": "document.title;\n",
}


def test_each_module_comes_once_behind_those_it_imports() -> None:
    said = joined("page.js", FILES)
    assert re.findall(r"^const (module_\w+) = ", said, re.MULTILINE) == [
        "module_words_js", "module_post_js", "module_alive_js", "module_page_js",
    ]  # fmt: skip
    assert "return { _, N };" in said
    assert "return { Refusal, send };" in said
    assert "const { send, Refusal } = module_post_js;" in said
    assert "const { _: say } = module_words_js;" in said
    assert not re.search(r"^(import|export)\b", said, re.MULTILINE)


def test_a_script_without_imports_stays_as_it_is() -> None:
    assert joined("alone.js", FILES) == FILES["alone.js"]
    assert joined("words.js", FILES) == FILES["words.js"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('import words from "./words.js";', "does not know"),
        ('import * as words from "./words.js";', "does not know"),
        ('const words = import("./words.js");', "does not know"),
        ('export { _ } from "./words.js";', "does not know"),
        ("export default 1;", "does not know"),
        ("export let changing = 1;", "does not know"),
        ("export const { a, b } = words;", "does not know"),
        ('import { a } from "./nowhere.js";', "nowhere.js, which is not there"),
        ('import { a } from "./one.js";', "import each other"),
    ],
)
def test_what_it_does_not_know_is_refused(line: str, why: str) -> None:
    files = FILES | {"one.js": f'import {{ _ }} from "./words.js";\n{line}\n'}
    with pytest.raises(ValueError, match=why):
        joined("one.js", files)


def test_every_script_of_ours_can_be_joined() -> None:
    texts = {path.name: path.read_text() for path in static.FOLDER.glob("*.js")}
    for name, text in texts.items():
        said = joined(name, texts)
        for wanted in re.findall(r'from "\./([\w.-]+)"', text):
            assert f"const module_{wanted.replace('.', '_')} = " in said, (name, wanted)
    assert "module_outbox_js" in joined("chat.js", texts)
    # Paid time is counted by a module that nothing calls.
    assert "module_alive_js" in joined("chat.js", texts)
