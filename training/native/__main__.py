"""Say in one line of JSON whether the native kernels run here; or make portable libraries of them (--portable FOLDER)."""

import argparse
import json
import os
import sys
from pathlib import Path

from training import native
from training.native.building import CannotBuild, build_portable, compiler_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.native", description=__doc__)
    parser.add_argument("--portable", type=Path, metavar="FOLDER", help="compile for every level of this processor")
    folder: Path | None = parser.parse_args().portable
    if folder is None:
        found = native.loaded()
        if found.why_not is not None:
            print(json.dumps({"native": False, "why_not": found.why_not}))
        else:
            print(json.dumps({"native": True, "library": str(found.path), "threads": native.threads()}))
        return
    compiler = compiler_of(os.environ)
    if compiler is None:
        sys.exit("no C compiler was found; install gcc, or name one with CC")
    try:
        print(json.dumps([str(path) for path in build_portable(compiler, folder)]))
    except CannotBuild as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
