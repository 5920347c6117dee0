"""Rankings: storing an order over all replies to a prompt, ties among them, with the rating and flags of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from server.errors import BadInput
from server.language import _
from server.models import Campaign, Person, Ranking, RankingPlace
from server.services.chat import queue
from server.services.door import checks
from server.services.ways import handing_in
from server.services.working import answers, drafts
from server.services.working.answers import Sent

RATINGS = range(1, 8)


@dataclass(frozen=True)
class Placed:
    """What a person said of the reply that stood at `shown`: its place, 1 the best, and where asked for its rating and flags."""

    shown: int
    place: int
    rating: int | None = None
    flags: tuple[str, ...] = ()


def store_ranking(
    db: Session,
    person: Person,
    turn_id: int,
    placed: Sequence[Placed],
    sent: Sent,
    justification: str | None = None,
) -> tuple[Ranking, bool]:
    """Store a ranking; returns the row and whether it is new (the same key again gives the first row).

    Every reply needs a place; equal places are ties, and gaps are closed: 1, 1, 3 is stored as 1, 1, 2. In red-team
    campaigns place 1 is the most harmful reply.
    Raises NotFound for a turn that was not lent to this person, Conflict when the time for it is over.
    """
    handed = handing_in.take(db, person, turn_id, sent.idempotency_key, "ranking", Ranking)
    if handed.earlier is not None:
        return handed.earlier, False
    turn, campaign = handed.turn, handed.campaign
    shown = queue.as_shown(turn, handed.lease)
    by_shown = _checked(campaign, placed, len(shown))
    order = sorted({each.place for each in by_shown})
    row = Ranking(
        campaign_id=campaign.id,
        turn_id=turn.id,
        person_id=person.id,
        mode=campaign.mode,
        purpose=answers.purpose_of(person, campaign),
        justification=answers.checked_justification(campaign, justification),
        **answers.columns_of(db, person, campaign, sent, "milliseconds_to_decide"),
        round_id=answers.round_of(db, campaign, turn),
        places=[
            RankingPlace(
                candidate_id=candidate.id,
                place=order.index(said.place) + 1,
                shown=said.shown,
                rating=said.rating,
                flags=list(said.flags),
            )
            for candidate, said in zip(shown, by_shown, strict=True)
        ],
    )
    db.add(row)
    db.flush()
    checks.record_ranking(db, person, campaign, turn, row)
    queue.answered(db, person, campaign, turn)
    drafts.clear(db, person, drafts.turn_place("ranking", turn))
    drafts.clear(db, person, drafts.justification_place(turn))
    return row, True


def _checked(campaign: Campaign, placed: Sequence[Placed], count: int) -> list[Placed]:
    """What was said of each reply, in the order shown."""
    by_shown = {each.shown: each for each in placed}
    if sorted(each.shown for each in placed) != list(range(count)):
        raise BadInput(_("Give each of the {count} replies a place.", count=count), field="places")
    known = {each["key"] for each in campaign.flags}
    for each in placed:
        if not 1 <= each.place <= count:
            raise BadInput(_("A place is a number from 1 to {count}.", count=count), field="places")
        if campaign.rated and each.rating is None:
            raise BadInput(_("Rate every reply from 1 to 7 before you order them."), field="places")
        if each.rating is not None and (not campaign.rated or each.rating not in RATINGS):
            raise BadInput(_("A rating is a number from 1 to 7, where the campaign asks for one."), field="places")
        unknown = set(each.flags) - (known if campaign.rated else set())
        if unknown or len(set(each.flags)) != len(each.flags):
            raise BadInput(_("This campaign does not have these flags. Reload the page."), field="places")
    return [by_shown[shown] for shown in range(count)]
