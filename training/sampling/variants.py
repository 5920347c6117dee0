"""Policies as they answer, behind one interface: plain, prompted, distilled, finetuned, and the best of several replies.

A `Policy` is a model directory: of a finetuned, a distilled or any other policy, or of one that answers behind a prompt C
(`prefix`), which stands before every conversation and which its readers never see (Bai et al. 2022 §2.3). Whatever has
`reply` can stand in its place (`Answers`): `training/best_of.py` samples from one and keeps what a preference model likes
best.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.data.prompts import Prompt
from training.failure import JobFailed
from training.lines.records import Reason, messages_of
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.models.snapshots import Fitted, PromptTooLong, load_policy, render, save_policy
from training.processes.device import Precision, device_of_choice, in_half
from training.sampling.engine import Engine, Generated, generate
from training.sampling.rollouts import Rollout, policy_logp, preference_scores, rollout_of, written

EachStep = Callable[[int], None] | None


class Sampling(NamedTuple):
    """How replies are drawn."""

    max_new_tokens: int = 112
    temperature: float = 1.0
    top_p: float = 1.0


class Replies(NamedTuple):
    """Replies to conversations, in their order; the tensors are right-padded [B, R], see Generated."""

    texts: list[str]
    generated: Generated
    room: int  # tokens that were kept free for each beside its prompt


class Answers(Protocol):
    """Whatever writes replies to conversations."""

    tokenizer: PreTrainedTokenizerBase

    def reply(
        self, conversations: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling, each_step: EachStep = None
    ) -> Replies:
        """Write one reply to each conversation; each depends on its conversation, its seed and the settings alone."""


class Prefix:
    """The prompt C before every conversation: a text, or messages that end with the assistant's; empty is nothing."""

    def __init__(self, content: str | Prompt = "") -> None:
        if isinstance(content, list) and content and content[-1]["role"] != "assistant":
            raise JobFailed("a prompt of messages must end with the assistant's: the conversation goes on after it")
        self.content = content

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a text file, or a .json file with a list of messages."""
        file = Path(path)
        try:
            text = file.read_text("utf-8")
            found = json.loads(text) if file.suffix == ".json" else text
        except (OSError, ValueError) as bad:
            raise JobFailed(f"the prompt {file} cannot be read ({bad}); give a text, or messages in a .json") from bad
        if isinstance(found, str):
            if not found.strip():
                raise JobFailed(f"the prompt {file} is empty; name none where there is none")
            return cls(found)
        try:
            messages = messages_of("prompt", found)
        except Reason as bad:
            raise JobFailed(f"the prompt {file} cannot be used: {bad}") from bad
        return cls(messages)

    def before(self, tokenizer: PreTrainedTokenizerBase, conversation: Prompt) -> list[int]:
        """Return the tokens of the conversation behind the prompt, ready for a reply."""
        if isinstance(self.content, list):
            return render(tokenizer, [*self.content, *conversation])
        return self.ahead_of(tokenizer, render(tokenizer, conversation))

    def ahead_of(self, tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
        """Return `ids` with the prompt, which must be a text, right behind their token of beginning where they have one."""
        if isinstance(self.content, list):
            raise JobFailed("a prompt of messages stands before conversations only; give the prompt as a text")
        words = tokenizer(self.content, add_special_tokens=False, verbose=False)["input_ids"] if self.content else []
        begin = int(bool(ids) and ids[0] == tokenizer.bos_token_id)
        return [*ids[:begin], *map(int, words), *ids[begin:]]

    def within(self, tokenizer: PreTrainedTokenizerBase, conversation: Prompt, room: int) -> Fitted:
        """Return at most `room` tokens; the oldest turns of the conversation are left out whole, the prompt never is."""
        begins = [place for place, message in enumerate(conversation) if message["role"] == "user" and place]
        for begin in [0, *begins]:
            ids = self.before(tokenizer, conversation[begin:])
            if len(ids) <= room:
                return Fitted(ids, begin)
        raise PromptTooLong(f"the last message behind its prompt takes {len(ids)} tokens and there is room for {room}")


class Policy:
    """A policy that answers, perhaps behind a prompt; `slots` replies are written at once."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        prefix: Prefix | None = None,
        *,
        slots: int = 64,
        precision: Precision = "float32",
        shared: bool = False,
    ) -> None:
        """`shared`: of several processes each writes its part of the replies; all must ask."""
        self.model, self.tokenizer, self.prefix = model, tokenizer, prefix or Prefix()
        self.context = context_of(model.config)
        self.slots, self.shared = slots, shared
        self.half = in_half(precision, model.device, int(model.config.hidden_size))
        self._engine: Engine | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        prefix: Prefix | None = None,
        *,
        slots: int = 64,
        precision: Precision = "float32",
        shared: bool = False,
    ) -> Self:
        """Load a policy directory onto the device of choice."""
        model, tokenizer = load_policy(path)
        model.to(device_of_choice())  # type: ignore[arg-type]
        return cls(model, tokenizer, prefix, slots=slots, precision=precision, shared=shared)

    def prompt(self, conversation: Prompt, max_new_tokens: int) -> Fitted:
        """Return what the model reads before its reply; PromptTooLong when not even the last message fits beside it."""
        return self.prefix.within(self.tokenizer, conversation, self.context - max_new_tokens)

    def reply(
        self, conversations: Sequence[Prompt], seeds: Sequence[int], sampling: Sampling, each_step: EachStep = None
    ) -> Replies:
        """Write one reply to each conversation; a conversation too long for the context is a PromptTooLong."""
        prompts = [self.prompt(conversation, sampling.max_new_tokens).ids for conversation in conversations]
        room = max(map(len, prompts), default=0) + sampling.max_new_tokens
        if self._engine is None or self._engine.max_length < room:  # no wider than asked for: each slot keeps its keys
            self._engine = Engine(self.model, self.tokenizer, self.slots, room, half=self.half)
        write = written if self.shared else generate
        generated = write(
            self._engine, prompts, seeds, sampling.max_new_tokens, sampling.temperature, sampling.top_p, each_step
        )
        return Replies(self.texts(generated), generated, sampling.max_new_tokens)

    def texts(self, generated: Generated) -> list[str]:
        """Return replies as people read them, without the end token."""
        rows = [row[mask].tolist() for row, mask in zip(generated.tokens, generated.mask, strict=True)]
        return [str(text) for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def rollout(self, conversations: Sequence[Prompt], replies: Replies) -> Rollout:
        """Lay replies, of this policy or of another, behind their conversations as this policy reads them."""
        return rollout_of([self.prompt(talk, replies.room).ids for talk in conversations], replies.generated)

    def log_probs(self, conversations: Sequence[Prompt], replies: Replies, temperature: float = 1.0) -> Tensor:
        """Return log π of every reply token, each policy behind its own prompt; 0 in the padding.  -> [B, R]"""
        return policy_logp(self.model, self.rollout(conversations, replies), temperature, half=self.half)

    def save(self, path: Path, **provenance: Any) -> None:
        """Write the policy's directory; the prompt, which is no part of the weights, is not in it."""
        save_policy(path, self.model, self.tokenizer, **provenance)

    def refresh(self) -> None:
        """Sample from the present weights from now on: they are being trained."""
        if self._engine is not None:
            self._engine.refresh(self.model)


def answerable(
    prompts: Sequence[Prompt], readers: Sequence[Callable[[Prompt], Fitted]], *, in_full: bool = False
) -> tuple[list[Prompt], dict[str, int]]:
    """The prompts that every reader has room for, and how many are not among them or lose something.

    "shortened": their oldest turns are left out for one of the readers at least, or, `in_full`, the prompt is, for that reason;
    "over_long": not even the last message fits.
    """
    found, told = list[Prompt](), {"shortened": 0, "over_long": 0}
    for prompt in prompts:
        try:
            dropped = max(read(prompt).dropped for read in readers)
        except PromptTooLong:
            told["over_long"] += 1
            continue
        told["shortened"] += dropped > 0
        if not (in_full and dropped):
            found.append(prompt)
    return found, told


def scores(
    pm: PreferenceModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Prompt],
    replies: Replies,
    *,
    half: bool = False,
) -> Tensor:
    """Return the preference model's score of each reply to its conversation; it reads no prompt before it.  -> [B]"""
    context = context_of(pm.backbone.config)
    nothing, room = Prefix(), context - replies.room - 1  # and the end token that a cut reply is given
    prompts = [nothing.within(tokenizer, conversation, room).ids for conversation in conversations]
    return preference_scores(pm, rollout_of(prompts, replies.generated), int(tokenizer.eos_token_id), half=half)
