"""For balancers and operators: /health says what answers, /ready whether to send people here."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from server.edge import AppSettings, OpenTransaction
from server.services import health

router = APIRouter()


@router.get("/health")
def show_health(settings: AppSettings, open_transaction: OpenTransaction) -> JSONResponse:
    found = health.check(settings, open_transaction)
    return JSONResponse(found, status_code=503 if found["status"] == "down" else 200)


@router.get("/ready")
def show_ready(settings: AppSettings, open_transaction: OpenTransaction) -> JSONResponse:
    found = health.check(settings, open_transaction)
    ready = found["status"] != "down"
    return JSONResponse({"ready": ready}, status_code=200 if ready else 503)
