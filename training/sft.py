"""Finetune a policy on demonstrations: `python -m training.sft FOLDER [--model DIR]`.

-log p of each token of the demonstrated replies, the end token included, and of nothing else (Ouyang et al. 2022 §3.5).
Now and then held-out prompts are answered and a preference model says which of the run's models to keep.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from training.config import SFT_PRESETS, SftConfig
from training.data import demonstrations
from training.data.batches import order
from training.data.examples import Example
from training.data.one_sided import refuse_one_text
from training.data.prompts import Prompt, evenly, taken
from training.failure import JobFailed
from training.job import run_command, start
from training.lines.lines import data_file
from training.models import lora
from training.models.context import context_of
from training.models.models import PreferenceModel
from training.models.snapshots import load_policy, render_within, write_manifest
from training.processes import ranks
from training.reading.pretraining_text import PretrainingText
from training.reading.words import WordReader
from training.runs.run_folder import RunFolder
from training.runs.telling import lines_named, reasons, tell_left_out, tell_shared, tell_unfit
from training.sampling.self_checks import check_tokenizers
from training.sampling.variants import Policy, Sampling, answerable
from training.supervised.fitting import Fit, chosen_learning_rate
from training.supervised.selection import Selection
from training.trunk.recomputing import recompute


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the job; the exit code is run_job's."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sft",
        description="Finetune a policy on demonstrations, or on the chosen replies of comparisons.",
        epilog="Example: whetstone train sft my-sft --model training/starter/model --preference-model my-pm/model",
    )
    parser.add_argument("folder", help="run folder with config.json and data/train.jsonl")
    parser.add_argument("--model", help="directory of the policy to finetune")
    parser.add_argument("--preference-model", help="directory of the preference model that selects what is kept")
    parser.add_argument("--preset", choices=list(SFT_PRESETS), help="settings of a paper by name")
    parser.add_argument("--seed", type=int, help="in place of the one in config.json")
    return run_command("sft", parser, arguments, lambda folder, given: train(folder, settings_of(folder, given)))


def settings_of(folder: RunFolder, given: Mapping[str, Any]) -> SftConfig:
    """config.json and the command line over the preset over the defaults; written back complete."""
    return start(folder, SftConfig, "sft", given, "model", presets=SFT_PRESETS)


def train(folder: RunFolder, config: SftConfig) -> dict[str, Any]:
    """Do the run and return its result; model/ is written before."""
    began = time.monotonic()
    shown, held_out = read_data(folder, config.held_out)
    model, tokenizer = load_policy(config.model)
    if config.lora_rank:
        lora.adapt(model, model, config, config.seed)
    if config.gradient_checkpointing:
        recompute(model)
    reader = WordReader(model, precision=config.precision, dropout=config.dropout)
    limit = min(config.max_tokens or reader.context, reader.context)
    found = demonstrations.tokenised(shown, tokenizer, max_tokens=limit, turns=config.turns)
    tested = demonstrations.tokenised(held_out, tokenizer, max_tokens=limit, turns=config.turns)
    if not found.examples:
        told = reasons(found.dropped, demonstrations.LEFT_OUT)
        raise JobFailed(f"none of the {len(shown)} demonstrations can be learnt from: {told}")
    said = [tuple(example.tokens[column] for column in example.learnt) for example in found.examples]
    refuse_one_text({"reply": said}, "demonstrations", "add demonstrations of other replies")
    for name, part in (("train", found), ("test", tested)):
        tell_left_out(f"{name} data", part.dropped, part.shortened, demonstrations.LEFT_OUT)
    shared = tell_shared(shown, held_out)
    texts = pretraining(folder, tokenizer, config, limit)
    by_size = sorted(found.examples[:64], key=lambda example: len(example.tokens))
    reader.self_check(by_size[:2] + by_size[2:][-2:])  # of unlike lengths
    batches = mixed(len(found.examples), len(texts), config)
    lesson = Lesson(reader, found.examples, texts, config)
    policy = Policy(model, tokenizer, slots=config.slots, precision=config.precision)
    selection, unfit = selected(folder, config, policy, reader, tested, batches)
    fit = Fit(
        folder, config, model, batches, lesson,
        title="finetuning", rate=chosen_learning_rate(config, int(model.config.hidden_size)), began=began, watch=selection,
        named=lambda numbers: lines_named(found.lines[number] for number in numbers if number < len(found.examples)),
    )  # fmt: skip
    lesson.fit = fit
    fit.resume(folder.load_checkpoint())
    with fit.done():
        result = {
            "selected_by": selection.by,
            "selected_step": selection.best["step"] if selection.best else fit.step,
            "looks": selection.found,
            "held_out_loss": selection.best.get("held_out_loss") if selection.best else None,
            "score": selection.best.get("score") if selection.best else None,
            "demonstrations": len(found.examples),
            "test_demonstrations": len(tested.examples),
            "selection_prompts": len(selection.prompts),
            "selection_left_out": unfit,
            "pretraining_texts": len(texts),
            "pretraining_share_of_tokens": lesson.share_of_texts(batches),
            "shared_conversations": shared,
            "dropped": {"train": dict(found.dropped), "test": dict(tested.dropped)},
            "shortened": {"train": found.shortened, "test": tested.shortened},
            "turns_missed": {"train": found.turns_missed, "test": tested.turns_missed},
            "learning_rate": fit.learning_rate,
            "updates": len(batches),
            **lora.sizes(model),
            "seconds": round(fit.seconds(), 2),
        }  # fmt: skip
        keys = ("selected_by", "selected_step", "held_out_loss", "score", "demonstrations")
        provenance = {key: result[key] for key in keys} | {
            "seed": config.seed,
            "started_from": Path(config.model).name,
            "code_version": folder.settings()["code_version"],
        }
        keep(folder, selection, provenance)
    return result


def read_data(
    folder: RunFolder, share: float
) -> tuple[list[demonstrations.Demonstration], list[demonstrations.Demonstration]]:
    """Return (train, held out); without a test file a share of the conversations is held out."""
    train, test = data_file(folder.data, "train"), data_file(folder.data, "test")
    if train is None:
        raise JobFailed(f"{folder.data / 'train.jsonl'} is missing; write one demonstration a line into it")
    shown = demonstrations.read_demonstrations(train)
    if not shown:
        raise JobFailed(f"{train} holds no demonstration; write one a line into it")
    if test is not None:
        return shown, demonstrations.read_demonstrations(test)
    return demonstrations.split(shown, share)


def pretraining(folder: RunFolder, tokenizer: Any, config: SftConfig, limit: int) -> list[Example]:
    """Return the pretraining texts in pieces of at most `limit` tokens, learnt whole but for their first token."""
    if not config.pretraining_share:
        return []
    pieces = PretrainingText.read(folder.data, tokenizer, limit - 1, config.seed).pieces
    return [Example(list(piece), list(range(1, len(piece)))) for piece in pieces]


def mixed(demonstrated: int, texts: int, config: SftConfig) -> list[list[int]]:
    """Return the updates as example numbers: shuffled demonstrations, and texts, counted on from them, in their share.

    What rounding leaves over goes to the next update; each has one text at least, since its loss has a part for them.
    """
    batches = [
        batch
        for epoch in range(config.epochs)
        for batch in order(demonstrated, config.batch_sequences, config.seed, epoch)
    ]
    if not texts:
        return batches
    share, used, seen, found = config.pretraining_share, 0, 0, []
    for batch in batches:
        seen += len(batch)
        number = max(1, round(seen * share / (1 - share)) - used)
        found.append(batch + [demonstrated + text for text in taken(texts, config.seed, used, number)])
        used += number
    return found


def selected(
    folder: RunFolder, config: SftConfig, policy: Policy, reader: WordReader,
    tested: demonstrations.Tokenised, batches: Sequence[list[int]],
) -> tuple[Selection, dict[str, int]]:  # fmt: skip
    """Say how and when the model to keep is chosen, on paper and on standard error, and which prompts it is not chosen by."""
    pm, prompts, left_out = None, list[Prompt](), dict[str, int]()
    if config.preference_model:
        pm, pm_tokenizer = PreferenceModel.load(config.preference_model)
        check_tokenizers(policy.tokenizer, pm_tokenizer, "preference model")
        pm.to(reader.device)
        context = context_of(pm.backbone.config)
        room = context - config.max_new_tokens - 1  # and the end token that a cut reply is given
        prompts, left_out = answerable(
            tested.prompts,
            [lambda prompt: policy.prompt(prompt, config.max_new_tokens),
             lambda prompt: render_within(policy.tokenizer, prompt, room)],
        )  # fmt: skip
        tell_unfit("selection prompts", left_out)
        prompts = evenly(prompts, config.selection_prompts)
        if not prompts:
            raise JobFailed(
                "no held-out prompt is left for the preference model to judge by; give data/test.jsonl, raise held_out, "
                "or lower max_new_tokens"
            )
    else:
        how = "the least held-out loss" if tested.examples else "being the last: nothing is held out"
        if ranks.leads():
            print(f"no preference_model is named: the model is kept for {how}", file=sys.stderr)
    every = config.select_updates or max(1, len(batches) // config.epochs)
    looks = [*range(every, len(batches), every), len(batches)]
    examples = tested.examples
    found = Selection(
        folder.path / "kept", policy, looks, (lambda: reader.mean_loss(examples)) if examples else None, pm, prompts,
        seed=config.seed, sampling=Sampling(config.max_new_tokens, config.temperature),
    )  # fmt: skip
    return found, left_out


def keep(folder: RunFolder, selection: Selection, provenance: Mapping[str, Any]) -> None:
    """Make the selected model model/."""
    if selection.by == "last":
        folder.write_model(lambda part: selection.policy.save(part, **provenance))
    elif ranks.leads() and selection.kept.exists():  # else a start that was killed right here has done it

        def fill(part: Path) -> None:
            shutil.copytree(selection.kept, part, dirs_exist_ok=True)
            write_manifest(part, kind="policy", **provenance)

        folder.write_model(fill)
        shutil.rmtree(selection.folder)


class Lesson:
    """What one update learns from its examples; Fit's `learn`. Texts are numbered on from the demonstrations."""

    fit: Fit

    def __init__(
        self, reader: WordReader, shown: Sequence[Example], texts: Sequence[Example], config: SftConfig
    ) -> None:
        self.reader, self.shown, self.examples, self.seed = reader, len(shown), [*shown, *texts], config.seed
        self.mixes = bool(texts)
        share = config.pretraining_share if texts else 0.0
        self.shares = {True: 1 - share, False: share}  # of the loss: of demonstrations, and of texts

    def words(self, batch: Sequence[int]) -> dict[bool, int]:
        """Return the learnt tokens of a batch's demonstrations, and of its texts."""
        return {
            kind: sum(len(self.examples[n].learnt) for n in batch if (n < self.shown) == kind) for kind in (True, False)
        }

    def share_of_texts(self, batches: Sequence[Sequence[int]]) -> float:
        """Return the share of texts in all tokens that the run learns from."""
        words = self.words([number for batch in batches for number in batch])
        return words[False] / (words[True] + words[False])

    def __call__(self, batch: list[int], mine: list[int]) -> dict[str, float]:
        """Backward over the examples `mine`; every learnt token of the batch's demonstrations weighs the same, so of its texts."""
        words = self.words(batch)
        summed = {True: 0.0, False: 0.0}
        examples = [self.examples[number] for number in mine]
        for part in self.reader.parts(examples):
            with self.reader.dropping(f"dropout {self.seed} {self.fit.step} {mine[part[0]]}"):
                losses = self.reader.losses([examples[place] for place in part])
            lengths = [len(examples[place].learnt) for place in part]
            kinds = [mine[place] < self.shown for place in part]
            terms = [
                loss.sum() * (self.shares[kind] / words[kind])
                for kind, loss in zip(kinds, losses.split(lengths), strict=True)
            ]
            torch.stack(terms).sum().backward()
            for kind, loss in zip(kinds, losses.detach().split(lengths), strict=True):
                summed[kind] += float(loss.double().sum())
        learnt = sum(len(example.learnt) for example in examples)
        numbers = {"loss": summed[True] / words[True], "tokens": float(learnt)}
        return numbers | ({"pretraining_loss": summed[False] / words[False]} if self.mixes else {})


if __name__ == "__main__":
    sys.exit(main())
