"""Every page: its template exists and compiles, and reads nothing that its Page does not declare."""

from __future__ import annotations

from dataclasses import fields

import pytest
from jinja2 import meta, nodes

import server.app  # noqa: F401 - imports every route, and with it every Page
from server.pages import Page, environment
from server.static import WEB

FRAME = {"person", "csrf_token", "path", "here", "speech", "theme", "shortcuts"}


def all_pages(base: type[Page] = Page) -> list[type[Page]]:
    found = []
    for page in base.__subclasses__():
        found += [page] * hasattr(page, "template") + all_pages(page)
    return found


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.__name__)
def test_a_template_reads_only_what_its_page_declares(page: type[Page]) -> None:
    env = environment()
    source, _, _ = env.loader.get_source(env, page.template)  # type: ignore[union-attr]
    tree = env.parse(source)
    own = {macro.name for macro in tree.find_all(nodes.Macro)} | {each.target for each in tree.find_all(nodes.Import)}
    own |= {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    undeclared = meta.find_undeclared_variables(tree) - own - set(env.globals)
    assert undeclared <= {field.name for field in fields(page)} | FRAME


@pytest.mark.parametrize("path", sorted(WEB.glob("templates/**/*.html")), ids=lambda path: path.name)
def test_every_template_compiles_and_holds_no_inline_script_or_style(path) -> None:
    environment().get_template(str(path.relative_to(WEB / "templates")))
    text = path.read_text()
    assert ' style="' not in text.replace('forbids style=""', "")
    assert "<style" not in text
    assert "<script>" not in text
    assert " onclick" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
