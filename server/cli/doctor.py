"""`whetstone doctor`: what is missing, and how to mend it."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from redis.exceptions import RedisError
from sqlalchemy.exc import OperationalError

from server.cli.installation import Check, check_packages, check_starter
from server.cli.up import refuse_busy_port
from server.embedded import holder_of, services
from server.embedded.places import find_programs
from server.revision import revisions
from server.services.people.limits import redis_client
from server.services.people.post_office import connection
from server.settings import OperatorError, Settings, load_settings

FREE_BYTES = 2_000_000_000  # a database, a few snapshots of the starter, logs; large models need their own size more
CHROMIUM = (
    "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
)  # fmt: skip
MARKS = {(True, True): "ok     ", (True, False): "ok     ", (False, True): "MISSING", (False, False): "absent "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Look at everything Whetstone needs and say how to mend what is missing; exits with 1 if something needed is.

    Private services that do not run are started for the look and stopped again.

    \b
    Example:
      whetstone doctor
      whetstone doctor --json
    """
    found = []
    for check in _checks():
        found.append(check)
        if not as_json:
            click.echo(f"{MARKS[check.ok, check.needed]} {check.name}: {check.detail}")
            if not check.ok:
                click.echo(f"        {check.mend}")
    healthy = all(check.ok for check in found if check.needed)
    if as_json:
        click.echo(json.dumps({"ok": healthy, "checks": [asdict(check) for check in found]}))
    else:
        click.echo(
            "Nothing that is needed is missing." if healthy else "Something that is needed is missing; see above."
        )
    ctx.exit(0 if healthy else 1)


def _checks() -> Iterator[Check]:
    yield Check("Python", sys.version_info >= (3, 11), platform.python_version(), mend="Install Python 3.11 or newer.")
    yield check_packages()
    yield _torch()
    yield _native()
    yield check_starter()
    try:
        settings = load_settings(os.environ)
    except OperatorError as error:
        yield Check("Settings", ok=False, detail=str(error), mend="Change the environment as it says and look again.")
        return
    yield Check("Settings", ok=True, detail=f"home {settings.home}, address {settings.public_url}")
    yield _disk(settings.home)
    yield _tried("Port", lambda: _port(settings), f"PORT={settings.port + 1} chooses another.")
    yield _tried("Services", lambda: _services(settings), "Mend it as it says; `whetstone up` then starts them.")
    yield _mail(settings)
    yield _chromium()


@cache  # importing torch takes seconds
def _torch() -> Check:
    """In a process of its own: this side never imports torch."""
    mend = "Run `make run` again; it chooses the build for this machine (CUDA=1 for the one with CUDA)."
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return Check("torch", ok=False, detail="not installed", mend=mend)
    ask = "import torch; print('CUDA device found' if torch.cuda.is_available() else 'runs on the CPU')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return Check("torch", ok=False, detail=f"{installed}: {done.stderr.strip().splitlines()[-1]}", mend=mend)
    return Check("torch", ok=True, detail=f"{installed}, {done.stdout.strip()}")


@cache  # the first look may compile
def _native() -> Check:
    """Whether the kernels in C run; asked of a process of its own, since this side never imports training."""
    mend = (
        "Nothing needs it: torch does the same work, more slowly. Install a C compiler to have it (docs/operator.md)."
    )
    ask = [sys.executable, "-m", "training.native"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Check("Native kernels", ok=False, detail=f"cannot be asked: {said}", needed=False, mend=mend)
    told = json.loads(done.stdout)
    detail = f"compiled, {told['threads']} threads" if told["native"] else told["why_not"]
    return Check("Native kernels", told["native"], detail, needed=False, mend=mend)


def _disk(home: Path) -> Check:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    mend = "Free some space, or set WHETSTONE_HOME to a folder on another disk."
    return Check("Disk", free >= FREE_BYTES, f"{free / 1e9:.1f} GB free at {existing}", mend=mend)


def _tried(name: str, look: Callable[[], str], mend: str) -> Check:
    """A look that raises what is wrong."""
    try:
        return Check(name, ok=True, detail=look())
    except OperatorError as error:
        return Check(name, ok=False, detail=str(error), mend=mend)


def _port(settings: Settings) -> str:
    holder = holder_of(settings.home) if settings.embedded else None
    if holder is not None:
        return f"{settings.port}; Whetstone runs already: process {holder.pid} at {holder.address}"
    refuse_busy_port(settings.host, settings.port)
    return f"{settings.port} is free"


def _services(settings: Settings) -> str:
    if settings.embedded:
        find_programs()
        if not (settings.home / "postgres").exists() and not (settings.home / "data-folder").exists():
            return "PostgreSQL and Valkey are at hand; the first start makes the database"
    with services(settings) as urls:
        connected = settings.connected(urls.database_url, urls.redis_url)
        return f"{_database(str(connected.database_url))}; {_redis(urls.redis_url)}"


def _database(url: str) -> str:
    try:
        current, newest = revisions(url)
    except OperationalError as error:
        raise OperatorError(f"PostgreSQL does not answer: {str(error.orig).strip().splitlines()[0]}") from error
    if current != newest:
        raise OperatorError(f"The database is at {current or 'no revision'}, not {newest}; run `whetstone migrate`")
    return f"PostgreSQL answers, at revision {current}"


def _redis(url: str) -> str:
    try:
        redis_client(url).ping()
    except RedisError as error:
        raise OperatorError(f"Redis does not answer: {error}") from error
    return "Redis answers"


def _mail(settings: Settings) -> Check:
    mend = "Set WHETSTONE_SMTP_URL and WHETSTONE_MAIL_FROM to let people sign in by a link (docs/operator.md)."
    if settings.mail is None:
        detail = "not set up; signing in by e-mail is not offered"
        return Check("Mail", ok=False, detail=detail, needed=False, mend=mend)
    try:
        with connection(settings.mail) as server:
            server.noop()
    except OSError as error:
        wrong = f"{settings.mail.host}:{settings.mail.port} does not take mail: {error}"
        return Check("Mail", ok=False, detail=wrong, mend="Change WHETSTONE_SMTP_URL, or unset it to send no mail.")
    return Check("Mail", ok=True, detail=f"{settings.mail.host}:{settings.mail.port} answers")


def _chromium() -> Check:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    mend = "Only the browser tests need it: sh scripts/chromium.sh"
    return Check("Chromium", found is not None, found or "none, browser tests are skipped", needed=False, mend=mend)
