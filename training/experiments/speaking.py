"""Policies of the experiments: pretraining one on texts of the world, letting one reply, reading what a run logged."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from training import sft
from training.experiments import world
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, render
from training.policy import settings_of
from training.ppo.policy_run import PolicyRun
from training.reading.pretraining_text import PretrainingText
from training.runs.run_folder import RunFolder
from training.sampling.engine import Engine, generate
from training.sampling.rollouts import policy_logp, preference_scores, rollout_of, sample

Exchange = tuple[str, str]  # prompt, reply
# A policy run of a quick form: two iterations.
SHORT = {"episodes": 32, "rollout_replies": 16, "minibatch_replies": 8}


def spoken_policy(
    root: Path, seed: int, draw: Callable[[random.Random], Exchange], texts: int, pretraining: Sequence[str] = ()
) -> Path:
    """Pretrain a random model on `texts` exchanges, half of each update `pretraining` texts where there are any (job sft).

    One epoch; returns the policy's directory.
    """
    start = world.random_policy(root / "random", seed=seed)
    chance = random.Random(f"texts {seed}")
    lines = [dict(zip(("prompt", "completion"), draw(chance), strict=True)) for _ in range(texts)]
    settings = {"model": str(start), "seed": seed, "epochs": 1, "batch_sequences": 32, "learning_rate": 3e-3,
                "held_out": 0.02, "threads": 1}  # fmt: skip
    data = {"train": lines}
    if pretraining:
        settings["pretraining_share"] = 0.5
        data["pretraining"] = [{"text": text} for text in pretraining]
    folder = world.run_folder(root / "sft", settings, **data)
    world.result_of(sft.main, folder)
    return folder / "model"


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Every line that the run logged."""
    return RunFolder(folder).metrics()


class Answers(NamedTuple):
    """One reply to each of some prompts, at temperature 1."""

    replies: list[str]
    kl: list[float]  # log-ratio of each to a reference, nats: its share of the KL; 0 without one
    scores: list[float]  # a preference model's, on its own scale; 0 without one


def answered(
    policy: Path,
    prompts: Sequence[str],
    most: int,
    seed: int,
    *,
    reference: Path | None = None,
    judge: Path | None = None,
) -> Answers:
    """Let the policy reply with at most `most` tokens; measured against `reference`, a policy, and by `judge`, a preference model."""
    model, words = load_policy(policy)
    asked = [render(words, [{"role": "user", "content": prompt}]) for prompt in prompts]
    found = generate(Engine(model, words, 64), asked, [seed * 100_003 + n for n in range(len(asked))], most)
    texts = [
        words.decode(ids[kept], skip_special_tokens=True) for ids, kept in zip(found.tokens, found.mask, strict=True)
    ]
    rollout = rollout_of(asked, found)
    kl = scores = [0.0] * len(texts)
    if reference is not None:
        gap = policy_logp(model, rollout, 1.0) - policy_logp(load_policy(reference)[0], rollout, 1.0)
        kl = gap.sum(1).tolist()
    if judge is not None:
        scores = preference_scores(PreferenceModel.load(judge)[0], rollout, int(words.eos_token_id)).tolist()
    return Answers(texts, kl, scores)


def groups_told_apart(folder: Path, asked: Sequence[tuple[str, bool]], most: int) -> float:
    """How well the groups that a finished policy run inferred tell two kinds of prompts, on replies of what has learnt.

    `asked`: prompts, and whether each is of the first kind. The better of both namings counts, so that chance is above 0.5:
    `chance_of_naming`.
    """
    run = PolicyRun(RunFolder(folder), settings_of(RunFolder(folder), {}))
    run.load()
    run.engine.refresh(run.policy)
    prompts = [render(run.tokenizer, [{"role": "user", "content": prompt}]) for prompt, _ in asked]
    label = run.learner.read(sample(run.engine, prompts, list(range(len(prompts))), most, 1.0))[1]
    assert label is not None
    first = (label.argmax(1) == 0).tolist()
    share = sum(one == kind for one, (_, kind) in zip(first, asked, strict=True)) / len(asked)
    return float(max(share, 1 - share))


def chance_of_naming(count: int) -> float:
    """What `groups_told_apart` finds on the mean over `count` prompts if groups and kinds have nothing in common: ½ + E|share - ½|."""
    return 0.5 + math.sqrt(2 / math.pi) * 0.5 / math.sqrt(count)


def text_loss(policy: Path, texts: Sequence[str]) -> float:
    """Mean -log p of the tokens of plain texts, in nats."""
    model, words = load_policy(policy)
    pieces = [[words.bos_token_id, *words(text, add_special_tokens=False)["input_ids"]] for text in texts]
    rows = PretrainingText(pieces, len(pieces), 0).rows(0, len(pieces), model.device)
    return -float(policy_logp(model, rows, 1.0)[rows.mask].mean())
