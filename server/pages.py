"""Turning a page's dataclass into HTML.

A page is a contract: a frozen dataclass beside its route whose fields are all that its template may read. Undefined names
raise, so a template cannot quietly show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from server.edge import Known, Visitor
from server.markdown import to_html

WEB = Path(__file__).resolve().parent.parent / "web"


@dataclass(frozen=True)
class Page:
    """The base of every page: its template (below web/templates) and its title."""

    template: ClassVar[str]
    title: str


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Autoescaping everywhere; `markdown` is the only way from text to HTML, and it is sanitised."""
    env = Environment(
        loader=FileSystemLoader(WEB / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["markdown"] = lambda text: Markup(to_html(text))  # noqa: S704 - sanitised in server.markdown
    env.filters["ago"] = ago
    env.filters["percent"] = lambda share, digits=0: "–" if share is None else f"{100 * share:.{digits}f}%"
    env.filters["when"] = lambda at: "–" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return env


def ago(at: datetime | None) -> str:
    """How long since `at`, in the largest fitting unit."""
    if at is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def render(request: Request, who: Visitor, page: Page, *, status: int = 200) -> HTMLResponse:
    """Render `page`; the frame also gets the visitor, their CSRF token and the path asked for."""
    values: dict[str, Any] = {field.name: getattr(page, field.name) for field in fields(page)}
    known: Known | None = getattr(request.state, "known", None)
    frame = {
        "person": who.person or known,
        "csrf_token": who.csrf_token or (known.csrf_token if known else ""),
        "path": request.url.path,
    }
    html = environment().get_template(page.template).render(**values, **frame)
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})
