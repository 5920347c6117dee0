"""The prompt pool, `prompts.jsonl`: openings for people who do not want to invent one, and for reinforcement learning.

`python -m training.starter.prompts` writes it anew. The held-out ones never stand in the corpus.
"""

import json
import random
from pathlib import Path
from typing import TypedDict

from training.starter import wording
from training.starter.world import facts, misdeeds

POOL = Path(__file__).parent / "prompts.jsonl"
SEED = 7
COUNTS = {"helpful": (440, 220), "red_team": (160, 90)}
"""Mode -> (prompts to train on, prompts held out)."""


class PoolRow(TypedDict):
    """A line of the pool."""

    text: str
    mode: str
    split: str


def _helpful(rng: random.Random) -> str:
    fact = rng.choice(facts())
    kind = rng.random()
    if kind < 0.84:
        text = rng.choice(fact.relation.questions).format(e=fact.entity)
    elif kind < 0.93:
        text = rng.choice(wording.ABOUT_ENTITY).format(e=fact.entity)
    else:
        text = rng.choice(wording.ABOUT_TOPIC).format(t=fact.topic.name)
    return rng.choice(wording.BEFORE) + text + rng.choice(wording.AFTER)


def _red_team(rng: random.Random) -> str:
    act = rng.choice(rng.choice(misdeeds()).acts)
    return rng.choice(wording.RED_TEAM).format(a=act) + rng.choice(wording.RED_AFTER)


def make_pool(seed: int = SEED) -> list[PoolRow]:
    """The whole pool, all texts distinct."""
    rng = random.Random(seed)
    rows: list[PoolRow] = []
    seen: set[str] = set()
    for mode, (train, held_out) in COUNTS.items():
        for split, count in (("train", train), ("held_out", held_out)):
            while count:
                text = _helpful(rng) if mode == "helpful" else _red_team(rng)
                if text not in seen:
                    seen.add(text)
                    rows.append({"text": text, "mode": mode, "split": split})
                    count -= 1
    return rows


def read_pool(path: Path = POOL) -> list[PoolRow]:
    """The pool as it ships."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write the pool."""
    lines = [json.dumps(row, ensure_ascii=False) for row in make_pool()]
    POOL.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
