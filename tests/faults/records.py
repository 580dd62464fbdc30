"""Records, tables and weights that are damaged, hostile, or not what they claim to be."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.faults.fault import Fault, World

SKULL = "\x1b[2J\x1b]0;owned\x07"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"
FORMULA, TEX = "=cmd|' /C calc'!A0", r"\input{/etc/passwd}$\frac{"


def record(change: Callable[[dict[str, Any]], object], run: str = "a") -> Any:
    """Change a run's record."""

    def spoil(world: World) -> None:
        path = world.run(run) / "record.json"
        found = json.loads(path.read_text("utf-8"))
        change(found)
        path.write_text(json.dumps(found), "utf-8")

    return spoil


def put(path: str, value: Any, run: str = "a") -> Any:
    """Put a value at ``key.key.key`` of a run's record."""

    def change(found: dict[str, Any]) -> None:
        *way, last = path.split(".")
        for key in way:
            found = found[key]
        found[last] = value

    return record(change, run)


def written(path: str, text: str) -> Any:
    """Put JSON that Python would not write at ``key.key.key`` of a run's record."""

    def spoil(world: World) -> None:
        put(path, "HERE")(world)
        file = world.run() / "record.json"
        file.write_text(file.read_text("utf-8").replace('"HERE"', text), "utf-8")

    return spoil


def content(file: str, data: str | bytes, run: str = "a") -> Any:
    """Put other content into a file of a run."""

    def spoil(world: World) -> None:
        world.write(f"runs/{run}/{file}", data)

    return spoil


def truncated(file: str, run: str = "a", behind: bytes = b"") -> Any:
    """Leave half of a file, or what comes before the first ``behind`` of its second half."""

    def spoil(world: World) -> None:
        path = world.run(run) / file
        data = path.read_bytes()
        half = len(data) // 2
        path.write_bytes(data[: data.index(behind, half) if behind else half])

    return spoil


def cut_row(world: World) -> None:
    """Leave the beginning of the third line of episodes.csv."""
    path = world.run() / "episodes.csv"
    first, second, third, *_ = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([first, second, third.partition(",")[0]]), "utf-8")


def code(path: str, run: str = "b") -> Any:
    """A file of code in a run's folder, named at ``key.key.key`` of its record."""

    def spoil(world: World) -> None:
        source = "print('this ran')\nfrom fewshot_bench import Method as Evil\n"
        world.write(f"runs/{run}/evil.py", source)
        if path == "plugins":
            put("plugins", [{"kind": "methods", "name": "Evil", "version": "1",
                             "distribution": f"runs/{run}/evil.py"}], run)(world)  # fmt: skip
            put("config.method", "Evil", run)(world)
        else:
            put(path, f"runs/{run}/evil.py:Evil", run)(world)

    return spoil


def predicting(world: World) -> None:
    """Code in a run's folder, and pictures of two classes."""
    code("config.method")(world)
    for label in "ab":
        world.write(f"classes/{label}/0.png", "")


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Any:
    """Change the weights of run ``b``."""

    def spoil(world: World) -> None:
        path = world.run("b") / "weights.safetensors"
        save_file(change(load_file(path)), path)

    return spoil


def forged(spoil: Any) -> Any:
    """The same, with the digest of the changed weights in the record."""

    def both(world: World) -> Any:
        spoil(world)
        content = (world.run("b") / "weights.safetensors").read_bytes()
        put("weights.sha256", hashlib.sha256(content).hexdigest(), "b")(world)

    return both


class Runs:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return (print, ("this ran",))


LEFT, TYPED, EVAL = "left out: ", "compare runs", "eval runs/b --episodes=2 --cache-dir=cache"
NESTED = "[" * 100_000 + "]" * 100_000

