"""The preference model: a policy's backbone with one number a position, read on the end token of a whole conversation.

The same class is PPO's critic (`values`). A directory of kind "pm" holds the backbone as save_pretrained writes it, the
tokenizer, `head.safetensors`, `preference.json` {shift, scale} and the manifest.
"""

import json
import math
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from training.models import lora
from training.models.snapshots import (
    BadSnapshot,
    checked,
    load_weights,
    write_manifest,
)
from training.processes.device import products
from training.runs import files
from training.trunk.vocabulary import tell


class PreferenceModel(nn.Module):
    """Scores of conversations; B rows, T columns, d wide.

    Rows are right-padded (or carry an explicit `mask`); a pad column never reaches a number of a real one, and where a row
    ends is told by `ends` or `mask`, never guessed from pad ids. `shift` and `scale` make the scores of the replies it was
    trained on mean 0 and standard deviation 1, so that a KL weight means the same from one week's model to the next.
    """

    def __init__(self, backbone: PreTrainedModel, words: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = int(backbone.config.hidden_size)
        self.head = nn.Linear(self.width, 1)
        self.words = words  # the vocabulary head, kept only for the language loss
        self.shift = 0.0
        self.scale = 1.0

    @classmethod
    def from_policy(
        cls,
        path: str | Path,
        *,
        seed: int,
        dtype: torch.dtype = torch.float32,
        words: bool = False,
    ) -> tuple[Self, PreTrainedTokenizerBase]:
        """Return (new preference model, tokenizer) on the backbone of a policy; the head is N(0, 1/(d+1)), bias 0."""
        tokenizer = checked(path).tokenizer
        return cls.on(load_weights(AutoModelForCausalLM, path, dtype), seed=seed, words=words), tokenizer

    @classmethod
    def on(cls, causal: PreTrainedModel, *, seed: int, words: bool = False) -> Self:
        """Return a new preference model on the backbone of a causal model, which goes on sharing it."""
        model = cls(causal.base_model, causal.get_output_embeddings() if words else None)
        model.head.to(causal.dtype)
        model.renew_head(seed)
        return model.eval()

    @torch.no_grad()
    def renew_head(self, seed: int) -> None:
        """Draw the head anew: std 1/√(d+1), so that scores start of order 1 whatever the width (Stiennon et al. 2020)."""
        generator = torch.Generator().manual_seed(seed)
        self.head.weight.normal_(0.0, 1 / math.sqrt(self.width + 1), generator=generator)
        self.head.bias.zero_()
        self.shift, self.scale = 0.0, 1.0

    @classmethod
    def load(
        cls, path: str | Path, dtype: torch.dtype = torch.float32, *, words: bool = False, verify: bool = True
    ) -> tuple[Self, PreTrainedTokenizerBase]:
        """Return (preference model, tokenizer) of a directory that `save` wrote; BadSnapshot says what is wrong with it.

        `words` needs a backbone whose vocabulary head is its embedding: a head of its own is not kept in the directory.
        """
        root = Path(path)
        summary, tokenizer = checked(root, verify=verify)
        if summary.kind != "pm":
            raise BadSnapshot(f"{root} holds a {summary.kind}, not a preference model; train one on it first")
        backbone = load_weights(AutoModel, root, dtype)
        if words and not backbone.config.tie_word_embeddings:
            raise BadSnapshot(
                f"{root} holds a preference model without a vocabulary head, which the language loss needs; "
                "start from a policy, or set lm_weight to 0"
            )
        model = cls(backbone, _tied_head(backbone) if words else None)
        try:
            model.head.load_state_dict(load_file(root / "head.safetensors"))
            norm = json.loads((root / "preference.json").read_text("utf-8"))
            model.shift, model.scale = float(norm["shift"]), float(norm["scale"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as bad:
            raise BadSnapshot(f"the head of the preference model in {root} cannot be loaded: {bad}") from bad
        model.head.to(dtype)
        return model.eval(), tokenizer

    def save(self, path: str | Path, tokenizer: PreTrainedTokenizerBase, **provenance: Any) -> dict[str, Any]:
        """Write the directory and return its manifest."""
        root = Path(path)
        transformers_logging.disable_progress_bar()
        lora.save_merged(self.backbone, root)
        tokenizer.save_pretrained(str(root))
        save_file(
            {name: part.detach().cpu() for name, part in self.head.state_dict().items()}, root / "head.safetensors"
        )
        files.write_json(root / "preference.json", {"shift": self.shift, "scale": self.scale})
        return write_manifest(root, kind="pm", **provenance)

    def hidden(self, input_ids: Tensor, mask: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
        """Return the last hidden states.  [B, T] -> [B, T, d]

        `mask` None: rows are right-padded, so causal attention alone keeps the padding out. `mask` [B, T]: True on real
        tokens, wherever the padding lies. `mask` [B, 1, T, T]: True where a query (row) may look at a key (column), as
        when two replies share a prompt; `position_ids` are needed then.
        """
        if mask is not None and mask.dim() == 2:
            if position_ids is None:  # learned positions (GPT-2) would otherwise count the padding in front
                position_ids = (mask.long().cumsum(1) - 1).clamp_min(0)
            mask = mask.long()
        found: Tensor = self.backbone(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        return found

    def read(self, hidden: Tensor) -> Tensor:
        """Return the raw score of hidden states, in float32 whatever the autocast.  [..., d] -> [...]"""
        weight, bias = self.head.weight.float(), self.head.bias.float()
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), weight, bias).squeeze(-1)

    def normalised(self, hidden: Tensor) -> Tensor:
        """Return the score of hidden states on the scale of the replies of training.  [..., d] -> [...]"""
        return (self.read(hidden) - self.shift) / self.scale

    def raw_scores(self, input_ids: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the score at column `ends` of each row, the end token after the reply.  [B, T], [B] -> [B]

        A difference of two raw scores is the log-odds that the first reply is preferred.
        """
        hidden = self.hidden(input_ids, mask)
        return self.read(hidden[torch.arange(len(ends), device=ends.device), ends])

    def scores(self, input_ids: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return normalised scores: mean 0, standard deviation 1 over the replies of training.  [B, T], [B] -> [B]"""
        return (self.raw_scores(input_ids, ends, mask) - self.shift) / self.scale

    def values(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the normalised score at every position, as PPO's critic reads it.  [B, T] -> [B, T]"""
        return self.normalised(self.hidden(input_ids, mask))

    def word_losses(self, hidden: Tensor, targets: Tensor, *, half: bool = False) -> Tensor:
        """Return -log p of each target token; products in bfloat16 if `half`.  [N, d], [N] -> [N]"""
        if self.words is None:
            raise ValueError("the vocabulary head was not kept; build the model with words=True")
        cap = getattr(self.backbone.config, "final_logit_softcapping", None)  # Gemma 2 bends its logits
        if type(self.words) is nn.Linear and not cap:
            return -tell(hidden, self.words.weight, self.words.bias, targets, half=half).logp
        with products(half, hidden.device):
            logits = self.words(hidden).float()
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return nn.functional.cross_entropy(logits, targets, reduction="none")


def _tied_head(backbone: PreTrainedModel) -> nn.Module:
    """Return a vocabulary head whose weight is the backbone's embedding itself."""
    embedding = backbone.get_input_embeddings().weight
    head = nn.Linear(embedding.shape[1], embedding.shape[0], bias=False, device="meta")
    head.weight = embedding
    return head
