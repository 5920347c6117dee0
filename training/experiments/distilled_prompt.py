"""Does a student say without the prompt what its teacher says behind it? (Askell et al. 2021, §2; Bai et al. 2022, App. A.1)

    python -m training.experiments.distilled_prompt

A policy is pretrained on conversations of two kinds: behind an opening exchange, the prompt, replies are of other words than without
it. The job `distill` teaches a student of the same size, and a smaller one, the prompted teacher's 50 likeliest words and the rest.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training import distill, sft
from training.experiments import world
from training.experiments.seeds import Tick, each_seed
from training.experiments.writing import Claim, Findings, Options, interval, shown, surely_above

PLAIN, PROMPTED = world.WORDS[:24], world.WORDS[24:48]
PROMPT = [
    {"role": "user", "content": " ".join(world.WORDS[100:106])},
    {"role": "assistant", "content": world.WORDS[106]},
]
STUDENTS: dict[str, dict[str, int] | None] = {"as large": None, "smaller": {"width": 16, "layers": 1}}
CAP = 12  # tokens of a reply at most
NAMES = ("held_out_kl_before", "held_out_kl", "student_perplexity_before", "student_perplexity", "teacher_perplexity")


def question(draw: random.Random) -> str:
    """Three words of any kind."""
    return world.sentence(draw, 3, 3, PLAIN + PROMPTED)


def talk(draw: random.Random) -> dict[str, Any]:
    """A conversation, behind the prompt or not. A reply begins with the question's last word, so that it depends on it."""
    behind, asked = draw.random() < 0.5, question(draw)
    said = f"{asked.split()[-1]} {world.sentence(draw, 3, 6, PROMPTED if behind else PLAIN)}"
    exchange = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return {"messages": [*(PROMPT if behind else []), *exchange]}


def pretrained(root: Path, seed: int, texts: int, **size: int) -> Path:
    """A policy that knows both kinds of conversation (job sft)."""
    start = world.random_policy(root / "random", seed=seed, **size)
    draw = random.Random(f"texts {seed}")
    settings = {"model": str(start), "seed": seed, "epochs": 1, "batch_sequences": 32, "learning_rate": 3e-3,
                "held_out": 0.02, "threads": 1}  # fmt: skip
    folder = world.run_folder(root / "sft", settings, train=[talk(draw) for _ in range(texts)])
    world.result_of(sft.main, folder)
    return folder / "model"


def one_seed(root: Path, seed: int, quick: bool, tick: Tick) -> dict[str, dict[str, float]]:
    """Both students once."""
    texts, prompts = (400, 100) if quick else (8000, 2000)
    teacher = pretrained(root / "teacher", seed, texts)
    prompt = root / "prompt.json"
    prompt.write_text(json.dumps(PROMPT), encoding="utf-8")
    draw = random.Random(f"prompts {seed}")
    asked = [{"prompt": question(draw)} for _ in range(prompts)]  # the same for both students
    found = {}
    for name, size in STUDENTS.items():
        student = teacher if size is None else pretrained(root / name, seed, texts, **size)
        folder = world.run_folder(
            root / f"distil-{name}",
            {"teacher": str(teacher), "student": str(student), "prompt": str(prompt), "source": "teacher", "learn": "replies",
             "seed": seed, "threads": 1, "learning_rate": 2e-3, "held_out": 0.1, "max_new_tokens": CAP, "sample_prompts": 128},
            prompts=asked,
        )  # fmt: skip
        result = world.result_of(distill.main, folder)
        found[name] = {number: float(result[number]) for number in NAMES}
        tick(name)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both students over the seeds and write what was found."""
    options = Options.read("distilled_prompt", __doc__, seeds=5, arguments=arguments)
    findings = Findings("distilled_prompt", options)
    runs = each_seed(options, "distilled prompt", len(STUDENTS), one_seed)
    titles = {"held_out_kl_before": "KL before, nats a token", "held_out_kl": "KL after",
              "student_perplexity_before": "perplexity before", "student_perplexity": "perplexity after",
              "teacher_perplexity": "the prompted teacher's"}  # fmt: skip
    rows = [
        {"student": name} | {title: shown([run[name][number] for run in runs]) for number, title in titles.items()}
        for name in STUDENTS
    ]
    findings.write(rows=rows, claims=claims_of(runs), numbers=runs, draw=lambda figure: draw(figure, runs))


def claims_of(runs: list[dict[str, dict[str, float]]]) -> list[Claim]:
    """The papers' expectations against these runs; differences are within seeds."""
    large = [run["as large"] for run in runs]
    above = [each["student_perplexity"] / each["teacher_perplexity"] - 1 for each in large]
    before = [each["student_perplexity_before"] / each["teacher_perplexity"] for each in large]
    left = [each["held_out_kl"] / each["held_out_kl_before"] for each in large]
    kl = [each["held_out_kl"] for each in large]
    worse = [run["smaller"]["held_out_kl"] - run["as large"]["held_out_kl"] for run in runs]
    return [
        Claim("without the prompt the teacher's replies behind it are far from likely (perplexity more than doubles)",
              surely_above([each - 2 for each in before]), f"{shown(before, 2)} times"),
        Claim("after distillation the student's perplexity is within 5% of the prompted teacher's",
              surely_above([0.05 - each for each in above]), f"{shown([100 * each for each in above], 1)}% above"),
        Claim("a student of the teacher's size comes close to KL 0 (a twentieth of what it was)",
              surely_above([0.05 - each for each in left]), f"{shown(kl)} nats, {shown(left)} of before"),
        Claim("a smaller student keeps more of it", surely_above(worse), f"{shown(worse)} nats more"),
    ]  # fmt: skip


def draw(figure: Figure, runs: list[dict[str, dict[str, float]]]) -> None:
    """Perplexity of both students before and after, and the teacher's."""
    panel = figure.subplots()
    for place, number in enumerate(("student_perplexity_before", "student_perplexity", "teacher_perplexity")):
        means = [interval([run[name][number] for run in runs]) for name in STUDENTS]
        at = [where + 0.27 * (place - 1) for where in range(len(STUDENTS))]
        label = ("student before", "student after", "prompted teacher")[place]
        panel.bar(at, [m for m, _ in means], 0.25, yerr=[h for _, h in means], label=label)
    panel.set_xticks(range(len(STUDENTS)), list(STUDENTS))
    panel.set_yscale("log")
    panel.set_ylabel("perplexity of what the teacher says behind the prompt")
    panel.legend()


if __name__ == "__main__":
    main()
