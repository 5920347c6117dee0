"""A program that supervises two dummy children in the home it is given, until SIGTERM or a kill by a test."""

import signal
import sys
import time
from pathlib import Path

from server.supervisor import Child, Supervisor

# Notes that it was told to end, and ends: a worker's warm shutdown in small.
POLITE = """
import signal, sys, time, pathlib
def end(*_):
    pathlib.Path(sys.argv[1]).write_text("ended in order")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).write_text("ready")
time.sleep(600)
"""
# Has a child of its own, as the training worker does.
PARENT = "import subprocess, time; subprocess.Popen(['sleep', '601']); time.sleep(600)"

if __name__ == "__main__":
    home = Path(sys.argv[1])
    wanted = [
        Child("polite", (sys.executable, "-c", POLITE, str(home / "polite.txt"))),
        Child("parent", (sys.executable, "-c", PARENT)),
    ]
    supervisor = Supervisor(wanted, home, lambda line: print(line, flush=True))

    def end(*_: object) -> None:
        supervisor.stop()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    supervisor.start()
    print("started", flush=True)
    while True:
        supervisor.watch()
        time.sleep(0.05)
