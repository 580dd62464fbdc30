"""``fsb eval`` repeats the run's own test, to the last bit of every episode.

This holds for every method and for runs with any start, interruption or labeling, on whatever
device the weights were: the saved weights alone determine the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import RecordError
from fewshot_bench.results.record import read_record, read_table, write_record
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.utils.inputs import check_weights
from tests.faults.broken_off import STRANGER, Breaking
from tests.honesty.small import folder_of, small

AVERAGED = '''
from functools import partial

import torch
from fewshot_bench import Method, Player
from fewshot_bench.method import trainable
from fewshot_bench.nn import per_task


class Averaged(Method):
    """Class means, of a network whose weights are averaged over the training."""

    def __init__(self, task, backbone):
        super().__init__(task, backbone)
        self.steps = 0

    def players(self):
        optimizer = partial(torch.optim.SGD, lr=0.05)
        return {"meta": Player(trainable(self), optimizer, ema=0.5)}

    def embed(self, images):
        return per_task(self.backbone, images).flatten(2)

    def adapt(self, support):
        way, shot = support.images.shape[1:3]
        return self.embed(support.images.flatten(1, 2)).unflatten(1, (way, shot)).mean(2)

    def predict(self, state, query):
        return -torch.cdist(self.embed(query), state) * (1 + self.steps)

    def losses(self, episode):
        result = super().losses(episode)
        self.steps += 1
        return result

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]
'''
RESNET = {"backbone": "resnet12", "image_size": 16, "backbone_width": 4, "steps": 2}
RUNNING, BATCH = {"backbone_statistics": "running"}, {"backbone_statistics": "batch"}
FEW_IMAGES, FEW_CLASSES = {"labeled_fraction": 0.5}, {"labeled_classes": 0.5}
GAN = {"generator_network": "small", "encoder_network": "small", "generator_z_dim": 4}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "nearest-centroid": ("nearest-centroid", {}),
    "protonet, batch statistics": ("protonet", BATCH),
    "protonet, running statistics": ("protonet", RUNNING),
    "protonet, no validation": ("protonet", {"validation_classes": 0}),
    "protonet, threads": ("protonet", {"engine": "threads"}),
    "protonet, few images": ("protonet", FEW_IMAGES),
    "protonet, open sampling": ("protonet", {"sampling": "open"}),
    "protonet, another metric": ("protonet", {"metric": ["cross-entropy"]}),
    "protonet, resnet": (
        "protonet",
        {"backbone": "resnet12", "image_size": 16, "backbone_width": 4, "steps": 2},
    ),
    "maml, first order": ("maml", {"first_order": True, "inner_steps": 1}),
    "maml, second order": ("maml", {"first_order": False, "inner_steps": 2}),
    "relationnet": ("relationnet", {}),
    "soft k-means, few images": ("soft-kmeans", FEW_IMAGES | {"unlabeled": 2}),
    "metagan over maml": ("metagan", GAN | {"base": "maml", "base_inner_steps": 1}),
    "metagan over protonet": ("metagan", GAN | {"base": "protonet"}),
    "metagan over relationnet": ("metagan", GAN | {"base": "relationnet"}),
    "metagan, few classes": ("metagan", GAN | {"base": "protonet"} | FEW_CLASSES),
    "pretrained in one file": ("./stranger.py:Stranger", {"engine": "eager"}),
    "averaged weights in one file": ("./averaged.py:Averaged", {"engine": "eager"}),
}
QUICKLY = (
    "nearest-centroid", "protonet, running statistics", "maml, first order",
    "averaged weights in one file",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stranger.py").write_text(STRANGER, "utf-8")
    (tmp_path / "averaged.py").write_text(AVERAGED, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(kind: str, cache: Path) -> tuple[str, dict[str, Any]]:
    method, own = KINDS[kind]
    settings = small(cache, method) | {"episodes": 40} | own
    if "Stranger" in method or own.get("backbone") == "resnet12":
        settings.pop("backbone_channels")
    return method, settings


def assert_again(folder: Path, **changes: Any) -> dict[str, Any]:
    """An evaluation has the run's own scores, answers, episodes and weights; its record."""
    record = read_record(folder)
    again = fewshot_bench.evaluate(str(folder), trust_code=True, **changes)
    other = folder.parent / again["id"]
    for name in ("test", "episodes_digest", "parameters"):
        assert again[name] == record[name], name
    assert again["weights"]["sha256"] == record["weights"]["sha256"]
    one, two = (read_table(at / "episodes.csv") for at in (folder, other))
    for column in one.keys() - {"adapt_ms", "predict_ms"}:
        assert one[column].tolist() == two[column].tolist(), column
    assert (folder / "confusion.csv").read_bytes() == (other / "confusion.csv").read_bytes()
    return again


def kinds() -> list[Any]:
    return [
        kind if kind in QUICKLY else pytest.param(kind, marks=pytest.mark.exhaustive)
        for kind in KINDS
    ]


