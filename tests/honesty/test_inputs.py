"""A result belongs to the content that was read, not to names and paths.

Initial weights, files of options, split files, data, and plugin code with the modules that it
imports are in the record with their sha256. ``fsb run``, ``fsb compare`` and ``fsb resume`` reuse a
run only if all of these are equal; the spelling of a path does not matter.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import fewshot_bench
from fewshot_bench import InputFile
from fewshot_bench.config.resolve import configure
from fewshot_bench.errors import ConfigError, DataError, PluginError, RecordError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.layout import episodes_differ
from fewshot_bench.results.record import code, read_record
from fewshot_bench.results.runs import Run
from fewshot_bench.runs import train as runner
from fewshot_bench.runs.context import RunContext
from fewshot_bench.runs.grid import Entry, Grid, run_grid
from fewshot_bench.runs.train import run_or_reuse
from tests.command_line import InProcess
from tests.dist_info import write_dist_info
from tests.faults.broken_off import Breaking
from tests.honesty.small import folder_of, small

READS = '''
from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from fewshot_bench import InputFile
from fewshot_bench.nn import TaskBatchNorm


def filtered(image_shape, *, weights: Annotated[InputFile | None, "its filters"] = None):
    """One convolution, with filters from a file."""
    net = nn.Sequential(nn.Conv2d(image_shape[0], 4, 5, stride=4), TaskBatchNorm(4, "batch"))
    if weights is not None:
        numbers = [float(word) for word in Path(weights).read_text().split()]
        with torch.no_grad():
            net[0].weight.view(-1)[: len(numbers)] = torch.tensor(numbers)
    net.out_shape = (4, (image_shape[1] - 5) // 4 + 1, (image_shape[2] - 5) // 4 + 1)
    return net
'''


class Grids(Breaking):
    """A progress of a grid."""

    def cell(self, *_: Any) -> None:
        pass


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


Typed = Callable[[str, dict[str, Any]], tuple[Path, str]]


@pytest.fixture
def typed(notes: pytest.LogCaptureFixture) -> Typed:
    """What `fsb run` does: the folder of the run, and what is logged."""

    def call(method: str, settings: dict[str, Any]) -> tuple[Path, str]:
        notes.clear()
        context = RunContext(configure(method, **settings), progress=Breaking("never", 0))
        _, folder = run_or_reuse(context, "resume")
        return folder, " ".join(notes.messages)

    return call


def content(record: dict[str, Any], option: str) -> dict[str, Any]:
    (found,) = (entry for entry in record["inputs"] if entry["option"] == option)
    return dict(found)


Reuse = Callable[[str, dict[str, Any], Callable[[], object], str], tuple[Path, Path]]


@pytest.fixture
def reused_until(typed: Typed) -> Reuse:
    """A run is reused, and after a change it is run again, with a line that says why."""

    def call(
        method: str, settings: dict[str, Any], change: Callable[[], object], why: str
    ) -> tuple[Path, Path]:
        first, _ = typed(method, settings)
        again, lines = typed(method, settings)
        assert (again, "Reusing finished run" in lines) == (first, True)
        change()
        other, lines = typed(method, settings)
        assert other != first
        assert f"has different {why}" in lines
        return first, other

    return call


def test_other_weights_under_the_same_init(
    home: Path, data_cache: Path, reused_until: Reuse
) -> None:
    """The folder of ``--init`` has another weights file: the old run is not reused."""
    settings = small(data_cache)
    start = folder_of(fewshot_bench.run("protonet", **settings))
    other = folder_of(fewshot_bench.run("protonet", **settings, seed=1))
    start.rename(home / "start")

    def swap() -> None:
        shutil.rmtree(home / "start")
        shutil.copytree(other, home / "start")

    first, second = reused_until(
        "protonet", settings | {"init": "start"}, swap, "content of --init"
    )
    one, two = (content(read_record(folder), "init") for folder in (first, second))
    assert one["sha256"] != two["sha256"] == read_record(other)["weights"]["sha256"]
    assert one["path"] == "start"
    assert one["absolute"] == str(home / "start")


@pytest.mark.parametrize("kind", ["written", "link"])
def test_another_file_under_the_same_option(
    kind: str, home: Path, data_cache: Path, reused_until: Reuse, typed: Typed
) -> None:
    """A backbone's weights file is overwritten, or a link points elsewhere: both are detected."""
    (home / "net.py").write_text(READS, "utf-8")
    (home / "a.txt").write_text("1 2 3", "utf-8")
    (home / "b.txt").write_text("3 2 1", "utf-8")
    file = home / "weights.txt"
    file.symlink_to(home / "a.txt") if kind == "link" else shutil.copy2(home / "a.txt", file)

    def change() -> None:
        state = file.stat()
        file.unlink()
        file.symlink_to(home / "b.txt") if kind == "link" else shutil.copy2(home / "b.txt", file)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    settings = small(data_cache, "nearest-centroid") | {"backbone": "./net.py:filtered"}
    settings |= {"backbone_weights": "weights.txt"}
    first, _ = reused_until("protonet", settings, change, "content of --backbone-weights")
    entry = content(read_record(first), "backbone_weights")
    assert (entry["path"], entry["bytes"]) == ("weights.txt", 5)
    file.unlink()
    shutil.copy2(home / "a.txt", file)
    absolute = settings | {"backbone_weights": InputFile(str(file))}
    found, lines = typed("protonet", absolute)  # the same content, typed in another way
    assert (found, "Reusing finished run" in lines) == (first, True)
    file.unlink()
    with pytest.raises(ConfigError, match=r"--backbone-weights weights.txt: there is no such file"):
        configure("protonet", **settings)


