"""Whose account an identity at a provider is. It is known by issuer and subject alone: names and addresses change hands.

An identity that is nobody's yet makes an account only for who has an invitation in hand, or where the operator opened the
site to this provider; it is joined to an account that exists only by that account's own person, signed in here.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.errors import Conflict, NotAllowed
from server.language import _
from server.models import OpenIdAccount, Person
from server.services.people import invitations, people
from server.services.people.openid import Claims
from server.ways_in import Provider


def person_of(db: Session, claims: Claims) -> Person | None:
    """The account of an identity."""
    return db.scalar(
        select(Person)
        .join(OpenIdAccount, OpenIdAccount.person_id == Person.id)
        .where(OpenIdAccount.issuer == claims.issuer, OpenIdAccount.subject == claims.subject)
    )


def sign_in(db: Session, provider: Provider, claims: Claims, invitation: str) -> Person:
    """The person of an identity; made now if there is none and they may come in."""
    known = person_of(db, claims)
    if known is not None:
        return known
    email = _free(db, claims.email)
    name = claims.name or (email or "").partition("@")[0] or _("Somebody of {name}", name=provider.name)
    if invitation:
        person = people.create_person(db, name, invitations.use(db, invitation).roles, email)
    elif provider.open:
        person = people.create_person(db, name, ["crowdworker"], email)
    else:
        raise NotAllowed(
            _(
                "{name} knows you, but there is no account for you here yet. People join by invitation: open the link that "
                "you were sent and choose {name} there. If you have an account here, sign in to it and connect {name} "
                "under Settings.",
                name=provider.name,
            )
        )
    if email is not None:
        person.email_confirmed_at = func.now()
    _add(db, person, claims)
    return person


def _free(db: Session, email: str | None) -> str | None:
    """The address if it can be the new account's; one that has an account here is a reason to sign in to that one."""
    if email is None or people.person_by_email(db, email) is None:
        return email
    raise Conflict(
        _("Your e-mail address already has an account here. Sign in to it, and connect the two under Settings.")
    )


def connect(db: Session, person: Person, claims: Claims) -> None:
    """Let this identity sign in to the account of who is signed in; Conflict when it is somebody else's."""
    known = person_of(db, claims)
    if known is None:
        _add(db, person, claims)
    elif known.id != person.id:
        raise Conflict(_("This identity belongs to another account here. Sign in with it to use that one."))


def _add(db: Session, person: Person, claims: Claims) -> None:
    db.add(OpenIdAccount(person_id=person.id, issuer=claims.issuer, subject=claims.subject))
    db.flush()


def connected(db: Session, person: Person) -> set[str]:
    """The issuers with which this person can sign in."""
    return set(db.scalars(select(OpenIdAccount.issuer).where(OpenIdAccount.person_id == person.id)))
