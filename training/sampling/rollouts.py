"""Rollouts: replies sampled from the present policy, with all that PPO needs to learn from them.

Of several processes each samples and reads its share, and all get the whole: all must call what is below alike.
Shapes: B replies, T columns of prompt and reply together (right-padded), R columns of the longest reply.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.data.padding import right_padded
from training.models.models import PreferenceModel
from training.processes import distributed, ranks
from training.processes.sharding import whole
from training.sampling.engine import Engine, Generated, generate
from training.sampling.sampling import log_probs, reply_states, state_columns
from training.trunk import trunk_for
from training.trunk.packing import packed_rows

# Padded tokens of one forward pass: enough for large matrix products, little enough for activations to stay in memory.
PART_TOKENS = 4096
# A row joins a part when it is at least this share of the part's longest, so that little padding is computed.
PART_EVENNESS = 0.7


@unique
class Occasion(IntEnum):
    """What replies are drawn for where it is no training iteration: numbers far above those, so that no seeds are shared."""

    TEACHING = 2**28  # what a teacher says, for a student to learn from
    TEACHING_TEST = 2**28 + 1  # and for its test
    TEACHER_SAMPLES = 2**29  # what a teacher says to the prompts that student and teacher are compared on
    LOOKS = 2**30  # of a supervised run at its model, to select the best
    SELF_CHECK = 2**30 + 1  # of a policy run
    EVALUATION = 2**31  # of one policy against another
    FIELD = 2**31 + 1  # of many policies: snapshot number n draws FIELD + n
    CHOOSING = 2**31 + 2**30  # the replies of which one is chosen


@dataclass(frozen=True)
class Rollout:
    """B replies. Columns [B, R] are the tokens of the reply, 0 where `mask` is False."""

    tokens: Tensor  # [B, T] prompt, reply, padding
    prompt_length: Tensor  # [B]
    mask: Tensor  # [B, R] True on reply tokens, the end token included; the only truth about padding
    old_logp: Tensor  # [B, R] of the sampler, at the sampling temperature
    ended: Tensor  # [B] the reply ended by itself

    @property
    def length(self) -> Tensor:
        """Tokens of each prompt and reply together.  [B]"""
        return self.prompt_length + self.mask.sum(1)

    def rows(self, index: Tensor) -> "Rollout":
        """The replies `index`, columns cut to the longest of them."""
        mask = self.mask[index]
        reply = int(mask.sum(1).max())
        columns = int(self.length[index].max())
        return Rollout(
            self.tokens[index, :columns], self.prompt_length[index], mask[:, :reply],
            self.old_logp[index, :reply], self.ended[index],
        )  # fmt: skip


def rollout_of(prompts: Sequence[Sequence[int]], generated: Generated) -> Rollout:
    """Join prompts and their replies into one right-padded table; every reply must hold a token."""
    length = generated.mask.sum(1)
    if bool((length == 0).any()):
        raise ValueError("a reply without a token cannot be learnt from")
    device = generated.tokens.device
    table, prompt_length = right_padded(prompts, device)
    tokens = functional.pad(table, (0, int((prompt_length + length).max()) - table.shape[1]))
    reply, column = state_columns(prompt_length, generated.mask)
    tokens[reply, column + 1] = generated.tokens[generated.mask]
    return Rollout(tokens, prompt_length, generated.mask, generated.logp, generated.ended)


def reply_seeds(seed: int, occasion: int, count: int) -> list[int]:
    """One seed a reply, different in every run and on each occasion: an iteration's number, or an `Occasion`."""
    return [int(found) for found in np.random.SeedSequence([seed, occasion]).generate_state(count, np.uint64)]


def sample_seeds(seed: int, prompt: int, count: int) -> list[int]:
    """One seed a reply: those of prompt number `prompt` depend on it and the run's seed alone, fewer replies on the first ones."""
    state = np.random.SeedSequence([seed % 2**64, Occasion.CHOOSING, prompt]).generate_state(count, np.uint64)
    return [int(found) for found in state]


def sample(
    engine: Engine, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_new_tokens: int, temperature: float,
    each_step: Callable[[int], None] | None = None,
) -> Rollout:  # fmt: skip
    """Write a reply to every prompt."""
    return rollout_of(prompts, written(engine, prompts, seeds, max_new_tokens, temperature, each_step=each_step))


