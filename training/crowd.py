"""`python -m training.crowd FOLDER`: does a preference model foretell what people choose? (Bai et al. 2022 App. B.4)

Four Elo curves over the same snapshots: by mean scores of replies to held-out prompts; by mean scores of the replies in the
crowd's conversations; by the preference model's own choices there; by the crowd's choices. Where the first lies above the second
the prompts differ; where the second or the third lies above the last, the preference model is at fault.
Reads data/prompts.jsonl and data/crowd.jsonl, an export of comparisons in the format whetstone; writes crowd.png and .json, and
result.json.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from training import objective
from training.config import CrowdConfig
from training.data.batches import LEFT_OUT, Ranked, tokenised
from training.failure import JobFailed
from training.job import run_command, start
from training.lines.lines import data_file
from training.lines.records import Comparison, comparison_of, read_records
from training.measuring.calibration import accuracy
from training.measuring.choices import Choice, choice_wins, elo_of_scores, units, writer
from training.measuring.contest import mean_ci95, win_rate
from training.measuring.field import Field
from training.reading.reading import Reader
from training.runs.parts import Parts
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import reasons, tell_left_out
from training.tournament import ratings_of

CURVES = {
    "held_out": "mean score, held-out prompts",
    "scores": "mean score, the crowd's conversations",
    "choices": "the preference model's choices there",
    "crowd": "the crowd's choices",
}
WHY = LEFT_OUT | {"unnamed": "with a reply that names no snapshot", "one_model": "between replies of one snapshot"}


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.crowd",
        description="Elo as a preference model foretells it, beside that of people's choices between the same snapshots.",
        epilog="Example: whetstone train crowd my-check --preference-model my-pm/model "
        "--snapshots starter=training/starter/model round-1-policy=my-policy/model",
    )
    parser.add_argument("folder", help="run folder with config.json, data/prompts.jsonl and data/crowd.jsonl")
    parser.add_argument("--snapshots", nargs="+", help="policies, NAME=DIR with the crowd's names, the reference first")
    parser.add_argument("--preference-model", help="directory of the preference model")
    return run_command("crowd", parser, arguments, _crowd)


def _crowd(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config = start(folder, CrowdConfig, "crowd", given, "preference_model")
    file = data_file(folder.data, "crowd")
    if file is None:
        raise JobFailed(
            f"{folder.data / 'crowd.jsonl'} is missing; write it with "
            "`whetstone export --format whetstone --purpose evaluation`"
        )
    field = Field(folder, config, {"score": config.preference_model}, 1)
    pm, tokenizer = field.judges.models["score"], field.judges.tokenizer
    reader = Reader(pm, pad=int(tokenizer.pad_token_id), precision=config.precision)
    told: Counter[str] = Counter()
    contests = contested(read_records(file, comparison_of), told)
    compared: list[Comparison] = []
    elements: list[Ranked] = []
    shortened = 0
    for comparison in contests:  # one by one, since those that are left out must not leave their names behind
        found, dropped, cut = tokenised(
            [comparison], tokenizer, max_tokens=reader.context, weakest_strength=config.weakest_strength
        )
        compared += [comparison] * len(found)
        elements += found
        told += dropped
        shortened += cut
    tell_left_out("the crowd's comparisons", told, shortened, WHY)
    if not elements:
        raise JobFailed(f"{file} holds no comparison of two snapshots: {reasons(told, WHY) or 'it is empty'}")
    unit, of_each = units(compared)
    choices = [
        Choice(str(writer(each, "chosen")), str(writer(each, "rejected")), own)
        for each, own in zip(compared, of_each, strict=True)
    ]
    names = in_order(field.names, choices)
    parts = [f"comparisons {begin}" for begin in range(0, len(elements), config.batch_comparisons)]
    numbers = field.measure(of=len(field.names) + len(parts))
    score = _scores(field.parts, parts, config, reader, elements)
    rows = curves(names, choices, score)
    for row in rows:
        own = numbers.get(row["snapshot"])
        row["held_out_elo"] = row["held_out_elo_ci95"] = None  # of a snapshot that the crowd met and that is not here
        if own is not None:
            over = torch.tensor(own["score"]).double() - torch.tensor(numbers[names[0]]["score"]).double()
            row["held_out_elo"], row["held_out_elo_ci95"] = mean_ci95(over * pm.scale * objective.POINTS_A_NAT)
    _paint(folder, rows)
    agreement, interval = win_rate(score[:, 0], score[:, 1])
    return {
        "snapshots": rows,
        "comparisons": len(choices),
        "units": {unit: len(set(of_each))},
        "agreement": agreement,
        "agreement_ci95": interval,
        "prompts": len(field.prompts),
        "left_out": field.left_out,
        "crowd_left_out": dict(told) | {"shortened": shortened},
        "seconds": sum(own["seconds"] for own in numbers.values()),
    }


def contested(comparisons: Iterable[Comparison], told: Counter[str]) -> list[Comparison]:
    """The comparisons between replies of two named snapshots; `told` hears of the others."""
    found = []
    for comparison in comparisons:
        sides = {writer(comparison, "chosen"), writer(comparison, "rejected")}
        if None in sides:
            told["unnamed"] += 1
        elif len(sides) == 1:
            told["one_model"] += 1
        else:
            found.append(comparison)
    return found


def in_order(named: Sequence[str], choices: Sequence[Choice]) -> list[str]:
    """The snapshots of the settings, the reference first, then others that the crowd met; JobFailed for one it never met."""
    met = {name for choice in choices for name in choice[:2]}
    for name in named:
        if name not in met:
            raise JobFailed(
                f"the crowd never compared a reply of {name!r}; write NAME=DIR with a name of data/crowd.jsonl: "
                f"{', '.join(sorted(met))}"
            )
    return [*named, *sorted(met - set(named))]


def curves(names: Sequence[str], choices: Sequence[Choice], score: torch.Tensor) -> list[dict[str, Any]]:
    """The three curves of the crowd's conversations, a row a snapshot.  score of the chosen and the rejected reply [N, 2]"""
    own = objective.wins(score[:, 0] - score[:, 1])
    told = {
        "scores": elo_of_scores(names, choices, score),
        "choices": ratings_of(choice_wins(names, choices, own)),
        "crowd": ratings_of(choice_wins(names, choices, torch.ones(len(choices)))),
    }
    met = Counter(name for choice in choices for name in choice[:2])
    rows: list[dict[str, Any]] = [{"snapshot": name, "met": met[name]} for name in names]
    for curve, found in told.items():
        for row, rating in zip(rows, found, strict=True):
            row |= {f"{curve}_elo": rating["elo"], f"{curve}_elo_ci95": rating["elo_ci95"]}
    return rows


