"""The answer to a given pair, and the next one, in four statements: what people who compare texts all day wait for.

It does what `feedback.store_comparison`, `queue.answered` and `queue.offer` do one row at a time, for the plain case alone:
a signed-in crowdworker, an item that was lent to them and is no check, nothing sent before. For every other case, and
wherever a statement finds something unexpected, the functions here give None and have changed nothing, and the caller goes
the long way, which knows all cases and says what is wrong. tests/server/test_swift.py holds the two against each other.

All runs on the driver itself: what SQLAlchemy lays around a statement and its result costs as much again.

The turn's row is locked by the first statement; what depends on what others do meanwhile is read by later ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import namedtuple_row

from server.language import current, speak
from server.markdown import to_html
from server.services.people import people
from server.services.ways import feedback
from server.services.working import answers, signals, work_time

MOST_TRIES = 20  # items whose last place went to somebody else while we looked

# Who asks, the item, the campaign and the provenance of an answer, with the item's row locked.
_LOOK = """
SELECT s.csrf_token, p.id AS person_id, p.roles, p.language, p.held_out,
       t.id AS turn_id, t.conversation_id, v.status AS conversation_status,
       c.id AS campaign_id, c.slug, c.mode, c.grades, c.ties, c.both_bad, c.justification, c.purpose, c.overlap,
       least(c.overlap, cardinality(t.kept_for)) AS wanted, c.quota, c.status, c.check_rate, c.too_fast_seconds, c.lease_minutes,
       c.daily_limit IS NULL AND coalesce(m.status, 'active') = 'active' AND (c.access = 'everyone' OR m.status IS NOT NULL)
         AND (c.consent IS NULL OR m.consent_sha256 = encode(sha256(convert_to(c.consent, 'UTF8')), 'hex'))
         AND (c.pass_mark IS NULL OR m.passed_at IS NOT NULL)
         AND (c.screening_items = 0 OR m.screened_at IS NOT NULL) AS door_is_open,
       l.id AS lease_id, l.mirrored,
       (SELECT array_agg(k.id ORDER BY k.position) FROM candidates k WHERE k.turn_id = t.id) AS candidates,
       (SELECT i.id FROM instructions i WHERE i.campaign_id = c.id
        AND (%(instructions_id)s::bigint IS NULL OR i.id = %(instructions_id)s::bigint)
        ORDER BY i.version DESC LIMIT 1) AS instructions_id,
       (SELECT d.round_id FROM deployments d WHERE d.campaign_id = c.id AND d.created_at <= t.created_at
        ORDER BY d.id DESC LIMIT 1) AS round_id
FROM login_sessions s
JOIN people p ON p.id = s.person_id AND p.disabled_at IS NULL
JOIN turns t ON t.id = %(turn_id)s AND t.check_kind IS NULL
JOIN conversations v ON v.id = t.conversation_id AND v.source = 'item'
JOIN campaigns c ON c.id = v.campaign_id AND c.way = 'pairs'
LEFT JOIN memberships m ON m.person_id = p.id AND m.campaign_id = c.id
JOIN leases l ON l.person_id = p.id AND l.conversation_id = v.id AND l.turn_id = t.id AND l.released_at IS NULL
WHERE s.token_hash = %(token_hash)s AND s.expires_at > now() + %(fresh)s
FOR NO KEY UPDATE OF t
"""

# The answer, if the lease still runs and there is none: the row, the lease given back, the item out of the queue when it
# has all its answers, the draft of the reason gone, and the paid time prolonged.
_STORE = f"""
WITH stored AS (
  INSERT INTO comparisons (campaign_id, turn_id, person_id, mode, purpose, verdict, picked_id, chosen_id, rejected_id,
                           scale_position, mirrored, strength, justification, milliseconds_to_decide, signals,
                           instructions_id, round_id, idempotency_key)
  SELECT %(campaign_id)s, %(turn_id)s, %(person_id)s, %(mode)s, %(purpose)s, %(verdict)s, %(picked_id)s::bigint,
         %(chosen_id)s::bigint, %(rejected_id)s::bigint, %(scale_position)s::int, %(mirrored)s, %(strength)s::int,
         %(justification)s::text, %(milliseconds_to_decide)s, %(signals)s::jsonb, %(instructions_id)s,
         %(round_id)s::bigint, %(idempotency_key)s
  WHERE EXISTS (SELECT FROM leases WHERE id = %(lease_id)s AND released_at IS NULL AND expires_at > clock_timestamp())
    AND NOT EXISTS (SELECT FROM undone WHERE person_id = %(person_id)s AND turn_id = %(turn_id)s)
  ON CONFLICT DO NOTHING
  RETURNING id),
