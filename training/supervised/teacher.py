"""What a prompted teacher says of texts, computed once and kept: its likeliest words at every token, and the mass of the rest.

A shard is a safetensors file of some texts as a student reads them, without the prompt, and of the teacher's bins at their
last tokens. The directory is named by a hash of all that decides its content (teacher, prompt, texts, settings), so a cache
that fits no longer is never read. Shards appear whole or not at all: an interrupted computation goes on with the next.
M tokens learnt from, k words with a bin of their own.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.data.examples import Example
from training.data.prompts import Prompt
from training.failure import JobFailed
from training.models.snapshots import render_reply
from training.objective import likeliest
from training.processes import ranks
from training.reading.words import WordReader
from training.runs import files
from training.runs.progress import Bar
from training.sampling.variants import Policy, Prefix, Replies


class Text(NamedTuple):
    """A text as both read it: the student `tokens`, the teacher `head` and the last `learnt` of them."""

    tokens: list[int]
    head: list[int]
    learnt: int


class Bins(NamedTuple):
    """What the teacher says of some texts, text after text."""

    words: Tensor  # [M, k]
    logp: Tensor  # [M, k+1]


class Written(NamedTuple):
    """A conversation in tokens: alone, behind the prompt, and how many of its last tokens are a reply's."""

    alone: list[int]
    behind: list[int]
    reply: int


def written(tokenizer: PreTrainedTokenizerBase, prefix: Prefix, talk: Prompt) -> Written:
    """Write a conversation; its last reply, if it ends with one, with the end token."""
    reply = render_reply(tokenizer, talk[-1]["content"]) if talk[-1]["role"] == "assistant" else []
    before = talk[:-1] if reply else talk
    alone, behind = (some.before(tokenizer, before) for some in (Prefix(), prefix))
    return Written(alone + reply, behind + reply, len(reply))


def answered(teacher: Policy, prompts: Sequence[Prompt], replies: Replies) -> list[Written]:
    """Write prompts and the teacher's replies to them, in the very tokens that were sampled."""
    rows = zip(replies.generated.tokens, replies.generated.mask, strict=True)
    return [
        Written(Prefix().before(teacher.tokenizer, prompt) + said, teacher.prefix.before(teacher.tokenizer, prompt) + said, len(said))
        for prompt, said in zip(prompts, (row[mask].tolist() for row, mask in rows), strict=True)
    ]  # fmt: skip


def aligned(
    rows: Sequence[Written], *, teacher_room: int, student_room: int, replies_only: bool
) -> tuple[list[Text], Counter[str]]:
    """Learn from the tokens that a conversation ends with both alone and behind the prompt.

    Left out and counted: "over_long", where text and prompt or the text alone do not fit; "no_reply", where only replies
    are learnt; "misaligned", where the template writes a conversation behind the prompt so unlike the conversation alone
    that less than half of it is the same.
    """
    found: list[Text] = []
    dropped: Counter[str] = Counter()
    for alone, behind, reply in rows:
        same = 0  # the first token of either is foretold by nothing
        while same < min(len(alone), len(behind)) - 1 and alone[-1 - same] == behind[-1 - same]:
            same += 1
        if len(behind) > teacher_room or len(alone) > student_room:
            dropped["over_long"] += 1
        elif replies_only and not reply:
            dropped["no_reply"] += 1
        elif 2 * same < len(alone) - 1 or same < reply:
            dropped["misaligned"] += 1
        else:
            same = reply if replies_only else same
            found.append(Text(alone, behind[: len(behind) - same], same))
    return found, dropped


