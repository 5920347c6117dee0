"""Context distillation: `python -m training.distill FOLDER --teacher DIR --prompt FILE`.

A student learns to say without the prompt C what the teacher says behind it: KL(p₀(X|C) ‖ p_θ(X)) over texts X, on the
teacher's 50 likeliest words a token and one bin of all others (Bai et al. 2022 App. A.1; Askell et al. 2021).
"""

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from training.config import BadConfig, DistillConfig
from training.data import demonstrations
from training.data.batches import order
from training.data.examples import Example
from training.data.one_sided import refuse_one_text
from training.data.prompts import Prompt, evenly, hold_out, numbered_prompts, read_prompts
from training.failure import JobFailed
from training.job import run_command, start
from training.lines.lines import data_file, read_lines
from training.lines.records import BadRecord
from training.models import lora
from training.models.snapshots import Fitted, fingerprint_of, load_policy
from training.objective import binned, distillation_loss
from training.processes import distributed
from training.reading.words import WordReader
from training.runs.finite import require_finite
from training.runs.run_folder import RunFolder
from training.runs.telling import lines_named, reasons, tell_left_out, tell_unfit
from training.sampling.rollouts import Occasion, reply_seeds
from training.sampling.self_checks import check_tokenizers
from training.sampling.variants import Policy, Prefix, Replies, Sampling, answerable
from training.supervised.fitting import Fit, chosen_learning_rate
from training.supervised.pace import Pace
from training.supervised.teacher import Cache, Shard, Text, aligned, answered, shard_of, written
from training.trunk.recomputing import recompute

