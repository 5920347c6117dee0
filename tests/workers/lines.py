"""Handmade lines of comparisons; the irregular ones are after the public hh-rlhf files, in words of our own."""

from __future__ import annotations

import json
from pathlib import Path

HH = [
    # one turn, several turns, a rejected reply that goes on in the person's name
    {"chosen": "\n\nHuman: How do I boil an egg?\n\nAssistant: Seven minutes.", "rejected": "\n\nHuman: How do I boil an egg?\n\nAssistant: No."},
    {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello, what is it?\n\nHuman: Tea?\n\nAssistant: Green tea is milder.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Hello, what is it?\n\nHuman: Tea?\n\nAssistant: Tea.\n\nHuman: And?\n\nAssistant: And what?",
    },
    {"chosen": "\n\nHuman: Ünïcödé “quotes” 🦉\n\nAssistant: ", "rejected": "\n\nHuman: Ünïcödé “quotes” 🦉\n\nAssistant: Yes\n"},
]  # fmt: skip
# lines that a plain rendering would not give back: escapes, other spaces, no space after the marker
IRREGULAR = [
    r'{"chosen":"\n\nHuman: caf\u00e9?\n\nAssistant: Yes.","rejected":"\n\nHuman: caf\u00e9?\n\nAssistant: No."}',
    r'{"rejected": "\n\nHuman: Order?\n\nAssistant: b", "chosen": "\n\nHuman: Order?\n\nAssistant: a"}',
    r'{"chosen": "\n\nHuman:tight\n\nAssistant:a", "rejected": "\n\nHuman:tight\n\nAssistant:b"}',
]


def hh_lines() -> list[str]:
    """The sample as lines without their ends."""
    return [json.dumps(record, ensure_ascii=False) for record in HH] + IRREGULAR


def write(path: Path, lines: list[str]) -> Path:
    """Write lines to a file."""
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path
