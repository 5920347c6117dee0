"""People, their sessions, and the ways in: invitations and sign-in links."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.db import Base, Json, Key, Now

ROLES = ("crowdworker", "researcher", "admin")
_ROLES_SQL = "ARRAY['crowdworker','researcher','admin']"


class Person(Base):
    """An account. `simulated` marks members of the simulated crowd, so that no export mixes them in unseen.

    `held_out` people are the pool whose answers only evaluate: nothing they give is ever trained on.
    """

    __tablename__ = "people"
    __table_args__ = (
        CheckConstraint(f"roles <@ {_ROLES_SQL} AND cardinality(roles) > 0", name="roles_known"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("unread_notices >= 0", name="unread_notices_not_negative"),
        CheckConstraint("theme IN ('auto','light','dark')", name="theme_known"),
        Index("uq_people_email_lower", func.lower(text("email")), unique=True),
    )

    id: Mapped[Key]
    name: Mapped[str]
    email: Mapped[str | None]
    password_hash: Mapped[str | None]  # argon2id; absent where only links are used
    roles: Mapped[list[str]]
    simulated: Mapped[bool] = mapped_column(server_default=text("false"))
    held_out: Mapped[bool] = mapped_column(server_default=text("false"))
    language: Mapped[str | None]  # of the interface; none means what the browser asks for
    theme: Mapped[str] = mapped_column(server_default=text("'auto'"))
    keys: Mapped[Json] = mapped_column(
        server_default=text("'{}'::jsonb")
    )  # action -> key, where changed; "off" for none at all
    email_confirmed_at: Mapped[datetime | None]
    unread_notices: Mapped[int] = mapped_column(server_default=text("0"))  # shown on every page, so it is kept here
    created_at: Mapped[Now]
    disabled_at: Mapped[datetime | None]


class LoginSession(Base):
    """A signed-in browser. Only the SHA-256 of the cookie is stored: a copy of the table lets nobody in."""

    __tablename__ = "login_sessions"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    csrf_token: Mapped[str]
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]

    person: Mapped[Person] = relationship(lazy="joined")


class Invitation(Base):
    """A link that lets someone make an account with the given roles, once for each of `max_uses`."""

    __tablename__ = "invitations"
    __table_args__ = (
        CheckConstraint(f"roles <@ {_ROLES_SQL} AND cardinality(roles) > 0", name="roles_known"),
        CheckConstraint("uses BETWEEN 0 AND max_uses", name="uses_within_max"),
    )

    id: Mapped[Key]
    token_hash: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[list[str]]
    note: Mapped[str] = mapped_column(server_default=text("''"))
    max_uses: Mapped[int] = mapped_column(server_default=text("1"))
    uses: Mapped[int] = mapped_column(server_default=text("0"))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="SET NULL"))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class SignInLink(Base):
    """A link that signs one person in, once: sent by e-mail to who asked for it, or made where the operator asked for a demo."""

    __tablename__ = "sign_in_links"
    __table_args__ = (CheckConstraint("kind IN ('demo','email')", name="kind_known"),)

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(server_default=text("'demo'"))
    created_at: Mapped[Now]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SignInRequest(Base):
    """Somebody asked for a link by e-mail. Whether the address is anybody's is looked up later, by a worker; then this row goes.

    `claimed_at` is when a worker last took it; one whose mail server was away is taken again while the wish is fresh.
    """

    __tablename__ = "sign_in_requests"

    id: Mapped[Key]
    email: Mapped[str]
    language: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[Now]
    claimed_at: Mapped[datetime | None]


class OpenIdAccount(Base):
    """A person's account at an OpenID Connect provider: who they are is (issuer, subject), never the e-mail address."""

    __tablename__ = "openid_accounts"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[Key]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    issuer: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[Now]
