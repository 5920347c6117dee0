"""Style sheets and scripts, from memory: compressed once, at an address that changes with what they say.

A page names them by `static("chat.css")`, which gives /static/VERSION/chat.css: a browser keeps that for a year and never asks
again. Modules import one another by relative paths, so all of a page's are of one version. The plain address works as well, for
what no page names; a browser asks each time whether it has changed. A page of an earlier version gets the files of now.
They are read when the first is asked for: a change shows after a restart.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

WEB = Path(__file__).resolve().parent.parent / "web"
FOLDER = WEB / "static"
KEEP = "public, max-age=31536000, immutable"
ASK = "public, no-cache"
_IMPORT = re.compile(rb'^\s*(?:import|export)\s[^"\']*["\']\./([\w.-]+)["\']', re.MULTILINE)


@dataclass(frozen=True)
class File:
    """One file, plain and compressed."""

    media_type: str
    content: bytes
    packed: bytes
    digest: str
    imports: tuple[str, ...]  # the modules beside it that it imports by itself


@lru_cache(maxsize=1)
def files() -> dict[str, File]:
    """All of them by name."""
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.is_file()}


def _read(path: Path) -> File:
    content = path.read_bytes()
    # Not by mimetypes alone: what it says of .js depends on the machine, and a module of another type does not run.
    kind = {".js": "text/javascript", ".css": "text/css"}.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return File(
        media_type=kind or "application/octet-stream",
        content=content,
        packed=gzip.compress(content, 9, mtime=0),
        digest=hashlib.sha256(content).hexdigest()[:16],
        imports=tuple(name.decode() for name in _IMPORT.findall(content)) if path.suffix == ".js" else (),
    )


@lru_cache(maxsize=1)
def version() -> str:
    """The same for the same names and contents."""
    said = "\n".join(f"{name} {file.digest}" for name, file in files().items())
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def address(name: str) -> str:
    """Where a page finds the file; KeyError when there is none."""
    files()[name]
    return f"/static/{version()}/{name}"


def modules(name: str) -> list[str]:
    """The addresses of all modules that one imports, and those import: a browser that knows them asks for all at once."""
    found: dict[str, None] = {}
    waiting = list(files()[name].imports)
    while waiting:
        each = waiting.pop(0)
        if each not in found:
            found[each] = None
            waiting += files()[each].imports
    return [address(each) for each in found]


class Static:
    """The ASGI application below /static."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405)
        below = scope["path"].removeprefix(scope["root_path"]).lstrip("/")
        asked, _, name = below.rpartition("/")
        file = files().get(name)
        if file is None or "/" in asked:
            raise HTTPException(404)
        await _answer(file, Headers(scope=scope), current=asked == version())(scope, receive, send)


def _answer(file: File, headers: Headers, *, current: bool) -> Response:
    packs = len(file.packed) < len(file.content) and _takes_gzip(headers.get("accept-encoding", ""))
    tag = f'"{file.digest}{"-gz" if packs else ""}"'
    told = {"Cache-Control": KEEP if current else ASK, "ETag": tag, "Vary": "Accept-Encoding"}
    if tag in (each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=told)
    if packs:
        told["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.content, headers=told, media_type=file.media_type)


def _takes_gzip(accepted: str) -> bool:
    for each in accepted.lower().split(","):
        name, _, weight = each.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
