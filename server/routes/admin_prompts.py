"""Prompts that people wrote, for admins: accept them into their pool, or decline them, one or many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import Admin, AnyVisitor, Db
from server.models import Prompt
from server.pages import Page, render
from server.services.campaigns import prompt_review

router = APIRouter()


@dataclass(frozen=True)
class PromptsPage(Page):
    """The prompts that wait for a decision, the oldest first."""

    template: ClassVar[str] = "admin/prompts.html"
    waiting: list[tuple[Prompt, str, str]]
    decided: int | None


@router.get("/admin/prompts")
def prompts_page(request: Request, db: Db, who: AnyVisitor, person: Admin, decided: int | None = None) -> Response:
    page = PromptsPage(title="Written prompts", waiting=prompt_review.proposed(db), decided=decided)
    return render(request, who, page)


@router.post("/admin/prompts")
def decide(
    db: Db,
    person: Admin,
    decision: Annotated[str, Form(max_length=20)],
    prompt_id: Annotated[list[int], Form(max_length=1000)] = [],  # noqa: B006 - FastAPI copies it
    split: Annotated[str, Form(max_length=20)] = "train",
) -> Response:
    decided = prompt_review.decide(db, person, prompt_id, decision, split)
    return RedirectResponse(f"/admin/prompts?decided={decided}", status_code=HTTP_303_SEE_OTHER)
