"""Accounts: who a person is, how they prove it, and the ways in (password, invitation, one-click link).

Tokens are 32 random bytes. The database holds only their SHA-256, so a copy of a table lets nobody in; a slow hash is
for passwords, which people choose, not for tokens, which nobody can guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from server.errors import BadInput, Conflict, NotAllowed, NotFound, NotSignedIn
from server.language import _
from server.models import LoginSession, Person, SignInLink
from server.models.people import ROLES
from server.settings import Settings

SESSION_DAYS = 14
# A session is prolonged at most once a day: a row written at every request would make each page a write.
RENEW_AFTER = timedelta(days=1)
FRESH = timedelta(days=SESSION_DAYS) - RENEW_AFTER  # a session that ends later needs no prolonging
PASSWORD_LENGTH = (10, 200)  # characters; the upper end bounds the work of one attempt
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    """Argon2id with the library's defaults, which are the second recommended option of RFC 9106."""
    return PasswordHasher()


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    """Checked when the address is unknown, so that the time taken does not tell which addresses have accounts."""
    return _hasher().hash(secrets.token_urlsafe(16))


def hash_token(token: str) -> str:
    """What is stored in place of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def same_token(a: str, b: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(a.encode(), b.encode())


def create_person(
    db: Session,
    name: str,
    roles: list[str] | tuple[str, ...],
    email: str | None = None,
    password: str | None = None,
    *,
    simulated: bool = False,
) -> Person:
    """Add an account; BadInput names the field, Conflict an e-mail address that is taken."""
    email = _free_email(db, email)
    person = Person(
        name=checked_name(name),
        roles=checked_roles(roles),
        email=email,
        password_hash=hash_password(password) if password is not None else None,
        simulated=simulated,
    )
    db.add(person)
    db.flush()
    return person


def checked_name(name: str) -> str:
    """`name` without outer blanks; BadInput when empty or over 200 characters."""
    name = name.strip()
    if not 1 <= len(name) <= 200 or "\0" in name:
        raise BadInput(_("Please give a name of 1 to 200 characters."), field="name")
    return name


def checked_roles(roles: list[str] | tuple[str, ...]) -> list[str]:
    """The roles in their usual order; BadInput when there is none or an unknown one."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        sentence = _("Choose at least one of {roles}.", roles=", ".join(ROLES))
        if unknown:
            sentence = _("There is no role {name}.", name=repr(unknown[0])) + " " + sentence
        raise BadInput(sentence, field="roles")
    return [role for role in ROLES if role in roles]


def checked_email(email: str) -> str:
    """An e-mail address without outer blanks; BadInput when it is none."""
    email = email.strip()
    if not _EMAIL.fullmatch(email) or not email.isprintable():
        raise BadInput(_("{text} is not an e-mail address.", text=repr(email[:80])), field="email")
    return email


def _free_email(db: Session, email: str | None) -> str | None:
    if not (email or "").strip():
        return None
    email = checked_email(email or "")
    if person_by_email(db, email) is not None:
        raise Conflict(_("This e-mail address already has an account. Sign in instead."), field="email")
    return email


def person_by_email(db: Session, email: str) -> Person | None:
    """The account with this address, in any case of letters."""
    return db.scalar(select(Person).where(func.lower(Person.email) == email.strip().lower()))


def get_person(db: Session, person_id: int) -> Person:
    """The account, or NotFound."""
    person = db.get(Person, person_id)
    if person is None:
        raise NotFound(_("There is no such person."))
    return person


def hash_password(password: str) -> str:
    """Argon2id of a password; BadInput when it is too short or too long."""
    shortest, longest = PASSWORD_LENGTH
    if not shortest <= len(password) <= longest:
        raise BadInput(
            _("A password has {least} to {most} characters.", least=shortest, most=longest), field="password"
        )
    return _hasher().hash(password)


def set_password(db: Session, person: Person, password: str) -> None:
    """A new password; every browser that is signed in has to sign in again."""
    person.password_hash = hash_password(password)
    end_sessions(db, person)


def sign_in(db: Session, email: str, password: str) -> Person:
    """The person with this address and password; NotSignedIn tells nothing about which of the two was wrong."""
    person = person_by_email(db, email)
    stored = person.password_hash if person is not None else None
    fits = _fits(stored or _nobodys_hash(), password[: PASSWORD_LENGTH[1] + 1])
    if person is None or stored is None or not fits or person.disabled_at is not None:
        raise NotSignedIn(_("This e-mail address and password do not fit together. Please check both and try again."))
    if _hasher().check_needs_rehash(stored):
        person.password_hash = _hasher().hash(password)
    return person


