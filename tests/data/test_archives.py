"""Archives: what is refused, and what a message names."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot_bench.data import archives, decode
from fewshot_bench.errors import DataError


def png(value: int = 0, mode: str = "L", size: tuple[int, int] = (4, 4)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return file.getvalue()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def members_of(path: Path) -> list[str]:
    with archives.open_zip(path, "images") as archive:
        return [info.filename for info in archives.image_members(archive)]


def test_images_are_sorted_and_other_files_left_out(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip",
        {"b/2.PNG": b"", "a/1.jpg": b"", "a/readme.txt": b"", "__MACOSX/a/._1.jpg": b""},
    )
    assert members_of(path) == ["a/1.jpg", "b/2.PNG"]


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/e.png"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "a.zip", {name: b""})
    with pytest.raises(DataError, match="leaves the archive's folder") as error:
        members_of(path)
    assert str(path) in str(error.value)


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="symbolic link"):
        members_of(tmp_path / "a.zip")


def test_absurd_sizes_and_counts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(tmp_path / "a.zip", {"a/1.png": bytes(100), "a/2.png": bytes(1)})
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 99)
    with pytest.raises(DataError, match="unpacks to 100 bytes"):
        members_of(path)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(DataError, match="2 members"):
        members_of(path)


def test_missing_truncated_and_wrong_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.zip.*expected the cats"):
        archives.open_zip(tmp_path / "none.zip", "the cats").__enter__()
    whole = make_zip(tmp_path / "a.zip", {"a/1.png": png()}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.zip.*not a complete zip.*expected the cats"):
        archives.open_zip(tmp_path / "cut.zip", "the cats").__enter__()


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a/1.png": b"x" * 64})
    data = bytearray(path.read_bytes())
    data[data.index(b"x" * 64)] ^= 1
    path.write_bytes(bytes(data))
    with archives.open_zip(path, "images") as archive:
        (info,) = archives.image_members(archive)
        with pytest.raises(DataError, match=r"a\.zip' is damaged: member 'a/1\.png'"):
            archives.read_member(archive, info)


def test_decode_gives_channels_first() -> None:
    assert decode.decode_image(png(255, "1"), "x", "1").tolist() == np.ones((1, 4, 4)).tolist()
    color = Image.new("RGB", (3, 2), (10, 20, 30))
    file = io.BytesIO()
    color.save(file, "PNG")
    pixels = decode.decode_image(file.getvalue(), "x", "RGB")
    assert pixels.shape == (3, 2, 3)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]


def noise() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"not an image", png()[:40], noise()[:800]])
def test_decode_names_the_file_that_is_no_image(data: bytes) -> None:
    with pytest.raises(DataError, match=r"'cat\.png'"):
        decode.decode_image(data, "cat.png", "L")


def test_decode_refuses_absurd_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 10)
    with pytest.raises(DataError, match="4 x 4 pixels; refused"):
        decode.decode_image(png(), "x", "L")
