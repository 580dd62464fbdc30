"""A finished run contains the weights that gave its result, and no others are accepted for it.

A run without training has a weights file too. Its sha256 is in the record and is verified whenever
the file is loaded: a missing or damaged file, or that of another run, is an error. State that a
method keeps outside of the weights file is an error too: before the result if the run can detect
it, otherwise when an evaluation of the same test has other scores.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fewshot_bench
from fewshot_bench.cli.main import app
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError, PluginError, RecordError
from fewshot_bench.results.record import read_record, read_table, write_record, write_table
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.predict import classify
from tests.faults.broken_off import Breaking
from tests.honesty.small import folder_of, small

FILE = "weights.safetensors"
FROZEN = """
import torch
from torch import nn
from fewshot_bench import Method


class Frozen(Method):
    '''A projection that nothing trains.'''

    wants_backbone = False
    scale: float = 1.0

    def __init__(self, task, backbone=None):
        super().__init__(task)
        channels, height, width = task.image_shape
        self.net = nn.Linear(channels * height * width, 8)
        self.register_buffer("mask", torch.tensor([0.0] * 7 + [float("-inf")]))

    def players(self):
        return {}

    def embed(self, images):
        return self.net(images.flatten(2))

    def adapt(self, support):
        way, shot = support.images.shape[1:3]
        return self.embed(support.images.flatten(1, 2)).unflatten(1, (way, shot)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(self.embed(query), state) * self.scale
"""
TRAINED = FROZEN.replace("Frozen", "Trained").replace(
    "    def players(self):\n        return {}\n\n", ""
)
# What it learns of the scale stands in a plain attribute, which no file holds.
FORGETFUL = (
    TRAINED.replace("Trained", "Forgetful")
    + """
    def losses(self, episode):
        self.scale = self.scale + 1.0
        return super().losses(episode)
"""
)
# A temperature that moves with the training, in a buffer that says it is not to be saved.
NOT_SAVED = (
    TRAINED.replace("Trained", "NotSaved").replace(
        "        self.register_buffer(",
        "        self.register_buffer('heat', torch.ones(()), persistent=False)\n"
        "        self.register_buffer(",
    )
    + """
    def losses(self, episode):
        result = super().losses(episode)
        result.buffers["heat"] = self.heat + torch.ones(len(episode))
        return result
"""
).replace("* self.scale", "* self.heat")

# A temperature that moves with the training, in an attribute of its class, and in its module.
IN_CLASS = (
    TRAINED.replace("Trained", "InClass")
    + """
    held = {}

    def losses(self, episode):
        self.held["scale"] = self.held.get("scale", 1.0) + 1.0
        return super().losses(episode)
"""
).replace("* self.scale", "* self.held.get('scale', 1.0)")
IN_MODULE = (
    TRAINED.replace("Trained", "InModule")
    + """
    def losses(self, episode):
        global SCALE
        SCALE = globals().get("SCALE", 1.0) + 1.0
        return super().losses(episode)
"""
).replace("* self.scale", "* globals().get('SCALE', 1.0)")
# Projects by a matrix of its module, which is drawn when the file is imported.
AT_IMPORT = (
    "import numpy as np\n"
    + FROZEN.replace("Frozen", "AtImport").replace(
        "\n\nclass", "\nMATRIX = torch.tensor(DRAWN.normal(size=(8, 2))).float()\n\n\nclass", 1
    )
).replace("self.net(images.flatten(2))", "self.net(images.flatten(2)) @ MATRIX")

# Counts the tasks that it was asked, and answers by the count.
COUNTING = (
    FROZEN.replace("Frozen", "Counting").replace(
        "        self.register_buffer(",
        "        self.register_buffer('asked', torch.zeros(()))\n        self.register_buffer(",
    )
).replace(
    "        return -torch.cdist",
    "        self.asked += len(query)\n        return -torch.cdist",
)


def written(home: Path, source: str, name: str) -> str:
    """A plugin in a file; what to type for it."""
    (home / f"{name.lower()}.py").write_text(source, "utf-8")
    return f"./{name.lower()}.py:{name}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(home: Path, data_cache: Path) -> Path:
    """The folder of a run of ProtoNet."""
    return folder_of(fewshot_bench.run("protonet", **small(data_cache)))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("method", ["protonet", "nearest-centroid", "frozen"])
def test_every_finished_run_has_its_weights(method: str, home: Path, data_cache: Path) -> None:
    """Runs of every method, also without training, end with a weights file and its digest."""
    name = written(home, FROZEN, "Frozen") if method == "frozen" else method
    record = fewshot_bench.run(name, **small(data_cache, method))
    file = folder_of(record) / FILE
    assert record["weights"]["sha256"] == digest(file)
    assert record["weights"]["bytes"] == file.stat().st_size
    holds = {"protonet": 13, "nearest-centroid": 0, "frozen": 3}[method]
    assert len(load_file(file)) == record["weights"]["tensors"] >= holds
    again = fewshot_bench.evaluate(folder_of(record), trust_code=True)
    assert again["weights"]["sha256"] == record["weights"]["sha256"]
    assert again["test"] == record["test"]


def test_a_run_without_training_is_evaluated_with_the_weights_of_init(
    home: Path, data_cache: Path
) -> None:
    """Random weights loaded with ``--init`` are not forgotten: the evaluation gives the run's
    result.
    """
    frozen, trained = written(home, FROZEN, "Frozen"), written(home, TRAINED, "Trained")
    settings = small(data_cache, "frozen")
    start = fewshot_bench.run(trained, **(settings | {"steps": 20}))
    record = fewshot_bench.run(frozen, **settings, init=str(folder_of(start)))
    plain = fewshot_bench.run(frozen, **settings)
    assert record["test"]["accuracy"] != plain["test"]["accuracy"]
    shutil.rmtree(folder_of(start))
    assert fewshot_bench.evaluate(folder_of(record), trust_code=True)["test"] == record["test"]


def pictures(home: Path) -> tuple[Path, list[Path]]:
    """A support set of two classes, and what to classify."""
    for name in ("one", "two"):
        (home / "support" / name).mkdir(parents=True)
        Image.new("L", (28, 28), len(name) * 40).save(home / "support" / name / "a.png")
    return home / "support", [home / "support" / "one" / "a.png"]


def missing(path: Path) -> None:
    path.unlink()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # a last bit of a weight: still a file of weights, and almost the same
    path.write_bytes(content)


def swapped(path: Path) -> None:
    save_file({name: torch.randn_like(v) for name, v in load_file(path).items()}, path)


@pytest.mark.parametrize("spoil", [missing, damaged, swapped])
def test_other_weights_are_refused_wherever_they_are_loaded(
    spoil: Any, trained: Path, home: Path, data_cache: Path
) -> None:
    """A missing, damaged or swapped file is refused by eval, predict, figure, resume and --init."""
    spoil(trained / FILE)
    told = "has no weights" if spoil is missing else "is not the file that the run wrote"
    support, images = pictures(home)
    picture = ["figure", "settings", str(trained), "-o", "picture.png"]
    for load in (
        lambda: app(picture, standalone_mode=False),
        lambda: fewshot_bench.evaluate(str(trained)),
        lambda: classify(trained, support, images),
        lambda: fewshot_bench.resume(str(trained)),
        lambda: app(["resume", str(trained)], standalone_mode=False),
        lambda: app(["resume", str(trained), "--json"], standalone_mode=False),
        lambda: fewshot_bench.run("protonet", init=str(trained), **small(data_cache)),
    ):
        with pytest.raises(RecordError, match=told) as caught:
            load()
        assert "\n" not in str(caught.value)
    assert [path.name for path in (home / "runs").iterdir()] == [trained.name]


def test_weights_of_another_type_are_refused(trained: Path, home: Path, data_cache: Path) -> None:
    """Weights in another precision than the method's are refused and not rounded."""
    bare = home / "bare"
    bare.mkdir()
    save_file({n: v.double() for n, v in load_file(trained / FILE).items()}, bare / FILE)
    with pytest.raises(ConfigError, match="do not fit"):
        fewshot_bench.run("protonet", init=str(bare), **small(data_cache))


LIARS = {"Forgetful": FORGETFUL, "NotSaved": NOT_SAVED, "InClass": IN_CLASS, "InModule": IN_MODULE}


@pytest.mark.parametrize("name", LIARS)
@pytest.mark.parametrize("validated", [True, False])
def test_state_outside_of_the_weights_file_is_an_error(
    name: str, validated: bool, home: Path, data_cache: Path
) -> None:
    """A method that learns into a plain attribute (its own, its class's, its module's) or an
    unsaved buffer fails, with a message.
    """
    settings = small(data_cache, "frozen") | ({} if validated else {"validation_classes": 0})
    named = {"InClass": "'held' of class InClass", "InModule": "'SCALE' of module"}.get(name, "")
    with pytest.raises(PluginError, match=f"weights do not hold all that it learned.*{named}"):
        fewshot_bench.run(written(home, LIARS[name], name), **settings)
    (folder,) = (home / "runs").iterdir()
    record = read_record(folder)
    assert (record["status"], record["test"]) == ("failed", None)
    early = settings["validate_every"] if validated else settings["steps"]
    assert record["training"]["steps"] == early


def in_another_process(name: str) -> None:
    """Import a file anew the next time."""
    # Of files alone: a module of another kind may import something when it is asked for a name.
    for module in [one for one in sys.modules if one.startswith("fewshot_bench_file_")]:
        if hasattr(sys.modules[module], name):
            del sys.modules[module]


def test_random_numbers_drawn_at_import_are_repeatable(home: Path, data_cache: Path) -> None:
    """A file draws a matrix from a global generator while it is imported: the bits are always the
    same.
    """
    method = written(home, AT_IMPORT.replace("DRAWN", "np.random"), "AtImport")
    settings = small(data_cache, "frozen") | {"episodes": 20}
    record = fewshot_bench.run(method, **settings)
    in_another_process("AtImport")
    np.random.seed(5)
    again = fewshot_bench.evaluate(f"runs/{record['id']}", trust_code=True)
    assert again["test"] == record["test"]
    assert not any("different scores" in note for note in again["notes"])


def test_other_predictions_on_the_same_test_are_an_error(home: Path, data_cache: Path) -> None:
    """Weights whose predictions for the run's own test differ in another process give no result."""
    method = written(home, AT_IMPORT.replace("DRAWN", "np.random.default_rng()"), "AtImport")
    settings = small(data_cache, "frozen") | {"episodes": 20}
    folder = Path("runs") / fewshot_bench.run(method, **settings)["id"]
    in_another_process("AtImport")
    with pytest.raises(
        PluginError, match=r"of the same 20 episodes have different scores \(.*there"
    ):
        fewshot_bench.evaluate(str(folder), trust_code=True)
    assert [path.name for path in (home / "runs").iterdir()] == [folder.name]
    other = fewshot_bench.evaluate(str(folder), trust_code=True, episode_seed=1)  # another test
    assert not any("different scores" in note for note in other["notes"])


def test_a_last_digit_that_decides_is_a_note(home: Path, trained: Path) -> None:
    """One of a hundred episodes has another score: the evaluation reports it, and is accepted."""
    table = read_table(trained / "episodes.csv")
    scores = table["accuracy"].copy()
    record, count = read_record(trained), len(scores)
    scores[0] = 1 - scores[0] if scores[0] != 0.5 else 0
    write_table(trained / "episodes.csv", {**table, "accuracy": scores})
    write_record(trained, record | {"device": record["device"] | {"name": "another machine"}})
    (note,) = [n for n in fewshot_bench.evaluate(str(trained))["notes"] if "different scores" in n]
    assert f"1 of the same {count} episodes" in note


def test_weights_of_an_unfinished_run_are_marked(home: Path, data_cache: Path) -> None:
    """The weights of an interrupted run can be evaluated; the new record says what they are."""
    config = configure("protonet", **small(data_cache))
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(config, progress=Breaking("train", 2)))
    (folder,) = (home / "runs").iterdir()
    record = fewshot_bench.evaluate(str(folder))
    assert any("did not finish (interrupted after step 2 of 4)" in note for note in record["notes"])
    before = read_record(folder)
    assert before["weights"]["sha256"] == digest(folder / FILE)
    write_record(folder, before | {"status": "running"})
    with pytest.raises(RecordError, match="has no result yet"):
        fewshot_bench.evaluate(str(folder))
    swapped(folder / FILE)
    write_record(folder, before)
    with pytest.raises(RecordError, match="is not the file"):
        fewshot_bench.evaluate(str(folder))


def test_weights_that_the_test_changes_are_an_error(home: Path, data_cache: Path) -> None:
    """A method that changes a buffer during the test fails: its weights are no longer the same."""
    name, settings = written(home, COUNTING, "Counting"), small(data_cache, "frozen")
    with pytest.raises(PluginError, match=r"predict\(\) changes 'asked'"):
        fewshot_bench.run(name, **settings)
    assert not list((home / "runs").iterdir())
