"""The submissions of a study, for admins: how many stand how, and each with what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import Session

from server.models import Campaign, Panel, PanelSubmission, Prompt, WebhookEvent
from server.models.panels import SUBMISSION_STATUSES
from server.services.working.kinds import ANSWERS

PAGE = 100


@dataclass(frozen=True)
class Line:
    """One submission and the answers that its person gave here since it began."""

    submission: PanelSubmission
    answers: int


def counts(db: Session, panel: Panel) -> dict[str, int]:
    """Submissions by status, those without any left out."""
    rows = db.execute(
        select(PanelSubmission.status, func.count())
        .where(PanelSubmission.panel_id == panel.id)
        .group_by(PanelSubmission.status)
    )
    found: dict[str, int] = dict(rows.all())
    return {status: found[status] for status in SUBMISSION_STATUSES if status in found}


def lines(db: Session, panel: Panel, status: str = "", before: int | None = None) -> tuple[list[Line], int | None]:
    """The newest submissions, of one status if asked; and where the next page begins."""
    campaign = db.get_one(Campaign, panel.campaign_id)
    query = (
        select(PanelSubmission, _answers(campaign))
        .where(PanelSubmission.panel_id == panel.id)
        .order_by(PanelSubmission.id.desc())
        .limit(PAGE + 1)
    )
    if status in SUBMISSION_STATUSES:
        query = query.where(PanelSubmission.status == status)
    if before is not None:
        query = query.where(PanelSubmission.id < before)
    found = [Line(*row) for row in db.execute(query)]
    return found[:PAGE], (found[PAGE - 1].submission.id if len(found) > PAGE else None)


def _answers(campaign: Campaign) -> ScalarSelect[int]:
    if campaign.way == "prompts":
        table: Any = Prompt
        mine = (Prompt.written_in_id == campaign.id, Prompt.author_id == PanelSubmission.person_id)
    else:
        table = ANSWERS[campaign.way]
        mine = (table.campaign_id == campaign.id, table.person_id == PanelSubmission.person_id)
    return (
        select(func.count())
        .where(*mine, table.created_at >= PanelSubmission.started_at)
        .correlate(PanelSubmission)
        .scalar_subquery()
    )


def newest_events(db: Session, panel: Panel, limit: int = 20) -> list[WebhookEvent]:
    """What the panel told us last."""
    return list(
        db.scalars(
            select(WebhookEvent).where(WebhookEvent.panel_id == panel.id).order_by(WebhookEvent.id.desc()).limit(limit)
        )
    )
