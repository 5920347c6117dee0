"""Accounts and sign-in links for a simulated crowd: the only thing about it that needs the database."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.models import Person
from server.services import people
from server.settings import Settings

LINK_MINUTES = 24 * 60


def crowd_links(db: Session, settings: Settings, count: int, times: int = 1) -> list[list[str]]:
    """`times` lists of one-time sign-in tokens for `count` simulated people, who are made when they are not there yet."""
    there = select(Person).where(Person.simulated, Person.disabled_at.is_(None)).order_by(Person.id).limit(count)
    crowd = list(db.scalars(there))
    for number in range(len(crowd), count):
        name = f"Simulated person {number + 1}"
        crowd.append(people.create_person(db, name=name, roles=["crowdworker"], simulated=True))
    return [
        [people.make_sign_in_link(db, settings, person, minutes=LINK_MINUTES) for person in crowd] for _ in range(times)
    ]
