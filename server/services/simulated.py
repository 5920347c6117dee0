"""Accounts and open sessions for a simulated crowd: the only thing about it that needs the database."""

from __future__ import annotations

from typing import TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import Person
from server.services.people import people


class OpenSession(TypedDict):
    """What a browser holds that is signed in."""

    cookie: str
    csrf_token: str


def crowd_sessions(db: Session, count: int) -> list[OpenSession]:
    """Signed-in sessions of `count` simulated people, who are made when they are not there yet.

    Only a process with the database's address can make these, so they need neither links nor passwords.
    """
    there = select(Person).where(Person.simulated, Person.disabled_at.is_(None)).order_by(Person.id).limit(count)
    crowd = list(db.scalars(there))
    for number in range(len(crowd), count):
        name = f"Simulated person {number + 1}"
        crowd.append(people.create_person(db, name=name, roles=["crowdworker"], simulated=True))
    return [open_session(db, person) for person in crowd]


def open_session(db: Session, person: Person) -> OpenSession:
    """A session of one person, as if they had signed in."""
    cookie, csrf_token = people.start_session(db, person)
    return {"cookie": cookie, "csrf_token": csrf_token}
