"""The models of a PPO run: the policy, the reference it starts from, the preference model that scores it, and the critic; and how the policy is saved."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.config import PolicyConfig
from training.models import lora
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, save_policy
from training.processes import ranks
from training.processes.sharding import Level, shard, whole
from training.runs.run_folder import RunFolder
from training.sampling.self_checks import check_tokenizers
from training.trunk.recomputing import recompute


@dataclass(frozen=True)
class PolicyModels:
    """All of them on one device; only policy and critic are trained."""

    policy: Any
    reference: Any
    pm: PreferenceModel
    critic: nn.Module  # a PreferenceModel of its own, or a linear head on the policy's trunk
    tokenizer: Any
    copies: int = 0  # weights that would be there once more without adapters
    policy_level: Level | None = None  # where the policy is in shards
    critic_level: Level | None = None

    @property
    def end_id(self) -> int:
        """The token that ends a reply."""
        return int(self.tokenizer.eos_token_id)


def load_models(config: PolicyConfig, device: torch.device) -> PolicyModels:
    """Read the policy and the preference model from their directories and make the other two of them.

    With adapters nothing is there twice: the reference is the policy with its adapter off, and a critic that begins as the
    preference model is that model with an adapter and a head of its own.
    """
    policy, tokenizer = load_policy(config.model)
    reference = lora.Unadapted(policy) if config.lora_rank else copy.deepcopy(policy).requires_grad_(False)
    pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
    pm.requires_grad_(False)
    check_tokenizers(tokenizer, pm_tokenizer)
    if config.lora_rank and config.critic == "pm":
        critic: nn.Module = on_backbone(pm.backbone, pm)
        pm = on_backbone(lora.Unadapted(pm.backbone), pm).requires_grad_(False)
    else:
        critic = new_critic(config.critic, policy, pm)
    copies = 0
    if config.lora_rank:
        copies = _weights(policy) + (_weights(critic) if config.critic == "pm" else 0)
        lora.adapt(policy, policy, config, config.seed)
        if isinstance(critic, PreferenceModel):
            lora.adapt(critic, critic.backbone, config, config.seed + 1)
            critic.head.requires_grad_(True)
    if config.gradient_checkpointing:
        recompute(policy)
        if isinstance(critic, PreferenceModel):
            recompute(critic.backbone)
    sharded = config.sharding == "full" and ranks.size() > 1
    levels = [_placed(model, device, sharded) for model in (policy, reference, pm, critic)]
    return PolicyModels(policy, reference, pm, critic, tokenizer, copies, levels[0], levels[3])


def _placed(model: Any, device: torch.device, sharded: bool) -> Level | None:
    """Move a model to the device and, where it has blocks of its own, into shards: one at a time is there whole."""
    model.to(device)
    shares_all = isinstance(model, lora.Unadapted) or isinstance(getattr(model, "backbone", None), lora.Unadapted)
    return shard(model, device) if sharded and not shares_all and not isinstance(model, nn.Linear) else None


def on_backbone(backbone: Any, pm: PreferenceModel) -> PreferenceModel:
    """A preference model on `backbone` with the head and the scale of `pm`, of its own."""
    found = PreferenceModel(backbone).eval()
    found.head = copy.deepcopy(pm.head)
    found.shift, found.scale = pm.shift, pm.scale
    return found


def write_policy(
    folder: RunFolder,
    config: PolicyConfig,
    policy: Any,
    tokenizer: Any,
    episodes: int,
    began_with: Mapping[str, str | None],
) -> None:
    """Make `policy` the run's model/; `began_with`: the fingerprints of the models that it came from."""
    with whole(policy):
        folder.write_model(
            lambda path: save_policy(
                path,
                policy,
                tokenizer,
                job="policy",
                preset=config.preset,
                episodes=episodes,
                seed=config.seed,
                **began_with,
            )
        )


def _weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


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
