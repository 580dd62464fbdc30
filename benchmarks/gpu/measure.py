"""Every figure that needs a GPU, in one command and a time budget.

    python benchmarks/gpu/measure.py --minutes 9 --out DIR

Runs the parts of ``STAGES`` in order, each in a process of its own, from the checkout. Nothing has
to be installed beyond the packages that ``README.md`` in this folder lists. The results of a part
are written to ``DIR/results.json`` before the next one begins; a part that fails or runs out of
time leaves what it had, with the reason. ``--small --device cpu`` runs all of it in miniature.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE.parent / "results"
sys.path.insert(0, str(ROOT / "tests"))

from dist_info import write_dist_info  # noqa: E402

LAST = 6  # seconds that are kept for the end
GRACE = 0.2  # of a part's time is left to it for its end
CODE = ("fewshot_bench", "plugins", "benchmarks", "tests/gpu")  # what a result is of


@dataclass(frozen=True)
class Part:
    """A process of a stage.

    Arguments:
        name: of it, and of its results.
        share: its weight, beside those of the parts behind it, when the time that is left is shared
            out; what it does not use, those have.
        words: its command, behind the interpreter.
    """

    name: str
    share: float
    words: tuple[str, ...]


def part(name: str, share: float) -> Part:
    """A function of ``parts.py``."""
    return Part(name, share, (str(HERE / "parts.py"), name))


# In the order of their value.
STAGES: dict[str, tuple[Part, ...]] = {
    "correctness": (
        part("machine", 3),
        Part("tests", 26, (str(HERE / "tests.py"),)),
        part("precision", 6),
    ),
    "speed": (
        part("maml", 6),
        part("protonet", 4),
        part("evaluation", 4),
        part("metagan", 5),
        part("profile", 6),
        part("peers", 18),
    ),
    "published": (part("rows", 28),),
    "growth": (part("growth", 8),),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="in which it has to end")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="everything in miniature, no figures")
    parser.add_argument("--only", nargs="*", default=[], help="stages or parts; default: all")
    parser.add_argument("--again", action="store_true", help="also what benchmarks/results has")
    asked = parser.parse_args()
    known = {*STAGES, *(p.name for parts in STAGES.values() for p in parts)}
    if unknown := set(asked.only) - known:
        parser.error(f"no stage or part '{min(unknown)}'; there are {', '.join(sorted(known))}")
    end = time.monotonic() + 60 * asked.minutes - LAST
    asked.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"code": code(), "small": asked.small, "parts": {}}
    wanted = [
        one
        for stage, parts in STAGES.items()
        for one in parts
        # Whatever is asked for, it has to be known what it was taken on.
        if not asked.only or one.name == "machine" or {stage, one.name} & set(asked.only)
    ]
    with installed() as environment:
        for i, one in enumerate(wanted):
            machine = rows_of(results, "machine")
            if not asked.again and known_already(one.name, results["code"], machine):
                say(f"{one.name}: benchmarks/results has it")
                continue
            left = end - time.monotonic()
            seconds = left * one.share / sum(later.share for later in wanted[i:])
            if seconds < 5:
                results["parts"][one.name] = {"rows": [], "error": "no time was left"}
            else:
                results["parts"][one.name] = run(one, seconds, asked, environment)
            write(asked.out / "results.json", results)
            error = results["parts"][one.name]["error"]
            failed = sum("error" in row for row in rows_of(results, one.name))
            say(f"{one.name}: {error or 'ok'}" + (f", {failed} rows are errors" if failed else ""))
    return 0 if all(p["error"] is None for p in results["parts"].values()) else 1


def run(one: Part, seconds: float, asked: argparse.Namespace, environment: Any) -> dict[str, Any]:
    """Let a part do its work; its rows, how long it took, and what went wrong."""
    say(f"{one.name}: {seconds:.0f} s at most")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows"
        log = asked.out / "log.txt"
        command = [sys.executable, *one.words, "--device", asked.device, "--out", str(out)]
        command += ["--seconds", f"{(1 - GRACE) * seconds:.0f}", "--keep", str(asked.out)]
        command += ["--small"] if asked.small else []
        with log.open("a", encoding="utf-8") as sink:
            print(f"== {one.name}", file=sink, flush=True)
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=sink, stderr=sink, start_new_session=True
            )
            error = None
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code, error = None, f"out of time after {seconds:.0f} s"
            finally:  # with the processes that it has started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            error = f"exit code {code}: {last_line(log)}"
        text = out.read_text("utf-8") if out.exists() else ""
    rows = [json.loads(line) for line in text.split("\n")[:-1]]  # behind the last: half a line
    left = [row["left"] for row in rows if "left" in row]
    if left and error is None:
        error = f"out of time before {left[0]}"
    for row in rows:
        say("  " + short(row))
    return {"rows": rows, "error": error, "seconds": round(time.monotonic() - began, 1)}


def short(row: dict[str, Any]) -> str:
    """A row for people: its numbers, rounded."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} {text(v)}" for k, v in value.items()) + "}"
        return str(value).partition("\n")[0][:160]

    return ", ".join(f"{k} {text(v)}" for k, v in row.items())


def rows_of(results: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """What a part of these results has measured."""
    return results["parts"].get(name, {}).get("rows", [])


def known_already(name: str, digest: str, machine: list[dict[str, Any]]) -> bool:
    """Whether the published results hold a complete run of this part, code, device and torch."""
    if name == "machine" or not machine:
        return False
    for path in RESULTS.glob("*-gpu.json"):
        published = json.loads(path.read_text("utf-8"))
        there = rows_of(published, "machine")
        found = published["parts"].get(name)
        if (
            found is not None
            and found["error"] is None
            and published["code"] == digest
            and there
            and all(there[0][k] == machine[0][k] for k in ("device", "torch"))
        ):
            return True
    return False


@contextlib.contextmanager
def installed() -> Iterator[dict[str, str]]:
    """An environment for processes in which the checkout is found as if it were installed."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    points = about["entry-points"]["fewshot_bench"].items()
    lines = ["[fewshot_bench]", *(f"{name} = {value}" for name, value in points)]
    with tempfile.TemporaryDirectory() as folder:
        write_dist_info(Path(folder), about["name"], about["version"], "\n".join(lines) + "\n")
        paths = [folder, str(ROOT), str(ROOT / "plugins"), str(HERE.parent)]
        before = os.environ.get("PYTHONPATH")
        yield os.environ | {
            "PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])]),
            "PYTHONUNBUFFERED": "1",
            "XDG_CACHE_HOME": f"{folder}/cache",
        }


def code() -> str:
    """Digest of the sources that a result depends on."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "peers/.venv" not in path.as_posix():
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write(path: Path, results: dict[str, Any]) -> None:
    """At once or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    part.replace(path)


def last_line(log: Path) -> str:
    """The last line that a process has printed."""
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
