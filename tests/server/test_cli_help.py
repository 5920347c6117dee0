"""Every command explains itself: it has an example, and the example stands on lines of its own."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from server.cli import whetstone


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command and group."""
    yield path
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                found = command.get_command(ctx, name)
                assert found is not None
                yield from commands(found, (*path, name))


@pytest.mark.parametrize("path", list(commands(whetstone)), ids=" ".join)
def test_help_shows_an_example_on_its_own_lines(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(whetstone, [*path, "--help"], prog_name="whetstone")
    assert shown.exit_code == 0
    assert "\\b" not in shown.output
    assert "\b" not in shown.output
    lines = shown.output.splitlines()
    example = next(number for number, line in enumerate(lines) if line.strip() in ("Example:", "Examples:"))
    assert "whetstone" in lines[example + 1]