CASES = (
    Fault("an empty record", TYPED, content("record.json", ""), told=LEFT, runs="ab"),
    Fault("half a record", TYPED, truncated("record.json", behind=b'"episodes_digest"'), told=LEFT,
          runs="ab"),
    Fault("a record of bytes", TYPED, content("record.json", b"\xff\0\x80"), told=LEFT, runs="ab"),
    Fault("a record nested 100,000 deep", TYPED, content("record.json", NESTED), told=LEFT,
          runs="ab"),
    Fault("a setting nested 100 deep", TYPED, put("config.x", json.loads("[" * 100 + "]" * 100)),
          told=LEFT, runs="ab"),
    Fault("a record of 40 MB", TYPED, content("record.json", " " * 40_000_000), told=LEFT,
          runs="ab"),
    Fault("NaN in a record", TYPED, put("test.accuracy", float("nan")), told=LEFT, runs="ab"),
    Fault("1e999 in a record", TYPED, written("test.accuracy", "1e999"), told=LEFT, runs="ab"),
    Fault("a number of 5,000 digits", TYPED, content("record.json", "9" * 5000), told=LEFT,
          runs="ab"),
    Fault("a record of a newer version", TYPED, put("schema_version", 99), told=LEFT, runs="ab"),
    Fault("text for an accuracy", TYPED, put("test.accuracy", "high"), told=LEFT, runs="ab"),
    Fault("an accuracy of 7", TYPED, put("test.accuracy", 7), told=LEFT, runs="ab"),
    Fault("a list for the task", TYPED, put("task", [5, 5]), told=LEFT, runs="ab"),
    Fault("text for a way", TYPED, put("task.way", "5"), told=LEFT, runs="ab"),
    Fault("a number for a step's times", TYPED, put("timing.step_ms", 3), told=LEFT, runs="ab"),
    Fault("a note that is an object", "report runs -o page", put("notes", [{}]), told=LEFT,
          runs="ab"),
    Fault("a plugin that is a number", "plan runs/a", put("plugins", [7]), runs="a"),
    Fault("no options of the data set", TYPED, record(lambda r: r["config"].pop("dataset_options")),
          told=LEFT, runs="ab"),
    Fault("a run's id that is a path", TYPED, put("id", "../../x"), told=LEFT, runs="ab"),
    Fault("a run that failed, named by its folder", TYPED, put("status", "failed"), told=LEFT,
          runs="ab"),
    Fault("escape sequences in a failed run's error", TYPED,
          record(lambda r: r.update(status="failed", error=SKULL)), told=LEFT, runs="ab"),
    Fault("escape sequences in a method's name (shown, not obeyed)", TYPED, put("method", SKULL),
          code=0, told="", runs="ab"),
    Fault("a script in a method's name (escaped in the page)", "report runs -o page --no-pictures",
          put("method", SCRIPT), code=0, told="", runs="ab"),
    Fault("a formula in a method's name (quoted in the CSV)", "compare runs --format csv",
          put("method", FORMULA), code=0, told="", runs="ab"),
    Fault("LaTeX in a method's name (escaped in the table)", "compare runs --format latex",
          put("method", TEX), code=0, told="", runs="ab"),
    Fault("a setting that no version had", "eval runs/b", put("config.evil", 1, "b"), runs="b"),
    Fault("a setting of a wrong type", "eval runs/b", put("config.metrics", 3, "b"), runs="b"),
    Fault("another setting of a wrong type", "eval runs/b", put("config.way", None, "b"), runs="b"),
    Fault("a method in the record that is a path", "eval runs/b",
          put("config.method", "/etc/passwd", "b"), runs="b"),
    Fault("code in a run's folder, named as its method (not run)", EVAL, code("config.method"),
          runs="b"),
    Fault("code in a run's folder, named as a backbone (not run)", EVAL, code("config.backbone"),
          runs="b"),
    Fault("code in a run's folder, named as a distribution (not run)", EVAL, code("plugins"),
          runs="b"),
    Fault("code in a run's folder, named as its data (not run)", "report runs -o page",
          code("config.dataset", "a"), code=0, told="", runs="a"),
    Fault("code in a run's folder, met by predict (not run)", "predict runs/b classes x.png",
          predicting, runs="b"),
    Fault("a runs folder in a record that leads away (written beside the run)", EVAL,
          put("config.runs_dir", "../elsewhere", "b"), code=0, told="", runs="b"),
    Fault("a cache in a record that leads away (not written to)", "eval runs/b --episodes=2",
          put("config.cache_dir", "../elsewhere", "b"), code=0, told="", runs="b",
          environment={"XDG_CACHE_HOME": "cache"}),
    Fault("no episodes.csv", TYPED, lambda w: (w.run() / "episodes.csv").unlink(), told=LEFT,
          runs="ab"),
    Fault("half of episodes.csv", TYPED, cut_row, told=LEFT, runs="ab"),
    Fault("an episodes.csv of bytes", TYPED, content("episodes.csv", b"\xff\xfe\0"), told=LEFT,
          runs="ab"),
    Fault("an empty episodes.csv", TYPED, content("episodes.csv", ""), told=LEFT, runs="ab"),
    Fault("words in episodes.csv", TYPED, content("episodes.csv", "episode,accuracy\n0,a\n"),
          told=LEFT, runs="ab"),
    Fault("other accuracies than the record's", TYPED,
          content("episodes.csv", "episode,accuracy\n0,1\n1,1\n2,0.9\n"), told=LEFT, runs="ab"),
    Fault("no weights", EVAL, lambda w: (w.run("b") / "weights.safetensors").unlink(), runs="b"),
    Fault("weights that another run wrote", EVAL,
          weights(lambda w: {n: v + 1 for n, v in w.items()}), runs="b"),
    Fault("half of the weights", EVAL, truncated("weights.safetensors", "b"), runs="b"),
    Fault("half of the weights, with its digest", EVAL,
          forged(truncated("weights.safetensors", "b")), runs="b"),
    Fault("a pickle for weights, with its digest (not run)", EVAL,
          forged(content("weights.safetensors", pickle.dumps(Runs()), "b")), runs="b"),
    Fault("weights of another shape, with their digest", EVAL,
          forged(weights(lambda w: {n: torch.zeros(3) for n in w})), runs="b"),
    Fault("weights of other names, with their digest", EVAL,
          forged(weights(lambda w: {"x." + n: v for n, v in w.items()})), runs="b"),
    Fault("weights of whole numbers, with their digest", EVAL,
          forged(weights(lambda w: {n: torch.zeros(v.shape, dtype=torch.int32)
                                    for n, v in w.items()})), runs="b"),
    Fault("a run that another process writes, evaluated", EVAL,
          record(lambda r: r.update(status="running"), "b"), runs="b"),
)  # fmt: skip
