"""Panels that send people here (Prolific, or any that puts an identifier into a link): studies, submissions, webhooks."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from server.db import Base, Json, Key, Now

SUBMISSION_STATUSES = (
    "reserved", "active", "awaiting_review", "approved", "rejected", "returned", "timed_out", "screened_out",
)  # fmt: skip


class Panel(Base):
    """A study at a panel whose people work in one campaign.

    `settings`: the names of the URL parameters, completion codes by outcome, the target of answers, the redirect template.
    `webhook_secret` signs what the panel sends; none means that no webhook is taken.
    """

    __tablename__ = "panels"
    __table_args__ = (
        CheckConstraint("kind IN ('prolific','generic')", name="kind_known"),
        CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name="slug_shape"),
    )

    id: Mapped[Key]
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    settings: Mapped[Json]
    webhook_secret: Mapped[str | None]
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]
    closed_at: Mapped[datetime | None]


class PanelSubmission(Base):
    """One participant's visit to one study: who they are there, how it stands, and the code they were given."""

    __tablename__ = "panel_submissions"
    __table_args__ = (
        CheckConstraint(
            "status IN ('reserved','active','awaiting_review','approved','rejected','returned','timed_out','screened_out')",
            name="status_known",
        ),
        UniqueConstraint("panel_id", "external_id"),
        Index("ix_panel_submissions_person_id", "person_id"),
    )

    id: Mapped[Key]
    panel_id: Mapped[int] = mapped_column(ForeignKey("panels.id", ondelete="CASCADE"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    participant: Mapped[str]  # the panel's own pseudonym
    study: Mapped[str | None]
    external_id: Mapped[str]  # the panel's number of this submission
    captured: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    outcome: Mapped[str | None]  # which completion code was given: success, screened_out, failed_check, ...
    started_at: Mapped[Now]
    status_at: Mapped[Now]
    completed_at: Mapped[datetime | None]


class WebhookEvent(Base):
    """A signed message of a panel, taken once however often it is sent."""

    __tablename__ = "webhook_events"
    __table_args__ = (
        UniqueConstraint("panel_id", "event_id"),
        Index("ix_webhook_events_panel_id_resource", "panel_id", "resource"),
    )

    id: Mapped[Key]
    panel_id: Mapped[int] = mapped_column(ForeignKey("panels.id", ondelete="CASCADE"))
    event_id: Mapped[str]
    kind: Mapped[str]
    resource: Mapped[str | None]  # the panel's number of the submission that it is about
    status: Mapped[str | None]  # what it says of it, in our words; none where it says nothing that we follow
    sent_at: Mapped[datetime]  # by the panel's clock: messages may come in any order
    body: Mapped[Json]
    received_at: Mapped[Now]
    outcome: Mapped[str | None]
