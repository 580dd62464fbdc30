"""The tests again and again: in new random orders, by several processes, on a machine at work.

``uv run python tests/repeat.py`` runs the whole suite ten times, with 1, 2 and 4 processes in turn,
beside a load of two busy cores. Arguments that are not its own are those of pytest::

    uv run python tests/repeat.py --runs 20 tests/faults tests/engine

For each run it prints the seed of its order and what failed, and at the end all failures, each with
what repeats it. A run by one process is repeated by its seed; how several processes share the tests
is chance, so what ran before a failure in its process is written to a file, in order.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUSY = "while True: pass"
# A line of the log on a test: "[gw0] [  1%] PASSED tests/x.py::y", or without xdist the name first.
SHARED = re.compile(r"\[(gw\d+)\] \[ *\d+%\] ([A-Z]+) (.*?) *$")
ALONE = re.compile(r"(\S.*?) ([A-Z]{4,})(?: \(.*\))? *\[ *\d+%\]$")
BAD = ("FAILED", "ERROR")


def main(typed: Sequence[str] | None = None) -> int:
    """Run the tests as the command line says; the number of runs that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--processes", default="1,2,4", help="in turn (default: 1,2,4)")
    parser.add_argument("--busy", type=int, default=2, help="cores with other work (default: 2)")
    parser.add_argument("--seed", type=int, help="of the first order; the next has the next one")
    parser.add_argument("--logs", type=Path, help="a folder for the output of pytest")
    asked, arguments = parser.parse_known_args(typed)
    logs = asked.logs or Path(tempfile.mkdtemp(prefix="repeat-"))
    logs.mkdir(parents=True, exist_ok=True)
    first = random.getrandbits(31) if asked.seed is None else asked.seed
    processes = itertools.cycle(map(int, asked.processes.split(",")))
    failures: list[str] = []
    bad = 0
    with busy(asked.busy):
        for number, count in zip(range(1, asked.runs + 1), processes, strict=False):
            seed, log = first + number - 1, logs / f"{number}.log"
            begin = time.monotonic()
            code = once(seed, count, arguments, log)
            last = log.read_text("utf-8", "replace").rstrip().rpartition("\n")[2].strip("= ")
            took = f"{time.monotonic() - begin:.0f} s"
            print(f"run {number}: {count} processes, --randomly-seed={seed}, {took}: {last}")
            found = [
                f"run {number}: {test}\n    {again(i, test, seed, count, before, log)}"
                for i, (test, before) in enumerate(failed(log), 1)
            ]
            failures += found or ([f"run {number}: exit code {code}, see {log}"] if code else [])
            print(*found, sep="\n", end="\n" if found else "", flush=True)
            bad += code != 0
    print(f"{bad} of {asked.runs} runs failed; the logs are in {logs}")
    print(*failures, sep="\n", end="\n" if failures else "")
    return bad


@contextlib.contextmanager
def busy(cores: int) -> Iterator[None]:
    """Others keep so many cores busy."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(cores)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def once(seed: int, processes: int, arguments: Sequence[str], log: Path) -> int:
    """Run pytest; its exit code."""
    command = [sys.executable, "-m", "pytest", "-vv", "--no-header"]
    command += ["-n", str(processes if processes > 1 else 0), f"--randomly-seed={seed}"]
    with log.open("w", encoding="utf-8") as out:
        return subprocess.run(
            [*command, *arguments], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False
        ).returncode


def failed(log: Path) -> Iterator[tuple[str, list[str]]]:
    """Each test that failed, and those that its process had run before it, in order."""
    before: dict[str, list[str]] = {}
    told = set()
    for line in log.read_text("utf-8", "replace").splitlines():
        if shared := SHARED.match(line):
            process, status, test = shared.groups()
        elif alone := ALONE.match(line):
            (test, status), process = alone.groups(), "alone"
        else:
            continue
        ran = before.setdefault(process, [])
        if status in BAD and test not in told:
            told.add(test)
            yield test, [one for one in ran if one != test]
        ran.append(test)


def again(number: int, test: str, seed: int, processes: int, before: list[str], log: Path) -> str:
    """What repeats a failure."""
    if processes == 1:
        return f"uv run pytest -n 0 --randomly-seed={seed}"
    order = log.with_name(f"{log.stem}-failure-{number}.txt")
    order.write_text("\n".join([*before, test]) + "\n", "utf-8")
    return f"uv run pytest -n 0 -p no:randomly @{order}"


if __name__ == "__main__":
    sys.exit(min(main(), 1))
