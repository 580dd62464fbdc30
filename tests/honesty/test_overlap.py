"""Classes that took part in training are not tested unnoticed.

A class is identified by the content of its images: under another name, in another folder or data
set, rotated by quarter turns or inverted, it is the same class. If it would be tested, the run or
evaluation is refused; with ``--allow-overlap`` the result is marked in the record and in every
table. The list of images that a run has used belongs to its weights, also through ``--init``. A
copy that was resized, re-encoded or changed in a single pixel cannot be detected (if most classes
have the same names, a note asks), and the training data of a bare weights file are unknown: this
is stated.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewshot_bench
from fewshot_bench.config.resolve import configure
from fewshot_bench.data.overlap import SEEN_FILE, TRAINING, find_overlap, same_names, seen_images
from fewshot_bench.errors import ConfigError, DataError, RecordError
from fewshot_bench.report.page import html
from fewshot_bench.results.comparison import compare
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.formats.terminal import terminal
from fewshot_bench.results.record import read_record, write_record
from fewshot_bench.results.runs import load_runs
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.predict import classify
from fewshot_bench.utils.inputs import content_of
from tests.command_line import InProcess
from tests.faults.broken_off import Breaking
from tests.honesty.tiny_folder import SETTINGS, TEST, TRAIN, VALIDATION, draw, picture, split


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures of eight animals and their split."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "animals", (*TRAIN, *VALIDATION, *TEST))
    split(tmp_path / "split.csv")
    return tmp_path


def run(**changes: Any) -> tuple[dict[str, Any], str]:
    """A run on the animals, and its folder."""
    settings = {"dataset": "folder:animals", "split_file": "split.csv", **SETTINGS, **changes}
    record = fewshot_bench.run(settings.pop("method", "protonet"), **settings)
    return record, f"runs/{record['id']}"


def others(home: Path, copies: dict[str, str], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Changes that evaluate other data: copies {name there: name here}, and new classes."""
    where = draw(home / "others", ("ram", "doe", "sow", "yak", *extra))
    for name, origin in copies.items():
        shutil.copytree(home / "animals" / origin, where / name)
    file = split(home / "others.csv", ("ram", "doe"), (), ("sow", "yak", *extra, *copies))
    return {"dataset": f"folder:{where}", "split_file": file}


def test_a_class_that_was_renamed_and_copied(home: Path) -> None:
    """A training class under another name in another folder is found and refused."""
    _, folder = run()
    changes = others(home, {"zebu": "ant", "wolf": "dog"})
    with pytest.raises(DataError, match="2 of the 4 test classes took part in training and valid"):
        fewshot_bench.evaluate(folder, **changes)
    assert len(list(Path("runs").iterdir())) == 1
    record = fewshot_bench.evaluate(folder, **changes, allow_overlap=True)
    overlap = record["overlap"]
    assert (overlap["classes"], overlap["of"], overlap["images"]) == (2, 4, 12)
    assert (overlap["training"], overlap["validation"]) == (1, 1)
    told = {one["class"]: (one["as"], one["part"], one["images"]) for one in overlap["found"]}
    assert told == {"zebu": ("ant", "training", 6), "wolf": ("dog", "validation", 6)}
    assert all(one["run"] == Path(folder).name for one in overlap["found"])
    assert read_record(Path("runs") / record["id"])["overlap"] == overlap
    assert any("'zebu' (as 'ant')" in note for note in record["notes"])


def test_every_table_marks_it(home: Path) -> None:
    """An allowed overlap is marked, with the names of the classes, in every format."""
    _, folder = run()
    fewshot_bench.evaluate(folder, **others(home, {"zebu": "ant"}), allow_overlap=True)
    comparison = compare(load_runs([Path("runs")])[0])
    words = "protonet: 1 of its 3 test classes took part in training (zebu)"
    for text in (
        terminal(comparison, 200, lambda text, _: text),
        markdown(comparison),
        html(comparison),
    ):
        assert text.count("‡") >= 2
        assert words in " ".join(text.split())
    assert r"$^\ddagger$" in latex(comparison)
    assert "1 of its 3 test classes" in latex(comparison)
    tables = json.loads(to_json(comparison))["tables"]
    cells = [cell for table in tables for row in table["rows"] for cell in row["settings"].values()]
    assert sorted(cell["seen_classes"] for cell in cells) == [0, 1]
    assert "seen_classes" in to_csv(comparison).splitlines()[0]


