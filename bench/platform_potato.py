"""The peer's side: Potato from PyPI, started by its own command as its users do, with one radio scheme and no passwords."""

from __future__ import annotations

import http.cookiejar
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.platform_ours import item, stop, wait_until
from bench.processes import free_port
from bench.sides import ROOT

POTATO = ROOT / ".venv-potato"
PROGRAM = POTATO / "bin" / "potato"
# Each save writes the person's whole state, the order of their items with it; so few items are a light load.
ITEMS = 200
CONFIG = """\
annotation_task_name: pairs
task_dir: .
output_annotation_dir: out
output_annotation_format: jsonl
data_files: [items.jsonl]
item_properties: {id_key: id, text_key: text}
user_config: {allow_all_users: true, users: []}
authentication: {method: in_memory}
require_password: false
annotation_schemes:
  - {annotation_type: radio, name: pref, description: "Which answer is better?", labels: [A, B, tie]}
"""


class Potato:
    """A running Potato."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.port, self.process = folder, port, process
        self.url = f"http://127.0.0.1:{port}"

    def sign_in(self, count: int) -> list[dict[str, str]]:
        """Sessions of so many people, each with the item that Potato shows them first."""
        return [self._session(f"person{number}") for number in range(count)]

    def _session(self, name: str) -> dict[str, str]:
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(f"{self.url}/auth", data=f"email={name}&pass=".encode(), timeout=60).read()
        page = opener.open(f"{self.url}/annotate", timeout=60).read().decode()
        shown = re.search(r'name="instance_id"[^>]*value="([^"]+)"', page)
        if shown is None:
            sys.exit(f"Potato shows {name} no item; its page begins:\n{page[:500]}")
        return {"cookie": "; ".join(f"{each.name}={each.value}" for each in jar), "item": shown.group(1)}


@contextmanager
def running() -> Iterator[Potato]:
    """Potato from its start to its end, in a folder that is removed afterwards."""
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is missing: run `{sys.executable} scripts/install.py --potato` first")
    folder = Path(tempfile.mkdtemp(prefix="potato-bench-"))
    (folder / "config.yaml").write_text(CONFIG)
    texts = ((number, item(number)) for number in range(ITEMS))
    lines = [{"id": f"i{number}", "text": "<br>".join(text.values())} for number, text in texts]
    (folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    port = free_port()
    log = folder / "potato.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, "start", "config.yaml", "-p", str(port), "--host", "127.0.0.1"],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(f"http://127.0.0.1:{port}/", process, log)
        yield Potato(folder, port, process)
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)
