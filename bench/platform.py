"""The platform beside Potato: the whole request that stores an answer, pages, idle memory, and the database's limit, in one run.

    python -m bench.platform [--quick] [--rounds 3] [--seconds 8] [--clients 1,16,64] [--json FILE]

Both servers run throughout, started as their users start them, and take turns: never two loads at once. docs/speed.md has the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any

import psutil

from bench import platform_ours, platform_page, platform_potato
from bench.pgbench import Limit
from bench.processes import cpu_seconds, family, memory_mb
from bench.sides import OURS_PYTHON, ROOT, busy_seconds

# By clients: answers a second, p50 and p99 in ms (None: none is asked for), and answers a second that we are after.
GOALS = {1: (250, 4, None, 400), 16: (500, 30, None, 1000), 64: (500, None, 400, 1500)}
PAGE_GOALS = {"page, kB": 100, "page, ready s": 0.5, "idle memory of the web process, MB": 150}
FIRST_RATE = 900  # answers a second that the items of a first turn must last for
WARM_UP_ANSWERS, WARM_UP_TURNS = 200, 12
COLUMNS = (
    ("answers", 18), ("ours/s", 8), ("peer/s", 8), ("ratio", 6), ("least..most", 12), ("p50 ms", 7), ("peer", 7), ("p99 ms", 7),
    ("peer", 7), ("required", 20), ("moonshot", 8), ("pgbench/s", 9), ("of it", 6), ("cpu ms", 6), ("web", 6), ("peer", 6), ("loop ms", 7), ("others", 6),
)  # fmt: skip
PAGE_COLUMNS = (("page and memory", 38), ("ours", 9), ("peer", 9), ("required", 8))


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Let the clients of a job work in a process of their own; what they found."""
    done = subprocess.run(
        [OURS_PYTHON, "-m", "bench.platform_load"],
        input=json.dumps(job), capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


class Turn:
    """What the machine and one side did during a turn."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._now()

    def _now(self) -> tuple[float, ...]:
        return time.perf_counter(), busy_seconds(), cpu_seconds(family(self._pid)), own_seconds()

    def end(self, found: dict[str, Any]) -> dict[str, Any]:
        """`found`, with the share of the machine that others took and its pace."""
        wall, busy, side, own = (now - then for now, then in zip(self._now(), self._began, strict=True))
        others = max(0.0, busy - side - own) / (wall * (os.cpu_count() or 1))
        return found | {"others_share": others, "pace_ms": pace_ms()}


def own_seconds() -> float:
    """Processor time of this process and of the loads that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def turns_of(
    sides: dict[str, Callable[[int], dict[str, Any]]], clients: list[int], rounds: int
) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Every side at every number of clients, once a round, every other round backwards."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {count: {name: [] for name in sides} for count in clients}
    for number in range(rounds):
        for count in clients:
            for name in list(sides) if number % 2 == 0 else reversed(sides):
                found[count][name].append(sides[name](count))
    return found


def medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """One side's turns in one: the median of each number, the sum of errors, and all rates."""
    numbers: dict[str, Any] = {}
    for name, kind in ((name, type(value)) for name, value in turns[0].items()):
        values = [turn[name] for turn in turns if turn[name] is not None]
        if kind in (int, float, type(None)):
            numbers[name] = statistics.median(values) if values else None  # nothing came through in time
    kinds = [turn["kinds_of_error"] for turn in turns if turn.get("kinds_of_error")]
    return numbers | {
        "errors": sum(turn.get("errors", 0) for turn in turns), "kinds_of_error": kinds[:3],
        "rates": [round(turn["rate"], 1) for turn in turns],
    }  # fmt: skip


def row_of(clients: int, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """One row of the table. The ratio is the median of the rounds' ratios."""
    ours, peer, limit = (medians(found[name]) for name in ("ours", "potato", "pgbench"))
    ratios = sorted(mine["rate"] / theirs["rate"] for mine, theirs in zip(found["ours"], found["potato"], strict=True))
    rate, p50, p99, moonshot = GOALS.get(clients, (None, None, None, None))
    asked = {"rate": rate, "p50_ms": p50, "p99_ms": p99}
    reached = (
        ours["errors"] == 0
        and (rate is None or ours["rate"] >= rate)
        and all(
            limit_ms is None or (ours[name] or inf) <= limit_ms for name, limit_ms in (("p50_ms", p50), ("p99_ms", p99))
        )
    )
    return {
        "clients": clients, "ours": ours, "peer": peer, "pgbench": limit, "ratio": statistics.median(ratios),
        "ratio_least": ratios[0], "ratio_most": ratios[-1], "required": asked, "moonshot": moonshot, "reached": reached,
        "of_limit": ours["rate"] / limit["rate"],
        "others_share": max(ours["others_share"], peer["others_share"]),
        "pace_ms": statistics.median([ours["pace_ms"], peer["pace_ms"]]), "turns": found,
    }  # fmt: skip


def warm_up(turn: Callable[[], dict[str, Any]]) -> None:
    """Let a side work until it has given so many answers; on a busy machine not for ever."""
    given = 0
    for _ in range(WARM_UP_TURNS):
        given += turn()["acknowledged"]
        if given >= WARM_UP_ANSWERS:
            return


def pace_ms() -> float:
    """Processor time of a fixed loop in Python at this moment: on a shared machine a second of it is worth more or less."""
    began = time.process_time()
    total = 0
    for number in range(200_000):
        total += number * number
    return 1000 * (time.process_time() - began)


def milliseconds(value: float | None) -> str:
    """A time as it is printed."""
    return "-" if value is None else f"{value:,.1f}"


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """The row as it is printed."""
    ours, peer, asked = row["ours"], row["peer"], row["required"]
    words = [
        f"{asked['rate']}/s" if asked["rate"] else "",
        *(f"{name[:3]} {asked[name]} ms" for name in ("p50_ms", "p99_ms") if asked[name]),
    ]
    required = ", ".join(filter(None, words)) or "-"
    errors = f", {ours['errors']} errors" if ours["errors"] else ""
    return (
        f"{row['clients']} clients{errors}", f"{ours['rate']:,.0f}", f"{peer['rate']:,.0f}", f"{row['ratio']:.2f}",
        f"{row['ratio_least']:.2f}..{row['ratio_most']:.2f}", milliseconds(ours["p50_ms"]), milliseconds(peer["p50_ms"]), milliseconds(ours["p99_ms"]),
        milliseconds(peer["p99_ms"]), required, str(row["moonshot"] or "-"), f"{row['pgbench']['rate']:,.0f}", f"{row['of_limit']:.0%}",
        f"{ours['cpu_ms']:.2f}", f"{ours['web_cpu_ms']:.2f}", f"{peer['cpu_ms']:.2f}", f"{row['pace_ms']:.1f}", f"{row['others_share']:.0%}",
    )  # fmt: skip


def line(cells: tuple[str, ...], columns: tuple[tuple[str, int], ...]) -> str:
    """Cells below their heads."""
    return " ".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, columns, strict=True))