SHIFTED = '''
from pathlib import Path
from typing import Annotated

from fewshot_bench import InputFile
from fewshot_bench.sampling.base import ClosedSampler


class Shifted(ClosedSampler):
    """Begins with the episode whose number is in a file."""

    def __init__(
        self, table, task, seed, *, within_family: bool = False,
        start: Annotated[InputFile, "file with the number of the first episode"] = "start.txt",
    ):
        super().__init__(table, task, seed, within_family=within_family)
        self.start = int(Path(start).read_text())

    def __call__(self, ids):
        return super().__call__(ids + self.start)
'''


def test_another_file_of_a_sampler(
    home: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch, reused_until: Reuse
) -> None:
    """A sampler's file is overwritten: a new run in a separate table, and ``fsb eval`` says so."""
    (home / "own.py").write_text(SHIFTED, "utf-8")
    file = home / "start.txt"
    file.write_text("0", "utf-8")
    settings = small(data_cache, "nearest-centroid") | {"runs_dir": str(home / "runs")}
    settings |= {"sampling": f"{home}/own.py:Shifted"}
    first, other = reused_until(
        "nearest-centroid",
        settings,
        lambda: file.write_text("900", "utf-8"),
        "content of --sampling-start",
    )
    entry = content(read_record(first), "sampling_start")
    assert (entry["path"], entry["absolute"]) == ("start.txt", str(file))
    one, two = (Run(folder, read_record(folder)) for folder in (first, other))
    assert f"start file {entry['sha256'][:8]}" in one.protocol()["sampler"]
    assert [why.split()[0] for why in episodes_differ(one, two)] == ["sampler"]
    monkeypatch.chdir(home.parent)  # the file is the run's own, from wherever it is evaluated
    again = fewshot_bench.evaluate(str(first), trust_code=True)
    assert any(f"content of '{file}'" in note for note in again["notes"])
    assert again["episodes_digest"] == two.record["episodes_digest"]
    file.write_text("0", "utf-8")
    again = fewshot_bench.evaluate(str(first), trust_code=True)
    assert again["test"] == one.record["test"]
    assert not any("different from the run" in note for note in again["notes"])


FILES = """
from typing import Annotated

from fewshot_bench import Dataset, InputFile, Method
from fewshot_bench.sampling.base import ClosedSampler


class Inner(Method):
    def __init__(self, task, backbone, *, words: InputFile = "f.txt"): ...


class Outer(Method):
    def __init__(self, task, backbone, *, base: Method = "./own.py:Inner",
                 more: InputFile = "f.txt"): ...


class Data(Dataset):
    def __init__(self, *, lists: InputFile = "f.txt"): ...


class Draws(ClosedSampler):
    def __init__(self, table, task, seed, *, plan: InputFile = "f.txt"): ...


def net(image_shape, *, start: InputFile = "f.txt"): ...
"""