def test_a_class_twice_in_one_data_set(home: Path) -> None:
    """A class is in a folder twice, once in training and once in the test: the run is refused."""
    shutil.copytree(home / "animals/bee", home / "animals/bee copy")
    split(home / "split.csv", test=(*TEST, "bee copy"))
    with pytest.raises(DataError, match=r"1 of the 4 test classes .*: 'bee copy' \(as 'bee'\)"):
        run()
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
    record, _ = run(allow_overlap=True)
    assert record["overlap"]["found"][0]["run"] is None
    assert record["overlap"]["classes"] == 1


def test_one_image_of_two_classes(home: Path) -> None:
    """A test class shares one image in six with a training class: the run is refused."""
    picture("ant", 0).save(home / "animals/fox/0.png")
    with pytest.raises(DataError, match=r"'fox' \(as 'ant', 1 of 6 images\)"):
        run()


def test_a_single_image_of_many_is_noted(home: Path) -> None:
    """One shared image in twenty is a note only: some characters are a single line."""
    for number in range(6, 20):
        picture("fox", number).save(home / f"animals/fox/{number}.png")
    picture("ant", 0).save(home / "animals/fox/0.png")
    record, _ = run()
    assert (record["overlap"]["classes"], record["overlap"]["images"]) == (0, 1)
    assert any("1 single image of the test split is identical" in n for n in record["notes"])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotated_copy(home: Path, turns: int) -> None:
    """A training class rotated by a quarter turn counts as the same class."""
    for number in range(6):
        turned = np.rot90(np.asarray(picture("cat", number)), turns)
        Image.fromarray(turned).save(home / f"animals/gnu/{number}.png")
    with pytest.raises(DataError, match=r"'gnu' \(as 'cat'\)"):
        run()


def test_an_inverted_copy(home: Path) -> None:
    """A negative of a training or validation class, rotated or not, is the same class."""
    for name, origin in (("gnu", "cat"), ("hen", "dog")):
        for number in range(6):
            negative = 255 - np.rot90(np.asarray(picture(origin, number)), number % 2)
            Image.fromarray(negative).save(home / f"animals/{name}/{number}.png")
    with pytest.raises(DataError, match=r"'gnu' \(as 'cat'\) and 'hen' \(as 'dog'\)"):
        run()
    record, _ = run(allow_overlap=True)
    assert (record["overlap"]["images"], record["overlap"]["of"]) == (12, 3)
    assert (record["overlap"]["training"], record["overlap"]["validation"]) == (1, 1)


def test_limits_of_detection(home: Path) -> None:
    """A copy with one changed pixel is not found: the limit that the documentation states."""
    for number in range(6):
        pixels = np.array(picture("cat", number))
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(home / f"animals/gnu/{number}.png")
    assert run()[0]["overlap"]["images"] == 0


def test_copies_that_kept_their_names(home: Path) -> None:
    """Re-encoded copies of training classes are not found, and a note asks about the names."""
    _, folder = run()
    for name in ("ant", "bee", "dog"):
        (home / "copies" / name.upper()).mkdir(parents=True)
        for number in range(6):
            near = np.asarray(picture(name, number)) // 2 * 2
            Image.fromarray(near).save(home / "copies" / name.upper() / f"{number}.png")
    draw(home / "copies", ("yak", "ram"))

    def evaluated(*test: str) -> dict[str, Any]:
        file = split(home / "copies.csv", ("ram",), (), test)
        return fewshot_bench.evaluate(folder, dataset="folder:copies", split_file=file)

    record = evaluated("ANT", "BEE", "DOG", "yak")
    assert record["overlap"]["classes"] == 0
    told = {one["class"]: (one["as"], one["part"]) for one in record["overlap"]["same_names"]}
    assert told == {
        "ANT": ("ant", "training"), "BEE": ("bee", "training"), "DOG": ("dog", "validation"),
    }  # fmt: skip
    assert (
        "3 of the 4 test classes have names of classes that took part in training and validation "
        "(with different content), such as 'ANT': are these copies of the same images?"
    ) in record["notes"]
    assert "are these copies" in html(compare(load_runs([Path("runs")])[0]))
    record = evaluated("ANT", "yak")  # half of them may be chance
    assert record["overlap"]["same_names"] == []
    assert not any("are these copies" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("names", "others", "count"),
    [
        (["0", "1", "2"], ["0", "1", "2"], 0),
        (["class_3", "class_4"], ["class_3", "class_4"], 0),
        (["a", "B"], ["a", "b"], 0),
        (["train-00/character01", "label 7"], ["train-00/character01", "label 7"], 0),
        (["n01532829", "n00000003"], ["n01532829", "n00000003"], 0),  # half of them
        (["n01532829", "n02091831"], ["n01532829", "n02091831"], 2),
        (["Futurama_character01"], ["Futurama/character01/rot090"], 1),
        (["class_lion", "\u732b"], ["class-lion", "\u732b"], 2),
        ([], ["lion"], 0),
    ],
)
def test_names_that_only_number_a_class(names: list[str], others: list[str], count: int) -> None:
    """Numbers, letters and words such as class or character are not used as evidence."""
    assert len(same_names(names, others)) == count