def memory_of(ours: platform_ours.Ours, potato: platform_potato.Potato) -> dict[str, float]:
    """Megabytes now: the web process, all that `whetstone up` runs, and Potato."""
    return {
        "web": memory_mb([ours.web()]),
        "stack": memory_mb(family(ours.process.pid)),
        "potato": memory_mb(family(potato.process.pid)),
    }


def machine() -> str:
    """The processor and how many of its threads there are."""
    names = (each for each in Path("/proc/cpuinfo").read_text().splitlines() if each.startswith("model name"))
    return f"{next(names, 'unknown processor').partition(': ')[2]}, {os.cpu_count()} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB"


def pages_of(
    ours: platform_ours.Ours, potato: platform_potato.Potato, people: dict[str, list[dict[str, str]]], visits: int
) -> dict[str, Any]:
    """Cold visits by turns."""
    sides = {
        "ours": (ours.url, f"/chat/{platform_ours.SLUG}", f"whetstone_session={people['ours'][0]['cookie']}", ".steps label"),
        "potato": (potato.url, "/annotate", people["potato"][0]["cookie"], "input[type=radio]"),
        "empty": (ours.url, "/ready", "none=none", "body"),  # what the browser itself takes now
    }  # fmt: skip
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with platform_page.chromium() as browser:
        for number in range(visits + 1):  # the first warms the browser and both servers, and is thrown away
            for name, side in sides.items():
                seen[name].append(platform_page.cold_visit(browser, *side))
                if number == 0:
                    seen[name].clear()
    return {name: platform_page.middle(found) for name, found in seen.items()}