def _scores(
    parts: Parts, names: Sequence[str], config: CrowdConfig, reader: Reader, elements: Sequence[Ranked]
) -> torch.Tensor:
    """Raw scores of both replies of each comparison, the chosen one first; kept a part at a time.  -> [N, 2]"""

    def read(name: str) -> list[list[float]]:
        begin = int(name.split()[1])
        return reader.scores_of(elements[begin : begin + config.batch_comparisons])

    def told(_name: str, pairs: list[list[float]]) -> dict[str, Any]:
        return {"comparisons": len(pairs), "agreement": accuracy([chosen - rejected for chosen, rejected in pairs])}

    with Bar("comparisons", len(names)) as bar:
        found = parts.measure(
            names,
            read,
            lambda step, _: bar.at(step),
            whose=lambda name, place: (
                f"the comparison on line {elements[int(name.split()[1]) + place].line} of crowd.jsonl"
            ),
            told=told,
        )
    return torch.tensor([pair for part in found for pair in part], dtype=torch.float64)


def _paint(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the curves beside each other, snapshot by snapshot."""
    series = []
    for number, (curve, label) in enumerate(CURVES.items()):
        known = [(at + 0.1 * number, row) for at, row in enumerate(rows) if row[f"{curve}_elo"] is not None]
        if known:
            y = [row[f"{curve}_elo"] for _, row in known]
            # one unit gives no interval, which is drawn as none
            ends = [row[f"{curve}_elo_ci95"] or [row[f"{curve}_elo"]] * 2 for _, row in known]
            low, high = ([end[side] for end in ends] for side in (0, 1))
            series.append(Series(label, [x for x, _ in known], y, low, high, line=False))
    names = [row["snapshot"] for row in rows]
    plot(folder.path / "crowd", "Foretold and chosen", "snapshot", f"Elo over {names[0]}", series, names=names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
