"""The strength of a choice as a grade, for what leaves the weakest out."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, case, null, select

from server.models import Campaign, Comparison


def grade() -> ColumnElement[int | None]:
    """Comparison.strength; NULL where a scale of one strength was asked on, since no choice there is weaker than another."""
    of_one = Comparison.campaign_id.in_(select(Campaign.id).where(Campaign.grades == 1))
    return case((and_(Comparison.import_id.is_(None), of_one), null()), else_=Comparison.strength)
