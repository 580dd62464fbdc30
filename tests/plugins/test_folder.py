"""A user's own folder or archive."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fsb_folder.folder import Folder
from PIL import Image

import fewshot_bench
from fewshot_bench.errors import ConfigError, DataError

CLASSES = {"ant": 2, "bee": 3, "cat": 4, "dog": 2, "eel": 3, "fox": 2, "gnu": 2, "hen": 2}


def picture(value: int, size: tuple[int, int] = (12, 12)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 255 - value)).save(file, "PNG")
    return file.getvalue()


def members(top: str = "") -> dict[str, bytes]:
    return {
        f"{top}{name}/{i}.png": picture(20 * c + i, (12, 12 + i))
        for c, (name, count) in enumerate(CLASSES.items())
        for i in range(count)
    }


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_directory(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def folder(path: Path, **options: object) -> Folder:
    settings = {"image_size": 8, "resize": "nearest", "test_share": 0.25} | options
    return Folder(path=str(path), **settings)  # type: ignore[arg-type]


def test_directory_and_archive_are_the_same_data(tmp_path: Path) -> None:
    places = [
        as_zip(tmp_path / "flat.zip", members()),
        as_zip(tmp_path / "top.zip", members("photos/2020/") | {"photos/readme.txt": b""}),
        as_directory(tmp_path / "plain", members()),
        as_directory(tmp_path / "below", members("photos/")),
    ]
    loaded = [folder(place).load(None, tmp_path / "cache") for place in places]
    first = loaded[0]
    assert first.train.image_shape == (3, 8, 8)
    for splits in loaded[1:]:
        assert splits.digest == first.digest
        assert splits.train.class_names == first.train.class_names
        assert np.array_equal(splits.train.images, first.train.images)


def test_images_go_with_their_class_and_splits_are_disjoint(tmp_path: Path) -> None:
    splits = folder(as_zip(tmp_path / "a.zip", members())).load(None, tmp_path)
    assert splits.validation is not None
    seen: list[str] = []
    for part in (splits.train, splits.validation, splits.test):
        for c, name in enumerate(part.class_names):
            seen.append(name)
            assert part.counts[c] == CLASSES[name]
            start = int(part.counts[:c].sum())
            red = part.images[start : start + CLASSES[name], 0, 0, 0].tolist()
            number = list(CLASSES).index(name)
            assert red == [20 * number + i for i in range(CLASSES[name])]
    assert sorted(seen) == sorted(CLASSES)


def test_gray(tmp_path: Path) -> None:
    splits = folder(as_zip(tmp_path / "a.zip", members()), color="gray").load(None, tmp_path)
    assert splits.train.image_shape == (1, 8, 8)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    place = as_directory(tmp_path / "a", members())
    before = folder(place).load(None, tmp_path / "cache")
    (place / "ant" / "0.png").write_bytes(picture(99, (40, 40)))
    after = folder(place).load(None, tmp_path / "cache")
    assert before.digest != after.digest


def test_classes_kept_together_stay_in_one_split_and_never_meet(tmp_path: Path) -> None:
    place = as_zip(tmp_path / "a.zip", members())
    for seed in range(8):
        splits = folder(place, keep_together="hen, ant", split_seed=seed).load(None, tmp_path)
        for part in (splits.train, splits.validation, splits.test):
            if part is None or "ant" not in part.class_names:
                continue
            groups = dict(zip(part.class_names, part.groups.tolist(), strict=True))
            assert groups["hen"] == groups["ant"]
            assert list(groups.values()).count(groups["ant"]) == 2
            start = int(part.counts[: part.class_names.index("hen")].sum())
            assert part.images[start, 0, 0, 0] == 20 * 7  # images moved with their class
    with pytest.raises(DataError, match="no class 'yak'"):
        folder(place, keep_together="yak,ant").load(None, tmp_path)


def test_split_file(tmp_path: Path) -> None:
    place = as_zip(tmp_path / "a.zip", members())
    file = tmp_path / "split.csv"
    file.write_text("class,split\nant,train\nbee,train\ncat,val\ndog,test\n")
    splits = folder(place, split_file=str(file)).load(None, tmp_path)
    assert splits.train.class_names == ("ant", "bee")
    assert splits.test.class_names == ("dog",)
    with pytest.raises(DataError, match="tears bee, dog apart"):
        folder(place, split_file=str(file), keep_together="bee,dog").load(None, tmp_path)
    file.write_text("class,split\nant,train\nyak,test\n")
    with pytest.raises(DataError, match="no class 'yak'"):
        folder(place, split_file=str(file)).load(None, tmp_path)


def test_copies_are_told(tmp_path: Path) -> None:
    files = members() | {"ant/copy.png": picture(0), "hen/copy.png": picture(0)}
    splits = folder(as_zip(tmp_path / "a.zip", files)).load(None, tmp_path)
    assert any("2 files are copies" in note and "1 files occur" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds no PNG or JPEG image"),
        ({"1.png": b"", "a/2.png": b""}, r"'1\.png' is not in a class's folder"),
        ({"train/a/1.png": b"", "test/a/1.png": b""}, "is not in a class's folder"),
        ({"a/1.png": b"no", "b/1.png": b"no"}, r"a/1\.png' is not a PNG"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for place in (as_zip(tmp_path / "x.zip", files), as_directory(tmp_path / "x", files)):
        with pytest.raises(DataError, match=message):
            folder(place).load(None, tmp_path / "cache")


def test_bad_options_and_missing_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder or zip archive .*none"):
        folder(tmp_path / "none").load(None, tmp_path)
    with pytest.raises(ConfigError, match="--test-share"):
        folder(tmp_path, test_share=1.5)
    with pytest.raises(ConfigError, match="--image-size"):
        folder(tmp_path, image_size=0)


def test_too_few_validation_classes(tmp_path: Path) -> None:
    """The message names the option that does without them, where there is one that does."""
    folder = as_directory(tmp_path / "x", members())
    lists = tmp_path / "lists.csv"
    parts = ["train"] * 3 + ["validation"] + ["test"] * 4
    rows = [f"{name},{part}" for name, part in zip(CLASSES, parts, strict=True)]
    lists.write_text("\n".join(["class,split", *rows]), "utf-8")
    settings = {"dataset": f"folder:{folder}", "way": 2, "shot": 1, "query": 1, "image_size": 12}
    settings |= {
        "episodes": 2,
        "runs_dir": str(tmp_path / "runs"),
        "cache_dir": str(tmp_path / "c"),
    }
    with pytest.raises(ConfigError) as told:
        fewshot_bench.run("nearest-centroid", **settings)
    assert str(told.value).endswith(
        "the validation split has 1 that can be in one episode; use a --way of at most 1. To do "
        "without validation: --validation-share 0."
    )
    record = fewshot_bench.run("nearest-centroid", **settings, validation_share=0)
    assert record["validation"] is None
    with pytest.raises(ConfigError, match=r"a --way of at most 1\.$"):
        fewshot_bench.run("nearest-centroid", **settings, split_file=str(lists))
    del settings["image_size"]
    settings |= {"dataset": "glyphs", "train_classes": 4, "test_classes": 4}
    with pytest.raises(ConfigError, match="To do without validation: --validation-classes 0"):
        fewshot_bench.run("nearest-centroid", **settings, validation_classes=1)


def test_caltech(fsb_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fsb_data / "caltech101" / "caltech101_84x84.zip"
    dataset = Folder(path=str(path), keep_together="Faces,Faces_easy")
    splits = dataset.load(None, tmp_path)
    assert splits.validation is not None
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part.counts) for part in parts] == [65, 16, 20]
    assert sum(len(part.images) for part in parts) == 8677
    assert splits.train.image_shape == (3, 84, 84)
    holders = [part for part in parts if {"Faces", "Faces_easy"} & set(part.class_names)]
    assert len(holders) == 1

    # What is decoded once is not decoded again.
    monkeypatch.setattr(Folder, "_decode", lambda *_: pytest.fail("it is decoded again"))
    assert dataset.load(None, tmp_path).digest == splits.digest
