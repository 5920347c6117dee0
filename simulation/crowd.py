"""A crowd of simulated people at work on a running Whetstone, over HTTP only.

    echo '{"base_url": "http://127.0.0.1:8000", "people": [{"cookie": "…", "csrf_token": "…"}], "comparisons": 100}' | python -m simulation.crowd

The job on standard input: `base_url`; `people`, one signed-in session each; `comparisons`, how many in all; and, optionally,
`campaigns` (slug -> share of the work; default: all that are open, evenly), `seed` (who the people are), `day` (the same people
choosing anew), `turns` (longest chat). A summary is printed as one JSON object; progress goes to standard error.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulation.browser import Browser, Refused
from simulation.judge import GoldJudge
from simulation.people import SimulatedPerson

Json = dict[str, Any]


@dataclass
class Tally:
    """How many comparisons are wanted and stored; shared by all people, so that the total is exact."""

    wanted: int
    taken: int = 0
    stored: int = 0
    by_campaign: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """Reserve one comparison; False when all are taken."""
        with self.lock:
            if self.taken >= self.wanted:
                return False
            self.taken += 1
            return True

    def give_back(self) -> None:
        """A reserved comparison could not be made."""
        with self.lock:
            self.taken -= 1

    def stop(self) -> None:
        """Let nobody begin another one."""
        with self.lock:
            self.wanted = min(self.wanted, self.taken)

    def store(self, slug: str) -> None:
        """Count one that the server confirmed."""
        with self.lock:
            self.stored += 1
            self.by_campaign[slug] = self.by_campaign.get(slug, 0) + 1


def work(job: Json, *, progress: Progress | None = None) -> Json:
    """Let everybody work until `comparisons` are stored; returns {"comparisons", "by_campaign", "seconds", "people"}."""
    started = time.monotonic()
    judge = GoldJudge()
    tally = Tally(wanted=int(job["comparisons"]))
    seed, day = int(job.get("seed", 0)), int(job.get("day", 0))
    bar = progress.add_task("comparing", total=tally.wanted) if progress else None
    finished = threading.Event()

    def show() -> None:
        while not finished.wait(0.2):
            if progress is not None and bar is not None:
                progress.update(bar, completed=tally.stored)

    watcher = threading.Thread(target=show, daemon=True)
    watcher.start()
    with ThreadPoolExecutor(max_workers=len(job["people"])) as pool:
        futures = [
            pool.submit(_one_person, job, session, SimulatedPerson(seed * 100_003 + number, judge, day), tally)
            for number, session in enumerate(job["people"])
        ]
        wait(futures, return_when=FIRST_EXCEPTION)
        tally.stop()  # after an error the others stop at their next turn; otherwise all is done
    finished.set()
    watcher.join()
    for future in futures:
        future.result()
    if progress is not None and bar is not None:
        progress.update(bar, completed=tally.stored)
    return {
        "comparisons": tally.stored,
        "by_campaign": tally.by_campaign,
        "people": len(job["people"]),
        "seconds": round(time.monotonic() - started, 2),
    }


def _one_person(job: Json, session: Json, person: SimulatedPerson, tally: Tally) -> None:
    with Browser(job["base_url"]) as browser:
        browser.use(session)
        campaigns = {found["slug"]: found for found in browser.request("GET", "/api/campaigns")["campaigns"]}
        shares: dict[str, float] = job.get("campaigns") or dict.fromkeys(campaigns, 1.0)
        missing = sorted(set(shares) - set(campaigns))
        if missing:
            raise SystemExit(
                f"No open campaign is called {', '.join(missing)}; open are: {', '.join(sorted(campaigns))}."
            )
        for slug in shares:
            _agree(browser, slug)
        while tally.taken < tally.wanted:
            slug = person.rng.choices(list(shares), weights=list(shares.values()))[0]
            _one_conversation(browser, campaigns[slug], person, tally, longest=int(job.get("turns", 3)))


def _agree(browser: Browser, slug: str) -> None:
    """Simulated people consent to whatever a campaign asks them to."""
    door = browser.request("GET", f"/api/campaigns/{slug}/door")
    if door["step"] == "consent":
        browser.request("POST", f"/api/campaigns/{slug}/door/consent", {"sha256": door["consent"]["sha256"]})


def _one_conversation(browser: Browser, campaign: Json, person: SimulatedPerson, tally: Tally, *, longest: int) -> None:
    slug = campaign["slug"]
    browser.request("POST", f"/api/campaigns/{slug}/finish", {})
    opening = browser.prompts(slug, 1)
    if not opening:
        raise SystemExit(f"The campaign {slug} has no prompts in its pool; add some on its page.")
    transcript: list[Json] = []
    text, prompt_id = opening[0]["text"], opening[0]["id"]
    for _ in range(person.rng.randint(1, longest)):
        if not tally.take():
            break
        try:
            turn = browser.wait_for_replies(browser.send_message(slug, text, prompt_id)["id"])
            if turn["status"] == "failed":
                raise Refused(502, "reply_failed", str(turn.get("failure")))
            left, right = (candidate["text"] for candidate in turn["candidates"])
            transcript.append({"role": "user", "content": text})
            place = person.scale_position(transcript, left, right, grades=campaign["grades"], mode=campaign["mode"])
            stored = browser.compare(turn["id"], place, person.milliseconds(left, right))
        except BaseException:
            tally.give_back()
            raise
        tally.store(slug)
        continued = stored["turn"]["continued_by"]
        transcript.append({"role": "assistant", "content": (left, right)[continued]})
        text, prompt_id = person.next_message(opening[0]["text"], campaign["mode"]), None
    browser.request("POST", f"/api/campaigns/{slug}/finish", {})


def main() -> None:
    """Read the job, work, print the summary."""
    job = json.load(sys.stdin)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        summary = work(job, progress=progress)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
