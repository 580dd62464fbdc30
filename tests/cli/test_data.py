"""``fsb data`` as a whole, on small data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import InProcess

SMALL = ["--train-classes", "10", "--validation-classes=0", "--test-classes", "10"]


def test_list_names_every_data_set(fsb: InProcess) -> None:
    output = fsb("data", "list").succeeded().out
    for name in ("glyphs", "omniglot", "folder"):
        assert name in output


def test_prepare_takes_the_data_sets_own_options(tmp_path: Path, fsb: InProcess) -> None:
    words = ("glyphs", *SMALL, "--no-train-rotations", "--cache-dir", "c")
    answer = fsb("data", "prepare", *words, at=tmp_path).succeeded()
    assert answer.out.startswith("glyphs: ready in ")
    assert "train: 10 classes of 20 images (1, 28, 28)" in answer.out
    assert "validation: none" in answer.out
    assert list((tmp_path / "c" / "glyphs").iterdir())


def test_verify_reads_a_folder(tmp_path: Path, fsb: InProcess) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        file = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), ord(name), np.uint8)).save(file, "PNG")
        (tmp_path / name / "1.png").write_bytes(file.getvalue())
    words = ("data", "verify", f"folder:{tmp_path}", "--image-size", "9")
    assert "3 images of 3 classes" in fsb(*words).succeeded().out
    (tmp_path / "b" / "1.png").write_bytes(b"damaged")
    answer = fsb(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert "b/1.png" in answer.err


def test_show_writes_an_episode(tmp_path: Path, fsb: InProcess) -> None:
    words = ["data", "show", "glyphs", *SMALL, "--cache-dir", "c", "--way", "4"]
    for number in ("0", "1"):
        fsb(*words, "--episode", number, "-o", f"{number}.png", at=tmp_path).succeeded()
    with Image.open(tmp_path / "0.png") as first, Image.open(tmp_path / "1.png") as second:
        assert first.height > 4 * 56
        assert first.tobytes() != second.tobytes()
    for wrong, message in (
        (("--part", "validation"), "no such part"),
        (("-o", "none/x.png"), "cannot write 'none/x.png'"),
        (("--part", "trian"), "did you mean 'train'"),
        (("--episode", "-1"), "--episode: expected an integer >= 0, got -1"),
    ):
        answer = fsb(*words, *wrong, at=tmp_path)
        assert answer.code == 2
        assert message in answer.err


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("prepare glyphs --imagesize 3", "did you mean '--image-size'?"),
        ("prepare glyphs --image-size", "'--image-size' requires an argument"),
        ("prepare glyphs --image-size big", "--image-size: expected an integer, got 'big'"),
        ("prepare glyphs --no-image-size", "no option '--no-image-size'"),
        ("prepare glyphs --split vinyals", "it belongs to dataset omniglot"),
        ("prepare glyphs stray", "unexpected extra argument(s) (stray)"),
        ("prepare glyphs:x", "'glyphs' takes nothing after a colon"),
        ("prepare glyhps", "did you mean 'glyphs'?"),
        ("prepare", "Missing argument 'NAME'"),
        ("prepare --image-size 3 glyphs", "expected NAME first, then options"),
        ("verify glyphs --episode 3", "no option '--episode'"),
        ("show glyphs --shto 3", "did you mean '--shot'?"),
    ],
)
def test_a_wrong_option_is_one_line(typed: str, message: str, fsb: InProcess) -> None:
    answer = fsb("data", *typed.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert message in answer.err