def measured(given: argparse.Namespace, clients: list[int], show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The whole run; `show` gets each row of answers."""
    with ExitStack() as stack:
        ours = stack.enter_context(platform_ours.running(given.overlap))
        potato = stack.enter_context(platform_potato.running())
        people = {"ours": ours.sign_in(max(clients)), "potato": potato.sign_in(max(clients))}
        with ours.database() as (_, database_url):
            limit = Limit(database_url)
        needed = int(FIRST_RATE * (given.seconds + given.warm) * len(clients) / given.overlap) + 2 * max(clients)
        ours.add_items(needed)
        fresh = memory_of(ours, potato)
        sides = {"ours": ours, "potato": potato}

        def turn(name: str, target: str, count: int, slug: str, seconds: float) -> dict[str, Any]:
            side = sides[name]
            meter = Turn(side.process.pid)
            job = {
                "target": target, "host": "127.0.0.1", "port": side.port, "people": people[name][:count], "slug": slug,
                "seconds": seconds, "warm": given.warm, "pid": side.process.pid, "web_pid": ours.web().pid if side is ours else None,
            }  # fmt: skip
            return meter.end(load(job))

        def ours_turn(count: int, seconds: float = given.seconds) -> dict[str, Any]:
            left = ours.items * given.overlap - ours.acknowledged
            most = FIRST_RATE * (given.seconds + given.warm) + max(clients)
            if left < most:
                ours.add_items(int(most / given.overlap) + max(clients))
            found = turn("ours", "ours", count, platform_ours.SLUG, seconds)
            ours.acknowledged += found["acknowledged"]
            return found

        # The first answers load modules, open connections and fill caches; no turn pays for that.
        warm_up(lambda: ours_turn(4, 1.0))
        warm_up(lambda: turn("potato", "potato", 4, "", 1.0))
        found = turns_of(
            {
                "ours": ours_turn,
                "potato": lambda count: turn("potato", "potato", count, "", given.seconds),
                "pgbench": lambda count: limit.turn(count, given.seconds),
            },
            clients,
            given.rounds,
        )  # fmt: skip
        rows = [row_of(count, found[count]) for count in clients]
        for row in rows:
            show(row)
        counts = ours.check_counts()
        paths = {"ours": f"/chat/{platform_ours.SLUG}", "potato": "/annotate"}
        html = {name: turn(name, "page", 1, path, min(4.0, given.seconds)) for name, path in paths.items()}
        pages = None if given.no_pages else pages_of(ours, potato, people, 3 if given.quick else 7)
        return {
            "rows": rows, "counts": counts, "html": html, "pages": pages,
            "memory": {"fresh": fresh, "after": memory_of(ours, potato)},
        }  # fmt: skip


def beside(found: dict[str, Any]) -> list[tuple[str, float, float | None, float | None]]:
    """What is no answer: (what, ours, the peer's, required)."""
    rows: list[tuple[str, float, float | None, float | None]] = []
    html, pages, memory = found["html"], found["pages"], found["memory"]
    rows.append(("HTML of the page, p50 ms, 1 client", html["ours"]["p50_ms"], html["potato"]["p50_ms"], None))
    if pages is not None:
        for what, name in (("page, kB", "kb"), ("page, requests", "requests"), ("page, ready s", "ready_s")):
            rows.append((what, pages["ours"][name], pages["potato"][name], PAGE_GOALS.get(what)))
        rows.append(("an empty page, ready s", pages["empty"]["ready_s"], None, None))
    web = "idle memory of the web process, MB"
    rows.append((web, memory["fresh"]["web"], memory["fresh"]["potato"], PAGE_GOALS[web]))
    rows.append(("the same after the load", memory["after"]["web"], memory["after"]["potato"], None))
    rows.append(("the whole stack, idle, MB", memory["fresh"]["stack"], None, None))
    return rows


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,16,64", help="how many answer at once")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long a turn is measured")
    parser.add_argument("--warm", type=float, default=1.0, help="how long before that it runs already")
    parser.add_argument("--overlap", type=int, default=1, help="answers wanted for an item")
    parser.add_argument("--no-pages", action="store_true", help="without Chromium")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--quick", action="store_true", help="one round of 4 s, three visits")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 1, 4.0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # both servers end with us
    clients = sorted({int(each) for each in given.clients.split(",")})
    print(f"\nthe platform beside Potato ({machine()})")
    print(line(tuple(name for name, _ in COLUMNS), COLUMNS), flush=True)
    found = measured(given, clients, lambda row: print(line(cells_of(row), COLUMNS), flush=True))
    counts = found["counts"]
    print(
        f"{counts['acknowledged']:,} answers were acknowledged, {counts['stored']:,} are rows; no item has more than {given.overlap}.\n"
    )
    print(line(tuple(name for name, _ in PAGE_COLUMNS), PAGE_COLUMNS))
    for what, mine, theirs, required in beside(found):
        cells = (
            what,
            f"{mine:,.2f}",
            "-" if theirs is None else f"{theirs:,.2f}",
            "-" if required is None else f"{required:g}",
        )
        print(line(cells, PAGE_COLUMNS))
    if given.json:
        about = {"what": "platform", "at": time.strftime("%Y-%m-%d %H:%M"), "machine": machine()}
        settings = {name: str(value) for name, value in vars(given).items()}
        given.json.write_text(json.dumps(about | {"settings": settings} | found, indent=1))


if __name__ == "__main__":
    main()
