"""Bad input to the command: one line that helps, exit code 2, and no traceback."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Answer, InProcess, Process
from tests.patience import PATIENCE

TINY = (
    *("--image-size=16", "--train-classes=12", "--validation-classes=0", "--test-classes=12"),
    *("--train-way=5", "--task-batch=1", "--validate-every=0", "--episodes=4", "--query=2"),
    *("--shot=1", "--device=cpu"),
)

# What is typed, and what the answer has to mention: what was asked, what is possible.
BAD = {
    "no method": ("run protnet", ("'protnet'", "did you mean 'protonet'")),
    "no data set": ("run protonet --dataset omniglott", ("did you mean 'omniglot'", "glyphs")),
    "no backbone": ("run protonet --backbone conv5", ("'conv5'", "did you mean 'conv4'")),
    "no preset": ("run protonet --preset papr", ("'papr'", "did you mean 'paper'")),
    "no such option": ("run protonet --inner-lr 0.1", ("--inner-lr", "run protonet --help")),
    "no number": ("run protonet --way five", ("--way", "five")),
    "no way": ("run protonet --way 0", ("--way: expected an integer >= 2, got '0'",)),
    "no episodes": (
        "run protonet --episodes 0",
        ("--episodes: expected an integer >= 1, got '0'",),
    ),
    "a negative rate": ("run protonet --lr -1", ("learning rate: -1",)),
    "too many classes": ("run nearest-centroid --way 200", ("200 classes", "at most 100")),
    "too few images": ("run nearest-centroid --shot 30", ("45 images", "has 20", "lower --shot")),
    "no GPU": ("run nearest-centroid --device cuda:99", ("cuda:99", "--device cpu")),
    "no device": ("run nearest-centroid --device abacus", ("abacus", "cuda:N")),
    "no command": ("rnu protonet", ("rnu", "fsb --help")),
    "no kind": ("list metods", ("'metods'", "did you mean 'methods'")),
    "no run": ("eval nowhere", ("'nowhere' has no record.json",)),
    "no runs": ("compare nowhere", ("'nowhere'", "fsb run")),
    "a rate of the base": ("run metagan --base-lr 0.1", ("no option '--base-lr'",)),
    "one of two numbers": ("run metagan --betas 0.5 --steps 2", ("--betas",)),
    "a floor with a network": ("run nearest-centroid --backbone conv4", ("uses no backbone",)),
    "too few training classes": (
        "run protonet --train-classes 3",
        ("20 classes", "train split has 3 ", "--train-way of at most 3"),
    ),
    "too few training images": (
        "run protonet --train-query 30",
        ("train split has 20", "lower --train-shot, --train-query"),
    ),
    "no option of show": ("data show glyphs --shto 3", ("did you mean '--shot'",)),
    "a missing folder": ("run nearest-centroid --dataset folder:nowhere", ("nowhere",)),
}


def assert_one_line(answer: Answer, *words: str) -> None:
    assert "Traceback" not in answer.err
    errors = [line for line in answer.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, answer.err
    assert answer.err.splitlines()[-1] == errors[0]
    assert all(word in errors[0] for word in words), errors[0]
    assert answer.out == ""
    assert answer.code == 2


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, fsb: InProcess) -> None:
    typed, words = BAD[case]
    assert_one_line(fsb(*typed.split(), at=tmp_path), *words)
    assert not list(tmp_path.glob("runs/*"))  # nothing is left behind


def test_missing_and_damaged_data(tmp_path: Path, fsb: InProcess) -> None:
    run = ("run", "nearest-centroid", "--dataset", "omniglot", "--cache-dir", str(tmp_path / "c"))
    missing = fsb(*run, "--data-root", str(tmp_path / "none"), at=tmp_path, FSB_DATA="")
    assert_one_line(missing, "none")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("images_background.zip", "images_evaluation.zip"):
        (damaged / name).write_bytes(b"PK\x03\x04 torn")
    answer = fsb(*run, "--data-root", str(damaged), at=tmp_path, FSB_DATA="")
    assert_one_line(answer, "images_", ".zip")


def test_a_runs_folder_that_cannot_be_written(tmp_path: Path, fsb: InProcess) -> None:
    (tmp_path / "file").write_text("")
    answer = fsb("run", "nearest-centroid", "--runs-dir", "file/runs", at=tmp_path)
    assert_one_line(answer, "'file/runs'", "--runs-dir")


def only_record(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob("runs/*/record.json")
    return path.parent, json.loads(path.read_text())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, fsb: InProcess) -> None:
    answer = fsb("run", "protonet", *TINY, "--lr=1e30", "--steps=6", at=tmp_path)
    assert answer.code == 1
    assert answer.out == ""
    assert "Traceback" not in answer.err
    folder, record = only_record(tmp_path)
    assert record["status"] == "failed"
    assert record["test"] is None
    assert record["error"].startswith("step 2: the ")
    assert "player 'meta'" in record["error"]
    assert answer.err.splitlines()[-1] == f"error: {record['error']}"
    assert (folder / "weights.safetensors").stat().st_size > 0
    assert len((folder / "steps.csv").read_text().splitlines()) == 2
    # Such a run is told of, and compared with nothing.
    assert "failed" in fsb("compare", at=tmp_path).err


def test_a_first_step_that_is_not_finite_leaves_a_record_too(
    tmp_path: Path, fsb: InProcess
) -> None:
    answer = fsb("run", "maml", *TINY, "--inner-lr=1e30", "--steps=4", at=tmp_path)
    assert answer.code == 1
    folder, record = only_record(tmp_path)
    assert (record["status"], record["training"]["steps"]) == ("failed", 0)
    assert record["error"].startswith("step 1: the ")
    assert (folder / "weights.safetensors").stat().st_size > 0
    assert record["timing"]["step_ms"] is None


def test_options_of_eval(tmp_path: Path, fsb: InProcess) -> None:
    fsb("run", "nearest-centroid", *TINY[:4], "--episodes=4", "--query=2", at=tmp_path)
    folder, _ = only_record(tmp_path)
    typed = {
        "--episdes 5": "did you mean '--episodes'",
        "--wya 3": "--way",
        "--seed 3": "--seed decided the training of the run",
        "another": "unexpected extra argument(s) (another)",
    }
    for options, words in typed.items():
        assert_one_line(fsb("eval", str(folder), *options.split(), at=tmp_path), words)
    # the record's own path will do, and what did not change keeps its source
    answer = fsb("eval", str(folder / "record.json"), "--episodes=3", "--json", at=tmp_path)
    record = json.loads(answer.out)
    assert record["test"]["episodes"] == 3
    sources = record["config"]["sources"]
    assert (sources["episodes"], sources["query"], sources["level"]) == ("user", "user", "default")


def test_ctrl_c_saves_partial_results(tmp_path: Path, fsb_process: Process) -> None:
    words = (*TINY, "--steps=1000000", "--checkpoint-every=1")
    process = fsb_process.start("run", "protonet", *words, at=tmp_path)
    try:
        while process.poll() is None and not list(tmp_path.glob("runs/*/checkpoints/step-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    folder, record = only_record(tmp_path)
    assert record["status"] == "interrupted"
    assert record["training"]["steps"] >= 1
    assert (folder / "weights.safetensors").stat().st_size > 0
