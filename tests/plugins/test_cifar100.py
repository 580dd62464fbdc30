"""CIFAR-FS and FC100, on a stand-in of CIFAR-100's layout: 4 superclasses of 2 classes."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsb_cifar100 import files
from fsb_cifar100.cifar100 import FC100, CifarFS

from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import DataError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.testing.suites import suite

FAMILIES = ["fish", "trees", "insects", "people"]
CLASSES = ["bee", "boy", "carp", "girl", "maple", "moth", "oak", "trout"]
COARSE = [2, 3, 0, 3, 1, 2, 1, 0]  # of each class
LISTS = {
    "cifar_fs": {
        "train": [["insects", "bee"], ["insects", "moth"], ["fish", "carp"], ["trees", "oak"]],
        "val": [["trees", "maple"], ["people", "boy"]],
        "test": [["people", "girl"], ["fish", "trout"]],
    },
    "fc100": {"train": ["insects", "fish"], "val": ["trees"], "test": ["people"]},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as torchvision unpacks them; their md5 is taken for the published one."""
    folder = tmp_path / "data" / "cifar-fs"
    (folder / "cifar-100-python").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, each in (("train", 5), ("test", 2)):
        fine = rng.permutation(np.repeat(np.arange(8), each)).tolist()
        part = {
            "data": np.repeat(np.array(fine, np.uint8)[:, None], 3072, 1),
            "fine_labels": fine,
            "coarse_labels": [COARSE[i] for i in fine],
        }
        (folder / "cifar-100-python" / name).write_bytes(pickle.dumps(part, 4))
    names = {"fine_label_names": CLASSES, "coarse_label_names": FAMILIES}
    (folder / "cifar-100-python" / "meta").write_bytes(pickle.dumps(names, 4))
    for split, parts in LISTS.items():
        (tmp_path / "data" / "splits" / split).mkdir(parents=True)
        for part, entries in parts.items():
            path = tmp_path / "data" / "splits" / split / f"{part}.json"
            path.write_text(json.dumps(entries))
    md5 = {
        name: hashlib.md5((folder / "cifar-100-python" / name).read_bytes()).hexdigest()
        for name in files.MD5
    }
    monkeypatch.setattr(files, "MD5", md5)
    return folder


@pytest.mark.parametrize("kind", [CifarFS, FC100])
def test_classes_go_where_the_lists_have_them(kind: Any, root: Path, tmp_path: Path) -> None:
    splits = kind().load(root, tmp_path / "cache")
    again = kind().load(root, tmp_path / "cache")
    assert splits.digest == again.digest
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        images = getattr(splits, name)
        listed = LISTS[kind.lists][part]
        if kind is CifarFS:
            assert sorted(images.class_names) == sorted(label for _, label in listed)
        else:
            assert set(np.array(images.family_names)[images.families]) == set(listed)
        assert images.counts.tolist() == [7] * len(images.class_names)
        assert images.image_shape == (3, 32, 32)
        # a picture's gray value is its class
        shown = images.images[:, 0, 0, 0].reshape(-1, 7)
        assert [CLASSES[row[0]] for row in shown] == list(images.class_names)
        assert (shown == shown[:, :1]).all()
        for label, family in zip(images.class_names, images.families, strict=True):
            assert images.family_names[family] == FAMILIES[COARSE[CLASSES.index(label)]]


def test_verify_says_what_there_is(root: Path) -> None:
    assert "56 images of 8 classes" in CifarFS().verify(root)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "cifar-100-python/test").unlink(), "no file .*cifar-100-python/test"),
        (lambda r: (r.parent / "splits/fc100/val.json").unlink(), "cannot read the class list"),
        (
            lambda r: (r.parent / "splits/fc100/val.json").write_text('["moss"]'),
            "superclass 'moss'",
        ),
        (lambda r: (r.parent / "splits/fc100/val.json").write_text('["fish"]'), "share classes"),
        (lambda r: (r.parent / "splits/fc100").rename(r / "x"), "lists train.json, val.json"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    spoil: Any, message: str, root: Path, tmp_path: Path
) -> None:
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        FC100().load(root, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_files_of_another_content_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"not those of CIFAR-100 \(md5 of 'train'\)"):
        CifarFS().load(root, tmp_path / "cache")


@pytest.mark.parametrize(("split", "sizes"), [("cifar_fs", (64, 16, 20)), ("fc100", (12, 4, 4))])
def test_the_published_lists_have_these_sizes(
    split: str, sizes: tuple[int, ...], fsb_data: Path
) -> None:
    lists = [fsb_data / "splits" / split / f"{part}.json" for part in ("train", "val", "test")]
    assert tuple(len(json.loads(path.read_text())) for path in lists) == sizes


@pytest.mark.parametrize("name", ["cifar-fs", "fc100", "mini-imagenet"])
def test_methods_can_be_configured_for_it(name: str) -> None:
    assert configure("protonet", dataset=name).dataset == name


@pytest.mark.parametrize("name", ["cifar-fs", "fc100"])
def test_the_conformance_suite_passes(name: str, root: Path) -> None:
    found = suite(Registry.discover(), name, data_root=str(root))
    outcomes = found.run()
    assert [(o.id, o.message) for o in outcomes if o.status == "failed"] == []
    assert any(o.status == "passed" for o in outcomes)


class _Code:
    """What a hostile pickle holds: a call."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_of_code_is_refused_and_not_run(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no file of plain values.*it asks for"):
        files.plain_values(pickle.dumps({"data": _Code()}, protocol), "train")
    assert not Path("ran").exists()
    with pytest.raises(DataError, match="no file of plain values"):
        files.plain_values(b"no pickle", "train")
    with pytest.raises(DataError, match="no dictionary"):
        files.plain_values(pickle.dumps([1], protocol), "train")


def test_a_download_is_fetched_checked_and_unpacked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "published.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root / "cifar-100-python", "cifar-100-python")
    monkeypatch.setattr(files, "URL", archive.as_uri())
    monkeypatch.setattr("fewshot_bench.data.download.time.sleep", lambda _: None)
    with pytest.raises(DataError, match="md5 of the file is"):
        CifarFS().download(tmp_path / "new")
    assert not (tmp_path / "new" / "cifar-100-python").exists()
    monkeypatch.setattr(files, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    CifarFS().download(tmp_path / "new")
    for name in files.MD5:
        assert files.load(tmp_path / "new", name).keys() == files.load(root, name).keys()
