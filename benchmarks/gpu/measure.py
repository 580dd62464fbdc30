"""Every figure that needs a GPU, in one command and a time budget.

    python benchmarks/gpu/measure.py --minutes 12 --out DIR

Runs the parts of ``STAGES`` in order, from the checkout. Nothing has to be installed beyond the
packages that ``README.md`` in this folder lists. The results of a part are written to
``DIR/results.json`` before the next one begins; a part that fails or runs out of time leaves what
it had, with the reason. ``--small --device cpu`` runs all of it in miniature.

A process takes seconds to its first kernel there, so parts share one, the server. A part that
breaks it (it crashes, outlives its time, or leaves the device with an error, which stays with a
process) takes nothing else along: the next part has a new one. The tests are pytest's own process;
what looks for operations that do not repeat has one of its own, with a setting of its libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, PUBLISHED = HERE.parent / "results", HERE.parent / "published.toml"
sys.path.insert(0, str(ROOT))

from visits import FILE  # noqa: E402

from tests.dist_info import write_dist_info  # noqa: E402

LAST = 6  # seconds that are kept for the end
GRACE = 0.2  # of a part's time is left to it for its end,
GRACE_S = 2.0  # and so many seconds at least
# What a result is of: the sources and settings of these folders, and these files.
CODE = ("fewshot_bench", "plugins", "benchmarks", "tests/gpu")
ENDINGS = (".py", ".toml")
FILES = (
    "pyproject.toml", "tests/command_line.py", "tests/conftest.py", "tests/dist_info.py",
    "tests/engine/toys.py", "tests/left_behind.py", "tests/patience.py",
)  # fmt: skip
SCRIPT = HERE / "parts.py"
FOLDERS = ("FSB_DATA", "TMPDIR")  # variables


@dataclass(frozen=True)
class Part:
    """A piece of a stage.

    Arguments:
        name: of it, and of its results.
        share: its weight, beside those of the parts behind it, when the time that is left is shared
            out; what it does not use, those have.
        script: whose part it is.
        alone: in a process of its own.
        environment: of that process, beside the others' one.
    """

    name: str
    share: float
    script: Path = SCRIPT
    alone: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


# cuBLAS repeats to the bit with a workspace of its own only; torch's switch asks for it.
REPEATING = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

# In the order of their value.
STAGES: dict[str, tuple[Part, ...]] = {
    "correctness": (
        Part("machine", 6),
        Part("tests", 24, HERE / "tests.py", alone=True),
        Part("repeat", 6, alone=True, environment=REPEATING),
        Part("precision", 5),
        Part("agree", 3),
    ),
    "speed": (
        Part("maml", 5),
        Part("protonet", 3),
        Part("evaluation", 4),
        Part("metagan", 5),
        Part("profile", 4),
        Part("peers", 14),
    ),
    "published": (Part("rows", 28),),
    "growth": (Part("growth", 8),),
}


def main(stages: Mapping[str, tuple[Part, ...]] = STAGES, words: list[str] | None = None) -> int:
    """Measure; 0 if no part failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=12.0, help="in which it has to end")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="everything in miniature, no figures")
    parser.add_argument("--only", nargs="*", default=[], help="stages or parts; default: all")
    parser.add_argument("--again", action="store_true", help="also what benchmarks/results has")
    parser.add_argument(
        "--resume", type=Path, nargs="*", default=[], metavar="FOLDER",
        help="folders with runs that an earlier visit kept; they go on before others begin",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="*", default=[], metavar="WORDS",
        help="published rows whose titles have these words, as 'metagan tutorial'; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--volumes", type=int, default=2, help="files of 15 MiB that kept runs may fill"
    )
    asked = parser.parse_args(words)
    known = {*stages, *(p.name for parts in stages.values() for p in parts)}
    if unknown := set(asked.only) - known:
        parser.error(f"no stage or part '{min(unknown)}'; there are {', '.join(sorted(known))}")
    if missing := [folder for folder in asked.resume if not folder.is_dir()]:
        parser.error(f"--resume {missing[0]}: there is no such folder")
    titles = tomllib.loads(PUBLISHED.read_text("utf-8"))["gpu"]
    if unknown := [words for words in asked.rows if not any(words in title for title in titles)]:
        parser.error(f"--rows '{unknown[0]}': no row has it; there are {'; '.join(titles)}")
    end = time.monotonic() + 60 * asked.minutes - LAST
    # The parts run in another working directory, where relative paths would mean other places.
    asked.out, asked.resume = asked.out.resolve(), [folder.resolve() for folder in asked.resume]
    asked.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "code": code(), "began": now(), "small": asked.small, "minutes": asked.minutes,
        "rows": asked.rows, "parts": {}, "known": {},
    }  # fmt: skip
    wanted = [
        one
        for parts in stages.values()
        for one in parts
        # Whatever is asked for, it has to be known what it was taken on.
        if not asked.only
        or one.name == "machine"
        or {stage_of(one, stages), one.name} & {*asked.only}
    ]
    with installed() as environment, Server(asked, environment) as server:
        if asked.device == "cpu":  # threads that wait for each other take minutes
            environment.setdefault("OMP_NUM_THREADS", "1")
        for i, one in enumerate(wanted):
            machine = rows_of(results, "machine")
            if not asked.again and (there := known_already(one.name, results["code"], machine)):
                results["known"][one.name] = there
                write(asked.out / "results.json", results)
                say(f"{one.name}: benchmarks/results has it, in {there}")
                continue
            left = end - time.monotonic()
            seconds = left * one.share / sum(later.share for later in wanted[i:])
            if seconds < GRACE_S + 1 or left < 5:
                results["parts"][one.name] = {"rows": [], "error": "no time was left"}
            else:
                results["parts"][one.name] = run(one, seconds, asked, server, environment)
            write(asked.out / "results.json", results)
            error = results["parts"][one.name]["error"]
            failed = sum("error" in row for row in rows_of(results, one.name))
            say(f"{one.name}: {error or 'ok'}" + (f", {failed} rows are errors" if failed else ""))
    return 0 if all(p["error"] is None for p in results["parts"].values()) else 1


