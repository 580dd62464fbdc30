"""Tables, pairs and figures compare content, not names, versions and paths.

Two runs share a table, and are paired, only if the images and classes of the evaluated split are
equal, whatever digest a data set reports: another split of the same folder, or other images under
the same digest, are in a separate table, which says so. The spelling of a path separates nothing.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.errors import ConfigError, RecordError
from fewshot_bench.figures import Request
from fewshot_bench.figures.comparison import paired_rows
from fewshot_bench.figures.series import gather
from fewshot_bench.report.page import html
from fewshot_bench.results.comparison import Comparison, compare, refuse_unequal
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.pilots import pilot_of
from fewshot_bench.results.record import read_record
from fewshot_bench.results.runs import load_runs
from fewshot_bench.results.sentences import heading
from tests.honesty.tiny_folder import SETTINGS, TEST, TRAIN, VALIDATION, draw, split
from tests.results.made_up_runs import scores_of, write_run

OTHER_CLASSES = "other classes or images in the evaluated split"
UNTRAINED = {n: v for n, v in SETTINGS.items() if n != "backbone_channels"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, a split file, and an empty folder for the runs."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "inv", (*TRAIN, *VALIDATION, *TEST))
    split(Path("sp.csv"))
    return tmp_path


def ran(method: str = "nearest-centroid", **changes: Any) -> Path:
    """A run on the folder."""
    own = UNTRAINED if method == "nearest-centroid" else SETTINGS
    settings = own | {"dataset": "folder:inv", "split_file": "sp.csv"} | changes
    return Path("runs") / fewshot_bench.run(method, **settings)["id"]


def shown(baseline: str | None = None) -> Comparison:
    """All runs there are, which can all be used."""
    runs, problems = load_runs([Path("runs")])
    found = compare(runs, baseline)
    assert not problems
    assert not found.problems
    return found


def reverse_split() -> None:
    """The classes of the test and of the training change places under the same path."""
    split(Path("sp.csv"), train=TEST, test=TRAIN)


def test_another_split_of_the_same_folder() -> None:
    """Two methods are tested on disjoint classes of one folder, because the split file was edited
    in between: two tables, no pair, and the reason in every format.
    """
    ran("protonet")
    reverse_split()
    ran()
    digests = [read_record(path) for path in sorted(Path("runs").iterdir())]
    assert len({record["dataset_digest"] for record in digests}) == 1
    assert len({record["episodes_digest"] for record in digests}) == 1
    found = shown("protonet")
    assert [len(table.rows) for table in found.tables] == [1, 1]
    assert found.tables[1].differs == (OTHER_CLASSES,)
    assert not any(table.paired for table in found.tables)
    for text in (markdown(found), latex(found), html(found)):
        assert OTHER_CLASSES in " ".join(text.split())
    tables = json.loads(to_json(found))["tables"]
    assert [table["differs"] for table in tables] == [[], [OTHER_CLASSES]]
    assert len({table["protocol"]["evaluated_digest"] for table in tables}) == 2
    lines = csv.DictReader(io.StringIO(to_csv(found)))
    told = [(line["differs"], line["paired_difference"]) for line in lines]
    assert told == [("", ""), (OTHER_CLASSES, "")]


def test_seeds_on_other_classes_are_no_seeds() -> None:
    """Two seeds of one method that were tested on disjoint classes are not a row of two seeds, and
    not a line of two seeds in a figure.
    """
    ran("protonet", seed=0)
    reverse_split()
    ran("protonet", seed=1)
    found = shown()
    assert [row.title for table in found.tables for row in table.rows] == [
        "protonet",
        "protonet (seed 1)",
    ]
    runs, _ = load_runs([Path("runs")])
    series = gather(runs, Request())
    assert [len(one.runs) for one in series] == [1, 1]
    assert len({one.label.rpartition(", inv ")[2] for one in series}) == 2


def test_pictures_and_plans_pair_no_other_classes() -> None:
    """The forest plot and the pilots of a plan refuse to pair what the tables do not pair."""
    ran("protonet")
    reverse_split()
    ran()
    runs, _ = load_runs([Path("runs")])
    ask = Request(baseline="protonet")
    assert not paired_rows(runs, ask)
    assert any("no run of protonet on the same episodes" in line for line in ask.left_out)
    with pytest.raises(RecordError, match=OTHER_CLASSES):
        pilot_of(runs)


CONSTANT = '''
import numpy as np

from fewshot_bench import Dataset, LabeledImages, Splits


def noise(seed, part):
    return LabeledImages(
        images=np.random.default_rng(seed).integers(0, 256, (32, 1, 16, 16)).astype(np.uint8),
        counts=np.full(4, 8),
        class_names=tuple(f"{part}{i}" for i in range(4)),
    )


class Constant(Dataset):
    """Noise, which always says the same of itself."""

    needs_files = False

    def load(self, root, cache):
        parts = map(noise, SEEDS, ("train", "validation", "test"))
        return Splits(*parts, digest="0" * 64, license="CC0", source="noise")
'''
PLAIN = {n: v for n, v in SETTINGS.items() if n not in ("color", "image_size")}


def noisy(*seeds: int, seed: int) -> None:
    """A training of this seed on training, validation and test images of these seeds."""
    Path("noise.py").write_text(CONSTANT.replace("SEEDS", repr(seeds)), "utf-8")
    fewshot_bench.run("protonet", **PLAIN, dataset="noise.py:Constant", seed=seed)


def test_a_data_set_with_a_constant_digest() -> None:
    """A data set reports the same digest for other test images: the images are compared."""
    noisy(1, 2, 3, seed=0)
    noisy(1, 2, 4, seed=1)
    found = shown()
    assert [table.differs for table in found.tables] == [(), (OTHER_CLASSES,)]


def test_trainings_on_other_images_are_no_seeds() -> None:
    """The same data set with other training images under a constant digest: two rows."""
    noisy(1, 2, 3, seed=0)
    noisy(4, 2, 3, seed=1)
    (table,) = shown().tables
    assert len(table.rows) == 2
    assert "data" in [trait.name for trait in table.training_differs]


def test_seeds_that_trained_on_other_classes_are_two_rows() -> None:
    """The same test classes, other training classes: not seeds of one configuration."""
    ran("protonet", seed=0)
    split(Path("sp.csv"), train=TRAIN[:2])
    ran("protonet", seed=1)
    (table,) = shown().tables
    assert len(table.rows) == 2
    assert "data" in [trait.name for trait in table.training_differs]


def test_the_validation_split_has_a_digest_of_its_own() -> None:
    """An evaluation of the validation split records the content of that split."""
    run = ran()
    record = fewshot_bench.evaluate(str(run), part="validation")
    again = fewshot_bench.evaluate(str(run))
    assert record["evaluated_digest"] != read_record(run)["evaluated_digest"]
    assert again["evaluated_digest"] == read_record(run)["evaluated_digest"]


def test_a_path_separates_nothing(home: Path) -> None:
    """A run is evaluated again, on the folder by its absolute path and on a copy elsewhere, with a
    split file of another name: one table, one row, and no further look.
    """
    run = ran("protonet")
    fewshot_bench.evaluate(str(run))
    shutil.copytree("inv", "elsewhere/copy")
    split(Path("other.csv"))
    fewshot_bench.evaluate(
        str(run), dataset="folder:elsewhere/copy", split_file="other.csv", allow_overlap=True
    )
    ran("protonet", dataset=f"folder:{home}/inv", split_file=f"{home}/sp.csv", seed=1)
    runs, _ = load_runs([Path("runs")])
    assert len({run.record["dataset"] for run in runs}) > 2
    found = compare(runs)
    (table,) = found.tables
    assert [row.title for row in table.rows] == ["protonet, 2 seeds"]
    cell = table.rows[0].cells[0]
    assert cell is not None
    assert cell.looks is not None
    assert (cell.looks.configurations, cell.looks.evaluations) == (1, 2)
    assert heading(table).startswith("folder:elsewhere/copy (file)")  # of the newest of seed 0
    assert not table.training_differs
    assert [len(one.runs) for one in gather(runs, Request())] == [2]


def test_a_path_hides_no_look() -> None:
    """A method without training, tried on two streams of episodes by two spellings of one path: two
    looks, and tables that differ in the episodes only.
    """
    run = ran()
    fewshot_bench.evaluate(str(run), episode_seed=1)
    found = shown()
    assert [t.differs for t in found.tables] == [(), ("episode_seed 1 instead of 0",)]
    looks = [cell.looks for table in found.tables for _, _, cell in table.filled]
    assert [one and one.configurations for one in looks] == [2, 2]


def test_other_folders_are_named() -> None:
    """Two folders of other images: the reason names them as they were typed."""
    ran()
    draw(Path("cars"), (*TRAIN, *VALIDATION, *TEST), each=5)
    ran(dataset="folder:cars")
    (_, other) = shown().tables
    assert other.differs[0] in (
        "dataset folder:cars instead of folder:inv",
        "dataset folder:inv instead of folder:cars",
    )


BACKBONE = '''
from torch import nn


def thin(image_shape):
    """One convolution."""
    net = nn.Sequential(nn.Conv2d(image_shape[0], 2, 5, stride=4), nn.LeakyReLU(SLOPE))
    net.out_shape = (2, 3, 3)
    return net
'''


def thinned(slope: float, seed: int, folder: str = ".") -> Path:
    """A training of ``protonet`` on a backbone in a file."""
    Path(folder).mkdir(exist_ok=True)
    path = Path(folder, "bb.py")
    path.write_text(BACKBONE.replace("SLOPE", str(slope)), "utf-8")
    settings = {n: v for n, v in SETTINGS.items() if n != "backbone_channels"}
    own = {"dataset": "folder:inv", "split_file": "sp.csv", "backbone": f"./{path}:thin"}
    return Path("runs") / fewshot_bench.run("protonet", **settings | own, seed=seed)["id"]


def test_an_edited_backbone_is_no_training_seed() -> None:
    """A constant of a backbone's file is edited between two seeds: two rows with the digests of the
    code, two looks for each, another backbone for ``--equal``, and no line of two seeds.
    """
    runs = [thinned(0.1, 0), thinned(0.2, 1)]
    found = shown()
    (table,) = found.tables
    names = sorted(row.name for row in table.rows)
    read = [read_record(run)["inputs"] for run in runs]
    what = "code of backbone bb.py:thin"
    codes = [one["sha256"] for own in read for one in own if one["option"] == what]
    assert len(names) == len(set(codes)) == 2
    for code in codes:
        assert any(f"code of backbone {code[:8]}" in name for name in names)
    assert [cell.looks and cell.looks.configurations for _, _, cell in table.filled] == [2, 2]
    assert [trait.name for trait in table.training_differs] == ["backbone"]
    with pytest.raises(ConfigError, match=r"--equal backbone: .* code"):
        refuse_unequal(found, ["backbone"])
    assert [len(one.runs) for one in gather(load_runs([Path("runs")])[0], Request())] == [1, 1]


def test_the_same_code_in_another_folder() -> None:
    """The file of a backbone is moved between two seeds: still one row, and one look."""
    thinned(0.1, 0)
    thinned(0.1, 1, "elsewhere")
    (table,) = shown().tables
    assert [row.title for row in table.rows] == ["protonet, 2 seeds"]
    assert [cell.looks and cell.looks.configurations for _, _, cell in table.filled] == [1]


@pytest.mark.parametrize("kind", ["method", "backbone", "inner method"])
@pytest.mark.parametrize(
    ("distribution", "rows"), [("my-dist", 2), ("file", 2), ("fewshot-bench", 1)]
)
def test_other_code_of_one_version(kind: str, distribution: str, rows: int, home: Path) -> None:
    """Code of a plugin, or a helper module of it, changed between two seeds at the same version:
    two rows. Built-in code is compared by version.
    """
    name = "mine" if kind == "method" else "other"
    plugin = {"kind": f"{kind.split()[-1]}s", "name": name, "version": "1"}
    for seed in (0, 1):
        code = {"option": f"code of {kind.split()[-1]} {name}", "path": "x", "absolute": None}
        write_run(
            home / "made", "mine", scores_of(seed), seed=seed,
            training={"steps": 1}, plugins=[plugin | {"distribution": distribution}],
            inputs=[code | {"sha256": f"{seed}" * 64, "bytes": 1}],
        )  # fmt: skip
    found = compare(load_runs([home / "made"])[0])
    assert not found.problems
    (table,) = found.tables
    assert len(table.rows) == rows
    told = {"inner method": "method other"}.get(kind, kind)
    assert all((f"code of {told} " in row.name) == (rows == 2) for row in table.rows)
