"""TRL's PPOTrainer (1.12) over replies that are given to it; run in .venv-peers by the tests of this folder.

Its own loop does all the work. Only the sampling is replaced, by the given replies and what its own forward says of them;
its numbers are read from the local variables of `train` where it whitens the advantages and where it calls backward.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import trl.experimental.ppo.ppo_trainer as loop
from datasets import Dataset
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

# of `train`, once a batch and once a step
ROLLOUT = (
    "queries", "responses", "logprobs", "ref_logprobs", "values", "scores", "rewards", "advantages", "padding_mask",
    "padding_mask_p1",
)  # fmt: skip
STEP = ("pg_loss", "vf_loss", "new_logprobs", "vpred", "logits")


def one_update(asked: dict[str, Any], case: str, replies: list[list[int]], temperature: float) -> dict[str, Tensor]:
    """One batch of all prompts, as many steps as there are epochs; everything by `case/name`."""
    prompts: list[list[int]] = asked["prompts"]
    tokenizer = AutoTokenizer.from_pretrained(asked["policy"], padding_side="left")
    pad, longest = int(tokenizer.pad_token_id), max(map(len, replies))
    reply_to = {tuple(prompt): reply for prompt, reply in zip(prompts, replies, strict=True)}
    found: dict[str, Tensor] = {}

    def given(model: Any, queries: Tensor, _size: int, _pad: int, _config: Any) -> tuple[Tensor, Tensor]:
        rows = [reply_to[tuple(token for token in query if token != pad)] for query in queries.tolist()]
        responses = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        both = torch.cat([queries, responses], dim=1)
        logits = loop.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1]
        return both, logits / (temperature + 1e-7)

    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(prompts), gradient_accumulation_steps=1,
        num_mini_batches=1, total_episodes=len(prompts), response_length=longest, temperature=temperature,
        local_rollout_forward_batch_size=len(prompts), num_sample_generations=0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", stop_token="eos", disable_tqdm=True,
        lr_scheduler_type="constant", warmup_steps=0, **asked["settings"],
    )  # fmt: skip
    rows = Dataset.from_list([{"input_ids": prompt, "attention_mask": [1] * len(prompt)} for prompt in prompts])
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=AutoModelForCausalLM.from_pretrained(asked["policy"]),
        ref_model=AutoModelForCausalLM.from_pretrained(asked["reference"]),
        reward_model=AutoModelForSequenceClassification.from_pretrained(asked["preference"]),
        value_model=AutoModelForSequenceClassification.from_pretrained(asked["critic"]),
        train_dataset=rows, eval_dataset=rows,
    )  # fmt: skip
    whiten, backward, step = loop.masked_whiten, trainer.accelerator.backward, trainer.optimizer.step
    steps = 0

    def whitened(values: Tensor, mask: Tensor, **settings: Any) -> Tensor:
        inside = sys._getframe(1).f_locals
        found.update({f"{case}/{name}": inside[name].detach().clone() for name in ROLLOUT})
        found[f"{case}/whitened"] = whiten(values, mask, **settings)
        return found[f"{case}/whitened"]

    def backwards(loss: Tensor, **settings: Any) -> None:
        nonlocal steps
        inside = sys._getframe(1).f_locals
        order = torch.tensor(inside["micro_batch_inds"]).argsort()  # back to the order of the rollout
        for name in STEP:
            value = inside[name].detach().clone()
            found[f"{case}/{steps}/{name}"] = value[order] if value.dim() else value
        backward(loss, **settings)

    def stepped(*given: Any, **settings: Any) -> Any:
        nonlocal steps
        steps += 1
        return step(*given, **settings)

    loop.batch_generation, loop.masked_whiten = given, whitened
    trainer.accelerator.backward, trainer.optimizer.step = backwards, stepped
    logged: dict[str, float] = {}
    trainer.log = logged.update
    try:
        trainer.train()
    finally:
        loop.masked_whiten = whiten
    found |= {f"{case}/logged/{name}": torch.tensor(value) for name, value in logged.items()}
    for name, module in (("policy", trainer.model.policy), ("critic", trainer.model.value_model)):
        found |= {f"{case}/{name}/{key}": value.detach().clone() for key, value in module.state_dict().items()}
    return found


def main(folder: Path) -> None:
    """Answer question.json."""
    asked = json.loads((folder / "question.json").read_text())
    found: dict[str, Tensor] = {}
    for case, (replies, temperature) in asked["cases"].items():
        found |= one_update(asked, case, replies, temperature)
    save_file({name: value.contiguous() for name, value in found.items()}, folder / "answer.safetensors")
    (folder / "answer.json").write_text(json.dumps(sorted(asked["cases"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
