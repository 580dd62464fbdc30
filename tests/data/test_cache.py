"""The cache of decoded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewshot_bench.data.cache import Decoded, cache_root, cached


class Builder:
    def __init__(self) -> None:
        self.calls = 0
        self.images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)

    def __call__(self) -> Decoded:
        self.calls += 1
        return Decoded(self.images, {"names": ["a", "ä"]})


def read(folder: Path, builder: Builder, **key: object) -> Decoded:
    decoded = cached(folder, "x", key, builder)
    assert np.array_equal(decoded.images, builder.images)
    assert decoded.meta == {"names": ["a", "ä"]}
    return decoded


def test_a_second_start_reads_a_read_only_map(tmp_path: Path) -> None:
    builder = Builder()
    read(tmp_path, builder)
    again = read(tmp_path, builder)
    assert builder.calls == 1
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert [path.suffix for path in tmp_path.glob("*.npy")] == [".npy"]  # no temporary file is left


def test_another_key_is_another_file(tmp_path: Path) -> None:
    builder = Builder()
    read(tmp_path, builder, size=28)
    read(tmp_path, builder, size=32)
    assert builder.calls == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "tail"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    builder = Builder()
    read(tmp_path, builder)
    (path,) = tmp_path.glob("*.npy")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[150] ^= 1
    elif damage == "tail":
        data[-20] ^= 1
    path.write_bytes({"cut": data[:-7], "empty": b""}.get(damage, bytes(data)))
    read(tmp_path, builder)
    assert builder.calls == 2
    read(tmp_path, builder)
    assert builder.calls == 2


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    builder = Builder()
    read(tmp_path / "file" / "below", builder)
    read(tmp_path / "file" / "below", builder)
    assert builder.calls == 2


def test_the_user_chooses_the_root(tmp_path: Path) -> None:
    assert cache_root(tmp_path) == tmp_path
    assert cache_root(None).name == "fewshot-bench"