def written(
    engine: Engine, prompts: Sequence[Sequence[int]], seeds: Sequence[int], max_new_tokens: int, temperature: float,
    top_p: float = 1.0, each_step: Callable[[int], None] | None = None,
) -> Generated:  # fmt: skip
    """The replies to all prompts, each written by one of the processes."""
    mine = distributed.share(range(len(prompts)))
    own: Generated | None = None
    if mine:

        def told(count: int) -> None:  # the others are about as far
            if each_step is not None:
                each_step(min(count * ranks.size(), len(prompts)))

        own = generate(
            engine, [prompts[place] for place in mine], [seeds[place] for place in mine], max_new_tokens, temperature,
            top_p, told,
        )  # fmt: skip
    if ranks.size() == 1 and own is not None:
        return own
    number, share = torch.zeros(0, dtype=torch.long, device=engine.device), torch.zeros(0, device=engine.device)
    tokens = distributed.assembled(own and own.tokens, mine, len(prompts), number)
    logp = distributed.assembled(own and own.logp, mine, len(prompts), share)
    mask = distributed.assembled(own and own.mask.long(), mine, len(prompts), number)
    ended = distributed.assembled(own and own.ended.long()[:, None], mine, len(prompts), number)
    return Generated(tokens, logp, mask.bool(), ended[:, 0].bool())


def even_parts(rollout: Rollout) -> list[Tensor]:
    """Row numbers of this process's share in parts of similar length, each a forward pass; together every row once."""
    lengths = rollout.length.tolist()
    parts: list[list[int]] = []
    longest = 0
    for row in distributed.share(sorted(range(len(lengths)), key=lambda r: lengths[r], reverse=True)):
        fits = bool(parts) and lengths[row] >= PART_EVENNESS * longest and (len(parts[-1]) + 1) * longest <= PART_TOKENS
        if fits:
            parts[-1].append(row)
        else:
            parts.append([row])
            longest = lengths[row]
    return [torch.tensor(part, device=rollout.tokens.device) for part in parts]


def _by_parts(rollout: Rollout, shape: torch.Size, measure: Callable[[Rollout], Tensor]) -> Tensor:
    """`measure` of each part ([b, r] or [b]) put back in the order of the rollout, 0 in the padding."""
    found = torch.zeros(shape, device=rollout.tokens.device)
    for part in even_parts(rollout):
        some = measure(rollout.rows(part))
        if some.dim() == 2:
            found[part, : some.shape[1]] = some.float()
        else:
            found[part] = some.float()
    return distributed.added(found)


def policy_logp(model: Any, rollout: Rollout, temperature: float, *, half: bool = False) -> Tensor:
    """Log π of every reply token under `model`; `half`: matrix products in bfloat16.  -> [B, R]"""

    def measure(part: Rollout) -> Tensor:
        states = reply_states(model, part.tokens, part.prompt_length, part.mask, temperature, half=half)
        return log_probs(states, part.mask)

    with whole(model), torch.inference_mode():
        return _by_parts(rollout, rollout.mask.shape, measure)


def preference_scores(model: PreferenceModel, rollout: Rollout, end_id: int, *, half: bool = False) -> Tensor:
    """The preference model's score of each reply, read on its end token; a cut reply is given one to be read at.  -> [B]"""
    with whole(model.backbone), torch.inference_mode():
        return _by_parts(rollout, rollout.mask.shape[:1], lambda part: _scores(model, part, end_id, half))


def _scores(model: PreferenceModel, part: Rollout, end_id: int, half: bool) -> Tensor:
    rows = torch.arange(len(part.tokens), device=part.tokens.device)
    ends = part.length - part.ended.long()  # the end token written, or the column after a cut reply
    room = torch.zeros(len(rows), 1, dtype=torch.long, device=part.tokens.device)
    tokens = torch.cat([part.tokens, room], dim=1)
    tokens[rows, ends] = end_id
    packing = packed_rows(tokens, part.prompt_length, ends + 1)
    return model.normalised(trunk_for(model.backbone, half=half).hidden(packing, packing.reply_ends()))


def values_and_states(model: PreferenceModel, rollout: Rollout, *, half: bool = False) -> tuple[Tensor, Tensor]:
    """V(s_t) of a critic at the state before each reply token, 0 in the padding, and these states in the order of the mask.  -> [B, R], [N, d]"""
    packing = packed_rows(rollout.tokens, rollout.prompt_length, rollout.length)
    states = trunk_for(model.backbone, half=half).hidden(packing, packing.state_columns())
    found = model.normalised(states)
    return torch.zeros(rollout.mask.shape, device=found.device).masked_scatter(rollout.mask, found), states


@dataclass(frozen=True)
class Experience:
    """A rollout with what is learnt from it, [B, R] but for the last."""

    rollout: Rollout
    advantage: Tensor
    target: Tensor  # returns, for the critic
    old_value: Tensor
    anchor: Tensor  # log-probabilities that the ratio is to
    earned: Tensor  # [B] the whole reply's reward, from which groups are inferred

    def rows(self, index: Tensor) -> "Experience":
        """The replies `index`, columns cut to the longest of them."""
        rollout = self.rollout.rows(index)
        width = rollout.mask.shape[1]
        return replace(
            self, rollout=rollout, advantage=self.advantage[index, :width], target=self.target[index, :width],
            old_value=self.old_value[index, :width], anchor=self.anchor[index, :width], earned=self.earned[index],
        )  # fmt: skip
