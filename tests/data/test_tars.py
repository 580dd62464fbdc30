"""Tar archives: only what was asked for comes out, and nothing of it lies elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fewshot_bench.data import archives
from fewshot_bench.data.archives import extract_files
from fewshot_bench.errors import DataError


def make_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o4777
                archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_only_what_was_asked_for_comes_out(tmp_path: Path) -> None:
    members = {"a/x": b"yes", "a/y": b"no", "../evil": b"no", "/etc/evil": b"no"}
    extract_files(make_tar(tmp_path / "t.tgz", {**members}), tmp_path / "out" / "in", ["a/x"])
    out = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(out) == ["out/in/a/x", "t.tgz"]
    assert (tmp_path / "out/in/a/x").read_bytes() == b"yes"
    assert not (tmp_path / "out/in/a/x").stat().st_mode & 0o7000


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "t.tgz", {"a/x": link("a/x", "/etc/passwd", kind)})
    with pytest.raises(DataError, match="member 'a/x' is no plain file"):
        extract_files(path, tmp_path / "out", ["a/x"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """The archive's own link is never made, so the file behind it lies where it was asked for."""
    (tmp_path / "away").mkdir()
    members = {"a": link("a", str(tmp_path / "away")), "a/x": b"1"}
    extract_files(make_tar(tmp_path / "t.tgz", members), tmp_path / "out", ["a/x"])
    assert list((tmp_path / "away").iterdir()) == []
    assert (tmp_path / "out" / "a" / "x").read_bytes() == b"1"


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tar(tmp_path / "t.tgz", {"a": bytes(100), "b": b"", "c": b""})
    monkeypatch.setattr(archives, "MAX_TAR_FILE_BYTES", 99)
    with pytest.raises(DataError, match="member 'a' is of 100 bytes"):
        extract_files(path, tmp_path / "out", ["a"])
    monkeypatch.setattr(archives, "MAX_TAR_MEMBERS", 2)
    with pytest.raises(DataError, match="more than 2 members"):
        extract_files(path, tmp_path / "out", ["z"])


def test_wrong_and_truncated_archives_are_told(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "t.tgz", {"a": b"1" * 10_000})
    with pytest.raises(DataError, match="has no file 'b'; it is another archive"):
        extract_files(path, tmp_path / "out", ["b"])
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError, match=r"not a complete tar archive|cannot unpack"):
        extract_files(path, tmp_path / "out", ["a"])
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a complete tar archive"):
        extract_files(path, tmp_path / "out", ["a"])
