"""A page's script and all modules that it imports as one: a browser then waits for one answer and not for a dozen.

Each module becomes a function that runs once, after those it imports, and gives back what it exports. Only the forms that our
scripts are written in are known, `import { a, b } from "./name.js";` and `export` before a function, a class or a const, at the
beginning of a line; any other raises ValueError when the file is read, and every script is read by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import (?:\{([^}]*)\} from )?"\./([\w.-]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:(?:async )?function|class|const) (\w+))", re.MULTILINE)
_UNKNOWN = re.compile(r"^(?:import|export)\b.*|\bimport(?:\(|\.meta).*", re.MULTILINE)


def joined(name: str, texts: Mapping[str, str]) -> str:
    """The script `name` with its imports; `texts` holds all files by name."""
    if not _IMPORT.search(texts[name]):
        return texts[name]
    return "".join(_as_function(each, texts[each]) for each in _in_order(name, texts))


def _in_order(name: str, texts: Mapping[str, str], above: tuple[str, ...] = ()) -> list[str]:
    """Every module once, behind those it imports."""
    if name in above:
        raise ValueError(f"{' imports '.join((*above, name))}: modules that import each other cannot be joined")
    if name not in texts:
        raise ValueError(f"{above[-1]} imports {name}, which is not there")
    found: dict[str, None] = {}
    for _, wanted in _IMPORT.findall(texts[name]):
        found |= dict.fromkeys(_in_order(wanted, texts, (*above, name)))
    return [*found, name]


def _as_function(name: str, text: str) -> str:
    exports = ", ".join(_EXPORT.findall(text))
    body = _EXPORT.sub("", _IMPORT.sub(_taken, text))
    if unknown := _UNKNOWN.search(body):
        raise ValueError(f"{name}: {unknown.group().strip()!r} is a form that server/modules.py does not know")
    return f"const {_variable(name)} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n"


def _taken(found: re.Match[str]) -> str:
    """An import as a line that takes the names from their module."""
    names, module = found.groups()
    return f"const {{{names.replace(' as ', ': ')}}} = {_variable(module)};" if names else ""


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name)
