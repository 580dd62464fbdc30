"""``fsb list``, ``fsb plugins`` and what ``fsb eval`` takes, by the command in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fewshot_bench.cli.main import main

Install = Callable[..., Path]


class Said(NamedTuple):
    """What the command answered."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def fsb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command in this process: the import of torch is paid once."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["fsb", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "methods",
            ["maml", "metagan", "nearest-centroid", "protonet", "relationnet", "soft-kmeans"],
        ),
        ("datasets", ["cifar-fs", "fc100", "folder", "glyphs", "mini-imagenet", "omniglot"]),
        ("backbones", ["conv4", "conv4-relation", "conv4-strided", "resnet12", "resnet18"]),
        ("samplers", ["closed", "in-order", "open", "open-balanced"]),
        ("observers", ["tensorboard"]),
    ],
)
def test_a_list_has_a_line_for_each_name(
    kind: str, names: list[str], fsb: Callable[..., Said]
) -> None:
    said = fsb("list", kind)
    assert said.returncode == 0
    header, *rows = [line.split() for line in said.stdout.splitlines()]
    assert header == ["name", "distribution", "version", "from"]
    assert [row[0] for row in rows] == names
    assert all(row[1] == "fewshot-bench" and row[3].count(":") == 1 for row in rows)


def test_a_list_of_what(fsb: Callable[..., Said]) -> None:
    said = fsb("list")
    assert said.returncode == 2
    assert "say of what: methods, datasets, backbones" in said.stderr


def test_a_broken_plugin_is_a_row_with_its_traceback(
    fake_distribution: Install, fsb: Callable[..., Said]
) -> None:
    fake_distribution("fake-broken", "fake_broken", "[][0]")
    said = fsb("plugins")
    assert said.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in said.stdout.splitlines()}
    assert rows["fake_broken"][:4] == ["fake-broken", "1.0", "-", "broken"]
    assert rows["maml"][2:] == ["methods", "ok", "maml"]
    trace = fsb("plugins", "--trace", "fake_broken")
    assert trace.stdout.startswith("Traceback")
    assert "IndexError" in trace.stdout
    assert "not broken" in fsb("plugins", "--trace", "maml").stderr
    assert "did you mean 'fake_broken'" in fsb("plugins", "--trace", "fake_brokn").stderr


def test_what_a_plugin_registered_has_its_traceback_too(
    fake_distribution: Install, fsb: Callable[..., Said]
) -> None:
    source = "from fewshot_bench import hookimpl\n@hookimpl\ndef register_methods():\n"
    fake_distribution(
        "fake-late", "fake_late", source + "    return {'late': 'no_such_module:X'}\n"
    )
    assert "No module named 'no_such_module'" in fsb("plugins", "--trace", "late").stdout
    assert "'late' is not broken" not in fsb("plugins", "--trace", "fake-late:late").stderr
    assert "not broken" in fsb("plugins", "--trace", "fake_late").stderr


@pytest.fixture
def run_folder(tmp_path: Path, fsb: Callable[..., Said]) -> str:
    """A finished run of nearest-centroid."""
    small = ("--image-size=12", "--test-classes=12", "--train-classes=12", "--validation-classes=0")
    said = fsb(
        "run", "nearest-centroid", *small, "--episodes=3", f"--runs-dir={tmp_path}", "--json"
    )
    assert said.returncode == 0, said.stderr
    return str(tmp_path / json.loads(said.stdout)["id"])


def test_a_run_is_evaluated_with_other_settings(run_folder: str, fsb: Callable[..., Said]) -> None:
    options = "--way 3 --episodes 5 --glyph-seed=4 --test-rotations --metric cross-entropy --json"
    said = fsb("eval", run_folder, *options.split())
    assert said.returncode == 0, said.stderr
    record = json.loads(said.stdout)
    assert (record["task"]["way"], record["test"]["episodes"]) == (3, 5)
    assert record["config"]["dataset_options"]["glyph_seed"] == 4
    assert record["config"]["dataset_options"]["test_rotations"] is True
    assert record["config"]["dataset_options"]["image_size"] == 12
    assert list(record["test"]["metrics"]) == ["cross-entropy"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("RUN --way x", "--way x: it takes a whole number"),
        ("RUN --glyph-sed 3", "did you mean '--glyph-seed'?"),
        ("RUN --glyph-seed", "--glyph-seed: a value has to follow"),
        ("RUN --steps 4", "fsb eval: --steps decided the training of the run"),
        ("RUN --dataset omniglott", "did you mean 'omniglot'?"),
        ("--glyph-seed 3 RUN", "the folder of the run comes first: fsb eval RUN --glyph-seed"),
        ("", "Missing argument 'RUN'. See 'fsb eval --help'."),
    ],
)
def test_what_an_evaluation_cannot_take(
    typed: str, expected: str, run_folder: str, fsb: Callable[..., Said]
) -> None:
    said = fsb("eval", *[run_folder if word == "RUN" else word for word in typed.split()])
    assert said.returncode == 2
    assert expected in said.stderr
    assert said.stderr.startswith("error: ")
    assert said.stderr.count("\n") == 1
