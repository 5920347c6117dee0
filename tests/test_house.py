"""The rules of the house, as tests: who may import whom, how large a file may grow, and that the documents are true."""

from __future__ import annotations

import ast
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("server", "workers", "training", "simulation", "migrations", "bench", "tests", "scripts")
MOST_LINES = 400

# What each package may import of ours.
MAY_IMPORT = {
    "training": {"training"},
    "server": {"server"},
    "workers": {"workers", "training", "server"},
    "simulation": {"simulation", "training"},
    "migrations": {"server", "migrations"},
}
# Of the server, workers see rows and never pages.
WORKERS_MAY = {"language", "settings", "db", "models", "services", "transaction", "errors", "embedded"}
# Libraries that must not be loaded where they have no business.
MAY_NOT_LOAD = {
    "training": {"sqlalchemy", "fastapi", "celery", "redis", "psycopg", "alembic"},
    "server": {"torch", "transformers", "safetensors", "tokenizers"},
    "simulation": {"sqlalchemy", "celery", "redis", "psycopg"},
}
# Inside the server an import may only go to the right.
LAYERS = ("app", "routes", "pages", "edge", "services", "models", "db")


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows or would add, so that a new file is judged before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in sorted(listed.stdout.split("\n")) if name and (ROOT / name).is_file()]


def sources() -> list[Path]:
    """Every Python file of the house."""
    return [path for path in tracked("*.py") if path.relative_to(ROOT).parts[0] in PACKAGES]


def imports(path: Path) -> list[str]:
    """The dotted names that a file imports, wherever in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def name_of(path: Path) -> str:
    """The file as others see it."""
    return str(path.relative_to(ROOT))


def test_there_are_sources_to_judge() -> None:
    assert len(sources()) > 50


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_only_what_they_may(package: str) -> None:
    ours = set(MAY_IMPORT) | {"tests", "bench", "simulation"}
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] == package
        for name in imports(path)
        if (top := name.split(".")[0]) in ours - MAY_IMPORT[package] or top in MAY_NOT_LOAD.get(package, set())
    ]
    assert not wrong


def test_workers_see_rows_and_never_pages() -> None:
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] == "workers"
        for name in imports(path)
        if name.startswith("server.") and name.split(".")[1] not in WORKERS_MAY
    ]
    assert not wrong


def test_inside_the_server_imports_go_down() -> None:
    wrong = []
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "server" or parts[1] not in LAYERS:
            continue
        above = set(LAYERS[: LAYERS.index(parts[1])])
        # edge asks the people service who is signed in; nothing below services may look up.
        for name in imports(path):
            pieces = name.split(".")
            if pieces[0] == "server" and len(pieces) > 1 and pieces[1] in above:
                wrong.append(f"{name_of(path)} imports {name}")
    assert not wrong


def test_no_import_cycles() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    graph = {
        module: {
            target
            for name in imports(path)
            for target in (name, name.rpartition(".")[0])
            if target in modules and target != module
        }
        for module, path in modules.items()
    }
    # A package's __init__ may gather its members; a member importing the package for a sibling is no cycle of its own.
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> list[str] | None:
        state[module] = 1
        for target in sorted(graph[module]):
            if state.get(target) == 1 and target in trail and not module.startswith(f"{target}."):
                return [*trail[trail.index(target) :], target]
            if target not in state and (found := visit(target, [*trail, target])):
                return found
        state[module] = 2
        return None

    for module in sorted(graph):
        if module not in state:
            cycle = visit(module, [module])
            assert cycle is None, " -> ".join(cycle or [])


@pytest.mark.parametrize("home", ["server/services", "training"])
def test_no_cycles_among_the_folders_of(home: str) -> None:
    """A folder is a room: what is inside may use each other, but two rooms never both need one another."""
    base = home.split("/")
    rooms = {folder.name for folder in (ROOT / home).iterdir() if (folder / "__init__.py").is_file()}
    needs: dict[str, set[str]] = {room: set() for room in rooms}
    for path in sources():
        parts = path.relative_to(ROOT).parts
        if list(parts[: len(base)]) == base and parts[len(base)] in rooms:
            used = {name.split(".")[len(base)] for name in imports(path) if name.split(".")[: len(base)] == base}
            needs[parts[len(base)]] |= (used & rooms) - {parts[len(base)]}
    assert len(rooms) > 5
    while free := {room for room, needed in needs.items() if not needed}:
        needs = {room: needed - free for room, needed in needs.items() if room not in free}
    assert not needs


def test_files_stay_small() -> None:
    large = {name_of(path): lines for path in [*sources(), *tracked("web/*.js", "web/*.css", "web/*.html")]
             if (lines := path.read_text(encoding="utf-8").count("\n")) > MOST_LINES and "migrations/versions" not in name_of(path)}  # fmt: skip
    assert not large


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{name_of(path)}:{number}"
        for path in [*sources(), *tracked("web/*.js", "web/*.html")]
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not found


def test_only_the_edge_opens_transactions_and_services_never_end_them() -> None:
    """One transaction a request: routes and services get it, and neither commits nor opens another."""
    wrong = []
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "server" or parts[1] not in ("routes", "services", "models"):
            continue
        opens = {
            "server.transaction.transaction",
            "server.transaction.transaction_of",
            "server.db.session_factory",
            "server.db.engine_for",
        }
        wrong += [f"{name_of(path)} imports {name}" for name in imports(path) if name in opens]
        wrong += [
            f"{name_of(path)}:{node.lineno} calls {node.func.attr}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if node.func.attr in ("commit", "rollback") and isinstance(node.func.value, ast.Name)
            if node.func.value.id in ("db", "session")
        ]
    assert not wrong


def test_names_say_what_is_meant() -> None:
    """No drawer for odds and ends, and no second word for what the glossary has one for."""
    vague = re.compile(r"(^|_)(utils?|helpers?|manager|handle[rd]?)($|_)|(Util|Helper|Manager|Handler)s?$")
    synonym = re.compile(
        r"annotat(or|ion)(?!s$|_map)|labell?er|\brater|utterance|(^|_)votes?($|_)|judgement", re.IGNORECASE
    )
    wrong = []
    for path in sources():
        if path.relative_to(ROOT).parts[0] == "tests":  # they name what they are about, a job's helpers too
            continue
        names = {path.stem}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
        names -= {"get_route_handler"}  # FastAPI's name for what a route's own class may put in its place
        wrong += [f"{name_of(path)}: {name}" for name in sorted(names) if vague.search(name) or synonym.search(name)]
    assert not wrong


def test_what_is_caught_whole_is_raised_again_or_recorded() -> None:
    """`except Exception` hides what nobody foresaw, unless the handler raises or says where it is recorded."""
    wrong = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            whole = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            ends = any(isinstance(inner, ast.Raise) for inner in ast.walk(node)) or "os._exit" in ast.unparse(node)
            if whole and not ends and "recorded" not in lines[node.lineno - 1]:
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert not wrong


def test_nothing_can_run_what_it_should_only_read() -> None:
    """Weights as safetensors, HTML through one sanitiser, no page of ours trusts text."""
    pickles = re.compile(r"\b(torch\.load|torch\.save|pickle\.loads?|import pickle|yaml\.load)\b")
    ours = [path for path in sources() if path.relative_to(ROOT).parts[0] != "tests"]
    wrong = [name_of(path) for path in ours if pickles.search(path.read_text("utf-8"))]
    wrong += [name_of(path) for path in tracked("web/*.html") if re.search(r"\|\s*safe\b", path.read_text("utf-8"))]
    wrong += [
        name_of(path)
        for path in sources()
        if path.relative_to(ROOT).parts[0] == "server"
        and "Markup(" in path.read_text("utf-8")
        and path.name != "pages.py"
    ]
    assert not wrong


def test_readme_tree_is_true() -> None:
    """The map at the door names every folder and file it shows, and every top-level folder is on it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- map -->\n```\n(.*?)```", readme, re.DOTALL)
    assert block, "README.md has no map between <!-- map --> and a code block"
    shown = [line.split()[0] for line in block.group(1).splitlines() if line.strip() and not line.startswith(" ")]
    missing = [name for name in shown if not (ROOT / name).exists()]
    assert not missing
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    unnamed = {folder for folder in folders if not folder.startswith(".")} - {name.split("/")[0] for name in shown}
    assert not unnamed