def test_the_files_of_every_kind_of_plugin(home: Path) -> None:
    """Files of a method, an inner method, a backbone, a data set and a sampler all count."""
    (home / "own.py").write_text(FILES, "utf-8")
    (home / "f.txt").write_text("x", "utf-8")
    registry = Registry.discover()
    config = configure(
        "./own.py:Outer", registry, base="./own.py:Inner", dataset="./own.py:Data",
        sampling="./own.py:Draws", backbone="./own.py:net",
    )  # fmt: skip
    assert set(RunContext(config, registry).input_files) == {
        "more", "base_words", "backbone_start", "lists", "sampling_plan",
    }  # fmt: skip


def test_a_folder_counts_by_all_its_files(home: Path) -> None:
    """A file in an option's folder is renamed, added, changed or moved: the digest changes."""
    from fewshot_bench.utils.inputs import content_of

    folder = home / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "a").write_text("x")
    (folder / "in" / "b").write_text("y")
    (folder / "loop").symlink_to(folder)
    seen = [content_of(folder).sha256]
    (folder / "in" / "b").write_text("z")
    seen.append(content_of(folder).sha256)
    (folder / "a").rename(folder / "c")
    seen.append(content_of(folder).sha256)
    (folder / "c").rename(folder / "in" / "c")
    seen.append(content_of(folder).sha256)
    (folder / "d").write_text("")
    seen.append(content_of(folder).sha256)
    assert len(set(seen)) == 5
    assert content_of(folder).bytes == 2
    with pytest.raises(DataError, match="cannot read"):
        content_of(home / "nothing")