def stage_of(part: Part, stages: Mapping[str, tuple[Part, ...]]) -> str:
    """The stage of a part."""
    return next(stage for stage, parts in stages.items() if part in parts)


def run(
    one: Part, seconds: float, asked: argparse.Namespace, server: Server, environment: Any
) -> dict[str, Any]:
    """Let a part do its work; its rows, how long it took, and what went wrong."""
    say(f"{one.name}: {seconds:.0f} s at most")
    began = time.monotonic()
    out = asked.out / "rows.jsonl"  # there if somebody ends this process
    out.unlink(missing_ok=True)
    with (asked.out / "log.txt").open("a", encoding="utf-8") as log:
        print(f"== {one.name}", file=log, flush=True)
    error = (alone if one.alone else server.serve)(
        one, seconds, out, *((asked, environment) if one.alone else ())
    )
    text = out.read_text("utf-8") if out.exists() else ""
    out.unlink(missing_ok=True)
    rows = [json.loads(line) for line in text.split("\n")[:-1]]  # behind the last: half a line
    left = [row["left"] for row in rows if "left" in row]
    if left and error is None:
        error = f"out of time before {left[0]}"
    for row in rows:
        say("  " + short(row))
    return {"rows": rows, "error": error, "seconds": round(time.monotonic() - began, 1)}


def options(asked: argparse.Namespace) -> list[str]:
    """Options that every process of parts is started with."""
    words = ["--device", asked.device, "--volumes", str(asked.volumes)]
    words += ["--carried", *map(str, asked.resume)] if asked.resume else []
    words += ["--rows", *asked.rows] if asked.rows else []
    return words + (["--small"] if asked.small else [])


def started(words: list[str], environment: Any, log: Path, **more: Any) -> subprocess.Popen[str]:
    """A process in a group of its own, which says what it has to say in the log."""
    sink = log.open("a", encoding="utf-8")
    try:
        return subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stderr=sink, text=True,
            start_new_session=True, **({"stdout": sink} | more),
        )  # fmt: skip
    finally:
        sink.close()


def end_of(process: subprocess.Popen[str]) -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def alone(
    one: Part, seconds: float, out: Path, asked: argparse.Namespace, environment: Any
) -> str | None:
    """Run a part in a process of its own; what went wrong."""
    log = asked.out / "log.txt"
    words = [str(one.script), *([one.name] if one.script.name != "tests.py" else [])]
    words += ["--out", str(out), "--keep", str(asked.out)]
    end = time.monotonic() + seconds
    words += ["--end", f"{end_for_parts(end, seconds):.3f}", *options(asked)]
    process = started(words, environment | one.environment, log)
    try:
        code = process.wait(end - time.monotonic())
    except subprocess.TimeoutExpired:
        return f"out of time after {seconds:.0f} s"
    finally:
        end_of(process)
    return f"exit code {code}: {last_line(log)}" if code else None


