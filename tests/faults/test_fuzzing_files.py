"""Whatever stands in an archive, an image, a split file or metadata: one line and an exit code.

As in ``test_fuzzing.py``.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot_bench.data.archives import image_members, open_zip, read_member
from fewshot_bench.data.decode import decode_image
from fewshot_bench.data.splits import parse_split
from fewshot_bench.errors import DataError
from tests.command_line import fsb
from tests.faults.files import noise, zipped
from tests.faults.fuzzing import FEW, JSON, MANY, TEXTS, bounded, check
from tests.faults.regressions import SPLITS


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_bytes_in_an_archive(count: int, tmp_path: Path) -> None:
    members = {f"{label}/{i}.png": noise() for label in "ab" for i in range(2)}
    archives = [zipped({**members}), zipped({**members}, zipfile.ZIP_DEFLATED)]
    path = tmp_path / "a.zip"

    @bounded(4 * count)
    @given(st.sampled_from(archives), st.data())
    def holds(whole: bytes, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(whole)) | st.integers(len(whole) - 400, len(whole)))
        gone, put = data.draw(st.integers(0, 8)), data.draw(st.binary(max_size=8))
        path.write_bytes(whole[:at] + put + whole[at + gone :])
        try:
            with open_zip(path, "images") as archive:
                for info in image_members(archive):
                    pixels = decode_image(read_member(archive, info), info.filename, "L")
                    assert pixels.nbytes <= 50_000_000
        except DataError:
            return

    holds()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_bytes_in_an_image(count: int) -> None:
    from PIL import Image

    jpeg = io.BytesIO()
    Image.open(io.BytesIO(noise())).save(jpeg, "JPEG")

    @bounded(4 * count)
    @given(st.sampled_from([noise(), jpeg.getvalue()]), st.data())
    def holds(whole: bytes, data: st.DataObject) -> None:
        at, put = data.draw(st.integers(0, len(whole))), data.draw(st.binary(max_size=8))
        bad = whole[:at] + put + whole[at + len(put) :]
        try:
            pixels = decode_image(bad, "x", "RGB")
        except DataError:
            return
        assert pixels.ndim == 3

    holds()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_any_split_file(count: int) -> None:
    @bounded(4 * count)
    @given(st.sampled_from([".toml", ".json", ".csv", ".x"]), JSON | st.text(), st.booleans())
    def holds(suffix: str, value: Any, as_json: bool) -> None:
        text = value if isinstance(value, str) and not as_json else json.dumps(value)
        try:
            lists = parse_split(text, suffix, "s")
        except DataError:
            return
        assert set(lists) == {"train", "validation", "test"}

    holds()


@pytest.mark.parametrize(("suffix", "text"), SPLITS)
def test_split_files_that_were_found(suffix: str, text: str) -> None:
    with pytest.raises(DataError):
        parse_split(text, suffix, "s")


POINTS = st.sampled_from(
    ["[fewshot_bench]", "[fewshot_bench.commands]", "a = json", "b = no.such", "run = json:loads",
     "c = ../x", "= x", "d =", "e = :", "é = json:x"]
)  # fmt: skip


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY // 5, marks=pytest.mark.exhaustive)])
def test_any_metadata_of_a_plugin(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "odd_plugin-1.0.dist-info"

    @bounded(count)
    @given(st.lists(POINTS | TEXTS, max_size=5), TEXTS, TEXTS)
    def holds(points: list[str], name: str, version: str) -> None:
        shutil.rmtree(info, ignore_errors=True)
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_bytes(metadata.encode("utf-8", "replace"))
        (info / "entry_points.txt").write_bytes("\n".join(points).encode("utf-8", "replace"))
        check(fsb("plugins"))
        said = fsb("run", "nearest-centroid", "--way", "x")
        check(said)
        assert "--way: expected an integer" in said.err  # nothing else breaks

    holds()
