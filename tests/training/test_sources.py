"""Every default of a training job names where it comes from, in the comment beside it or right above."""

import ast
import re
from pathlib import Path

import pytest

from training import config

ROOT = Path(config.__file__).parent
# Papers and code by the short names that the docstrings of training/config explain, people by their names, or ourselves.
SOURCE = re.compile(
    r"\b(HH|IG|LA|L2|PM|PM-code|GI|N|PyTorch|Hugging Face|ours|starter|required|measured|et al\.)(?=[\s,.;:)'0-9]|$)"
)


def settings_of(path: Path) -> list[tuple[str, int, str]]:
    """Each setting of the frozen configs in a file: its name, line, and the comment that belongs to it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    first, last = item.lineno - 1, item.end_lineno or item.lineno
                    own = [line.split("#", 1)[1] for line in lines[first:last] if "#" in line]
                    above = first - 1
                    while lines[above].lstrip().startswith("#") and not lines[above].lstrip().startswith("# --"):
                        own.insert(0, lines[above].split("#", 1)[1])
                        above -= 1
                    found.append((item.target.id, item.lineno, " ".join(own)))
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_every_default_names_its_source(path: Path) -> None:
    silent = [f"{path.name}:{line} {name}" for name, line, comment in settings_of(path) if not SOURCE.search(comment)]
    assert not silent, f"no source is named for {', '.join(silent)}"


def test_the_test_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "made_up.py"
    file.write_text(
        "class MadeUpConfig:\n    # -- HH\n    a: int = 1\n    # of something; ours\n    b: int = 2\n"
        "    c: tuple[\n        int, ...\n    ] = ()  # IG 3.5\n    d: int = 3  # N steps, PMP\n"
    )
    told = {name: bool(SOURCE.search(comment)) for name, _, comment in settings_of(file)}
    assert told == {"a": False, "b": True, "c": True, "d": True}