def end_for_parts(end: float, seconds: float) -> float:
    """When a part has to end by itself, so that at its end nobody has to end it."""
    return end - max(GRACE_S, GRACE * seconds)


class Server:
    """The process that parts share; a new one after each that breaks it.

    Arguments:
        asked: the command line.
        environment: of the process.
    """

    def __init__(self, asked: argparse.Namespace, environment: Any) -> None:
        self._asked, self._environment = asked, environment
        self._process: subprocess.Popen[str] | None = None
        self._script: Path | None = None
        self.processes = 0  # that there have been

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def serve(self, one: Part, seconds: float, out: Path) -> str | None:
        """Run a part; what went wrong."""
        end = time.monotonic() + seconds
        process = self._running(one.script)
        assert process.stdin is not None
        assert process.stdout is not None
        order = {"part": one.name, "out": str(out), "keep": str(self._asked.out)}
        order |= {"end": end_for_parts(end, seconds)}
        log = self._asked.out / "log.txt"
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        except OSError:
            pass  # it has ended, which its silence tells
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        line = process.stdout.readline() if ready else None
        if line is None:
            self._end()
            return f"out of time after {seconds:.0f} s"
        if not line:
            code = process.wait()
            self._end()
            return f"the process ended with {ended(code)}: {last_line(log)}"
        answer = json.loads(line)
        if answer["broken"]:
            self._end()
        return answer["error"]  # type: ignore[no-any-return]

    def _running(self, script: Path) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None or self._script != script:
            self._end()
            self._process = started(
                [str(script), "--serve", *options(self._asked)],
                self._environment, self._asked.out / "log.txt",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            self._script = script
            self.processes += 1
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            end_of(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self._process = None


def ended(code: int) -> str:
    """How a process has ended."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


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


def known_already(name: str, digest: str, machine: list[dict[str, Any]]) -> str | None:
    """The published results that hold a complete run of this part, code, device and torch."""
    if name == "machine" or not machine:
        return None
    for path in sorted(RESULTS.glob("*-gpu.json")):
        if not FILE.fullmatch(path.name):
            continue
        published = json.loads(path.read_text("utf-8"))
        there = rows_of(published, "machine")
        found = published["parts"].get(name)
        if (
            found is not None
            and whole(found)
            and not (name == "rows" and published.get("rows"))  # then they are some of them
            and published["code"] == digest
            and there
            and all(there[0][k] == machine[0][k] for k in ("device", "torch"))
        ):
            return path.name
    return None


def whole(part: dict[str, Any]) -> bool:
    """Whether all that a part measures is there: no row is an error, which may be this machine's.

    What a peer or a method does not offer, what stops growth, and a failure that a test knows of
    beforehand are answers and no errors: their rows say so in other words.
    """
    return part["error"] is None and not any(
        name in row for row in part["rows"] for name in ("error", "failure")
    )


@contextlib.contextmanager
def installed() -> Iterator[dict[str, str]]:
    """An environment for processes in which the checkout is found as if it were installed."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    points = about["entry-points"]["fewshot_bench"].items()
    lines = ["[fewshot_bench]", *(f"{name} = {value}" for name, value in points)]
    with tempfile.TemporaryDirectory() as folder:
        write_dist_info(Path(folder), about["name"], about["version"], "\n".join(lines) + "\n")
        paths = [folder, str(ROOT), str(ROOT / "plugins"), str(HERE.parent), str(HERE)]
        if before := os.environ.get("PYTHONPATH"):  # an empty entry is the current folder
            paths += [str(Path(entry).resolve()) for entry in before.split(os.pathsep)]
        yield (
            os.environ
            | absolute()
            | {
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONUNBUFFERED": "1",
                "XDG_CACHE_HOME": f"{folder}/cache",
            }
        )


def absolute() -> dict[str, str]:
    """The variables that name a folder, as the processes of the parts have to have them."""
    given = {name: os.environ[name] for name in FOLDERS if os.environ.get(name)}
    return {name: str(Path(folder).expanduser().resolve()) for name, folder in given.items()}


def code() -> str:
    """Digest of what a result depends on."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def sources() -> list[Path]:
    """The files that a result depends on."""
    found = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*"))]
    found = [path for path in found if path.suffix in ENDINGS and path.is_file()]
    found += [ROOT / name for name in FILES]
    return [path for path in found if "peers/.venv" not in path.as_posix()]


def now() -> str:
    """Which of two visits of a day is the newer one."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


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