RATE_SHARE = 0.05  # of the rate of pretraining (Bai et al. 2022 App. A.1)
# Why texts are left out, in words.
LEFT_OUT = {
    "over_long": "too long for the contexts",
    "misaligned": "that the template writes otherwise behind the prompt",
    "no_reply": "without a reply",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the job; the exit code is run_job's."""
    parser = argparse.ArgumentParser(
        prog="python -m training.distill",
        description="Teach a policy to answer without a prompt as another answers behind it.",
        epilog="Example: whetstone train distill my-distilled --teacher training/starter/model --prompt hhh.txt",
    )
    parser.add_argument("folder", help="run folder with config.json and data/train.jsonl or data/prompts.jsonl")
    parser.add_argument("--teacher", help="directory of the policy behind the prompt")
    parser.add_argument("--prompt", help="file of the prompt: a text, or messages in a .json")
    parser.add_argument("--student", help="directory of the policy that learns; the teacher's when not given")
    parser.add_argument("--seed", type=int, help="in place of the one in config.json")
    return run_command(
        "distill",
        parser,
        arguments,
        lambda folder, given: train(folder, start(folder, DistillConfig, "distill", given, "teacher", "prompt")),
    )


def train(folder: RunFolder, config: DistillConfig) -> dict[str, Any]:
    """Do the run and return its result; model/ is written before."""
    began = time.monotonic()
    prefix = Prefix.read(config.prompt)
    model, tokenizer = load_policy(config.student or config.teacher)
    if config.lora_rank:
        lora.adapt(model, model, config, config.seed)
    if config.gradient_checkpointing:
        recompute(model)
    reader = WordReader(model, precision=config.precision)
    how: dict[str, Any] = {"slots": config.slots, "precision": config.precision}
    student = Policy(model, tokenizer, **how)
    teacher = Policy.load(config.teacher, prefix, **how)
    check_tokenizers(teacher.tokenizer, tokenizer, "student")
    if config.bins >= model.get_output_embeddings().weight.shape[0]:
        raise BadConfig(f"bins must leave a word over for the last bin, not take {config.bins} of them")
    talks = texts_of(folder, config)
    if config.source == "data":  # before the teacher reads them all
        refuse_one([digest(talk) for talk in talks[0]], config)
    train_cache = cached(folder, config, teacher, student, talks[0], "train")
    test_cache = cached(folder, config, teacher, student, talks[1], "test")
    if not train_cache.examples:
        raise JobFailed(
            f"none of the {len(talks[0])} texts can be learnt from: {reasons(train_cache.dropped, LEFT_OUT)}"
        )
    refuse_one([tuple(example.tokens[-len(example.learnt) :]) for example in train_cache.examples], config)
    for name, part in (("train", train_cache), ("test", test_cache)):
        tell_left_out(f"{name} data", part.dropped, 0, LEFT_OUT)
    by_size = sorted(train_cache.examples[:64], key=lambda example: len(example.tokens))
    reader.self_check(by_size[:2] + by_size[2:][-2:])
    asked, unfit = answerable(
        [without_reply(talk) for talk in talks[1]], readers(teacher, student, config.max_new_tokens), in_full=True
    )
    tell_unfit("sample prompts", {"over_long": sum(unfit.values())})
    asked = evenly(asked, config.sample_prompts)
    samples = sampled(teacher, asked, reply_seeds(config.seed, Occasion.TEACHER_SAMPLES, len(asked)), config)
    del teacher  # all that it has to say is said
    before = measured(reader, student, test_cache, asked, samples, config)
    require_finite(before, dataclasses.asdict(config), lambda _: "the student as it begins")
    batches = [
        batch
        for epoch in range(config.epochs)
        for batch in order(len(train_cache.examples), config.batch_sequences, config.seed, epoch)
    ]
    rate = config.learning_rate or RATE_SHARE * chosen_learning_rate(config, int(model.config.hidden_size))
    fit = Fit(
        folder, config, model, batches, Lesson(reader, train_cache), title="distilling", rate=rate, began=began,
        watch=Looks(reader, test_cache, len(batches) // config.epochs, train_cache.key),
        named=lambda numbers: lines_of(folder, config, tokenizer, [train_cache.examples[number] for number in numbers]),
    )  # fmt: skip
    fit.resume(folder.load_checkpoint())
    with fit.done():
        after = measured(reader, student, test_cache, asked, samples, config)
        result: dict[str, Any] = {
            **{f"{name}_before": number for name, number in before.items()},
            **after,
            "teacher_perplexity": perplexity(samples.generated.logp, samples) if samples else None,
            "texts": len(train_cache.examples),
            "test_texts": len(test_cache.examples),
            "sample_prompts": len(asked),
            "sample_prompts_left_out": unfit,
            "distilled_tokens": sum(len(example.learnt) for example in train_cache.examples),
            "dropped": {"train": dict(train_cache.dropped), "test": dict(test_cache.dropped)},
            "teacher_cache": train_cache.key,
            "learning_rate": rate,
            "updates": len(batches),
            **lora.sizes(model),
            "seconds": round(fit.seconds(), 2),
        }
        keys = ("held_out_kl_before", "held_out_kl", "student_perplexity", "teacher_perplexity", "texts")
        provenance = {key: result[key] for key in keys} | {
            "seed": config.seed,
            "started_from": Path(config.student or config.teacher).name,
            "teacher": Path(config.teacher).name,
            "code_version": folder.settings()["code_version"],
        }
        folder.write_model(lambda part: student.save(part, **provenance))
    return result


# -- texts ------------------------------------------------------------------------------------------------------------
def texts_of(folder: RunFolder, config: DistillConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Return the (train, test) conversations, which with the source "teacher" still await its replies."""
    if config.source == "teacher":
        return parted(read_prompts(folder.data / "prompts.jsonl"), config.held_out)
    train, test = data_file(folder.data, "train"), data_file(folder.data, "test")
    if train is None:
        raise JobFailed(f"{folder.data / 'train.jsonl'} is missing; write one text or conversation a line into it")
    talks = read_talks(train)
    if not talks:
        raise JobFailed(f"{train} holds no text; write one text or conversation a line into it")
    return (talks, read_talks(test)) if test else parted(talks, config.held_out)


def parted(talks: list[Prompt], share: float) -> tuple[list[Prompt], list[Prompt]]:
    """Return (train, test); a share of 0 holds nothing out, any other one conversation at least."""
    return hold_out(talks, share) if share else (talks, [])


def read_talks(path: Path) -> list[Prompt]:
    """Read lines of {"text"}, or of any shape of a demonstration; a text stands as words of the user (HH A.1's "Human:")."""
    return [talk for _, talk in numbered_talks(path)]


def numbered_talks(path: Path) -> Iterator[tuple[int, Prompt]]:
    """The same with the number of each line, from 1."""
    for number, text, record in read_lines(path):
        if "text" in record and not record.keys() & demonstrations.KEYS:
            if not isinstance(record["text"], str) or not record["text"].strip():
                raise BadRecord(number, "has no text in 'text'", path.name)
            yield number, [{"role": "user", "content": record["text"]}]
        else:
            yield number, list(demonstrations.read_line(path.name, number, text, record).messages)


def refuse_one(learnt: Sequence[Hashable], config: DistillConfig) -> None:
    """Stop where all that is `learnt` is the same."""
    side = "reply" if config.learn == "replies" else "text"
    advice = (
        "add others" if config.source == "data" else "give other prompts, or a teacher that answers them differently"
    )
    refuse_one_text({side: learnt}, "examples", advice)


def lines_of(folder: RunFolder, config: DistillConfig, tokenizer: Any, examples: Sequence[Example]) -> str:
    """Name the lines that these examples are of. They are looked for where a job stops, since no cache says it."""
    taught = config.source == "teacher"
    file = data_file(folder.data, "prompts" if taught else "train")
    if file is None:
        return "texts that are no longer there"
    talks = numbered_prompts(folder.data / "prompts.jsonl") if taught else numbered_talks(file)
    lines: dict[tuple[int, ...], int] = {}
    for number, talk in talks:
        lines.setdefault(tuple(written(tokenizer, Prefix(), talk).alone), number)
    rows = [tuple(example.tokens) for example in examples]
    # an example is its line's text, or its line's prompt and what the teacher said
    begun = ((row[:end] for end in range(len(row), 0, -1)) for row in rows)
    found = (next((lines[head] for head in heads if head in lines), None) for heads in begun)
    return lines_named((line for line in found if line is not None), file.name)


def without_reply(talk: Prompt) -> Prompt:
    """Return what the last reply of a conversation answers, the whole where none does."""
    return talk[:-1] if talk[-1]["role"] == "assistant" else talk


def readers(teacher: Policy, student: Policy, room: int) -> list[Callable[[Prompt], Fitted]]:
    """Return who must read a prompt whole, the teacher behind its own, with `room` for a reply."""
    return [lambda prompt: teacher.prompt(prompt, room), lambda prompt: student.prompt(prompt, room)]


def sampled(teacher: Policy, prompts: Sequence[Prompt], seeds: Sequence[int], config: DistillConfig) -> Replies | None:
    """Let the teacher, behind its prompt, answer; None where nothing is asked."""
    return teacher.reply(prompts, seeds, Sampling(config.max_new_tokens, config.temperature)) if prompts else None


def cached(
    folder: RunFolder, config: DistillConfig, teacher: Policy, student: Policy, talks: Sequence[Prompt], name: str
) -> Cache:
    """Return what the teacher says of these conversations, computed where no cache has it."""
    reader = WordReader(teacher.model, precision=config.precision)
    room = {"teacher_room": teacher.context, "student_room": min(config.max_tokens or student.context, student.context)}
    settings = room | {
        "teacher": fingerprint_of(config.teacher),
        "prompt": digest(teacher.prefix.content),
        "texts": digest(talks),
        "bins": config.bins,
        "learn": config.learn,
        "half": reader.half,
        "shard_sequences": config.shard_sequences,
    }
    if config.source == "teacher":
        settings |= {"sampled": [config.seed, name, config.max_new_tokens, config.temperature]}
    occasion = Occasion.TEACHING_TEST if name == "test" else Occasion.TEACHING
    seeds = reply_seeds(config.seed, occasion, len(talks))

    def compute(begin: int, end: int) -> Shard:
        some, left_out = talks[begin:end], 0
        if config.source == "teacher":
            fitting, _ = answerable(some, readers(teacher, student, config.max_new_tokens), in_full=True)
            left_out, some = len(some) - len(fitting), fitting
            replies = sampled(teacher, some, seeds[begin : begin + len(some)], config)
            rows = answered(teacher, some, replies) if replies else []
        else:
            rows = [written(teacher.tokenizer, teacher.prefix, talk) for talk in some]
        texts, dropped = aligned(rows, replies_only=config.learn == "replies", **room)
        if left_out:
            dropped["over_long"] += left_out
        if texts and begin == 0:
            check(reader, texts)
        shard = shard_of(reader, texts, dropped, config.bins)
        # a bin that the teacher gives nothing is -inf, and one that is NaN would count as such in the loss
        if bool(shard.tensors["logp"].isnan().any()):
            said = {"the teacher's log-probability": math.nan}
            require_finite(said, dataclasses.asdict(config), lambda _: f"a text of the {name} data")
        return shard

    cache = Cache(Path(config.cache) if config.cache else folder.path / "teacher", settings)
    cache.fill(f"teacher ({name})", len(talks), compute, per_shard=config.shard_sequences)
    distributed.barrier()
    cache.open()
    return cache


def digest(value: Any) -> str:
    """Return a hash of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def check(reader: WordReader, texts: Sequence[Text]) -> None:
    """Fail loudly where texts read together behind the prompt would be read unlike each alone."""
    some = [text for text in texts[:64] if text.head == texts[0].head][:3]
    reader.self_check_behind(texts[0].head, [text.tokens[-text.learnt :] for text in some])


# -- learning ---------------------------------------------------------------------------------------------------------
class Lesson:
    """What one update learns from its texts; Fit's `learn`."""

    def __init__(self, reader: WordReader, cache: Cache) -> None:
        self.reader, self.cache = reader, cache

    def __call__(self, batch: list[int], mine: list[int]) -> dict[str, float]:
        """Backward over the texts `mine`; every token of `batch` weighs the same."""
        tokens = sum(len(self.cache.examples[number].learnt) for number in batch)
        found = 0.0
        for part in self.reader.parts([self.cache.examples[number] for number in mine]):
            loss = self.divergence([mine[place] for place in part], tokens)
            loss.backward()
            found += float(loss.detach())
        return {"loss": found, "tokens": float(sum(len(self.cache.examples[number].learnt) for number in mine))}

    def divergence(self, numbers: Sequence[int], tokens: int) -> torch.Tensor:
        """Return the share of these texts in the mean KL over `tokens` tokens, on the teacher's bins."""
        said = self.cache.bins(numbers, self.reader.device)
        logits = self.reader.logits([self.cache.examples[number] for number in numbers])
        return distillation_loss(said.logp, binned(logits, said.words), tokens)


@torch.no_grad()
def held_out_kl(reader: WordReader, cache: Cache) -> float | None:
    """Return the mean KL over all tokens of held-out texts, None without any."""
    if not cache.examples:
        return None
    lesson, tokens = Lesson(reader, cache), sum(len(example.learnt) for example in cache.examples)
    return math.fsum(float(lesson.divergence(part, tokens)) for part in reader.parts(cache.examples))


class Looks(Pace):
    """Looks at the held-out texts after each epoch, and sees to it that a run goes on with the texts it began with."""

    def __init__(self, reader: WordReader, cache: Cache, every: int, key: str) -> None:
        super().__init__()
        self.reader, self.cache, self.every, self.key = reader, cache, max(1, every), key

    def reads_model(self, step: int) -> bool:
        """After each epoch."""
        return step % self.every == 0

    def see(self, step: int, numbers: Mapping[str, float]) -> Mapping[str, float]:  # noqa: ARG002 (a job needs them)
        """Return the held-out KL after an epoch."""
        found = held_out_kl(self.reader, self.cache) if self.reads_model(step) else None
        return {} if found is None else {"held_out_kl": found}

    def state(self) -> dict[str, Any]:
        """What the teacher's texts are known by."""
        return {"teacher_cache": self.key}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Refuse other texts than the run began with."""
        if state.get("teacher_cache", self.key) != self.key:
            raise JobFailed(
                "the teacher, its prompt or the texts are not those this run began with; start a new folder"
            )


# -- what came of it --------------------------------------------------------------------------------------------------
def perplexity(logp: torch.Tensor, samples: Replies) -> float:
    """Return exp(-mean log p) over the tokens of the samples.  [B, R]"""
    return math.exp(-float(logp[samples.generated.mask].double().mean()))


def measured(
    reader: WordReader, student: Policy, cache: Cache, asked: Sequence[Prompt], samples: Replies | None,
    config: DistillConfig,
) -> dict[str, float | None]:  # fmt: skip
    """Return the student's held-out KL, and its perplexity, without the prompt, on what the teacher said behind it."""
    found = held_out_kl(reader, cache)
    said = perplexity(student.log_probs(asked, samples, config.temperature), samples) if samples else None
    return {"held_out_kl": found, "student_perplexity": said}


if __name__ == "__main__":
    sys.exit(main())