def _fits(stored: str, password: str) -> bool:
    try:
        return _hasher().verify(stored, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


def start_session(db: Session, person: Person) -> tuple[str, str]:
    """Sign this browser in: (the cookie's token, the CSRF token)."""
    if person.disabled_at is not None:
        raise NotAllowed(_("This account has been disabled. Please write to whoever invited you."))
    token, csrf_token = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    db.add(LoginSession(token_hash=hash_token(token), person=person, csrf_token=csrf_token, expires_at=_session_end()))
    db.flush()
    return token, csrf_token


def find_session(db: Session, token: str) -> LoginSession | None:
    """The live session behind a cookie, prolonged; None when unknown, expired, or its person is disabled."""
    found = db.get(LoginSession, hash_token(token))
    if found is None or found.expires_at <= datetime.now(UTC) or found.person.disabled_at is not None:
        return None
    until = _session_end()
    if until - found.expires_at > RENEW_AFTER:
        found.expires_at = until
    return found


def _session_end() -> datetime:
    return datetime.now(UTC) + timedelta(days=SESSION_DAYS)


def end_session(db: Session, token: str) -> None:
    """Sign this browser out."""
    db.execute(delete(LoginSession).where(LoginSession.token_hash == hash_token(token)))


def end_sessions(db: Session, person: Person) -> None:
    """Sign a person out everywhere, and spend their one-click links."""
    db.execute(delete(LoginSession).where(LoginSession.person_id == person.id))
    db.execute(delete(SignInLink).where(SignInLink.person_id == person.id, SignInLink.used_at.is_(None)))


def clear_expired(db: Session) -> int:
    """Remove sessions that have ended and links that can no longer be used; how many sessions went."""
    now = datetime.now(UTC)
    db.execute(delete(SignInLink).where(SignInLink.expires_at < now))
    gone = db.execute(delete(LoginSession).where(LoginSession.expires_at < now).returning(LoginSession.token_hash))
    return len(gone.all())


def disable_person(db: Session, person: Person) -> None:
    """Close an account: nobody can use it, its work stays. Conflict for the last admin."""
    _keep_an_admin(db, person)
    person.disabled_at = person.disabled_at or datetime.now(UTC)
    end_sessions(db, person)


def enable_person(person: Person) -> None:
    """Open a closed account again."""
    person.disabled_at = None


def set_roles(db: Session, person: Person, roles: list[str] | tuple[str, ...]) -> None:
    """Change what a person may do; Conflict when that would leave no admin."""
    wanted = checked_roles(roles)
    if "admin" not in wanted:
        _keep_an_admin(db, person)
    person.roles = wanted


def _keep_an_admin(db: Session, person: Person) -> None:
    if "admin" not in person.roles:
        return
    # Locked, so that two admins who disable each other at the same moment do not both succeed.
    admins = db.scalars(
        select(Person.id).where(Person.roles.contains(["admin"]), Person.disabled_at.is_(None)).with_for_update()
    ).all()
    if set(admins) <= {person.id}:
        raise Conflict(_("This is the only admin. Make somebody else an admin first."))


def make_sign_in_link(db: Session, settings: Settings, person: Person, minutes: int = 24 * 60) -> str:
    """A token that signs `person` in once (`/sign-in/TOKEN`); NotAllowed unless the operator asked for a demo."""
    if not settings.demo:
        raise NotAllowed(_("One-click links exist only in a demo (WHETSTONE_DEMO=1). Invite the person instead."))
    token = secrets.token_urlsafe(32)
    expires_at = datetime.now(UTC) + timedelta(minutes=minutes)
    db.add(SignInLink(token_hash=hash_token(token), person_id=person.id, expires_at=expires_at))
    db.flush()
    return token


def use_sign_in_link(db: Session, settings: Settings, token: str) -> Person:
    """Spend a link: its person. NotSignedIn when it is unknown, used or expired; those of a demo open nothing elsewhere.

    Whoever has a link from an e-mail has read that person's mail, so the address is theirs.
    """
    now = datetime.now(UTC)
    kinds = ("email", "demo") if settings.demo else ("email",)
    spent = (
        update(SignInLink)
        .where(
            SignInLink.token_hash == hash_token(token),
            SignInLink.kind.in_(kinds),
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now,
        )
        .values(used_at=now)
        .returning(SignInLink.person_id, SignInLink.kind)
    )
    found = db.execute(spent).one_or_none()
    if found is None:
        raise NotSignedIn(_("This link was used before or has expired. Please ask for a new one."))
    person = get_person(db, found.person_id)
    if found.kind == "email" and person.email_confirmed_at is None:
        person.email_confirmed_at = now
    return person