def test_options_stay_as_in_the_run(home: Path) -> None:
    """A data set that is typed again, or another folder, uses the run's size, split and seed."""
    small = {"train_classes": 8, "validation_classes": 4, "test_classes": 4, "image_size": SETTINGS[
        "image_size"], "glyph_seed": 3}  # fmt: skip
    own = {n: v for n, v in SETTINGS.items() if n != "color"} | small
    record = fewshot_bench.run("protonet", dataset="glyphs", **own)
    folder = f"runs/{record['id']}"
    for typed in ("glyphs", "fewshot-bench:glyphs"):
        again = fewshot_bench.evaluate(folder, dataset=typed)
        assert again["config"]["dataset_options"] == record["config"]["dataset_options"]
        assert again["test"]["accuracy"] == record["test"]["accuracy"]
    shares = {"validation_share": 0.25, "test_share": 0.25}
    _, folder = run(split_file=None, split_seed=5, resize="nearest", **shares)
    shutil.copytree(home / "animals", home / "moved")
    moved = fewshot_bench.evaluate(folder, dataset="folder:moved")
    options = moved["config"]["dataset_options"]
    assert (options["split_seed"], options["resize"], options["color"]) == (5, "nearest", "gray")
    with pytest.raises(DataError, match="took part in training"):
        fewshot_bench.evaluate(folder, dataset="folder:moved", split_seed=6)


def test_other_data_look_as_in_training(home: Path) -> None:
    """Another kind of data set gives images of the size and kind of the training, or is refused."""
    _, folder = run()
    other = fewshot_bench.evaluate(folder, dataset="glyphs")
    assert other["config"]["dataset_options"]["image_size"] == SETTINGS["image_size"]
    with pytest.raises(ConfigError, match=r"--image-size: expected 16, .* got 20"):
        fewshot_bench.evaluate(folder, dataset="glyphs", image_size=20)
    with pytest.raises(ConfigError, match=r"--color: expected gray, .* got rgb"):
        fewshot_bench.evaluate(folder, color="rgb")
    with pytest.raises(ConfigError, match="--pixels decided the training of the run"):
        fewshot_bench.evaluate(folder, pixels="signed")


def test_other_channels_than_in_training(home: Path) -> None:
    """A network for images of any size is still not tested on images of another shape."""
    own = {n: v for n, v in SETTINGS.items() if n != "color"}
    record = fewshot_bench.run("nearest-centroid", dataset="glyphs", test_classes=8, **{
        n: v for n, v in own.items() if n != "backbone_channels"})  # fmt: skip
    with pytest.raises(ConfigError, match=r"gives images of 3x16x16 .* trained on 1x16x16"):
        fewshot_bench.evaluate(f"runs/{record['id']}", dataset="folder:animals")


def test_weights_remember_through_init(home: Path) -> None:
    """Classes that trained the run behind ``--init`` count for the run that starts from it."""
    _, first = run()
    changes = others(home, {}, ("tit", "owl"))
    _, second = run(**changes, init=first)
    third = {"dataset": "folder:animals", "split_file": split(home / "t.csv", TEST, (), TRAIN)}
    with pytest.raises(DataError, match=f"3 of the 3 .* in training of '{Path(first).name}'"):
        fewshot_bench.evaluate(second, **third)
    with pytest.raises(DataError, match=f"3 of the 3 .* in training of '{Path(first).name}'"):
        run(**third, init=second)


