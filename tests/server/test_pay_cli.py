"""`whetstone pay`, run as a person runs it."""

from __future__ import annotations

import csv
import json

import pytest

from server import cli
from server.db import session_factory
from server.models import LedgerEntry, Payroll
from tests import factories


@pytest.fixture
def whetstone(committed: str, settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    with session_factory(committed).begin() as db:
        alice = factories.person(db, "Alice")
        for amount, status in (("2.00", "approved"), ("1.50", "approved"), ("3.00", "pending")):
            factories.entry(db, alice, amount, status)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def paid_in(address: str) -> int:
    """The number of the only payroll."""
    with session_factory(address)() as db:
        return db.query(Payroll).one().id


def test_a_payroll_from_the_command_line(whetstone, committed: str, tmp_path) -> None:
    first, again = tmp_path / "may.csv", tmp_path / "again.csv"
    code, out, _ = whetstone("pay", "show", "--json")
    assert [(each["status"], each["amount"]) for each in json.loads(out)["ledger"]] == [
        ("pending", "3.00"),
        ("approved", "3.50"),
    ]
    code, out, _ = whetstone("pay", "export", "--currency", "USD", "--until", "2020-01-01", "--out", first)
    assert (code, first.exists()) == (1, False)  # nothing was entered until then
    code, out, _ = whetstone("pay", "export", "--currency", "USD", "--out", first)
    number = paid_in(committed)
    assert (code, out) == (0, f"Payroll {number}: 2 entries, 3.50 USD, in {first}.\n")
    assert [row["amount"] for row in csv.DictReader(first.read_text().splitlines())] == ["2.00", "1.50"]
    assert whetstone("pay", "export", "--currency", "USD", "--out", again)[0] == 1
    assert whetstone("pay", "export", "--payroll", number, "--out", again)[0] == 0
    assert first.read_bytes() == again.read_bytes()
    code, out, _ = whetstone("pay", "show")
    assert f"payroll {number}: 3.50 USD, 2 entries" in out
    with session_factory(committed)() as db:
        assert sorted(each.status for each in db.query(LedgerEntry)) == ["paid", "paid", "pending"]


def test_what_goes_wrong_says_what_to_do(whetstone, committed: str, tmp_path) -> None:
    for arguments in ((), ("--currency", "USD", "--payroll", 1)):
        code, _, err = whetstone("pay", "export", *arguments, "--out", tmp_path / "x.csv")
        assert (code, "Say --currency" in err) == (1, True)
    code, _, err = whetstone("pay", "export", "--payroll", 999_999, "--out", tmp_path / "x.csv")
    assert (code, "no payroll 999999" in err) == (1, True)
    code, _, err = whetstone("pay", "export", "--currency", "USD", "--out", tmp_path / "none" / "x.csv")
    number = paid_in(committed)
    assert (code, f"--payroll {number}" in err) == (1, True)  # it is kept, and can be written again
    assert whetstone("pay", "export", "--payroll", number, "--out", tmp_path / "x.csv")[0] == 0
