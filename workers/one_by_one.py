"""Work on many things in a transaction each, so that one that fails keeps no other from its turn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy.orm import Session

from server.settings import Settings
from server.transaction import transaction_of

Thing = TypeVar("Thing")
Found = TypeVar("Found")

log = logging.getLogger("whetstone.one_by_one")


def one_by_one(
    settings: Settings,
    things: Iterable[Thing],
    work: Callable[[Session, Thing], Found],
    told: Callable[[Thing, Found], None] = lambda _thing, _found: None,
) -> dict[Thing, Found]:
    """What `work` finds for each thing, `told` as soon as it is committed; an ExceptionGroup of what failed comes at the end."""
    found: dict[Thing, Found] = {}
    errors: list[Exception] = []
    for thing in things:
        try:
            with transaction_of(settings) as db:
                found[thing] = work(db, thing)
        except Exception as error:  # recorded here, and raised once the others have had their turn
            log.exception("%s could not be done.", thing)
            errors.append(error)
        else:
            told(thing, found[thing])
    if errors:
        raise ExceptionGroup("not everything could be done; the log says what", errors)
    return found
