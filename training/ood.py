"""`python -m training.ood FOLDER`: tell prompts outside of what is usual by a policy's activations (Bai et al. 2022 §5.4).

At each layer, on the last token of a prompt: plain and simplified relative Mahalanobis distance from the inliers, and a linear
probe that was shown a few outliers; the AUROC of each. Reads data/inliers.jsonl and data/outliers.jsonl, prompts a line; writes
ood.png and .json, and result.json. Part of the inliers is held out: what the distances were fitted to is never tested on.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training import objective
from training.config import BadConfig, OodConfig
from training.data.padding import right_padded
from training.data.prompts import hold_out, line_of, read_prompts, rendered
from training.failure import JobFailed
from training.job import run_command, start
from training.measuring.calibration import wilson_interval
from training.models.context import context_of
from training.models.snapshots import load_policy
from training.processes.device import device_of_choice
from training.runs.cadence import Cadence
from training.runs.finite import require_finite
from training.runs.plots import Series, plot
from training.runs.progress import Bar
from training.runs.run_folder import RunFolder
from training.runs.telling import tell_unfit

SIDES = ("inliers", "held_out", "outliers")


def area_ci95(inlier: Tensor, outlier: Tensor) -> tuple[float, list[float]]:
    """AUROC with its 95% interval.  [N], [M]"""
    area, variance = objective.auroc(inlier, outlier)
    return area, interval_of(area, variance, len(inlier), len(outlier))


def interval_of(area: float, variance: float, inliers: int, outliers: int) -> list[float]:
    """Wilson's 95% interval, at as many trials as give the variance; never empty, also at 1."""
    least = float(min(inliers, outliers))
    trials = min(area * (1 - area) / variance, inliers * outliers) if variance > 0 else least
    return list(wilson_interval(area, trials))


