"""`python -m training.processes.together N -m training.JOB FOLDER …`: a job as N processes of this machine, by torchrun's parts.

torchrun ends with 1 and a traceback of its own whatever the job said. This ends as the job did, and leaves the last word to it.
"""

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from training.job import REFUSED


def main(arguments: Sequence[str]) -> int:
    """Run the job; its exit code, or 128 and the number of the signal that ended it."""
    count, *job = arguments
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the job has said what there is to say
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // int(count), 1)))
    try:
        run(parse_args(["--standalone", f"--nproc-per-node={count}", *job]))
    except ChildFailedError as failed:
        codes = [failure.exitcode for failure in failed.failures.values()]
        code = REFUSED if REFUSED in codes else codes[0]  # the others fail because one did
        return code if code > 0 else 128 - code
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