def test_init_of_unknown_origin(home: Path) -> None:
    """Weights without a list of their training images are used, and the record says so."""
    _, first = run()
    (Path(first) / "record.json").unlink()
    record, _ = run(init=first)
    assert any("there is no record" in note and first in note for note in record["notes"])
    (Path(first) / SEEN_FILE).unlink()
    record, _ = run(init=first)
    assert any("is not known" in note and first in note for note in record["notes"])
    assert record["overlap"]["unknown"]


PRETRAINED = """
from fewshot_bench import InputFile, Preset
from fsb_protonet.protonet import ProtoNet
from torch import nn


class Net(nn.Module):
    out_shape = (4, 3, 3)

    def __init__(self, image_shape):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[0], 4, 5, stride=5)

    def forward(self, images):
        return self.conv(images)


def with_file(image_shape, *, checkpoint: InputFile | None = None):
    return Net(image_shape)


def with_word(image_shape, *, pretrained: bool = False, weights: str = "", depth: int = 3):
    return Net(image_shape)


class Warm(ProtoNet):
    def __init__(self, task, backbone, *, start: InputFile | None = None):
        super().__init__(task, backbone)

    presets = {"quick": Preset()}
"""


FILE_NET, WORD_NET = ({"backbone": f"./own.py:with_{name}"} for name in ("file", "word"))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        (FILE_NET | {"backbone_checkpoint": "ck.pt"}, ["backbone-checkpoint"]),
        (FILE_NET, []),
        ({"method": "./own.py:Warm", "start": "ck.pt"}, ["start"]),
        (WORD_NET | {"backbone_pretrained": True}, ["backbone-pretrained"]),
        (WORD_NET | {"backbone_weights": "imagenet"}, ["backbone-weights"]),
        (WORD_NET, []),
        ({}, []),
    ],
)
def test_a_file_of_unknown_origin(home: Path, changes: dict[str, Any], flags: list[str]) -> None:
    """A file given by an option is reported as of unknown origin, and named as weights if it is."""
    (home / "own.py").write_text(PRETRAINED, "utf-8")
    (home / "ck.pt").write_bytes(b"weights")
    settings = {"dataset": "folder:animals", "split_file": "split.csv", **SETTINGS, **changes}
    if "backbone" in changes:
        del settings["backbone_channels"]
    record = fewshot_bench.run(settings.pop("method", "protonet"), **settings)
    told = [note for note in record["notes"] if note.endswith("is not known")]
    assert told == record["overlap"]["unknown"]
    assert [note.partition("--")[2].split()[0] for note in told] == flags
    again = fewshot_bench.evaluate(f"runs/{record['id']}", trust_code=True)
    assert again["overlap"]["unknown"] == told


def test_a_damaged_list(home: Path) -> None:
    """A damaged list of seen images is an error, and not treated as an empty one."""
    _, folder = run()
    path = Path(folder) / SEEN_FILE
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecordError, match=r"seen\.npz' is not the file .* or is damaged"):
        fewshot_bench.evaluate(folder)
    record = read_record(Path(folder))  # the digest is that of the damaged file
    record["seen"]["sha256"] = content_of(path).sha256
    write_record(Path(folder), record)
    with pytest.raises(RecordError, match=r"seen\.npz' is damaged"):
        fewshot_bench.evaluate(folder)


def test_the_list_of_another_run(home: Path) -> None:
    """Another run's list, or none where the record names one, is refused by eval and ``--init``."""
    _, folder = run()
    _, other = run(**others(home, {}))
    evaluation = Path("runs") / fewshot_bench.evaluate(folder)["id"]
    for own in (Path(folder), evaluation):
        assert read_record(own)["seen"]["sha256"] == content_of(own / SEEN_FILE).sha256
    path, changes = (
        Path(folder) / SEEN_FILE,
        {"split_file": None, "split_seed": 3, "test_share": 0.3},
    )
    with pytest.raises(DataError, match="took part in training"):
        fewshot_bench.evaluate(folder, **changes)
    shutil.copy(Path(other) / SEEN_FILE, path)
    count = len(list(Path("runs").iterdir()))
    for told in ("is not the file that the run wrote", r"has no seen\.npz"):
        for load in (
            lambda: fewshot_bench.evaluate(folder, **changes),
            lambda: fewshot_bench.evaluate(folder),
            lambda: run(init=folder),
        ):
            with pytest.raises(RecordError, match=told) as caught:
                load()
            assert "\n" not in str(caught.value)
        path.unlink(missing_ok=True)
    assert len(list(Path("runs").iterdir())) == count


