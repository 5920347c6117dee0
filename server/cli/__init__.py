"""The command `whetstone`: parse, call a service or the API, print.

Each subcommand is `command` in `server/cli/<stem>.py` and is imported only when it is called, so that none pays for another's
imports. Exit codes: 0 done, 1 it failed, 2 it was called wrongly, 3 something around it must be mended, 130 interrupted.
"""

import sys
from importlib import import_module
from pathlib import Path

import click

from server.errors import WhetstoneError
from server.settings import OperatorError

FAILED, USAGE, ENVIRONMENT, INTERRUPTED = 1, 2, 3, 130

# The line of `whetstone --help` beside each; kept here so that the list imports nothing.
COMMANDS = {
    "up": "Start everything on this machine.",
    "migrate": "Bring the database to this version's tables.",
    "doctor": "Say what is missing and how to mend it.",
    "person": "Accounts, roles and invitations.",
    "campaign": "Standing requests for feedback.",
    "items": "Pairs of texts for people to compare.",
    "pay": "What is owed, and payrolls.",
    "panel": "Studies at panels such as Prolific.",
    "import": "Bring in comparisons from files.",
    "export": "Write comparisons to files.",
    "simulate": "Let a simulated crowd compare replies.",
    "round": "Start, watch and retry rounds of training.",
    "snapshot": "Add, list and deploy models.",
    "train": "Train from a folder, with no database.",
    "demo": "The whole loop with a simulated crowd.",
}


class _Lazy(click.Group):
    """A group that finds a command's module by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it with one
        return [name for name in COMMANDS if _source(name).is_file()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"server.cli.{_source(cmd_name).stem}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


def _source(name: str) -> Path:
    stem = "import_" if name == "import" else name  # a keyword cannot name a module that is imported
    return Path(__file__).with_name(f"{stem}.py")


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from the environment: WHETSTONE_HOME, PORT, DATABASE_URL, REDIS_URL and more; `whetstone doctor` shows them.",
)
@click.version_option("0.1.0", prog_name="whetstone", message="%(prog)s %(version)s")
def whetstone() -> None:
    """Whetstone: people compare replies, a preference model and PPO learn, the policy returns to the chat.

    \b
    Example:
      whetstone up --demo        start, with demo campaigns and one-click sign-in
      whetstone doctor           is anything missing?
    """


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """The exit code of one command; errors that have a sentence for people are printed, others are not hidden."""
    try:
        code = whetstone.main(arguments, prog_name="whetstone", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except OperatorError as error:
        click.echo(f"whetstone: {error}", err=True)
        return ENVIRONMENT
    except WhetstoneError as error:
        click.echo(f"whetstone: {error.message}", err=True)
        return FAILED
    return code if isinstance(code, int) else 0
