"""Time until Python has imported nextmarker, until `nextmarker --help` has answered, and until a missing file is told.

Usage: ``python -m benchmarks.startup``

Prints seconds of processor time, best of several rounds, and the ratio to those of `import scanpy`, which most analyses
of single cells begin with.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from benchmarks.report import report

ROUNDS = 3


def main() -> None:
    """Time each and print the ratio."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    peer = cpu_seconds("-c", "import scanpy")
    tasks = {
        "import nextmarker": ["-c", "import nextmarker"],
        "nextmarker --help": ["-m", "nextmarker", "--help"],
        "nextmarker run on a missing file": "-m nextmarker run none.tif --nuclear-channels DNA -o none.zarr".split(),
    }
    for task, arguments in tasks.items():
        ours = cpu_seconds(*arguments)
        report(task, {"nextmarker": f"{ours:.2f} s", "import scanpy": f"{peer:.2f} s"}, peer / ours)


def cpu_seconds(*arguments: str) -> float:
    """Least processor time of Python with these arguments."""
    times = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


if __name__ == "__main__":
    main()
