"""Omniglot from the real archives."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from fsb_omniglot.archives import BACKGROUND, DIGEST, EVALUATION, read_part
from fsb_omniglot.omniglot import Omniglot
from PIL import Image

from fewshot_bench.data.images import LabeledImages, Splits
from fewshot_bench.data.table import ClassTable
from fewshot_bench.episode import Task
from fewshot_bench.errors import DataError
from fewshot_bench.sampling.open import InOrderSampler


@pytest.fixture(scope="module")
def root(fsb_data: Path) -> Path:
    return fsb_data / "omniglot"


@pytest.fixture(scope="module")
def official(root: Path, data_cache: Path) -> Splits:
    return Omniglot().load(root, data_cache)


def parts(splits: Splits) -> list[LabeledImages]:
    assert splits.validation is not None
    return [splits.train, splits.validation, splits.test]


def characters(images: LabeledImages) -> set[str]:
    return {name.partition("/rot")[0] for name in images.class_names}


def test_official_split(official: Splits, root: Path) -> None:
    train, validation, test = parts(official)
    assert len(characters(train)) + len(characters(validation)) == 964
    assert len(test.counts) == 659
    assert 0.15 * 964 <= len(validation.counts) <= 0.20 * 964
    assert len(train.counts) == 4 * len(characters(train))
    assert train.image_shape == (1, 28, 28)
    assert set(np.unique(test.images)) == {0, 255}
    assert 0.03 < (test.images == 255).mean() < 0.15  # ink is 255, and there is little of it
    assert official.digest == DIGEST
    assert any("Braille/character01" in note for note in official.notes)
    families = [set(part.families.tolist()) for part in (train, validation, test)]
    assert [len(f) for f in families][2] == 20
    assert not families[0] & families[1]
    assert len(families[0] | families[1]) == 30
    assert test.family_names[test.families[0]] == test.class_names[0].partition("/")[0]


def test_in_order_is_as_tensorflow_datasets_delivers(official: Splits) -> None:
    """Check values of that reader: its first class ends at record 9,232 of 13,180, and these are
    the characters, by the numbers of their files, of the first task of five."""
    test = official.test
    last = test.order.reshape(659, 20).max(1)
    first = last.argsort()[:5]
    assert (test.order <= last[first[0]]).sum() == 9232
    assert [test.class_names[i] for i in first] == [
        "Manipuri/character37",  # 1355
        "Old_Church_Slavonic_(Cyrillic)/character05",  # 1393
        "Ge_ez/character26",  # 1114
        "Atemayar_Qelisayer/character15",  # 0999
        "Keble/character02",  # 1247
    ]
    sampler = InOrderSampler(ClassTable(test), Task(5, 5, 15), 0)
    indices = sampler(torch.arange(131))
    assert sampler.length == 131
    assert indices.class_ids[0].tolist() == first.tolist()
    family = test.families[indices.class_ids]
    pairs = [(family[:, i] == family[:, j]).mean() for i, j in combinations(range(5), 2)]
    assert sum(pairs) == pytest.approx(0.43, abs=0.005)
    assert not (family == family[:, :1]).all(1).any()


def test_in_order_of_the_files(root: Path, data_cache: Path) -> None:
    test = Omniglot(order="files").load(root, data_cache).test
    indices = InOrderSampler(ClassTable(test), Task(5, 5, 15), 0)(torch.arange(131))
    assert indices.class_ids.flatten().tolist() == list(range(655))
    assert indices.support.flatten(1)[0, :7].tolist() == [0, 1, 2, 3, 4, 20, 21]


def test_black_ink(official: Splits, root: Path, data_cache: Path) -> None:
    black = Omniglot(ink="black")
    splits = black.load(root, data_cache)
    assert np.array_equal(splits.test.images, 255 - official.test.images)
    assert np.array_equal(splits.train.images, 255 - official.train.images)
    assert any("ink is 0, paper 255" in note for note in splits.notes)


@pytest.mark.parametrize("split", ["official", "vinyals", "random"])
def test_no_character_is_in_two_splits(split: str, root: Path, data_cache: Path) -> None:
    sets = [characters(part) for part in parts(Omniglot(split=split).load(root, data_cache))]  # type: ignore[arg-type]
    assert sum(len(s) for s in sets) == len(set.union(*sets)) == 1623


def test_vinyals_and_random_sizes(root: Path, data_cache: Path) -> None:
    vinyals = parts(Omniglot(split="vinyals").load(root, data_cache))
    assert [len(part.counts) for part in vinyals] == [4112, 688, 1692]
    assert "Gurmukhi/character42/rot090" in vinyals[2].class_names
    unturned = Omniglot(split="vinyals", test_rotations=False).load(root, data_cache)
    assert len(unturned.test.counts) == 423
    random = parts(Omniglot(split="random", train_rotations=False).load(root, data_cache))
    assert [len(part.counts) for part in random] == [1100, 100, 423]
    other = Omniglot(split="random", split_seed=1).load(root, data_cache)
    assert other.test.class_names != random[2].class_names


def test_without_validation_all_training_characters_train(root: Path, data_cache: Path) -> None:
    splits = Omniglot(validation="none", train_rotations=False).load(root, data_cache)
    assert splits.validation is None
    assert len(splits.train.counts) == 964


def test_rotations_share_a_group_unless_twins_may_meet(
    official: Splits, root: Path, data_cache: Path
) -> None:
    train = official.train
    assert np.array_equal(np.bincount(train.groups)[np.unique(train.groups)] == 4, [True] * 818)
    own = train.images[: 4 * 20].reshape(4, 20, 28, 28)
    assert np.array_equal(own[1], np.rot90(own[0], 1, (1, 2)))
    twins = Omniglot(twins=True).load(root, data_cache).train
    assert len(np.unique(twins.groups)) == len(twins.counts)


def test_images_are_the_files_inverted_and_resized_as_pillow_does(
    official: Splits, root: Path
) -> None:
    name = official.test.class_names[100]
    with zipfile.ZipFile(root / EVALUATION.file) as archive:
        files = sorted(n for n in archive.namelist() if f"/{name}/" in n and n.endswith(".png"))
        with Image.open(io.BytesIO(archive.read(files[3]))) as image:
            theirs = 255 - np.asarray(image.resize((28, 28)).convert("L"))
    assert np.array_equal(official.test.images[100 * 20 + 3, 0], theirs)


def test_a_second_start_decodes_nothing(
    official: Splits, root: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(*_: object) -> None:
        pytest.fail("it is decoded again")

    monkeypatch.setattr("fsb_omniglot.archives.read_part", decoding)
    assert Omniglot().load(root, data_cache).digest == official.digest
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        Omniglot().load(root, data_cache / "another")


def test_verify_says_what_it_checked(root: Path) -> None:
    assert "1623 characters" in Omniglot().verify(root)


def repack(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Copy an archive without compression, in another order, with changed members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in reversed(old.namelist()):
            if name.endswith(".png"):
                new.writestr(name, change(name, old.read(name)))


def test_a_repacked_archive_passes_and_a_flipped_pixel_does_not(root: Path, tmp_path: Path) -> None:
    target = tmp_path / EVALUATION.file
    repack(root / EVALUATION.file, target, lambda name, data: data)
    names, images = read_part(tmp_path, EVALUATION)
    assert len(names) == 659
    assert images.shape == (13180, 1, 105, 105)

    def flip(name: str, data: bytes) -> bytes:
        if not name.endswith("character01/0965_01.png"):
            return data
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(image)
        pixels[50, 50] = ~pixels[50, 50]
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    repack(root / EVALUATION.file, target, flip)
    with pytest.raises(DataError) as error:
        read_part(tmp_path, EVALUATION)
    text = str(error.value)
    assert str(target) in text
    assert f"expected {EVALUATION.content[:12]}" in text
    assert "659 characters" in text


def test_missing_and_truncated_archives_are_named(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / BACKGROUND.file, tmp_path)
    with pytest.raises(DataError, match=r"images_evaluation\.zip.*659 characters"):
        Omniglot().load(tmp_path, tmp_path / "cache")
    data = (root / EVALUATION.file).read_bytes()
    (tmp_path / EVALUATION.file).write_bytes(data[:-1000])
    with pytest.raises(DataError, match=r"images_evaluation\.zip.*not a complete zip.*659"):
        Omniglot().load(tmp_path, tmp_path / "cache")
    (tmp_path / EVALUATION.file).write_bytes(data[:100_000] + b"\0" * 64 + data[100_064:])
    with pytest.raises(DataError, match=r"images_evaluation\.zip.*(damaged|is a damaged image)"):
        Omniglot().load(tmp_path, tmp_path / "cache")


def test_vinyals_lists_are_checked(root: Path, data_cache: Path, tmp_path: Path) -> None:
    below = tmp_path / "omniglot"
    below.mkdir()
    for part in (BACKGROUND, EVALUATION):
        (below / part.file).symlink_to(root / part.file)
    with pytest.raises(DataError, match="--split vinyals needs the lists"):
        Omniglot(split="vinyals").load(below, data_cache)
    lists = tmp_path / "splits" / "omniglot_vinyals"
    shutil.copytree(root.parent / "splits" / "omniglot_vinyals", lists)
    (lists / "test.txt").chmod(0o644)
    lines = (lists / "test.txt").read_text().split()
    (lists / "test.txt").write_text("\n".join(["Klingon/character01/rot000", *lines[1:]]))
    with pytest.raises(DataError, match=r"test\.txt.*unknown 'Klingon/character01'"):
        Omniglot(split="vinyals").load(below, data_cache)