def test_every_case_is_a_valid_configuration(home: Path, data_cache: Path) -> None:
    """The settings of all cases, the slow ones too, are valid."""
    for kind in KINDS:
        method, settings = settings_of(kind, data_cache)
        configure(method, **settings)


@pytest.mark.parametrize("kind", kinds())
def test_of_every_kind(kind: str, home: Path, data_cache: Path) -> None:
    """Runs of every built-in method and of a method in a file, evaluated twice: the same bits."""
    method, settings = settings_of(kind, data_cache)
    folder = folder_of(fewshot_bench.run(method, **settings))
    again = assert_again(folder)
    assert not any("different from the run" in note for note in again["notes"])
    assert_again(folder_of(again))  # an evaluation is evaluated like a run


@pytest.mark.parametrize("kind", kinds())
def test_of_every_kind_from_other_weights(kind: str, home: Path, data_cache: Path) -> None:
    """The same for runs that start from another run's weights (``--init``), which are deleted by
    then.
    """
    method, settings = settings_of(kind, data_cache)
    start = folder_of(fewshot_bench.run(method, **settings | {"seed": 5}))
    folder = folder_of(fewshot_bench.run(method, **settings, init=str(start)))
    start.rename(home / "gone")
    assert_again(folder)


@pytest.mark.parametrize("kind", kinds())
def test_of_every_kind_after_an_interruption(kind: str, home: Path, data_cache: Path) -> None:
    """The same for runs that were interrupted and resumed."""
    method, settings = settings_of(kind, data_cache)
    config = configure(method, **settings)
    phase = ("test", 32) if method == "nearest-centroid" else ("train", 1)
    try:
        runner.run(RunContext(config, progress=Breaking(*phase)))
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("it was not interrupted")
    (folder,) = list((home / "runs").iterdir()) or [None]
    if folder is None:  # nothing was trained, so nothing was kept
        return
    fewshot_bench.resume(str(folder), trust_code=True)
    assert_again(folder)


def test_on_another_device(home: Path, data_cache: Path) -> None:
    """A run made on a GPU is evaluated on a CPU: the same weights, and a note."""
    method, settings = settings_of("protonet, running statistics", data_cache)
    folder = folder_of(fewshot_bench.run(method, **settings))
    record = read_record(folder)
    record["device"] = {"type": "cuda", "name": "NVIDIA H100 80GB HBM3"}
    record["config"]["device"] = "auto"
    record["environment"]["torch"] = "2.0.0+cu118"
    write_record(folder, record)
    again = assert_again(folder, device="cpu")
    (note,) = (note for note in again["notes"] if "different from the run" in note)
    assert "torch (2.0.0+cu118 then" in note
    assert "device (cuda then, cpu now)" in note


def test_of_weights_in_another_layout(home: Path, data_cache: Path) -> None:
    """Weights that were channels-last in memory give the same file and the same bits."""
    from fewshot_bench.engine.weights import load_weights, save_weights

    method, settings = settings_of("protonet, running statistics", data_cache)
    record = fewshot_bench.run(method, **settings)
    folder = folder_of(record)
    again = runner.prepare(
        RunContext(configure(method, **settings), progress=Breaking("never", 0))
    ).method
    load_weights(again, folder, record)
    again.to(memory_format=torch.channels_last)
    (home / "other").mkdir()
    assert save_weights(again, home / "other") == record["weights"]


def test_of_a_run_that_starts_from_an_evaluation(home: Path, data_cache: Path) -> None:
    """The folder of an evaluation contains the run's weights, and ``--init`` accepts it too."""
    method, settings = settings_of("maml, first order", data_cache)
    folder = folder_of(fewshot_bench.run(method, **settings))
    evaluation = folder_of(fewshot_bench.evaluate(str(folder), episodes=3))
    one, two = (fewshot_bench.run(method, **settings, init=str(at)) for at in (folder, evaluation))
    assert one["weights"] == two["weights"]
    assert_again(folder_of(two))


def test_with_other_code(home: Path, data_cache: Path) -> None:
    """The code of the method has changed since: the evaluation says so and names the method."""
    method, settings = settings_of("averaged weights in one file", data_cache)
    folder = folder_of(fewshot_bench.run(method, **settings))
    (home / "averaged.py").write_text(AVERAGED.replace("1 + self.steps", "2 + self.steps"))
    again = fewshot_bench.evaluate(str(folder), trust_code=True)
    (note,) = (note for note in again["notes"] if "different from the run" in note)
    assert "code of method averaged.py:Averaged" in note


def test_the_comparison_sees_a_last_bit(home: Path, data_cache: Path) -> None:
    """The digest changes with one bit of one weight, so the comparisons above are exact."""
    method, settings = settings_of("protonet, running statistics", data_cache)
    folder = folder_of(fewshot_bench.run(method, **settings))
    file = folder / "weights.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    weights[name].view(-1)[:1].copy_(torch.nextafter(weights[name].view(-1)[:1], torch.ones(1)))
    save_file(weights, file)
    with pytest.raises(RecordError, match="not the file that the run wrote"):
        check_weights(folder, read_record(folder))