def pictures(folder: Path, classes: int = 10) -> None:
    """Classes of pictures of noise."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"c{c}").mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{c}" / f"{i}.bmp.png", compress_level=0)


@pytest.fixture
def own_data(home: Path, data_cache: Path) -> dict[str, Any]:
    """Settings of a run on pictures in a folder, with a split file."""
    pictures(home / "images")
    lines = [f"c{c},{'train' if c < 5 else 'test'}" for c in range(10)]
    (home / "split.csv").write_text("\n".join(["class,split", *lines]), "utf-8")
    return {
        "dataset": "folder:images", "split_file": "split.csv", "image_size": 8, "color": "gray",
        "way": 3, "shot": 1, "query": 2, "episodes": 5, "runs_dir": str(home / "runs"),
        "cache_dir": str(data_cache),
    }  # fmt: skip


def test_an_edited_split_file(home: Path, own_data: dict[str, Any], reused_until: Reuse) -> None:
    """A class moves from training to test in the split file: the old run is not reused."""
    file = home / "split.csv"
    reused_until(
        "nearest-centroid",
        own_data,
        lambda: file.write_text(file.read_text("utf-8").replace("c4,train", "c4,test"), "utf-8"),
        "content of --split-file and images, classes or split",
    )
    own_data["split_file"] = "nowhere.csv"
    with pytest.raises(ConfigError, match=r"--split-file nowhere\.csv: there is no such file"):
        configure("nearest-centroid", **own_data)


def test_an_image_that_changes_in_place(
    home: Path, own_data: dict[str, Any], reused_until: Reuse
) -> None:
    """An image is overwritten with the same size and time stamp: it is read again, and the run is
    new.
    """
    image = home / "images" / "c7" / "0.bmp.png"

    def change() -> None:
        state, size = image.stat(), image.stat().st_size
        Image.fromarray(np.full((8, 8), 77, np.uint8)).save(image, compress_level=0)
        assert image.stat().st_size == size
        os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))

    reused_until("nearest-centroid", own_data, change, "data and images, classes or split")


def test_another_copy_of_the_data_is_the_same_run(
    home: Path, own_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, typed: Typed
) -> None:
    """The same images under another path are the same run; other images under it are not."""
    first, _ = typed("nearest-centroid", own_data)
    shutil.copytree(home / "images", home / "elsewhere" / "images")
    shutil.copy(home / "split.csv", home / "elsewhere" / "split.csv")
    monkeypatch.chdir(home / "elsewhere")
    found, lines = typed("nearest-centroid", own_data)
    assert (found, "Reusing finished run" in lines) == (first, True)
    shutil.copy(home / "images" / "c8" / "0.bmp.png", "images/c7/0.bmp.png")
    found, lines = typed("nearest-centroid", own_data)
    assert found != first
    assert "images, classes or split" in lines


LIAR = '''
import numpy as np
from pathlib import Path

from fewshot_bench import Dataset, LabeledImages, Splits


class Liar(Dataset):
    """Its digest is the same whatever its file holds."""

    needs_files = False

    def load(self, root, cache):
        seed = int(Path("seed.txt").read_text())
        images = np.random.default_rng(seed).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
        part = LabeledImages(images, np.full(10, 4), tuple(map(str, range(10))))
        return Splits(part, None, part, "d" * 64, "CC0", "made up")
'''


def test_a_data_set_whose_digest_is_wrong(
    home: Path, data_cache: Path, reused_until: Reuse
) -> None:
    """A data set reports the same digest for other images: the images themselves are compared."""
    (home / "liar.py").write_text(LIAR, "utf-8")
    (home / "seed.txt").write_text("1", "utf-8")
    settings = {"way": 3, "shot": 1, "query": 2, "episodes": 5, "runs_dir": "runs"}
    settings |= {"dataset": "./liar.py:Liar", "cache_dir": str(data_cache)}
    reused_until(
        "nearest-centroid",
        settings,
        lambda: (home / "seed.txt").write_text("2", "utf-8"),
        "images, classes or split",
    )


def test_resume_refuses_other_content(home: Path, data_cache: Path) -> None:
    """An interrupted run is resumed only with the content that it started with."""
    (home / "net.py").write_text(READS, "utf-8")
    (home / "weights.txt").write_text("1 2 3", "utf-8")
    settings = small(data_cache, "nearest-centroid") | {"backbone": "./net.py:filtered"}
    settings |= {"backbone_weights": "weights.txt"}
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(configure("protonet", **settings), progress=Breaking("train", 2)))
    (folder,) = (home / "runs").iterdir()
    (home / "weights.txt").write_text("3 2 1", "utf-8")
    with pytest.raises(RecordError, match="started with different content of --backbone-weights"):
        fewshot_bench.resume(str(folder), trust_code=True)
    with pytest.raises(KeyboardInterrupt):
        run_or_reuse(
            RunContext(configure("protonet", **settings), progress=Breaking("train", 2)), "resume"
        )
    assert len(list((home / "runs").iterdir())) == 2  # it did not go on with the first


def test_paths_of_a_record_are_those_of_its_own_folder(
    home: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths, resumed and evaluated from another folder: the run's own files are found."""
    (home / "net.py").write_text(READS, "utf-8")
    (home / "weights.txt").write_text("1 2 3", "utf-8")
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "weights.txt").write_text("3 2 1", "utf-8")
    settings = small(data_cache, "nearest-centroid") | {"backbone": f"{home}/net.py:filtered"}
    settings |= {"backbone_weights": "weights.txt", "runs_dir": str(home / "runs")}
    with pytest.raises(KeyboardInterrupt):
        runner.run(RunContext(configure("protonet", **settings), progress=Breaking("train", 2)))
    (folder,) = (home / "runs").iterdir()
    monkeypatch.chdir(home / "elsewhere")
    record = fewshot_bench.resume(str(folder), trust_code=True)
    assert record["config"]["backbone_options"] == {"backbone_weights": "weights.txt"}
    assert content(record, "backbone_weights")["absolute"] == str(home / "weights.txt")
    again = fewshot_bench.evaluate(str(folder), trust_code=True)
    assert again["test"] == record["test"]
    assert not any("different from the run" in note for note in again["notes"])
    (home / "weights.txt").write_text("5 5 5", "utf-8")
    again = fewshot_bench.evaluate(str(folder), trust_code=True)
    assert any(f"content of '{home / 'weights.txt'}'" in note for note in again["notes"])


def test_a_grid_repeats_cells_whose_inputs_changed(home: Path, data_cache: Path) -> None:
    """The weights in the folder from which a cell of a grid starts have changed: the cell runs
    again.
    """
    settings = small(data_cache)
    start = folder_of(fewshot_bench.run("protonet", **settings))
    start.rename(home / "start")
    grid = Grid((Entry("protonet", "protonet", {"init": "start"}),), settings)

    def folders_after() -> int:
        _, problems = run_grid(grid, Registry.discover(), Grids("never", 0))
        assert not problems
        return len(list((home / "runs").iterdir()))

    assert [folders_after(), folders_after()] == [1, 1]
    weights = home / "start" / "weights.safetensors"
    (home / "start" / "record.json").unlink()  # else they are refused: they are not that run's
    save_file({n: v + 1 for n, v in load_file(weights).items()}, weights)
    assert folders_after() == 2


