"""One run from end to end, from Python: order, records, faults."""

import json
from pathlib import Path

import numpy as np
import pytest

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError, Diverged
from fewshot_bench.results.record import read_record, read_table
from fewshot_bench.results.runs import Run
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.prepare import PreparedRun, prepare
from fewshot_bench.sampling.base import EpisodeSource

SMALL = {
    "dataset": "glyphs",
    "way": 3,
    "shot": 1,
    "query": 2,
    "train_way": 3,
    "train_query": 2,
    "steps": 4,
    "task_batch": 2,
    "validate_every": 2,
    "validation_episodes": 4,
    "episodes": 6,
    "backbone_channels": 4,
    "train_classes": 20,
    "validation_classes": 8,
    "test_classes": 8,
}


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    return SMALL | {"runs_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}


def test_the_test_split_is_read_after_training_and_never_before(settings, monkeypatch) -> None:
    used: list[int] = []
    original = EpisodeSource.indices

    def spy(self, ids):
        used.append(id(self.table))
        return original(self, ids)

    monkeypatch.setattr(EpisodeSource, "indices", spy)
    parts: list[PreparedRun] = []
    monkeypatch.setattr(
        runner, "prepare", lambda *a, **k: parts.append(prepare(*a, **k)) or parts[0]
    )
    runner.run(RunContext(configure("maml", **settings)))
    train, validation, test = (
        id(source.table) for source in (parts[0].train, parts[0].validation, parts[0].test)
    )
    first_test = used.index(test)
    assert {train, validation} <= set(used[:first_test])
    assert set(used[first_test:]) == {test}


def test_classes_that_share_images_are_one_cluster(settings) -> None:
    few = {k: v for k, v in settings.items() if k not in ("steps", "task_batch")}
    few = {k: v for k, v in few.items() if not k.startswith(("validate_", "backbone_"))}
    for turned in (False, True):
        record = fewshot_bench.run("nearest-centroid", test_rotations=turned, **few)
        folder = Path(settings["runs_dir"]) / record["id"]
        table = read_table(folder / "episodes.csv")
        ids = np.stack([table[f"class_{c}"] for c in range(3)], 1)
        assert ("group_0" in table) == turned
        # Glyphs turn into four classes that are neighbors.
        clusters = Run(folder, record).clusters()
        assert np.array_equal(clusters, ids // 4 if turned else ids)


def test_record_and_files_of_a_run(settings) -> None:
    record = fewshot_bench.run("protonet", metric=["cross-entropy"], **settings)
    folder = Path(settings["runs_dir"]) / record["id"]
    assert read_record(folder) == json.loads((folder / "record.json").read_text())
    assert record["status"] == "completed"
    assert record["config"]["sources"]["way"] == "user"
    assert record["test"]["metrics"]["cross-entropy"]["mean"] > 0
    steps, episodes = read_table(folder / "steps.csv"), read_table(folder / "episodes.csv")
    assert steps["step"].tolist() == [1, 2, 3, 4]
    assert {"loss_meta", "step_ms", "sample_ms", "forward_backward_ms"} <= set(steps)
    assert episodes["accuracy"].mean() == pytest.approx(record["test"]["accuracy"])
    assert {"class_0", "class_2", "adapt_ms", "predict_ms", "cross-entropy"} <= set(episodes)
    confusion = read_table(folder / "confusion.csv")
    assert confusion["count"].sum() == 6 * 3 * 2
    right = confusion["target"] == confusion["predicted"]
    assert confusion["count"][right].sum() / 36 == pytest.approx(record["test"]["accuracy"])
    assert read_table(folder / "validation.csv")["step"].tolist() == [2, 4]
    assert (folder / "weights.safetensors").is_file()
    # Phases are parts of a step, and most of it, unless the machine turns to others in between.
    phases = record["timing"]["phases"]
    shares = sum(steps[f"{name}_ms"] for name in phases) / steps["step_ms"]
    assert 0.7 < shares.max() < 1.001


def test_all_methods_meet_the_same_episodes(settings) -> None:
    records = [
        fewshot_bench.run(method, **{n: v for n, v in settings.items() if own(method, n)})
        for method in ("nearest-centroid", "protonet", "maml", "metagan")
    ]
    assert len({record["episodes_digest"] for record in records}) == 1
    assert records[0]["training"] is None
    transductive = {r["method"]: r["test"]["transductive"] for r in records}
    assert transductive == {
        "nearest-centroid": False, "protonet": False, "maml": True, "metagan": True,
    }  # fmt: skip
    assert records[3]["timing"]["flops_per_step"] > records[2]["timing"]["flops_per_step"]


def own(method: str, option: str) -> bool:
    """Whether the method has this option."""
    return not (method == "nearest-centroid" and option.startswith("backbone_"))


def test_evaluate_again(settings) -> None:
    record = fewshot_bench.run("protonet", **settings)
    folder = str(Path(settings["runs_dir"]) / record["id"])
    same = fewshot_bench.evaluate(folder)
    assert same["test"]["accuracy"] == record["test"]["accuracy"]
    assert same["evaluated_from"] == record["id"]
    other = fewshot_bench.evaluate(folder, way=4, shot=2, episodes=3, sampling="open")
    assert other["task"]["way"] == 4
    assert other["test"]["sampling"] == "open"
    assert other["train_task"] == record["train_task"]
    maml = fewshot_bench.run("maml", **settings)
    with pytest.raises(ConfigError, match="3 classes"):
        fewshot_bench.evaluate(str(Path(settings["runs_dir"]) / maml["id"]), way=4)


def test_weights_to_start_from(settings) -> None:
    settings |= {"backbone_statistics": "batch"}  # no running statistics that would move
    first = fewshot_bench.run("protonet", **settings)
    folder = Path(settings["runs_dir"]) / first["id"]
    # Nothing moves at rate 0, so the second run tests the first one's weights.
    again = fewshot_bench.run("protonet", init=str(folder), lr=0.0, **settings)
    assert (
        read_table(folder / "episodes.csv")["accuracy"].tolist()
        == read_table(folder.parent / again["id"] / "episodes.csv")["accuracy"].tolist()
    )
    with pytest.raises(ConfigError, match="do not fit"):
        fewshot_bench.run("maml", init=str(folder), **settings)


def test_diverging_keeps_a_record_of_what_was_reached(settings) -> None:
    # The first step throws the weights so far that the second one overflows.
    with pytest.raises(Diverged, match="step 2: the loss of player 'meta'"):
        fewshot_bench.run("protonet", **{**settings, "lr": 1e30})
    (folder,) = Path(settings["runs_dir"]).iterdir()
    record = read_record(folder)
    assert record["status"] == "failed"
    assert "player 'meta'" in record["error"]
    assert record["test"] is None


def test_a_plugin_that_raises_before_training_leaves_no_folder(settings, monkeypatch) -> None:
    def broken(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(runner, "cost_of_step", broken)
    with pytest.raises(RuntimeError):
        fewshot_bench.run("protonet", **settings)
    assert not list(Path(settings["runs_dir"]).iterdir())


def test_backbones_start_the_same_for_every_method(settings) -> None:
    protonet, maml = (
        prepare(RunContext(configure(m, backbone="conv4", **settings)))
        for m in ("protonet", "maml")
    )
    mine = protonet.method.backbone.state_dict()
    for name, value in maml.method.net.backbone.state_dict().items():
        assert (mine[name] == value).all(), name
