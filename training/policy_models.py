"""The models of a PPO run: the policy, the reference it starts from, the preference model that scores it, and the critic."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.config import PolicyConfig
from training.models import PreferenceModel
from training.self_checks import check_tokenizers
from training.snapshots import load_policy


@dataclass(frozen=True)
class PolicyModels:
    """All of them on one device; only policy and critic are trained."""

    policy: Any
    reference: Any
    pm: PreferenceModel
    critic: nn.Module  # a PreferenceModel of its own, or a linear head on the policy's trunk
    tokenizer: Any

    @property
    def end_id(self) -> int:
        """The token that ends a reply."""
        return int(self.tokenizer.eos_token_id)


def load_models(config: PolicyConfig, device: torch.device) -> PolicyModels:
    """Read the policy and the preference model from their directories and make the other two of them."""
    policy, tokenizer = load_policy(config.model)
    reference = copy.deepcopy(policy).requires_grad_(False)
    pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
    pm.requires_grad_(False)
    check_tokenizers(tokenizer, pm_tokenizer)
    critic = new_critic(config.critic, policy, pm)
    for model in (policy, reference, pm, critic):
        model.to(device)
    return PolicyModels(policy, reference, pm, critic, tokenizer)


def new_critic(begins_as: str, policy: Any, pm: PreferenceModel) -> nn.Module:
    """A critic that begins as the preference model ("pm"), as the policy ("policy"), or as a bare head ("shared").

    A head of its own begins at zero (Huang et al., detail 14), so that what is first learnt from is the reward itself.
    """
    if begins_as == "pm":
        return copy.deepcopy(pm).requires_grad_(True)
    if begins_as == "policy":
        critic: nn.Module = PreferenceModel(copy.deepcopy(policy.base_model)).eval()
    else:
        critic = nn.Linear(policy.config.hidden_size, 1)
    head = critic.head if isinstance(critic, PreferenceModel) else critic
    nn.init.zeros_(head.weight)  # type: ignore[arg-type] # a linear layer's, in both cases
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return critic
