"""A choice as a page sends it."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from server.routes.row_id import LARGEST
from server.routes.text_limit import LONGEST_TEXT
from server.services.ways.swift import Given


class ComparisonBody(BaseModel):
    """A choice on the scale, 1 .. 2 x grades from left to right as shown; or the verdict `tie` or `both_bad` without a place.

    `milliseconds` is the active time, `signals` what else the page noticed (server/services/working/signals.py has the names), and
    `instructions_id` the version that was shown.
    """

    scale_position: int | None = Field(None, ge=-1000, le=1000)
    verdict: str = Field("picked", max_length=20)
    signals: dict[str, Any] | None = None
    milliseconds: int = Field(le=LARGEST)
    idempotency_key: str
    justification: str | None = Field(None, max_length=LONGEST_TEXT)
    instructions_id: int | None = Field(None, ge=1, le=LARGEST)


OPENAPI = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": ComparisonBody.model_json_schema()}}}
}


def read(sent: bytes) -> Given | RequestValidationError:
    """What was sent, or the error to raise once it is known that the sender may send anything at all."""
    try:
        body = ComparisonBody.model_validate_json(sent)
    except ValidationError as error:
        problems = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        return RequestValidationError(problems)
    return Given(
        body.scale_position, body.verdict, body.milliseconds, body.idempotency_key, body.justification,
        body.instructions_id, body.signals,
    )  # fmt: skip
