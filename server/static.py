"""Style sheets and scripts, from memory: compressed once, at an address that changes with what they say.

A page names them by `static("chat.css")`, which gives /static/VERSION/chat.css: a browser keeps that for a year and never asks
again. A script comes with the modules that it imports (`server.modules`). The plain address works as well; there a browser asks
each time whether the file has changed. A page of an earlier version gets the files of now. They are read when the first is asked
for: a change shows after a restart.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.modules import joined

WEB = Path(__file__).resolve().parent.parent / "web"
FOLDER = WEB / "static"
KEEP = "public, max-age=31536000, immutable"
ASK = "public, no-cache"


@dataclass(frozen=True)
class File:
    """One file, plain and compressed."""

    media_type: str
    content: bytes
    packed: bytes
    digest: str


@lru_cache(maxsize=1)
def files() -> dict[str, File]:
    """All of them by name."""
    contents = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file()}
    scripts = {name: content.decode() for name, content in contents.items() if name.endswith(".js")}
    return {name: _file(name, content, scripts) for name, content in contents.items()}


def _file(name: str, content: bytes, scripts: dict[str, str]) -> File:
    if name in scripts:
        content = joined(name, scripts).encode()
    # Not by mimetypes alone: what it says of .js depends on the machine, and a module of another type does not run.
    kind = {".js": "text/javascript", ".css": "text/css"}.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
    return File(
        media_type=kind or "application/octet-stream",
        content=content,
        packed=gzip.compress(content, 9, mtime=0),
        digest=hashlib.sha256(content).hexdigest()[:16],
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
