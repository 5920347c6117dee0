"""A trial of new weights before they are kept anywhere.

The numbers of an iteration are those of the weights it began with; what its last step made of them would show in the next
iteration alone, when a checkpoint of them may be the only one there is.
"""

import math

import torch
from torch import Tensor

from training.models.checkpoint import first_unsound
from training.models.models import PreferenceModel
from training.ppo.learner import Learner
from training.ppo.updates import NotANumber
from training.processes.sharding import whole
from training.sampling.rollouts import Rollout, values_and_states
from training.sampling.sampling import log_probs, reply_states


def try_out(learner: Learner, rollout: Rollout, where: str) -> None:
    """Raise NotANumber where a trained weight is not finite, or what policy and critic make of the replies with it.

    A reply is enough and the passes ask no other process, which may have no checkpoint to write now.
    """
    modules = {"policy": learner.policy, "critic": learner.critic} | (
        {"group head": learner.groups} if learner.groups is not None else {}
    )
    for name, module in modules.items():
        wrong = first_unsound(module)
        if wrong is not None:
            raise NotANumber(f"{wrong} of the {name} is not a number after {where}; lower learning_rate", [])
    with whole(learner.policy), torch.inference_mode():
        states = reply_states(
            learner.policy, rollout.tokens, rollout.prompt_length, rollout.mask, learner.config.temperature,
            half=learner.half,
        )  # fmt: skip
        _refuse(log_probs(states, rollout.mask), f"the policy's log-probability after {where}")
    if isinstance(learner.critic, PreferenceModel):
        with whole(learner.critic), torch.inference_mode():
            value, _ = values_and_states(learner.critic, rollout, half=learner.half)
        _refuse(value, f"the critic's value after {where}")


def finite(number: object) -> bool:
    """Whether a number, or each of a list of them, is finite; anything else is."""
    if isinstance(number, list):
        return all(map(finite, number))
    return not isinstance(number, float) or math.isfinite(number)


def _refuse(numbers: Tensor, what: str) -> None:
    if not bool(numbers.isfinite().all()):
        raise NotANumber(f"{what} is not a number; lower learning_rate", [])
