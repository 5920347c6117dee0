"""The list of people with what each has done."""

from __future__ import annotations

import functools
import operator
import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from server.errors import BadInput, NotFound
from server.models import Comparison, Demonstration, LoginSession, Person, Prompt, Ranking
from server.services.people import people

PAGE = 50


@dataclass(frozen=True)
class Member:
    """A person with counts."""

    person: Person
    answers: int  # comparisons, rankings, demonstrations, and prompts written for campaigns
    last_answer_at: datetime | None
    signed_in: bool


def list_people(db: Session, search: str = "", before: int | None = None) -> tuple[list[Member], int | None]:
    """The newest PAGE people with an id below `before` whose name or e-mail holds `search`; and where the next page begins."""
    of = [(table.created_at, table.person_id == Person.id) for table in (Comparison, Ranking, Demonstration)]
    of.append((Prompt.created_at, (Prompt.author_id == Person.id) & Prompt.written_in_id.is_not(None)))
    counts = [select(func.count()).where(mine).correlate(Person).scalar_subquery() for _, mine in of]
    lasts = [select(func.max(at)).where(mine).correlate(Person).scalar_subquery() for at, mine in of]
    count, last = functools.reduce(operator.add, counts), func.greatest(*lasts)
    live = (
        select(func.count())
        .where(LoginSession.person_id == Person.id, LoginSession.expires_at > func.now())
        .correlate(Person)
        .scalar_subquery()
    )
    query = select(Person, count, last, live).order_by(Person.id.desc()).limit(PAGE + 1)
    if search:
        query = query.where(
            or_(Person.name.icontains(search, autoescape=True), Person.email.icontains(search, autoescape=True))
        )
    if before is not None:
        query = query.where(Person.id < before)
    rows = [Member(person, n, at, sessions > 0) for person, n, at, sessions in db.execute(query)]
    return rows[:PAGE], (rows[PAGE - 1].person.id if len(rows) > PAGE else None)


def named(db: Session, text: str) -> list[Person]:
    """The people of a text of numbers and e-mail addresses, in any order and each once; BadInput for one that is nobody's."""
    found: dict[int, Person] = {}
    for word in re.split(r"[\s,;]+", text.strip()):
        if not word:
            continue
        person = people.person_by_email(db, word)
        if person is None and word.isdecimal() and len(word) < 19:
            person = db.get(Person, int(word))
        if person is None:
            raise BadInput(f"Nobody has the number or e-mail address {word[:100]!r}.", field="people")
        found[person.id] = person
    return list(found.values())


def one(db: Session, who: str) -> Person:
    """The one person with this number, e-mail address or exact name; NotFound for none and for several."""
    text = who.strip()
    matches = [Person.name == text, func.lower(Person.email) == text.lower()]
    if text.isdecimal() and len(text) < 19:
        matches.append(Person.id == int(text))
    found = list(db.scalars(select(Person).where(or_(*matches)).limit(2)))
    if len(found) != 1:
        count = "Several people are" if found else "Nobody is"
        raise NotFound(
            f"{count} called {text[:100]!r}; the page People and `whetstone person list` show everyone with a number to "
            "name them by.",
            field="who",
        )
    return found[0]
