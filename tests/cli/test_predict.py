"""``fsb predict``: a trained run on pictures of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewshot_bench
from tests.command_line import InProcess

TALL = """
import numpy as np
from fewshot_bench import Dataset, LabeledImages, Splits

class Tall(Dataset):
    needs_files = False

    def load(self, root, cache):
        def part(split):
            images = np.zeros((12, 1, 20, 10), np.uint8)
            return LabeledImages(images, np.full(4, 3), tuple(f"{split} {i}" for i in range(4)))
        parts = [part(split) for split in ("train", "validation", "test")]
        return Splits(*parts, digest="0" * 64, license="CC0-1.0", source="drawn here")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """A run of class means on pixels."""
    runs = tmp_path_factory.mktemp("runs")
    record = fewshot_bench.run(
        "nearest-centroid", train_classes=6, validation_classes=0, test_classes=6, way=3, shot=1,
        query=2, episodes=3, runs_dir=str(runs), cache_dir=str(data_cache),
    )  # fmt: skip
    return runs / record["id"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Bars that lie, stand or fill the picture: two of a class, one more that stands."""
    for name, count in (("lying", 2), ("standing", 3), ("full", 2)):
        (tmp_path / "support" / name).mkdir(parents=True)
        for i in range(count):
            bar(name, i).save(tmp_path / "support" / name / f"{i}.png")
    bar("lying", 1).save(tmp_path / "a.png")
    bar("full", 1).convert("L").save(tmp_path / "b.jpg", quality=95)
    return tmp_path


def bar(name: str, i: int) -> Image.Image:
    """A picture of 56 x 56."""
    pixels = np.zeros((56, 56), np.uint8)
    if name == "lying":
        pixels[20 + i : 36 + i] = 255
    elif name == "standing":
        pixels[:, 20 + i : 36 + i] = 255
    else:
        pixels[:] = 250 - i
    return Image.fromarray(pixels).convert("RGB")


def test_each_image_gets_its_class_and_a_probability(
    fsb: InProcess, run: Path, pictures: Path
) -> None:
    answer = fsb(
        "predict", run, pictures / "support", pictures / "a.png", pictures / "b.jpg"
    ).succeeded()
    assert answer.out.splitlines()[0].split() == ["image", "class", "probability"]
    assert "lying" in answer.out
    assert "full" in answer.out
    assert "2 images of each class were used; 1 were left out" in answer.err


def test_json_has_every_probability(fsb: InProcess, run: Path, pictures: Path) -> None:
    answer = fsb("predict", run, pictures / "support", pictures / "a.png", "--json")
    (one,) = json.loads(answer.out)["predictions"]
    assert one["class"] == "lying"
    assert set(one["probabilities"]) == {"full", "lying", "standing"}
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert one["probability"] == max(one["probabilities"].values())


def test_inverting_support_and_query_alike_changes_no_class(
    fsb: InProcess, run: Path, pictures: Path
) -> None:
    answer = fsb("predict", run, pictures / "support", pictures / "a.png", "--json", "--invert")
    assert json.loads(answer.out)["predictions"][0]["class"] == "lying"


def test_pictures_of_other_proportions_are_squashed_and_counted(
    fsb: InProcess, run: Path, pictures: Path
) -> None:
    bar("lying", 1).resize((90, 56)).save(pictures / "wide.png")
    bar("standing", 0).resize((56, 30)).save(pictures / "flat.png")
    images = [pictures / name for name in ("wide.png", "flat.png", "a.png")]
    answer = fsb("predict", run, pictures / "support", *images, "--json")
    answers = [one["class"] for one in json.loads(answer.out)["predictions"]]
    assert answers == ["lying", "standing", "lying"]
    answer = fsb("predict", run, pictures / "support", *images).succeeded()
    assert "2 images have other proportions than the run's and were squashed" in answer.err


def test_a_run_on_pictures_that_are_no_squares(
    fsb: InProcess, pictures: Path, tmp_path: Path, data_cache: Path
) -> None:
    (tmp_path / "tall.py").write_text(TALL, "utf-8")
    record = fewshot_bench.run(
        "nearest-centroid", dataset=f"{tmp_path / 'tall.py'}:Tall", way=3, shot=1, query=2,
        episodes=2, runs_dir=str(tmp_path / "runs"), cache_dir=str(data_cache),
        allow_overlap=True,  # its pictures are all alike
    )  # fmt: skip
    run = tmp_path / "runs" / record["id"]
    answer = fsb(
        "predict", run, pictures / "support", pictures / "a.png", "--json", "--trust-code"
    ).succeeded()
    assert json.loads(answer.out)["predictions"][0]["class"] == "lying"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("RUN", "PICTURES/no", "PICTURES/a.png"), "there is no folder"),
        (("RUN", "PICTURES/support/full", "PICTURES/a.png"), "has 0 folders with images"),
        (("RUN", "PICTURES/support", "PICTURES/no.png"), "cannot read"),
        (("RUN", "PICTURES/support", "PICTURES/text.png"), "is not a PNG or JPEG image"),
        (("PICTURES", "PICTURES/support", "PICTURES/a.png"), "record.json"),
        (("RUN", "PICTURES/support", "PICTURES/a.png", "--resize", "best"), "--resize best"),
    ],
)
def test_wrong_input_is_one_line(
    words: tuple[str, ...], expected: str, fsb: InProcess, run: Path, pictures: Path
) -> None:
    (pictures / "text.png").write_text("no picture", "utf-8")
    typed = [w.replace("RUN", str(run)).replace("PICTURES", str(pictures)) for w in words]
    answer = fsb("predict", *typed)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.err
    assert answer.err.count("\n") == 1


def test_a_method_of_so_many_classes_says_so(
    fsb: InProcess, pictures: Path, tmp_path: Path, data_cache: Path
) -> None:
    record = fewshot_bench.run(
        "maml", train_classes=6, validation_classes=6, test_classes=6, way=2, shot=1, query=2,
        steps=1, task_batch=1, episodes=2, validation_episodes=2, backbone_channels=2,
        runs_dir=str(tmp_path / "runs"), cache_dir=str(data_cache),
    )  # fmt: skip
    answer = fsb(
        "predict", tmp_path / "runs" / record["id"], pictures / "support", pictures / "a.png"
    )
    assert answer.code == 2
    assert "for 2 classes" in answer.err
    (pictures / "two").mkdir()
    for name in ("lying", "full"):
        (pictures / "support" / name).rename(pictures / "two" / name)
    answer = fsb(
        "predict", tmp_path / "runs" / record["id"], pictures / "two", pictures / "a.png"
    ).succeeded()
    assert "transductive" in answer.err
