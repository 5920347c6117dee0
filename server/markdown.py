"""The one path from people's and models' text to HTML: CommonMark without raw HTML, then a sanitiser.

Code and tables scroll inside their own box, which the keyboard can reach and a screen reader names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import escape

from server.language import _

_TAGS = {
    "a", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_BOX = {"tabindex", "role", "aria-label"}


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    # Images are off: a picture in a reply would tell its host who read it.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    for rule in (_fence, _code_block, _table_open, _table_close):
        parser.add_render_rule(rule.__name__.removeprefix("_"), rule)
    return parser.disable("image")


def _box(name: str) -> str:
    return f'tabindex="0" role="group" aria-label="{escape(name)}"'


def _fence(by: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return by.fence(tokens, at, options, env).replace("<pre", "<pre " + _box(_("Code")), 1)


def _code_block(by: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return by.code_block(tokens, at, options, env).replace("<pre", "<pre " + _box(_("Code")), 1)


def _table_open(_by: RendererHTML, _tokens: Sequence[Token], _at: int, _options: Any, _env: Any) -> str:
    return '<div class="scroll" ' + _box(_("Table")) + "><table>\n"


def _table_close(_by: RendererHTML, _tokens: Sequence[Token], _at: int, _options: Any, _env: Any) -> str:
    return "</table></div>\n"


def to_html(text: str) -> str:
    """Safe HTML of `text`; scripts, styles, handlers, images and `javascript:` links do not survive."""
    return nh3.clean(
        _parser().render(text),
        tags=_TAGS,
        attributes={"a": {"href"}, "ol": {"start"}, "pre": _BOX, "div": _BOX},
        allowed_classes={"div": {"scroll"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
