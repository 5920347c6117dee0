"""What can be exported, and as which lines: comparisons in the shapes of others and our own; rankings, edits, demonstrations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from server.models import Comparison, Demonstration, Edit, Ranking
from server.services.data.selection import Selection
from training.lines import rankings, records
from workers.stored import stored_records
from workers.stored_answers import Shown, stored_demonstrations, stored_edits, stored_rankings

Reader = Callable[[Session, Selection, str], Iterator[tuple[Any, str, str]]]


@dataclass(frozen=True)
class Format:
    """`noun` is what one record is called; `read` yields (record, campaign slug, source); no `line` means Parquet."""

    noun: str
    answers: type[Comparison | Ranking | Edit | Demonstration]
    read: Reader
    line: Callable[[Any], str] | None
    schema: dict[str, str]


def _shown_line(shown: Shown) -> str:
    said = {"messages": [*shown.prompt, {"role": "assistant", "content": shown.reply}]}
    beside = {"mode": shown.mode, "conversation": shown.conversation, "person": shown.person}
    return json.dumps(said | beside | shown.extra, ensure_ascii=False)


_CONVERSATIONAL = {
    "prompt": "messages {role, content}",
    "chosen": "one assistant message",
    "rejected": "one assistant message",
}
_OURS = _CONVERSATIONAL | {
    "strength": "1 (weakest) to 4; none where the scale had one strength",
    "mode": "helpful or red_team; chosen is the less harmful reply in both",
    "conversation, person, turn": "pseudonyms, stable within one installation",
    "round": "number of the round whose policy was serving",
    "distribution": "base, rs or online: the latest of the models that wrote the two replies; null where none did",
    "chosen_reply, rejected_reply": "snapshot, seed, sampling (with best_of: k, scores, taken), position shown (0 left), log_probability, token_count",
    "...": "campaign, scale_position, milliseconds_to_decide, instructions_version, created_at, and what an import said",
}


def _compared(line: Callable[[records.Comparison], str] | None, schema: dict[str, str]) -> Format:
    return Format("comparisons", Comparison, stored_records, line, schema)


FORMATS = {
    "hh": _compared(
        records.to_hh_line,
        {"chosen": "transcript ending with the better reply", "rejected": "the same with the other reply"},
    ),
    "trl": _compared(
        partial(records.to_trl_line, explicit=False, conversational=False),
        {"chosen": "prompt and better reply as one text", "rejected": "prompt and other reply"},
    ),
    "trl-explicit": _compared(
        partial(records.to_trl_line, explicit=True, conversational=False),
        {"prompt": "transcript ending with 'Assistant:'", "chosen": "better reply", "rejected": "other reply"},
    ),
    "trl-conversational": _compared(
        partial(records.to_trl_line, explicit=True, conversational=True), _CONVERSATIONAL
    ),
    "whetstone": _compared(records.to_line, _OURS),
    "parquet": _compared(None, _OURS | {"provenance": "JSON of the remaining keys of the format whetstone"}),
    "rankings": Format("rankings", Ranking, stored_rankings, rankings.to_line, {
        "prompt": "messages {role, content}",
        "replies": "the texts, in the order shown",
        "ranks": "of each reply: 1 is the one to learn, equal ranks are ties",
        "distribution": "base, rs or online: the latest of the models that wrote the replies",
        "replies_from": "of each reply: snapshot, seed, position, rating 1 to 7, flags",
        "...": "mode, conversation, person, campaign, purpose, milliseconds, instructions_version, created_at",
    }),
    "edits": Format("edits", Edit, stored_edits, records.to_line, _CONVERSATIONAL | {
        "chosen": "what the person made of the reply",
        "rejected": "the reply as the model wrote it",
        "distribution": "base, rs or online: of the model that wrote it",
        "...": "mode, conversation, person, campaign, purpose, milliseconds, instructions_version, created_at",
    }),
    "demonstrations": Format("demonstrations", Demonstration, stored_demonstrations, _shown_line, {
        "messages": "the prompt and the person's reply as {role, content}",
        "...": "mode, conversation, person, campaign, purpose, milliseconds, instructions_version, created_at",
    }),
}  # fmt: skip