class Cache:
    """The shards of one directory, read number by number."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        """`settings`: all that decides the content."""
        self.key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self.path = root / self.key
        self.settings = dict(settings)
        self.examples: list[Example] = []
        self.dropped: Counter[str] = Counter()
        self._places: list[tuple[Any, int, int]] = []  # of each text: its shard, where its bins begin, how many

    def fill(self, title: str, talks: int, compute: Callable[[int, int], "Shard"], *, per_shard: int) -> None:
        """Write the shards that are missing, each of `per_shard` of the conversations; of several processes the first does."""
        if ranks.leads() and talks:
            self.path.mkdir(parents=True, exist_ok=True)
            files.write_json(self.path / "settings.json", self.settings)
            begins = range(0, talks, per_shard)
            with Bar(title, len(begins)) as bar:
                for number, begin in enumerate(begins):
                    file = self.path / f"shard-{number:06}.safetensors"
                    if not file.exists():
                        shard = compute(begin, min(begin + per_shard, talks))
                        told = {reason: str(count) for reason, count in shard.dropped.items()}
                        files.write_bytes(file, save(shard.tensors, metadata=told))
                    bar.at(number + 1)

    def open(self) -> None:
        """Read which texts the shards hold, and how many were left out; bins stay on disk until they are asked for."""
        for file in sorted(self.path.glob("shard-*.safetensors")):
            try:
                shard = safe_open(file, framework="pt")
                tokens = shard.get_tensor("tokens").split(shard.get_tensor("lengths").tolist())
                learnt = shard.get_tensor("learnt").tolist()
            except (OSError, SafetensorError) as bad:
                raise JobFailed(f"{file} is damaged ({bad}); delete it, and it is computed again") from bad
            self.dropped.update({reason: int(count) for reason, count in (shard.metadata() or {}).items()})
            begin = 0
            for text, count in zip(tokens, learnt, strict=False):  # without a text there is one empty piece
                row = text.tolist()
                self.examples.append(Example(row, list(range(len(row) - count, len(row)))))
                self._places.append((shard, begin, count))
                begin += count

    def bins(self, numbers: Sequence[int], device: torch.device) -> Bins:
        """Return what the teacher says of these texts."""
        places = [self._places[number] for number in numbers]
        parts = [
            [shard.get_slice(name)[begin : begin + count] for shard, begin, count in places]
            for name in ("words", "logp")
        ]
        return Bins(torch.cat(parts[0]).long().to(device), torch.cat(parts[1]).to(device))


class Shard(NamedTuple):
    """What one file holds: the tensors, and how many conversations were left out by reason."""

    tensors: dict[str, Tensor]
    dropped: Counter[str]


@torch.no_grad()
def shard_of(reader: WordReader, texts: Sequence[Text], dropped: Counter[str], bins: int) -> Shard:
    """Compute one shard: the teacher reads each text behind its head, which those of equal heads share."""
    words: list[Tensor] = [torch.empty(0, bins, dtype=torch.int32)] * len(texts)
    logp: list[Tensor] = [torch.empty(0, bins + 1)] * len(texts)
    for head, part in _passes(reader, texts):
        tails = [texts[number].tokens[-texts[number].learnt :] for number in part]
        sizes = [len(tail) for tail in tails]
        found, told = likeliest(reader.logits_behind(head, tails), bins)
        for number, some, says in zip(part, found.int().cpu().split(sizes), told.cpu().split(sizes), strict=True):
            words[number], logp[number] = some, says
    tensors = {
        "tokens": torch.tensor([token for text in texts for token in text.tokens], dtype=torch.int32),
        "lengths": torch.tensor([len(text.tokens) for text in texts], dtype=torch.int64),
        "learnt": torch.tensor([text.learnt for text in texts], dtype=torch.int64),
        "words": torch.cat([torch.empty(0, bins, dtype=torch.int32), *words]),
        "logp": torch.cat([torch.empty(0, bins + 1), *logp]),
    }
    return Shard(tensors, dropped)


def _passes(reader: WordReader, texts: Sequence[Text]) -> Iterator[tuple[list[int], list[int]]]:
    """Cut texts into passes of equal heads and at most the reader's budget; together every text once."""
    heads: dict[tuple[int, ...], list[int]] = {}
    for number, text in enumerate(texts):
        heads.setdefault(tuple(text.head), []).append(number)
    for head, numbers in heads.items():
        part: list[int] = []
        used = len(head)
        for number in numbers:
            if part and used + texts[number].learnt > reader.budget:
                yield list(head), part
                part, used = [], len(head)
            part.append(number)
            used += texts[number].learnt
        yield list(head), part