given_back AS (
  UPDATE leases SET released_at = clock_timestamp() WHERE id = %(lease_id)s AND EXISTS (SELECT FROM stored)),
done AS (
  UPDATE turns SET queue_id = NULL, status = 'compared'
  WHERE id = %(turn_id)s AND EXISTS (SELECT FROM stored)
    AND (SELECT count(*) FROM comparisons WHERE turn_id = %(turn_id)s) + 1 >= %(wanted)s),
cleared AS (
  DELETE FROM drafts WHERE person_id = %(person_id)s AND place = %(place)s AND EXISTS (SELECT FROM stored)),
worked AS ({work_time.SIGN.format(where="FROM stored")})
SELECT id FROM stored
"""

# The first item after the one just answered that this person may have: who works forward need not look again at all that
# they had. What came free further back is found by whoever opens the page, and by everybody at the end. OFFSET 0 keeps
# Postgres from looking an item up by joining all that the person has ever answered, which would take longer with every day.
_NEXT = """
SELECT t.id, t.conversation_id, t.position, t.message
FROM turns t
WHERE t.queue_id = %(campaign_id)s AND t.status IN ('ready', 'compared') AND t.check_kind IS NULL AND t.id > %(after)s
  AND (t.kept_for IS NULL OR %(person_id)s = ANY (t.kept_for))
  AND NOT EXISTS (SELECT FROM comparisons a WHERE a.turn_id = t.id AND a.person_id = %(person_id)s OFFSET 0)
  AND NOT EXISTS (SELECT FROM leases l WHERE l.turn_id = t.id AND l.person_id = %(person_id)s
                  AND l.conversation_id = t.conversation_id AND l.released_at IS NOT NULL OFFSET 0)
  AND NOT EXISTS (SELECT FROM skips k WHERE k.turn_id = t.id AND k.person_id = %(person_id)s OFFSET 0)
  AND NOT EXISTS (SELECT FROM candidates r JOIN demonstrations d ON d.id = r.demonstration_id
                  WHERE r.turn_id = t.id AND d.person_id = %(person_id)s OFFSET 0)
  AND (SELECT count(*) FROM comparisons a WHERE a.turn_id = t.id)
    + (SELECT count(*) FROM leases l WHERE l.turn_id = t.id AND l.person_id <> %(person_id)s AND l.released_at IS NULL
       AND l.expires_at > clock_timestamp()) < %(overlap)s
  AND (%(quota)s::bigint IS NULL OR %(quota)s::bigint >
       (SELECT count(*) FROM comparisons g WHERE g.campaign_id = %(campaign_id)s AND g.import_id IS NULL))
ORDER BY t.id
LIMIT 1
FOR NO KEY UPDATE OF t SKIP LOCKED
"""

# Its lease, if it still has a place now that its row is ours; with its texts.
_LEND = """
INSERT INTO leases (person_id, conversation_id, turn_id, expires_at, mirrored)
SELECT %(person_id)s, %(conversation_id)s, %(turn_id)s, clock_timestamp() + make_interval(mins => %(lease_minutes)s::int),
       %(mirrored)s
WHERE (SELECT count(*) FROM comparisons a WHERE a.turn_id = %(turn_id)s)
    + (SELECT count(*) FROM leases l WHERE l.turn_id = %(turn_id)s AND l.person_id <> %(person_id)s
       AND l.released_at IS NULL AND l.expires_at > clock_timestamp()) < %(overlap)s
ON CONFLICT (person_id, conversation_id, turn_id) DO UPDATE SET expires_at = excluded.expires_at, released_at = NULL
RETURNING mirrored,
  (SELECT array_agg(k.text ORDER BY k.position) FROM candidates k WHERE k.turn_id = %(turn_id)s) AS texts
