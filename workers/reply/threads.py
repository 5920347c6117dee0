"""Threads without which the process is of no use."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger("whetstone.reply")

SOFTWARE_ERROR = 70  # EX_SOFTWARE of sysexits.h


def start_essential(name: str, run: Callable[[], None]) -> threading.Thread:
    """Run in a daemon thread; if it ends by an error, the process ends with it.

    A living process with a dead thread would keep every turn waiting. A dead one is started again by its supervisor, and the
    sweep asks again for what it had claimed.
    """

    def guarded() -> None:
        try:
            run()
        except BaseException:
            log.critical("The thread %s broke; the worker ends and is to be started again.", name, exc_info=True)
            logging.shutdown()
            os._exit(SOFTWARE_ERROR)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