METHOD = """
import torch
from {helper} import scaled
from fewshot_bench import Method


class Scaled(Method):
    wants_backbone = False

    def adapt(self, support):
        return support.images.flatten(3).mean(2)

    def predict(self, state, query):
        return scaled(-torch.cdist(query.flatten(2), state))
"""


@pytest.fixture
def forgotten(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """What a new process would know: no module of a plugin, no digest of code."""

    def forget() -> None:
        # Only those of this test: a library with compiled parts cannot be imported twice.
        for name, module in list(sys.modules.items()):
            if tmp_path in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]
        for cached in (code._of_file, code._of_module, code._content):
            cached.cache_clear()
        importlib.invalidate_caches()

    yield forget
    forget()


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path."""
    folder = home / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


HELP = "def scaled(x):\n    return x * {factor}\n"


def in_file(site: Path) -> tuple[str, str]:
    (site.parent / "own.py").write_text(METHOD.format(helper="my_helper"), "utf-8")
    return "./own.py:Scaled", "my_helper.py"


def by_name(site: Path) -> tuple[str, str]:
    source = METHOD.format(helper="my_helper").replace(
        "from my_helper import scaled",
        'import importlib\nscaled = importlib.import_module("my_helper").scaled',
    )
    (site.parent / "own.py").write_text(source, "utf-8")
    return "./own.py:Scaled", "my_helper.py"


def through_another(site: Path) -> tuple[str, str]:
    (site.parent / "own.py").write_text(METHOD.format(helper="between"), "utf-8")
    (site / "between.py").write_text("import my_pkg.deep as d\nscaled = d.scaled\n", "utf-8")
    (site / "my_pkg").mkdir()
    (site / "my_pkg" / "__init__.py").write_text("", "utf-8")
    return "./own.py:Scaled", "my_pkg/deep.py"


def hook(target: str) -> str:
    return (
        "from fewshot_bench import hookimpl\n\n\n@hookimpl\ndef register_methods():\n"
        f"    return {{'scaled': '{target}'}}\n"
    )


def second_module(site: Path) -> tuple[str, str]:
    write_dist_info(site, "my-dist", "1.0", "[fewshot_bench]\nmy = my_hooks\n")
    (site / "my_hooks.py").write_text(hook("my_method:Scaled"), "utf-8")
    (site / "my_method.py").write_text(METHOD.format(helper="my_helper"), "utf-8")
    return "scaled", "my_helper.py"


def namespace(site: Path) -> tuple[str, str]:
    write_dist_info(site, "my-dist", "1.0", "[fewshot_bench]\nmy = company.hooks\n")
    (site / "company").mkdir()
    (site / "company" / "hooks.py").write_text(hook("company.method:Scaled"), "utf-8")
    (site / "company" / "method.py").write_text(METHOD.format(helper=".helper"), "utf-8")
    return "scaled", "company/helper.py"


def namespace_with_a_package(site: Path) -> tuple[str, str]:
    write_dist_info(site, "my-dist", "1.0", "[fewshot_bench]\nmy = company.few\n")
    (site / "company" / "few" / "deep").mkdir(parents=True)
    (site / "company" / "few" / "__init__.py").write_text(hook("company.few.m:Scaled"), "utf-8")
    (site / "company" / "few" / "m.py").write_text(METHOD.format(helper=".deep.h"), "utf-8")
    return "scaled", "company/few/deep/h.py"


def package_data(site: Path) -> tuple[str, str]:
    write_dist_info(site, "my-dist", "1.0", "[fewshot_bench]\nmy = my_pkg\n")
    (site / "my_pkg").mkdir()
    (site / "my_pkg" / "__init__.py").write_text(hook("my_pkg.m:Scaled"), "utf-8")
    source = METHOD.format(helper="pathlib").replace("import scaled", "import Path")
    source += (
        "\n\nexec((Path(__file__).parent / 'numbers.txt').read_text())  # what it calls scaled\n"
    )
    (site / "my_pkg" / "m.py").write_text(source, "utf-8")
    return "scaled", "my_pkg/numbers.txt"


LAYOUTS = [
    in_file, by_name, through_another, second_module, namespace, namespace_with_a_package,
    package_data,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda made: made.__name__)
def test_a_helper_of_a_plugin_that_changed(
    layout: Callable[[Path], tuple[str, str]],
    site: Path,
    data_cache: Path,
    forgotten: Callable[[], None],
    reused_until: Reuse,
    typed: Typed,
) -> None:
    """A module that a plugin imports is edited at the same version: the old run is not reused."""
    method, helper = layout(site)
    (site / helper).write_text(HELP.format(factor=1.0), "utf-8")
    settings = small(data_cache, "nearest-centroid")
    settings = {n: v for n, v in settings.items() if n not in ("steps", "task_batch")}

    def edit() -> None:
        (site / helper).write_text(HELP.format(factor=0.0), "utf-8")
        forgotten()

    first, other = reused_until(method, settings, edit, "code")
    one, two = (read_record(folder) for folder in (first, other))
    assert one["plugins"] == two["plugins"]
    assert one["test"]["accuracy"] != two["test"]["accuracy"]
    said = [n for n in fewshot_bench.evaluate(str(first), trust_code=True)["notes"] if "code" in n]
    assert len(said) == 1
    assert "code of method" in said[0]
    assert "fewshot-bench" not in said[0]
    forgotten()
    typed(method, settings)
    assert typed(method, settings)[0] == other  # its digest is the same in every process


def test_files_without_influence_do_not_count(
    site: Path, data_cache: Path, forgotten: Callable[[], None], typed: Typed
) -> None:
    """An observer's code, a text and a cache of the interpreter change: the run is reused."""
    method, helper = package_data(site)
    (site / helper).write_text(HELP.format(factor=1.0), "utf-8")
    watcher = site.parent / "watch.py"
    source = "from fewshot_bench import hookimpl\n\n\n@hookimpl\ndef run_finished():\n    pass\n"
    watcher.write_text(source)
    settings = small(data_cache, "nearest-centroid") | {"with_": ["./watch.py"]}
    first, _ = typed(method, settings)
    watcher.write_text(watcher.read_text() + "    x = 1\n")
    (site / "my_pkg" / "README.md").write_text("text")
    (site / "my_pkg" / "__pycache__").mkdir(exist_ok=True)
    (site / "my_pkg" / "__pycache__" / "m.pyc").write_bytes(b"x")
    forgotten()
    assert typed(method, settings)[0] == first


