"""The forms of rankings, demonstrations, written prompts and edits, as they work without any script."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from server.edge import AnyVisitor, Crowdworker, Db
from server.errors import WhetstoneError
from server.models import Campaign, Person, Turn
from server.routes.chat import number, refused, since_seen, turn_here
from server.routes.row_id import row_id
from server.routes.text_limit import LONGEST_TEXT
from server.services.chat import dialogue, edits
from server.services.ways import demonstrations, prompt_writing, ranking
from server.services.ways.ranking import Placed
from server.services.working import drafts, work_time
from server.services.working.answers import Sent

router = APIRouter(prefix="/chat")

_Text = Annotated[str, Form(max_length=LONGEST_TEXT)]


def _go_to(slug: str, query: str = "") -> Response:
    return RedirectResponse(f"/chat/{slug}{query}", status_code=HTTP_303_SEE_OTHER)


@dataclass(frozen=True)
class Fields:
    """What every form of an answer has beside the answer."""

    idempotency_key: str
    milliseconds: int | None  # None without a script: nobody measured
    instructions_id: int | None

    def sent(self, db: Db, person: Person, turn: Turn | None = None) -> Sent:
        """As the services take it; the time since a turn could be answered is the nearest that is known."""
        taken = self.milliseconds
        if taken is None:
            taken = since_seen(db, person, turn) if turn is not None else 0
        return Sent(taken, self.idempotency_key, self.instructions_id)


def _fields(
    idempotency_key: Annotated[str, Form()],
    milliseconds: Annotated[str, Form(max_length=20)] = "",
    instructions_id: Annotated[str, Form(max_length=20)] = "",
) -> Fields:
    return Fields(idempotency_key, number(milliseconds), row_id(instructions_id))


Filled = Annotated[Fields, Depends(_fields)]


async def _placed(request: Request) -> list[Placed]:
    """What the form says of each reply: the fields place-0, rating-0, flags-0 and so on."""
    form = await request.form()
    found = []
    for shown in range(9):
        place = form.get(f"place-{shown}")
        if not isinstance(place, str):
            break
        rating = form.get(f"rating-{shown}")
        flags = tuple(flag for flag in form.getlist(f"flags-{shown}") if isinstance(flag, str))
        found.append(Placed(shown, number(place) or 0, number(rating) if isinstance(rating, str) else None, flags))
    return found


def _kept(placed: list[Placed]) -> str:
    """The form as the draft keeps it, so that a refused one comes back filled in."""
    return json.dumps([{"place": each.place, "rating": each.rating, "flags": each.flags} for each in placed])


def _store(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Person,
    campaign: Campaign,
    store: Callable[[], tuple[object, bool]],
    kept: dict[str, str],
) -> Response:
    """Store an answer; one that is refused is shown again, and what was typed is in its draft."""
    try:
        with db.begin_nested():
            _stored, new = store()
    except WhetstoneError as error:
        for place, text in kept.items():
            drafts.save(db, person, place, text[: drafts.MAX_CHARS])
        return refused(request, db, who, person, campaign, error)
    work_time.seen(db, person, campaign, answers=int(new))
    return _go_to(campaign.slug)


@router.post("/{slug}/ranking")
def store_ranking(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    turn_id: Annotated[int, Form()],
    filled: Filled,
    placed: Annotated[list[Placed], Depends(_placed)],
    justification: _Text = "",
) -> Response:
    campaign, turn = turn_here(db, person, slug, turn_id)
    kept = {drafts.turn_place("ranking", turn): _kept(placed), drafts.justification_place(turn): justification}

    def store() -> tuple[object, bool]:
        return ranking.store_ranking(db, person, turn_id, placed, filled.sent(db, person, turn), justification)

    return _store(request, db, who, person, campaign, store, kept)


@router.post("/{slug}/demonstration")
def store_demonstration(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    turn_id: Annotated[int, Form()],
    filled: Filled,
    text: _Text = "",
) -> Response:
    campaign, turn = turn_here(db, person, slug, turn_id)

    def store() -> tuple[object, bool]:
        return demonstrations.store_demonstration(db, person, turn_id, text, filled.sent(db, person, turn))

    return _store(request, db, who, person, campaign, store, {drafts.turn_place("demonstration", turn): text})


@router.post("/{slug}/edit")
def store_edit(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    turn_id: Annotated[int, Form()],
    filled: Filled,
    text: _Text = "",
) -> Response:
    campaign, turn = turn_here(db, person, slug, turn_id)

    def store() -> tuple[object, bool]:
        return edits.store_edit(db, person, turn_id, text, filled.sent(db, person, turn))

    return _store(request, db, who, person, campaign, store, {drafts.turn_place("edit", turn): text})


@router.post("/{slug}/prompt")
def propose_prompt(
    request: Request,
    db: Db,
    who: AnyVisitor,
    person: Crowdworker,
    slug: str,
    filled: Filled,
    text: _Text = "",
) -> Response:
    campaign = dialogue.find_campaign(db, slug)

    def store() -> tuple[object, bool]:
        return prompt_writing.propose(db, person, campaign, text, filled.sent(db, person))

    return _store(request, db, who, person, campaign, store, {drafts.prompt_place(campaign): text})


@router.post("/{slug}/prompts/{prompt_id}/withdraw")
def withdraw_prompt(
    request: Request, db: Db, who: AnyVisitor, person: Crowdworker, slug: str, prompt_id: int
) -> Response:
    campaign = dialogue.find_campaign(db, slug)

    def store() -> tuple[object, bool]:
        return prompt_writing.withdraw(db, person, campaign, prompt_id), False

    return _store(request, db, who, person, campaign, store, {})
