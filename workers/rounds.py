"""Leading a round on by one step: claim it, do it, record what came of it."""

from __future__ import annotations

import secrets

from sqlalchemy.exc import OperationalError

from server.errors import WhetstoneError
from server.services.rounds import rounds
from server.settings import Settings
from server.transaction import transaction_of
from workers.breath import Breath, LostStep
from workers.context import connected_settings, process_name
from workers.round_steps import STEPS, StepFailed, Work


def advance(round_id: int, settings: Settings | None = None) -> None:
    """Do the round's queued step once, however often its message arrives; the next one is asked for after the commit.

    Nothing when the step is taken, held, finished or cancelled. A failure is recorded for a person to read; one that nobody
    foresaw is raised as well, so that the log has it.
    """
    settings = settings or connected_settings()
    claimant = f"{process_name()}/{secrets.token_hex(4)}"
    with transaction_of(settings) as db:
        held = rounds.claim(db, round_id, claimant)
    if held is None:
        return
    try:
        with Breath(str(settings.database_url), held) as breath:
            STEPS[held.name](Work(settings, held, breath))
    except LostStep:
        return  # the row says who has it now; what was not committed is rolled back
    except OperationalError:
        raise  # Postgres went away: the step is still ours in the row, and the sweep queues it again
    except Exception as error:
        foreseen = isinstance(error, StepFailed | WhetstoneError | OSError)
        with transaction_of(settings) as db:
            rounds.fail_step(db, held, _sentence(error) if foreseen else f"Unexpected: {error!r}"[:2000])
        if not foreseen:
            raise


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'A file'}: {error.strerror}. Mend that and try again."
    return str(error)
