"""A program that owns the services of the home it is given; tests kill it. Prints one JSON line, then waits to be told.

With a user's number as its second argument it becomes that user, after the imports: the interpreter may lie where only root reads.
"""

import json
import os
import sys

from server.embedded import OwnServices, own_services
from server.settings import load_settings


def pids(own: OwnServices) -> list[int]:
    return [own._database.pid, own._queue.pid]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    settings = load_settings({"WHETSTONE_HOME": sys.argv[1]})
    with own_services(settings, doing="a test") as (urls, own):
        while True:
            print(json.dumps({"database": urls.database_url, "redis": urls.redis_url, "pids": pids(own)}), flush=True)
            if sys.stdin.readline().strip() != "revive":
                break
            print(json.dumps(own.revive()), flush=True)
