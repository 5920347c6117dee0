"""Our side of the platform's comparison: `whetstone up` on a throw-away home, one campaign of given texts, people signed in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from bench.processes import family, free_port
from bench.sides import OURS_PYTHON, ROOT
from server.embedded import services
from server.models import Campaign, Comparison, Turn
from server.services.people import people
from server.services.simulated import open_session
from server.settings import load_settings
from server.transaction import transaction

SLUG = "bench"
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
# What points a shell at an installation of its own; the one measured here has nothing to do with it.
ELSEWHERE = ("DATABASE_URL", "REDIS_URL", "WHETSTONE_SECRET", "WHETSTONE_PUBLIC_URL", "WHETSTONE_ARTIFACTS")


def item(number: int) -> dict[str, str]:
    """One item, as long as the other side's."""
    return {
        "prompt": f"Question {number}: explain how tides work.",
        "a": "Answer A " * 60,
        "b": f"Answer B {number} " * 60,
    }


class Ours:
    """A running Whetstone."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes], overlap: int) -> None:
        self.home, self.port, self.process, self.overlap = home, port, process, overlap
        self.url = f"http://127.0.0.1:{port}"
        self.items = 0
        self.acknowledged = 0  # by all turns so far

    @property
    def environment(self) -> dict[str, str]:
        """What the command line of this installation needs."""
        own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        return own | {"WHETSTONE_HOME": str(self.home), "PORT": str(self.port), "PYTHONPATH": str(ROOT)}

    def command(self, *words: str) -> str:
        """What `whetstone WORDS` says."""
        done = subprocess.run(
            [OURS_PYTHON, "-m", "server.cli", *words],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"whetstone {' '.join(words)} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def make_campaign(self) -> None:
        """The campaign of given texts, as an admin makes it on the command line."""
        told = self.home / "instructions.md"
        told.write_text("Which answer explains it *better*?\n")
        settings = ("--set", "way=pairs", "--set", f"overlap={self.overlap}")
        self.command("campaign", "add", SLUG, "--name", "Benchmark", "--instructions", str(told), *settings)
        self.command("campaign", "open", SLUG)

    def add_items(self, count: int) -> None:
        """So many items more."""
        file = self.home / "items.jsonl"
        numbers = range(self.items, self.items + count)
        file.write_text("".join(json.dumps(item(number)) + "\n" for number in numbers))
        self.command("items", "add", str(file), "--campaign", SLUG)
        self.items += count

    @contextmanager
    def database(self) -> Iterator[tuple[Any, str]]:
        """A transaction beside the running web server, and the database's address."""
        settings = load_settings(self.environment)
        with (
            services(settings) as urls,
            transaction(urls.database_url, urls.redis_url) as db,
        ):
            yield db, urls.database_url

    def sign_in(self, count: int) -> list[dict[str, str]]:
        """Sessions of so many people, with cookie and token as their browsers hold them."""
        with self.database() as (db, _):
            crowd = [people.create_person(db, f"Person {number + 1}", ["crowdworker"]) for number in range(count)]
            return [dict(open_session(db, person)) for person in crowd]

    def check_counts(self) -> dict[str, int]:
        """Every acknowledged answer is a row, and no item has more answers than were wanted, or went with fewer. Exits if not."""
        with self.database() as (db, _):
            campaign = db.scalars(select(Campaign).where(Campaign.slug == SLUG)).one()
            rows = db.execute(
                select(func.count(Comparison.id), Turn.queue_id.is_not(None))
                .select_from(Turn)
                .outerjoin(Comparison, Comparison.turn_id == Turn.id)
                .group_by(Turn.id)
            ).all()
            stored = db.scalar(select(func.count()).where(Comparison.campaign_id == campaign.id)) or 0
            keys = db.scalar(select(func.count(func.distinct(Comparison.idempotency_key)))) or 0
        items = Counter((int(answers), bool(queued)) for answers, queued in rows)
        return judged(items, stored=stored, keys=keys, acknowledged=self.acknowledged, overlap=self.overlap)

    def web(self) -> psutil.Process:
        """The process that answers HTTP."""
        return next(each for each in family(self.process.pid) if "uvicorn" in each.cmdline())


def judged(
    items: Mapping[tuple[int, bool], int], *, stored: int, keys: int, acknowledged: int, overlap: int
) -> dict[str, int]:
    """The counts, or the end of the run. `items` says how many items have so many answers and are in the queue, or not."""
    over = sum(count for (answers, _), count in items.items() if answers > overlap)
    wrong = sum(count for (answers, queued), count in items.items() if queued == (answers >= overlap))
    found = {
        "acknowledged": acknowledged,
        "stored": stored,
        "keys": keys,
        "over_overlap": over,
        "wrongly_queued": wrong,
    }
    if stored != acknowledged or keys != stored or over or wrong:
        sys.exit(f"the answers do not add up, so no figure of this run counts: {json.dumps(found)}")
    return found


@contextmanager
def running(overlap: int) -> Iterator[Ours]:
    """Whetstone from its start to its end, on a home that is removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="whetstone-bench-"))
    home.chmod(0o711)  # root's database runs as `nobody`, who must be able to walk here
    port = free_port()
    log = home / "up.log"
    ours: Ours | None = None
    with log.open("wb") as output:
        own = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        process = subprocess.Popen(
            [OURS_PYTHON, "-m", "server.cli", "up"],
            env=own | {"WHETSTONE_HOME": str(home), "PORT": str(port), "PYTHONPATH": str(ROOT)},
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        ours = Ours(home, port, process, overlap)
        wait_until(f"{ours.url}/ready", process, log)
        ours.make_campaign()
        yield ours
    finally:
        stop(process)
        shutil.rmtree(home, ignore_errors=True)


def wait_until(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Come back when the address answers; exit with the end of the log when it never does."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{url} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; kill its group when it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
