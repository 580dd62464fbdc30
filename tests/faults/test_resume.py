"""A run that is interrupted and resumed is, but for times, the run that was not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from fewshot_bench.config.resolve import configure
from fewshot_bench.engine.checkpointing import Interrupted, Store, read_checkpoint
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.results.record import read_record
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from tests.command_line import InProcess
from tests.faults.broken_off import CONV, SMALL, STRANGER, Breaking, assert_same, newest

ALTERNATING = CONV | {"base": "maml", "update": "alternating", "generator_network": "small"}
FEW_LABELS = CONV | {"labeled_classes": 0.5, "train_unlabeled": 2, "unlabeled": 2}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet": ("protonet", CONV),
    "maml": ("maml", CONV),
    "metagan alternating": ("metagan", ALTERNATING),
    "metagan, unlabeled tasks": ("metagan", FEW_LABELS),
    "soft k-means": ("soft-kmeans", CONV | {"unlabeled": 2, "labeled_fraction": 0.5}),
    "pretrained stranger": ("./stranger.py:Stranger", SMALL | {"engine": "eager"}),
}
# (phase, units done); a validation is at step 3, in the middle of whose episodes it is.
MOMENTS = {
    "in training": ("train", 2),
    "before a validation": ("train", 3),
    "in the test": ("test", 32),
    "at the last step": ("train", 6),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stranger.py").write_text(STRANGER, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(method: str, runs: str, settings: dict[str, Any], cache: Path) -> Any:
    return configure(method, **settings, runs_dir=runs, cache_dir=str(cache))


def broken_off(config: Any, progress: Any) -> Path:
    """Run until something raises; the folder."""
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(config, progress=progress))
    return newest(Path(config.runs_dir))


@pytest.mark.parametrize("what", METHODS)
def test_interrupted_and_resumed_is_the_same_to_the_last_bit(
    what: str, home: Path, data_cache: Path
) -> None:
    method, settings = METHODS[what]
    torch.manual_seed(0)
    whole = configured(method, "whole", settings, data_cache)
    runner.run(RunContext(whole))
    for name, (phase, done) in MOMENTS.items():
        torch.manual_seed(0)
        config = configured(method, f"runs {done} {phase}", settings, data_cache)
        folder = broken_off(config, Breaking(phase, done))
        before = read_record(folder)
        assert before["status"] == "interrupted"
        torch.manual_seed(1)  # what the generator is at the resume is that of the checkpoint
        progress = Breaking("never", 0)
        record = runner.resume(folder, progress=progress, trust_code=method.endswith("Stranger"))
        assert record["timing"]["interruptions"] == 1, name
        assert_same(newest(Path("whole")), folder)
        # Nothing is trained twice.
        assert progress.steps == list(range(done + 1, 7) if phase == "train" else ())


def test_a_record_imports_no_file_unless_somebody_says_so(home: Path, data_cache: Path) -> None:
    config = configured(*METHODS["pretrained stranger"][:1], "runs", SMALL, data_cache)
    with pytest.raises(KeyboardInterrupt, match=r"fsb resume runs/\S+ --trust-code$"):
        runner.run(RunContext(config, progress=Breaking("train", 2)))
    folder = newest(Path("runs"))
    (home / "stranger.py").write_text("raise AssertionError('it was imported')", "utf-8")
    with pytest.raises(ConfigError, match=r"names code in a file, '\S+stranger\.py:Stranger'"):
        runner.resume(folder)
    assert read_record(folder)["status"] == "interrupted"


def test_a_validation_is_broken_off_at_once_and_done_again(
    home: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = runner.evaluate, []

    def evaluate(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            signal.raise_signal(signal.SIGUSR1)
            pytest.fail("the validation went on")
        return real(*arguments, **named)

    monkeypatch.setattr(runner, "evaluate", evaluate)
    folder = broken_off(configured("maml", "runs", CONV, data_cache), Breaking("never", 0))
    assert read_record(folder)["training"]["steps"] == 3
    runner.resume(folder)
    assert len(calls) == 1 + 2 + 1  # two validations and the test
    runner.run(RunContext(configured("maml", "whole", CONV, data_cache)))
    assert_same(newest(Path("whole")), folder)


def test_interrupted_again_and_again(home: Path, data_cache: Path) -> None:
    settings = ALTERNATING
    runner.run(RunContext(configured("metagan", "whole", settings, data_cache)))
    folder = broken_off(configured("metagan", "runs", settings, data_cache), Breaking("train", 1))
    for phase, done in (("train", 2), ("train", 3), ("test", 32), ("test", 32), ("train", 5)):
        progress = Breaking(phase, done)
        if (phase, done) == ("train", 5):  # trained already: the test is all that is left
            assert runner.resume(folder, progress=progress)["timing"]["interruptions"] == 5
            assert not progress.steps
        else:
            with pytest.raises(Interrupted):
                runner.resume(folder, progress=progress)
    assert_same(newest(Path("whole")), folder)


def test_times_go_on_where_they_were(home: Path, data_cache: Path) -> None:
    settings = SMALL | {"backbone_channels": 4, "image_size": 16, "steps": 12}
    folder = broken_off(configured("protonet", "runs", settings, data_cache), Breaking("train", 6))
    before = read_record(folder)
    record = runner.resume(folder)
    assert record["training"]["seconds"] > before["training"]["seconds"]
    assert record["training"]["warmup_seconds"] > before["training"]["warmup_seconds"] > 0
    # Three steps warm up in each process; all are in the table.
    assert record["timing"]["warmup_steps"] == 6
    table = (folder / "steps.csv").read_text("utf-8").splitlines()
    assert len(table) == 1 + 12
    assert all(row.split(",")[table[0].split(",").index("step_ms")] for row in table[1:])


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    home: Path, data_cache: Path, notes: pytest.LogCaptureFixture
) -> None:
    settings = CONV | {"checkpoint_every": 1, "validate_every": 2}
    runner.run(RunContext(configured("protonet", "whole", settings, data_cache)))
    for damage in ("flip", "cut", "empty"):
        config = configured("protonet", f"runs {damage}", settings, data_cache)
        folder = broken_off(config, Breaking("train", 5))
        newer, _ = Store(folder).paths()
        content = bytearray(newer.read_bytes())
        content[len(content) // 2] ^= 1
        cut = content[: len(content) // 2]
        newer.write_bytes({"flip": content, "cut": cut, "empty": b""}[damage])
        progress = Breaking("never", 0)
        notes.clear()
        runner.resume(folder, progress=progress)
        (line,) = (line for line in notes.messages if "damaged" in line)
        assert "checkpoint of step 5" in line
        assert "sha256" in line
        assert str(newer) in line
        assert progress.steps == [5, 6]
        assert_same(newest(Path("whole")), folder)


def test_without_a_whole_checkpoint_it_starts_again_and_says_so(
    home: Path, data_cache: Path, notes: pytest.LogCaptureFixture
) -> None:
    config = configured("protonet", "runs", CONV, data_cache)
    folder = broken_off(config, Breaking("train", 5))
    for path in Store(folder).paths():
        path.write_bytes(b"")
    progress = Breaking("never", 0)
    runner.resume(folder, progress=progress)
    assert sum("no checkpoint to " in line for line in notes.messages) == 1
    assert progress.steps == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_of_another_run_is_not_taken(
    home: Path, data_cache: Path, notes: pytest.LogCaptureFixture
) -> None:
    folders = []
    for seed in (0, 1):
        config = configured("protonet", f"runs {seed}", CONV | {"seed": seed}, data_cache)
        folders.append(broken_off(config, Breaking("train", 3 + seed)))
    (other,) = Store(folders[1]).paths()
    other.rename(Store(folders[0]).folder / other.name)
    progress = Breaking("never", 0)
    runner.resume(folders[0], progress=progress)
    (line,) = (line for line in notes.messages if "another run or other settings" in line)
    assert "step 4" in line
    assert progress.steps == [4, 5, 6]


@pytest.mark.parametrize(
    "state",
    [
        {"step": "three"},
        [],
        {"\x00": "tensor", "name": "nothing"},
        {"\x00": "tensor", "name": "0", "stride": [2**50]},
        {"\x00": "call", "of": "os.system"},
    ],
)
def test_a_forged_checkpoint_is_refused(state: Any, home: Path, data_cache: Path) -> None:
    config = configured("protonet", "runs", CONV, data_cache)
    folder = broken_off(config, Breaking("train", 3))
    store = Store(folder)
    (path,) = store.paths()
    about = read_checkpoint(path).about
    header = {"format": 1, "step": 4, "about": about, "state": state}
    content = save({"0": torch.zeros(3)}, {"checkpoint": json.dumps(header)})
    name = f"step-00000004-{hashlib.sha256(content).hexdigest()}.safetensors"
    (store.folder / name).write_bytes(content)
    with pytest.raises(RecordError, match="the checkpoint does not fit"):
        runner.resume(folder)
    (store.folder / name).unlink()
    assert runner.resume(folder)["status"] == "completed"  # the run took no harm


def test_a_disk_that_is_full_for_a_while_ends_no_training(
    home: Path,
    data_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    notes: pytest.LogCaptureFixture,
) -> None:
    real, failed = os.fsync, []

    def fsync(handle: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{handle}") and len(failed) < 2:
            failed.append(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    config = configured("protonet", "runs", CONV | {"checkpoint_every": 1}, data_cache)
    progress = Breaking("never", 0)
    record = runner.run(RunContext(config, progress=progress))
    assert record["status"] == "completed"
    lines = [line for line in notes.messages if "cannot write the checkpoint" in line]
    assert len(lines) == len(failed) == 2
    assert "of step 1 to" in lines[0]
    assert "No space left on device" in lines[0]
    assert [path.name[:13] for path in Store(newest(Path("runs"))).paths()] == ["step-00000006"]


def test_the_newest_are_kept_and_at_the_end_the_last(home: Path, data_cache: Path) -> None:
    settings = CONV | {"checkpoint_every": 1, "keep_checkpoints": 3}
    config = configured("protonet", "runs", settings, data_cache)
    folder = broken_off(config, Breaking("train", 5))
    assert [path.name[:13] for path in Store(folder).paths()] == [
        f"step-{step:08d}" for step in (5, 4, 3)
    ]
    runner.resume(folder)
    (last,) = Store(folder).paths()
    assert last.name.startswith("step-00000006-")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"environment": {"code": "0" * 64}}, "code"),
        ({"environment": {"torch": "1.0"}}, "torch"),
        ({"dataset_digest": "0" * 64}, "data"),
        ({"plugins": []}, "plugin versions"),
    ],
)
def test_another_origin_is_refused_unless_it_is_allowed(
    change: dict[str, Any], what: str, home: Path, data_cache: Path, fsb: InProcess
) -> None:
    config = configured("protonet", "runs", CONV, data_cache)
    folder = broken_off(config, Breaking("train", 4))
    record = read_record(folder)
    for name, value in change.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    (folder / "record.json").write_text(json.dumps(record), "utf-8")
    answer = fsb("resume", folder)
    assert (answer.code, answer.out) == (2, "")
    assert f"was started with different {what}; resuming would mix them" in answer.err
    assert f"fsb resume {folder} --allow-changes" in answer.err
    assert len(answer.err.splitlines()) == 2  # 'reading glyphs', and the error
    done = runner.resume(folder, allow_changes=True)
    assert any(f"resumed with different {what}" in note for note in done["notes"])
    assert done["status"] == "completed"


def test_it_resumes_on_the_device_that_is_typed(
    home: Path, data_cache: Path, fsb: InProcess
) -> None:
    """A run of a device that is not here; another one of its kind needs no further word."""
    folder = broken_off(configured("protonet", "runs", CONV, data_cache), Breaking("train", 2))
    path = folder / "record.json"
    record = json.loads(path.read_text("utf-8"))
    record["config"]["device"] = "cuda:63"
    path.write_text(json.dumps(record), "utf-8")
    for typed, message in (((), "cuda:63"), (("--device", "tpu"), "tpu")):
        answer = fsb("resume", folder, *typed)
        assert answer.code == 2
        assert "--device" in answer.err
        assert message in answer.err
    fsb("resume", folder, "--device", "cpu").succeeded()
    record = read_record(folder)
    assert (record["status"], record["device"]["type"]) == ("completed", "cpu")
