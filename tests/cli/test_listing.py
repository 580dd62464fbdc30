"""``fsb list``, ``fsb plugins`` and what ``fsb eval`` takes, ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import InProcess

Install = Callable[..., Path]


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
def test_a_list_has_a_line_for_each_name(kind: str, names: list[str], fsb: InProcess) -> None:
    said = fsb("list", kind)
    assert said.code == 0
    header, *rows = [line.split() for line in said.out.splitlines()]
    assert header == ["name", "distribution", "version", "from"]
    assert [row[0] for row in rows] == names
    assert all(row[1] == "fewshot-bench" and row[3].count(":") == 1 for row in rows)


def test_a_list_of_what(fsb: InProcess) -> None:
    said = fsb("list")
    assert said.code == 2
    assert "expected one of methods, datasets, backbones" in said.err


def test_a_broken_plugin_is_a_row_with_its_traceback(
    fake_distribution: Install, fsb: InProcess
) -> None:
    fake_distribution("fake-broken", "fake_broken", "[][0]")
    said = fsb("plugins")
    assert said.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines()}
    assert rows["fake_broken"][:4] == ["fake-broken", "1.0", "-", "broken"]
    assert rows["maml"][2:] == ["methods", "ok", "maml"]
    trace = fsb("plugins", "--trace", "fake_broken")
    assert trace.out.startswith("Traceback")
    assert "IndexError" in trace.out
    assert "not broken" in fsb("plugins", "--trace", "maml").err
    assert "did you mean 'fake_broken'" in fsb("plugins", "--trace", "fake_brokn").err


def test_what_a_plugin_registered_has_its_traceback_too(
    fake_distribution: Install, fsb: InProcess
) -> None:
    source = "from fewshot_bench import hookimpl\n@hookimpl\ndef register_methods():\n"
    fake_distribution(
        "fake-late", "fake_late", source + "    return {'late': 'no_such_module:X'}\n"
    )
    assert "No module named 'no_such_module'" in fsb("plugins", "--trace", "late").out
    assert "'late' is not broken" not in fsb("plugins", "--trace", "fake-late:late").err
    assert "not broken" in fsb("plugins", "--trace", "fake_late").err


@pytest.fixture
def run_folder(tmp_path: Path, fsb: InProcess) -> str:
    """A finished run of nearest-centroid."""
    small = ("--image-size=12", "--test-classes=12", "--train-classes=12", "--validation-classes=0")
    said = fsb(
        "run", "nearest-centroid", *small, "--episodes=3", f"--runs-dir={tmp_path}", "--json"
    )
    assert said.code == 0, said.err
    return str(tmp_path / json.loads(said.out)["id"])


def test_a_run_is_evaluated_with_other_settings(run_folder: str, fsb: InProcess) -> None:
    options = "--way 3 --episodes 5 --glyph-seed=4 --test-rotations --metric cross-entropy --json"
    said = fsb("eval", run_folder, *options.split())
    assert said.code == 0, said.err
    record = json.loads(said.out)
    assert (record["task"]["way"], record["test"]["episodes"]) == (3, 5)
    assert record["config"]["dataset_options"]["glyph_seed"] == 4
    assert record["config"]["dataset_options"]["test_rotations"] is True
    assert record["config"]["dataset_options"]["image_size"] == 12
    assert list(record["test"]["metrics"]) == ["cross-entropy"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("RUN --way x", "--way: expected an integer >= 2, got 'x'"),
        ("RUN --glyph-sed 3", "did you mean '--glyph-seed'?"),
        ("RUN --glyph-seed", "'--glyph-seed' requires an argument"),
        ("--glyph-seed 3 RUN", "expected RUN first, then options, got '--glyph-seed'"),
        ("RUN --glyph-seed x", "--glyph-seed: expected an integer, got 'x'"),
        ("RUN RUN", "unexpected extra argument"),
        ("RUN --if-exists fresh", "no option '--if-exists'"),
        ("RUN --with tensorboard", "fsb eval: --with is for training"),
        ("RUN --split vinyals", "it belongs to dataset omniglot"),
        ("RUN --steps 4", "fsb eval: --steps decided the training of the run"),
        ("RUN --dataset omniglott", "did you mean 'omniglot'?"),
        ("", "Missing argument 'RUN'. See 'fsb eval --help'."),
    ],
)
def test_what_an_evaluation_cannot_take(
    typed: str, expected: str, run_folder: str, fsb: InProcess
) -> None:
    said = fsb("eval", *[run_folder if word == "RUN" else word for word in typed.split()])
    assert said.code == 2
    assert expected in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
