"""The limit of the database: one row inserted and committed, by pgbench, on the same embedded PostgreSQL with the same settings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from bench.platform_load import quantile
from server.embedded.places import find_programs

DATABASE = "bench"
TABLE = """
create table answer (
    id bigint generated always as identity primary key, turn_id bigint not null, person_id bigint not null,
    choice smallint not null, key text not null unique, told jsonb not null, at timestamptz not null default now()
)
"""
# One round trip: a statement outside of a block commits by itself, durably as ever.
INSERT = """\
\\set turn random(1, 100000)
insert into answer (turn_id, person_id, choice, key, told)
values (:turn, :client_id, 3, gen_random_uuid()::text, '{"milliseconds": 3200, "active_ms": 3200}');
"""


def program() -> Path:
    """The pgbench of the embedded PostgreSQL."""
    return find_programs()[0] / "pgbench"


class Limit:
    """A database of its own beside the measured one."""

    def __init__(self, database_url: str) -> None:
        self.host = parse_qs(urlsplit(database_url).query)["host"][0]
        self.role = urlsplit(database_url).username or "whetstone"
        if not program().is_file():
            sys.exit(f"{program()} is missing, so the database's limit cannot be measured")
        with psycopg.connect(host=self.host, user=self.role, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"create database {DATABASE}")  # a constant
        with psycopg.connect(host=self.host, user=self.role, dbname=DATABASE, autocommit=True) as connection:
            connection.execute(TABLE)

    def turn(self, clients: int, seconds: float) -> dict[str, float | None]:
        """Let so many clients insert for so long."""
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "insert.sql"
            script.write_text(INSERT)
            done = subprocess.run(
                [
                    program(), "--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=1", f"--time={max(1, round(seconds))}",
                    "--log", f"--log-prefix={folder}/each", f"--file={script}", f"--host={self.host}", f"--username={self.role}", DATABASE,
                ],
                capture_output=True, text=True, check=False, cwd=folder, env=os.environ | {"LC_ALL": "C"},
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"pgbench failed:\n{done.stderr[-2000:]}")
            logs = "".join(path.read_text() for path in Path(folder).glob("each.*"))
        return {"rate": rate_of(done.stdout)} | latencies_of(logs)


def rate_of(said: str) -> float:
    """Transactions a second, from what pgbench says; without the time it took to connect."""
    return float(next(line for line in said.splitlines() if line.startswith("tps = ")).split()[2])


def latencies_of(logs: str) -> dict[str, float | None]:
    """Quantiles of its log: client, number, microseconds, script, and when, a line each."""
    seconds = sorted(int(line.split()[2]) / 1e6 for line in logs.splitlines())
    return {"p50_ms": quantile(seconds, 0.5), "p99_ms": quantile(seconds, 0.99)}
