"""``fsb data`` as a whole, on small data."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fewshot_bench.cli.data import app, parse
from fewshot_bench.config.options import Option
from fewshot_bench.errors import ConfigError, DataError, UnknownName

SMALL = ["--train-classes", "10", "--validation-classes=0", "--test-classes", "10"]


def fsb_data_command(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_every_data_set() -> None:
    output = fsb_data_command("list")
    for name in ("glyphs", "omniglot", "folder"):
        assert name in output


def test_prepare_takes_the_data_sets_own_options(tmp_path: Path) -> None:
    output = fsb_data_command(
        "prepare", "glyphs", *SMALL, "--no-train-rotations", "--cache-dir", str(tmp_path)
    )
    assert "train: 10 classes of 20 images (1, 28, 28)" in output
    assert "validation: none" in output
    assert list((tmp_path / "glyphs").iterdir())


def test_verify_reads_a_folder(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        file = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), ord(name), np.uint8)).save(file, "PNG")
        (tmp_path / name / "1.png").write_bytes(file.getvalue())
    output = fsb_data_command("verify", f"folder:{tmp_path}", "--image-size", "9")
    assert "3 images of 3 classes" in output
    (tmp_path / "b" / "1.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"b/1\.png"):
        fsb_data_command("verify", f"folder:{tmp_path}", "--image-size", "9")


def test_show_writes_an_episode(tmp_path: Path) -> None:
    arguments = ["show", "glyphs", *SMALL, "--cache-dir", str(tmp_path), "--way", "4"]
    for number in ("0", "1"):
        target = str(tmp_path / f"{number}.png")
        fsb_data_command(*arguments, "--episode", number, "-o", target)
    with Image.open(tmp_path / "0.png") as first, Image.open(tmp_path / "1.png") as second:
        assert first.height > 4 * 56
        assert first.tobytes() != second.tobytes()
    with pytest.raises(ConfigError, match="no such part"):
        fsb_data_command(*arguments, "--part", "validation")
    with pytest.raises(ConfigError, match="cannot write"):
        fsb_data_command(*arguments, "-o", str(tmp_path / "none" / "x.png"))
    with pytest.raises(UnknownName, match="did you mean 'train'"):
        fsb_data_command(*arguments, "--part", "trian")


OPTIONS = [Option("image_size", int, 28), Option("twins", bool, False), Option("split", str, "a")]


def test_own_options_are_parsed() -> None:
    assert parse(["--image-size", "32", "--twins", "--split=b"], OPTIONS, "x") == {
        "image_size": 32,
        "twins": True,
        "split": "b",
    }
    assert parse(["--no-twins"], OPTIONS, "x") == {"twins": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--imagesize", "3"], "did you mean '--image-size'"),
        (["--image-size"], "a value has to follow"),
        (["--image-size", "big"], "a whole number"),
        (["--no-split"], "no option of data set x"),
        (["stray"], "no option of data set x"),
    ],
)
def test_bad_options_are_one_clear_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(arguments, OPTIONS, "data set x")


def test_the_real_command(tmp_path: Path) -> None:
    def fsb(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fewshot_bench", "data", *arguments],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip

    listed = fsb("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "glyphs" in listed.stdout
    sheet = fsb("show", "glyphs", *SMALL, "--way", "3", "-o", "sheet.png", "--cache-dir", "c")
    assert sheet.returncode == 0, sheet.stderr
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size[0] > 28 * 5
    prepared = fsb("prepare", "glyphs", *SMALL, "--cache-dir", "c")
    assert "glyphs: ready in" in prepared.stdout
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "a" / "1.png").write_bytes(b"damaged")
    damaged = fsb("verify", "folder:own")
    assert damaged.returncode == 2
    assert damaged.stdout == ""
    assert damaged.stderr.startswith("error: ")
    assert len(damaged.stderr.splitlines()) == 1
    assert "1.png" in damaged.stderr
