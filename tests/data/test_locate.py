"""Where data are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot_bench.data.download import downloads_folder, locate
from fewshot_bench.errors import DataError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSB_DATA", raising=False)


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    fetched = folder(downloads_folder("cats", cache))
    assert locate("cats", cache_dir=cache) == fetched
    hooked = folder(tmp_path / "hooked")
    assert locate("cats", None, lambda name: hooked, cache_dir=cache) == hooked
    monkeypatch.setenv("FSB_DATA", str(tmp_path / "env"))
    assert locate("cats", None, lambda name: hooked, cache_dir=cache) == hooked
    named = folder(tmp_path / "env" / "cats")
    assert locate("cats", None, lambda name: hooked, cache_dir=cache) == named
    root = folder(tmp_path / "root")
    assert locate("cats", root, lambda name: hooked, cache_dir=cache) == root
    below = folder(root / "cats")
    assert locate("cats", str(root), cache_dir=cache) == below


def test_a_named_root_is_the_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSB_DATA", str(tmp_path))
    folder(tmp_path / "cats")
    with pytest.raises(DataError, match=r"--data-root .*no such folder"):
        locate("cats", tmp_path / "none")


def test_the_message_lists_places_and_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSB_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as error:
        locate("cats", cache_dir=tmp_path / "cache")
    text = str(error.value)
    assert str(tmp_path / "env" / "cats") in text
    assert str(downloads_folder("cats", tmp_path / "cache")) in text
    assert "--data-root" in text
    assert "FSB_DATA" in text


def test_a_download_appears_when_it_is_complete(tmp_path: Path) -> None:
    def fails(target: Path) -> None:
        (target / "first").write_text("1")
        raise DataError("no connection.")

    with pytest.raises(DataError, match="no connection"):
        locate("cats", download=fails, cache_dir=tmp_path)
    target = downloads_folder("cats", tmp_path)
    assert not target.exists()

    def works(target: Path) -> None:
        assert (target / "first").read_text() == "1"  # what was fetched before is kept
        (target / "second").write_text("2")

    assert locate("cats", download=works, cache_dir=tmp_path) == target
    assert sorted(path.name for path in target.iterdir()) == ["first", "second"]
