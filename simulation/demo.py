"""The whole loop with a simulated crowd, on a running Whetstone, over HTTP.

The job on standard input (one JSON object): `base_url`; `people`, sessions of the crowd; `researcher`, a session;
`rounds`; `comparisons` a round; `seed`; `starter`, the folder of the initial policy; `artifacts`, where snapshots lie;
`campaigns` (slug -> share); `round_settings`; `plot`, where the picture goes; `json`, whether to print one JSON object instead of the
table. The outcome goes to standard output, progress to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from simulation import crowd, report
from simulation.browser import Browser
from simulation.measure import WinRate, held_out_prompts, win_rate

Json = dict[str, Any]
POLL_SECONDS = 0.5
SAMPLES = 2  # reply pairs a held-out prompt


class RoundStopped(Exception):
    """A round was held by a gate or failed; the message says which step and why."""


def play(job: Json, console: Console) -> Json:
    """Play all rounds; returns {"rounds": […], "seconds"}."""
    started = time.monotonic()
    prompts = held_out_prompts()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[Json] = []
    with Progress(*columns, console=console) as progress, Browser(job["base_url"]) as researcher:
        researcher.use(job["researcher"])
        at_start = time.monotonic()
        bar = progress.add_task("round 0: starter under the judge", total=1)
        itself = win_rate(job["starter"], job["starter"], prompts, samples=SAMPLES, seed=job["seed"])
        progress.update(bar, completed=1)
        rows.append(_row(0, 0, None, itself, time.monotonic() - at_start))
        for number in range(1, int(job["rounds"]) + 1):
            at_start = time.monotonic()
            crowd_job = {
                "base_url": job["base_url"],
                "people": job["people"],
                "comparisons": job["comparisons"],
                "campaigns": job.get("campaigns"),
                "seed": job["seed"],
                "day": number,
            }
            summary = crowd.work(crowd_job, progress=progress)
            found = _play_round(researcher, number, job.get("round_settings") or {}, progress)
            bar = progress.add_task(f"round {number}: under the judge", total=1)
            newest = str(Path(job["artifacts"]) / found["policy_snapshot"]["path"])
            judged = win_rate(newest, job["starter"], prompts, samples=SAMPLES, seed=job["seed"] + 17 * number)
            progress.update(bar, completed=1)
            rows.append(_row(number, summary["comparisons"], found, judged, time.monotonic() - at_start))
    return {"rounds": rows, "seconds": round(time.monotonic() - started, 1)}


def _play_round(researcher: Browser, number: int, settings: Json, progress: Progress) -> Json:
    """Start a round and follow it to its end."""
    found: Json = researcher.request("POST", "/api/rounds", {"settings": settings})["round"]
    bars: dict[str, TaskID] = {}
    while found["status"] in ("queued", "running"):
        for step in found["steps"]:
            if step["status"] == "waiting":
                continue
            name = step["name"].replace("_", " ")
            if step["name"] not in bars:
                bars[step["name"]] = progress.add_task(f"round {number}: {name}", total=1)
            bar = bars[step["name"]]
            of = step["progress"].get("of") or 1
            done = of if step["status"] == "done" else step["progress"].get("step") or 0
            progress.update(bar, total=of, completed=done)
        time.sleep(POLL_SECONDS)
        found = researcher.request("GET", f"/api/rounds/{found['id']}")["round"]
    for name, bar in bars.items():
        if next(step["status"] for step in found["steps"] if step["name"] == name) == "done":
            progress.update(bar, completed=progress.tasks[bar].total or 1)
    if found["status"] != "done":
        stopped = next(step for step in found["steps"] if step["status"] in ("held", "failed"))
        raise RoundStopped(
            f"Round {number} is {found['status']} at {stopped['name']}: {stopped['failure'] or stopped['gates']}"
        )
    return found


def _row(number: int, comparisons: int, found: Json | None, judged: WinRate, seconds: float) -> Json:
    pm = found["pm_result"] if found else {}
    policy = found["policy_result"] if found else {}
    return {
        "round": number,
        "comparisons": comparisons,
        "pm_accuracy": pm.get("accuracy"),
        "pm_accuracy_ci95": pm.get("accuracy_ci95"),
        "calibration_error": pm.get("calibration_error"),
        "kl": policy["kl"] if found else 0.0,
        "judge_win_rate": judged.share,
        "judge_win_rate_ci95": list(judged.ci95),
        "judge_score": judged.mean_score,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Read the job, play it, print the outcome."""
    console = Console(stderr=True)
    job = json.load(sys.stdin)
    try:
        outcome = play(job, console)
    except RoundStopped as stopped:
        console.print(f"[red]{stopped}[/red]")
        raise SystemExit(1) from stopped
    picture = Path(job["plot"])
    report.save_png(outcome["rounds"], picture)
    if job["json"]:
        print(json.dumps(outcome))
    else:
        report.show(outcome["rounds"], picture, Console())


if __name__ == "__main__":
    main()