def test_resume_keeps_the_mark(home: Path) -> None:
    """A marked run that is interrupted and resumed is still marked."""
    shutil.copytree(home / "animals/bee", home / "animals/wasp")
    split(home / "split.csv", test=(*TEST, "wasp"))
    settings = {**SETTINGS, "steps": 6, "allow_overlap": True}
    config = configure("protonet", dataset="folder:animals", split_file="split.csv", **settings)
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(config, progress=Breaking("train", 2)))
    (folder,) = Path("runs").iterdir()
    record = fewshot_bench.resume(str(folder))
    assert record["status"] == "completed"
    assert record["overlap"]["classes"] == 1


def test_a_support_set_of_ones_own_is_no_test(home: Path) -> None:
    """``fsb predict`` reports no accuracy, so its images may be any."""
    _, folder = run()
    predicted = classify(folder, home / "animals", [home / "animals/ant/0.png"])
    assert predicted.probabilities.shape == (1, 8)


def test_the_command_line_says_what_to_type(home: Path, fsb: InProcess) -> None:
    """The command ends with code 2 and one line that names the classes and ``--allow-overlap``."""
    _, folder = run()
    changes = others(home, {"zebu": "ant"})
    flags = [f"--dataset={changes['dataset']}", f"--split-file={changes['split_file']}"]
    answer = fsb("eval", folder, *flags)
    assert answer.code == 2
    error = answer.err.splitlines()[-1]
    assert "'zebu' (as 'ant')" in error
    assert "--allow-overlap" in error
    answer = fsb("eval", folder, *flags, "--allow-overlap", "--json").succeeded()
    assert json.loads(answer.out)["overlap"]["classes"] == 1


def test_omniglot_as_its_files_have_it(fsb_data: Path, data_cache: Path, home: Path) -> None:
    """Omniglot's own files in a folder, with dark ink, are recognized as its characters."""
    with zipfile.ZipFile(fsb_data / "omniglot" / "images_background.zip") as archive:
        for name in archive.namelist():
            _, alphabet, *rest = name.split("/")
            if alphabet == "Early_Aramaic" and name.endswith(".png"):
                to = home / "flat" / f"{alphabet} {rest[0]}" / rest[1]
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(archive.read(name))
    own = {"dataset": "folder:flat", "color": "gray", "image_size": 28, "resize": "nearest"}
    config = configure(
        "nearest-centroid", dataset="omniglot", split="official", validation="none",
        cache_dir=str(data_cache), data_root=str(fsb_data / "omniglot"), train_rotations=False,
    )  # fmt: skip
    official = RunContext(config).data.splits
    flat = configure("nearest-centroid", **own, test_share=0.75, cache_dir=str(data_cache))
    test = RunContext(flat).data.splits.test
    overlap = find_overlap(test, seen_images(official.train, TRAINING))
    assert overlap["classes"] == overlap["of"] == 16
    assert overlap["images"] == 16 * 20


def test_omniglot_of_another_split(fsb_data: Path, data_cache: Path) -> None:
    """Test characters of Omniglot's random split that its official split trains on are found."""

    def splits(name: str) -> Any:
        config = configure(
            "nearest-centroid", dataset="omniglot", split=name, cache_dir=str(data_cache),
            data_root=str(fsb_data / "omniglot"), train_rotations=False,
        )  # fmt: skip
        return RunContext(config).data.splits

    official, random = splits("official"), splits("random")
    seen = seen_images(official.train, TRAINING)
    here = find_overlap(official.test, seen)
    assert (here["classes"], here["images"]) == (0, 1)  # a straight line, drawn twice
    there = find_overlap(random.test, seen)
    named = set(official.train.class_names) & set(random.test.class_names)
    found = {one["class"] for one in there["found"]}
    assert found == named
    assert there["classes"] > 100
