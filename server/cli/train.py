"""`whetstone train`: hands a run folder to `training`, which this side never imports."""

import signal
import subprocess
import sys
from pathlib import Path

import click

from server.embedded.process import die_with_parent

# Each is `python -m training.<name>`; a program of its own, so that torch never lives in the web process.
JOBS = (
    "sft", "distill", "preference", "policy", "evaluate", "best_of", "tournament", "robustness", "crowd", "sqrt_kl", "ood", "hhh", "log_p",
)  # fmt: skip

PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 10


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="JOB FOLDER [OPTIONS]")
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Train from a run folder of files, with no database and no server.

    JOB is one of those below; `whetstone train JOB --help` lists its options. A job that was interrupted goes on from its
    checkpoint when it is started again with the same folder.

    With `--processes N` the job runs as N processes of this machine, one a GPU where there are GPUs.

    \b
    Examples:
      whetstone train preference runs/mine --model path/to/model
      whetstone train preference runs/mine --processes 8
    """
    jobs = [job for job in JOBS if (Path(__file__).parents[2] / "training" / f"{job}.py").is_file()]
    if not arguments or arguments[0] in ("-h", "--help"):
        click.echo(f"{ctx.get_help()}\n\nJobs: {', '.join(jobs)}")
        ctx.exit(0 if arguments else 2)
    if arguments[0] not in jobs:
        raise click.UsageError(f"There is no job {arguments[0]!r}; choose from {', '.join(jobs)}.")
    processes, rest = _processes(arguments[1:])
    module = ["-m", f"training.{arguments[0]}", *rest]
    if processes > 1:
        module = ["-m", "training.processes.together", str(processes), *module]
    if sys.stderr.isatty():
        click.echo(f"Starting {arguments[0]} …", err=True)  # torch takes seconds to load, and says nothing
    ctx.exit(_run([sys.executable, *module]))


def _run(line: list[str]) -> int:
    """Run a program that ends with this one: what asks this process to stop is passed on. Its exit code."""
    child = subprocess.Popen(line, preexec_fn=die_with_parent(signal.SIGTERM))  # noqa: PLW1509 - no thread is here yet
    passed_on = {number: signal.signal(number, lambda asked, _: child.send_signal(asked)) for number in PASSED_ON}
    try:
        code = child.wait()
    except KeyboardInterrupt:  # the terminal has told the job as well
        try:
            child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    finally:
        for number, before in passed_on.items():
            signal.signal(number, before)
    return 128 - code if code < 0 else code


def _processes(arguments: tuple[str, ...]) -> tuple[int, list[str]]:
    """Take `--processes N` out of a job's arguments; 1 without it."""
    rest, count = list(arguments), "1"
    for place, word in enumerate(arguments):
        if word == "--processes":
            count = arguments[place + 1] if place + 1 < len(arguments) else ""
            del rest[place : place + 2]
        elif word.startswith("--processes="):
            count = word.partition("=")[2]
            del rest[place]
    if not count.isdecimal() or int(count) < 1:
        raise click.UsageError(f"--processes needs a number from 1, not {count!r}.")
    return int(count), rest