@torch.inference_mode()
def activations(model: Any, prompts: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """Hidden states of the last token of each prompt after each of `layers` (from 1).  -> [N, len(layers), d]"""
    tokens, lengths = right_padded(prompts, model.device)
    states = model.base_model(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
    rows = torch.arange(len(prompts), device=model.device)
    return torch.stack([states[layer][rows, lengths - 1] for layer in layers], dim=1).float().cpu()


def probe(inliers: Tensor, outliers: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """One linear layer on frozen features: inliers 0, each of the M outliers copied N // M times 1   ([Bai] §5.4).  -> [d], []

    Logistic regression with λ/2 |w|², fitted to its optimum. Features are to be on a common scale.
    """
    copies = max(1, len(inliers) // len(outliers))
    shown = torch.cat([inliers, outliers.repeat(copies, 1)])
    target = torch.cat([torch.zeros(len(inliers)), torch.ones(copies * len(outliers))]).double()
    weight = torch.zeros(shown.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(shown @ weight + bias, target)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def layer_report(parts: Mapping[str, Tensor], config: OodConfig) -> dict[str, Any]:
    """Each detector's AUROC at one layer.  [N, d] each"""
    inliers, held, outliers = (parts[name].double() for name in SIDES)
    gaussian = objective.fitted_gaussian(inliers, config.ridge)
    if not float(gaussian.covariance.diagonal().max()) > 0:
        raise JobFailed(
            "all inliers that are fitted to look the same to the model; add inliers that are not one prompt"
        )
    found: dict[str, Any] = {}
    for name, distance in (
        ("simplified_relative_mahalanobis", objective.simplified_relative_mahalanobis),
        ("mahalanobis", objective.mahalanobis),
    ):
        found[name], found[f"{name}_ci95"] = area_ci95(distance(held, gaussian), distance(outliers, gaussian))
    spread = inliers.std(0).clamp_min(1e-12)
    inliers, held, outliers = ((some - gaussian.mean) / spread for some in (inliers, held, outliers))
    found["few_shot"] = []
    for shown in config.few_shot:
        told = []
        for draw in range(config.draws):
            order = list(range(len(outliers)))
            random.Random(f"outliers {config.seed} {shown} {draw}").shuffle(order)
            weight, _ = probe(inliers, outliers[order[:shown]], config.probe_decay)
            told.append(objective.auroc(held @ weight, outliers[order[shown:]] @ weight))
        areas, variances = torch.tensor(told, dtype=torch.float64).T
        # all draws are tested on the same prompts: more of them make the first term smaller, never the second
        variance = (float(areas.var()) / len(areas) if len(areas) > 1 else 0.0) + float(variances.mean())
        mean = float(areas.mean())
        interval = interval_of(mean, variance, len(held), len(outliers) - shown)
        found["few_shot"].append({"shown": shown, "auroc": mean, "auroc_ci95": interval})
    return found


def main(arguments: Sequence[str]) -> int:
    """Parse, run, return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ood",
        description="Detect prompts outside of what is usual by a policy's activations, at every layer.",
        epilog="Example: whetstone train ood my-detector --model my-policy/model",
    )
    parser.add_argument("folder", help="run folder with config.json, data/inliers.jsonl and data/outliers.jsonl")
    parser.add_argument("--model", help="directory of the policy whose activations are read")
    return run_command("ood", parser, arguments, _ood)


def _ood(folder: RunFolder, given: Mapping[str, Any]) -> dict[str, Any]:
    config, began = start(folder, OodConfig, "ood", given, "model"), time.monotonic()
    model, tokenizer = load_policy(config.model)
    model.to(device_of_choice())  # type: ignore[arg-type]
    count = int(model.config.num_hidden_layers)
    layers = config.layers or tuple(range(1, count + 1))
    if max(layers) > count:
        raise BadConfig(f"layers names {max(layers)} and the model has {count}")
    room = context_of(model.config)
    usual, strange = (read_prompts(folder.data / f"{name}.jsonl") for name in ("inliers", "outliers"))
    fitted, held = hold_out(usual, config.held_out)
    prompts, left_out = {}, {}
    for name, side in zip(SIDES, (fitted, held, strange), strict=True):
        prompts[name], left_out[name] = rendered(tokenizer, side, room)
        tell_unfit(name.replace("_", " "), left_out[name])
    if min(len(prompts["inliers"]), len(prompts["held_out"])) < 2:
        raise JobFailed("inliers.jsonl needs at least four prompts that begin differently: two to fit, two to test")
    if len(prompts["outliers"]) <= max(config.few_shot, default=0):
        raise JobFailed(
            f"outliers.jsonl holds {len(prompts['outliers'])} prompts that fit; showing {max(config.few_shot)} leaves none to test"
        )
    everything = [prompt for name in SIDES for prompt in prompts[name]]
    ends = [0, *torch.tensor([len(prompts[name]) for name in SIDES]).cumsum(0).tolist()]

    def whose(begin: int, place: int) -> str:
        number = begin + place
        file = folder.data / f"{'outliers' if number >= ends[2] else 'inliers'}.jsonl"
        return line_of(file, lambda prompt: rendered(tokenizer, [prompt], room)[0] == [everything[number]])

    states = _read(folder, config, model, everything, layers, whose)
    parts = {name: states[ends[place] : ends[place + 1]] for place, name in enumerate(SIDES)}
    rows = []
    # a start that was killed among the layers may have told of them; its checkpoint counts prompts
    folder.cut_metrics(-1)
    with Bar("layers", len(layers)) as bar:
        for place, layer in enumerate(layers):
            at_layer = {name: part[:, place] for name, part in parts.items()}
            rows.append({"layer": layer} | layer_report(at_layer, config))
            probed = {"probe_auroc": rows[-1]["few_shot"][-1]["auroc"]} if config.few_shot else {}
            folder.log(step=place + 1, of=len(layers), **rows[-1], **probed)
            bar.at(place + 1)
    _paint(folder, config, rows)
    best = max(rows, key=lambda row: row["simplified_relative_mahalanobis"])
    return {
        "layers": rows, "best_layer": best["layer"], "inliers": len(prompts["inliers"]), "outliers": len(prompts["outliers"]),
        "held_out_inliers": len(prompts["held_out"]), "left_out": left_out, "features": states.shape[2],
        "seconds": time.monotonic() - began,
    }  # fmt: skip


def _read(
    folder: RunFolder, config: OodConfig, model: Any, prompts: Sequence[list[int]], layers: Sequence[int],
    whose: Callable[[int, int], str],
) -> Tensor:  # fmt: skip
    """Activations of all prompts, kept in the checkpoint as they come; `whose` names one of those from a place on.  -> [N, len(layers), d]"""
    checkpoint = folder.load_checkpoint()
    done = [checkpoint.tensors["states"]] if checkpoint else []
    begin, cadence = checkpoint.step if checkpoint else 0, Cadence(config.checkpoint_seconds)
    with Bar("prompts", len(prompts)) as bar:
        while begin < len(prompts):
            some = activations(model, prompts[begin : begin + config.batch_prompts], layers)
            largest = some.abs().amax(2).T.tolist()
            numbers = {f"the activation after layer {layer}": row for layer, row in zip(layers, largest, strict=True)}
            require_finite(numbers, dataclasses.asdict(config), partial(whose, begin))
            done.append(some)
            begin = min(begin + config.batch_prompts, len(prompts))
            bar.at(begin)
            if cadence.due(begin, len(prompts)):
                with cadence.saving():
                    folder.save_checkpoint(begin, {"states": torch.cat(done)}, {})
    return torch.cat(done)


def _paint(folder: RunFolder, config: OodConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw every detector's AUROC by layer."""
    layers = [row["layer"] for row in rows]
    series = []
    for name, label in (
        ("simplified_relative_mahalanobis", "simplified relative Mahalanobis"),
        ("mahalanobis", "Mahalanobis"),
    ):
        low, high = ([row[f"{name}_ci95"][side] for row in rows] for side in (0, 1))
        series.append(Series(label, layers, [row[name] for row in rows], low, high))
    for place, shown in enumerate(config.few_shot):
        probes = [row["few_shot"][place] for row in rows]
        low, high = ([one["auroc_ci95"][side] for one in probes] for side in (0, 1))
        series.append(Series(f"probe, {shown} shown", layers, [one["auroc"] for one in probes], low, high))
    plot(folder.path / "ood", "Outliers told from inliers", "layer", "AUROC", series)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
