"""One module a subject: parse, call one service, render a page. `ROUTERS` is what the application includes."""

from __future__ import annotations

from fastapi import APIRouter

from server.routes import api_chat, session

ROUTERS: list[APIRouter] = [
    session.router,
    api_chat.router,
]