def test_every_setting_is_documented() -> None:
    guide = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    names = set(
        re.findall(
            r'(?:given|environ|values)(?:\.get\(|\[)"([A-Z_]+)"',
            (ROOT / "server" / "settings.py").read_text(encoding="utf-8"),
        )
    )
    assert {"DATABASE_URL", "REDIS_URL"} <= names
    assert not {name for name in names if f"`{name}`" not in guide}


def test_documents_link_to_what_exists() -> None:
    broken = [
        f"{name_of(page)} -> {target}"
        for page in [ROOT / "README.md", *tracked("docs/*.md")]
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_changelog_names_the_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert f"## {version.group(1)}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_decisions_name_every_dependency() -> None:
    """Why a library was chosen is written down for each direct dependency."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert block
    names = [re.split(r"[\[<>=!~]", name)[0] for name in re.findall(r'"([^"]+)"', block.group(1))]
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").lower()
    assert not [name for name in names if f"**{name.lower()}**" not in decisions]


def test_migration_files_are_in_one_line() -> None:
    """Each migration follows exactly one other: two heads would stop every upgrade."""
    pairs = []
    for path in tracked("migrations/versions/*.py"):
        text = path.read_text(encoding="utf-8")
        revision = re.search(r"^revision = ['\"](.+)['\"]", text, re.MULTILINE)
        down = re.search(r"^down_revision = (?:['\"](.+)['\"]|None)", text, re.MULTILINE)
        assert revision, path
        assert down, path
        pairs.append((path.name, revision.group(1), down.group(1)))
    pairs.sort()
    assert pairs[0][2] is None
    assert all(later[2] == earlier[1] for earlier, later in pairwise(pairs))
