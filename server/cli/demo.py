"""`whetstone demo`: the whole loop with a simulated crowd on a throw-away home, from nothing to a table and a plot."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
from rich.console import Console

from server.cli.connection import connected
from server.cli.simulate import shares
from server.embedded.process import die_with_parent
from server.services.people import people as people_service
from server.services.simulated import crowd_sessions, open_session
from server.services.snapshots import registry
from server.settings import OperatorError
from server.transaction import transaction_of

START_SECONDS = 120.0
STOP_SECONDS = 30.0


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 50), help="How many rounds.")
@click.option("--people", default=12, show_default=True, type=click.IntRange(1, 200), help="How many simulated people.")
@click.option("--comparisons", default=300, show_default=True, type=click.IntRange(20), help="How many a round.")
@click.option(
    "--campaign",
    "campaigns",
    multiple=True,
    metavar="SLUG[:SHARE]",
    help="Where they work.  [default: helpful:3 red-team:1]",
)
@click.option("--seed", default=0, show_default=True, help="Decides who the people are and what they choose.")
@click.option(
    "--plot",
    default="whetstone-demo.png",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the picture goes.",
)
@click.option("--keep", is_flag=True, help="Keep the throw-away home and say where it is.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
@click.pass_context
def command(
    ctx: click.Context,
    rounds: int,
    people: int,
    comparisons: int,
    campaigns: tuple[str, ...],
    seed: int,
    plot: Path,
    keep: bool,
    as_json: bool,
) -> None:
    """Play rounds of comparing and training with a simulated crowd, and measure each new policy.

    Everything is real: pages, queues, database, preference model, PPO, deployment. The crowd hears a hidden judge; training never
    does. After each round the judge compares the newest policy with the starter on prompts that nobody trained on.

    \b
    Example:
      whetstone demo
      whetstone demo --rounds 1 --comparisons 100 --json
    """
    console = Console(stderr=True)
    home = Path(tempfile.mkdtemp(prefix="whetstone-demo-"))
    # The demo's services are its own, whatever the shell points to.
    for name in ("DATABASE_URL", "REDIS_URL", "WHETSTONE_SECRET", "WHETSTONE_PUBLIC_URL", "WHETSTONE_ARTIFACTS"):
        os.environ.pop(name, None)
    os.environ |= {"WHETSTONE_HOME": str(home), "PORT": str(_free_port()), "WHETSTONE_DEMO": "1"}
    try:
        with _running(home, console), connected() as settings:
            with transaction_of(settings) as db:
                sessions = crowd_sessions(db, people)
                researcher = people_service.create_person(db, name="Demo researcher", roles=["researcher"])
                starter = registry.starter_snapshot(db)
                job = {
                    "base_url": f"http://{settings.host}:{settings.port}",
                    "people": sessions,
                    "researcher": open_session(db, researcher),
                    "rounds": rounds,
                    "comparisons": comparisons,
                    "campaigns": shares(campaigns) or {"helpful": 3.0, "red-team": 1.0},
                    "seed": seed,
                    "starter": str(Path(settings.artifacts) / str(starter.path)),
                    "artifacts": settings.artifacts,
                    "plot": str(plot.absolute()),
                    "json": as_json,
                }
            played = subprocess.run(
                [sys.executable, "-m", "simulation.demo"], input=json.dumps(job), text=True, check=False
            )
    finally:
        if keep:
            console.print(f"Kept: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    ctx.exit(1 if played.returncode else 0)


@contextmanager
def _running(home: Path, console: Console) -> Iterator[None]:
    """A whole Whetstone on `home`, from ready to stopped."""
    log = home / "up.log"
    with log.open("wb") as output, console.status("Starting a throw-away Whetstone …"):
        server = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "up", "--demo"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no threads run yet; a demo that is killed leaves nothing running
        )
        deadline = time.monotonic() + START_SECONDS
        while not _ready():
            if server.poll() is not None or time.monotonic() > deadline:
                server.terminate()
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise OperatorError(f"Whetstone did not start. The end of what it said:\n{tail}")
            time.sleep(0.3)
    try:
        yield
    finally:
        with console.status("Stopping …"):
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def _ready() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{os.environ['PORT']}/ready", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