"""


@dataclass(frozen=True)
class Given:
    """What a page sends with a choice."""

    scale_position: int | None
    verdict: str
    milliseconds: int
    idempotency_key: str
    justification: str | None
    instructions_id: int | None
    signals: Mapping[str, Any] | None


@dataclass(frozen=True)
class Stored:
    """The answer that was stored, and where it stands: `look` has the columns of `_LOOK`."""

    id: int
    look: Any
    verdict: str
    picked_position: int | None
    strength: int | None


def store(connection: Connection, token: str, csrf_token: str, turn_id: int, given: Given) -> Stored | None:
    """Store a choice; None when this is not the plain case.

    BadInput, as in the long way, for a choice that the campaign does not offer and the like.
    """
    key = answers.checked_key(given.idempotency_key)
    asked = {
        "token_hash": people.hash_token(token),
        "turn_id": turn_id,
        "instructions_id": given.instructions_id,
        "fresh": people.FRESH,
    }
    look: Any = _row(connection, _LOOK, asked)
    if look is None or not people.same_token(csrf_token, look.csrf_token) or "crowdworker" not in look.roles:
        return None
    if len(look.candidates or ()) != 2 or look.instructions_id is None:
        return None
    speak(look.language)
    feedback.check_verdict(look, given.verdict, given.scale_position)
    shown = look.candidates[::-1] if look.mirrored else look.candidates
    picked, other, strength = feedback.read_scale(shown, look.grades, given.scale_position)
    chosen, rejected = feedback.learned(look.mode, picked, other)
    taken = answers.checked_milliseconds(given.milliseconds)
    reason = answers.checked_justification(look, given.justification, required=given.verdict == "both_bad")
    row = {
        **look._asdict(),
        "purpose": "evaluation" if look.held_out else look.purpose,
        "verdict": given.verdict,
        "picked_id": picked,
        "chosen_id": chosen,
        "rejected_id": rejected,
        "scale_position": given.scale_position,
        "strength": strength,
        "justification": reason,
        "milliseconds_to_decide": taken,
        "signals": json.dumps(signals.checked(given.signals, look, taken)),
        "idempotency_key": key,
        "place": f"justification:{turn_id}",
        **work_time.sign_values(1),
    }
    stored = _row(connection, _STORE, row)
    if stored is None:
        return None
    return Stored(stored.id, look, given.verdict, shown.index(picked) if picked is not None else None, strength)


def lend_next(connection: Connection, after: Stored) -> dict[str, Any] | None:
    """The next item, leased, as `turn_json` describes one; None when there is none ahead, or this is not the plain case."""
    look = after.look
    if look.status != "open" or not look.door_is_open:
        return None
    asked = {**look._asdict(), "after": look.turn_id}
    for _try in range(MOST_TRIES):
        found = _row(connection, _NEXT, asked)
        if found is None or found.position != 1:
            return None
        asked["after"] = found.id
        lent = {
            **asked,
            "turn_id": found.id,
            "conversation_id": found.conversation_id,
            "mirrored": random.SystemRandom().random() < 0.5,
        }
        lease = _row(connection, _LEND, lent)
        if lease is not None:
            texts = lease.texts[::-1] if lease.mirrored else lease.texts
            return _described(found, texts)
    return None


def _row(connection: Connection, statement: LiteralString, values: Mapping[str, Any]) -> Any | None:
    """The one row of a statement, by names."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(statement, values).fetchone()


def _described(turn: Any, texts: list[str]) -> dict[str, Any]:
    return {
        "turn": {
            "id": turn.id,
            "position": turn.position,
            "message": turn.message,
            "status": "ready",
            "candidates": [
                {"position": place, "text": text, "html": _html(text, current()), "status": "done"}
                for place, text in enumerate(texts)
            ],
            "continued_by": None,
            "compared": False,
            "failure": None,
        },
        "transcript": [{"role": "user", "content": turn.message}],
    }


@lru_cache(maxsize=512)
def _html(text: str, _language: str) -> str:
    # Where several people judge an item, it is rendered for the first of them in each language: boxes have names in it.
    return to_html(text)