def test_the_version_of_another_distribution_counts(site: Path) -> None:
    """A library that a plugin imports is compared by version, and torch's files are not read."""
    (site.parent / "own.py").write_text("import torch, pluggy, os, not_there.at_all\n", "utf-8")
    found = code._Collected("")
    found.follow_imports(site.parent / "own.py", "")
    assert [line.partition("==")[0] for line in found.versions] == ["pluggy"]
    assert not found.files


def test_an_option_of_several_files_is_refused() -> None:
    """A tuple of files is refused with the types that an option can have."""
    from fewshot_bench.config.options import options_of

    def net(image_shape, *, files: tuple[InputFile, InputFile] = ("a", "b")):
        pass

    with pytest.raises(PluginError, match="one plain type"):
        options_of(net)


def test_the_path_that_a_plugin_gets(home: Path) -> None:
    """An InputFile equals the typed text, opens like a path, and knows its absolute location."""
    (home / "a.txt").write_text("x", "utf-8")
    path = InputFile("a.txt")
    assert path == "a.txt"
    assert Path(path).read_text("utf-8") == path.path.read_text("utf-8") == "x"
    assert path.path == home / "a.txt"
    assert InputFile("~/x").path == Path("~/x").expanduser()


def test_a_missing_file_is_one_line(home: Path, fsb: InProcess) -> None:
    """``fsb run`` with a missing file says so in one line and starts nothing."""
    (home / "net.py").write_text(READS, "utf-8")
    words = ("--backbone", "./net.py:filtered", "--backbone-weights", "gone.pt")
    answer = fsb("run", "protonet", "--steps", "2", *words)
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"error: --backbone-weights gone.pt: there is no such file or folder in '{home}'."
    ]
    assert not (home / "runs").exists()
