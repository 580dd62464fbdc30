"""Every kind: files of each format, the same each time, for one run and for many."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from fewshot_bench.errors import ConfigError, RecordError, UnknownName
from fewshot_bench.figures import KINDS, SUFFIXES, Request, check, draw, save
from tests.figures.drawn_runs import drawn, keep_pictures, told, trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, one of two seeds, one of two settings."""
    runs = tmp_path_factory.mktemp("figures") / "runs"
    keep_pictures(trained(runs, "alpha"))
    trained(runs, "beta", right=[[4, 4], [2, 5], [3, 5], [5, 4]])
    trained(runs, "beta", accuracies=(0.6, 0.7), seed=1)
    trained(runs, "beta", shot=5, players=("first", "second"))
    return runs


def asked(kind: str) -> dict[str, str]:
    return {"baseline": "beta"} if kind == "forest" else {}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_each_kind_and_format(kind: str, suffix: str, runs: Path, tmp_path: Path) -> None:
    figure, _ = drawn(kind, runs, **asked(kind))
    path = tmp_path / f"figure{suffix.upper() if kind == 'time' else suffix}"
    save(figure, path)
    content = path.read_bytes()
    if suffix == ".png":
        image = Image.open(io.BytesIO(content))
        assert image.size[0] > 300
        assert len(set(image.convert("L").tobytes())) > 10
    elif suffix == ".pdf":
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
    else:
        paths = [e for e in ET.fromstring(content).iter() if e.tag.endswith("}path")]
        assert len(paths) > 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_runs_give_the_same_bytes(suffix: str, runs: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}{suffix}" for i in range(2)]
    for path in files:
        save(drawn("learning", runs)[0], path)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_axis_is_labeled_and_a_caption_tells(kind: str, runs: Path) -> None:
    figure, _ = drawn(kind, runs, **asked(kind))
    assert len(told(figure)) > 30
    if kind == "episode":
        return
    for axes in figure.axes:
        own = bool(axes.get_xlabel()) or kind == "forest"  # whose panels share the lowest label
        shared = axes.get_shared_y_axes().joined(axes, figure.axes[0])  # named once, on the left
        named = bool(axes.get_ylabel()) or bool(axes.get_yticklabels()) or shared
        assert own, axes
        assert named, axes


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "forest"])
def test_one_run_is_enough(kind: str, tmp_path: Path) -> None:
    keep_pictures(trained(tmp_path))
    figure, left_out = drawn(kind, tmp_path)
    assert figure.axes
    # The classes of made-up data have no names.
    assert len(left_out) == (kind in ("classes", "confusion"))


def test_unknown_kinds_and_endings() -> None:
    with pytest.raises(UnknownName, match="'learnin'; did you mean 'learning'"):
        check("learnin")
    with pytest.raises(ConfigError, match=r"-o x\.jpg: .*\.png, \.pdf or \.svg"):
        check("learning", Path("x.jpg"))


@pytest.mark.parametrize("kind", ["learning", "time", "steps", "episode", "generator"])
def test_nothing_left_to_draw(kind: str, runs: Path) -> None:
    with pytest.raises(RecordError, match=f"no run has what '{kind}' needs"):
        draw(kind, [], Request())


def test_a_file_that_cannot_be_written(runs: Path, tmp_path: Path) -> None:
    figure, _ = drawn("settings", runs)
    with pytest.raises(ConfigError, match=r"cannot write '.*nowhere.*; give another file"):
        save(figure, tmp_path / "nowhere" / "x.png")


def test_pictures_do_not_change_each_others_settings(runs: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawn("learning", runs)
    assert dict(matplotlib.rcParams) == before


def test_the_lines_of_a_generator(runs: Path) -> None:
    figure, _ = drawn("generator", runs)
    precision, _, distance = figure.axes
    line, real = precision.lines
    assert line.get_xdata().tolist() == [0, 50, 100]
    assert line.get_ydata().tolist() == [0, 25, 50]
    assert real.get_ydata() == pytest.approx([90, 90, 90])
    assert distance.lines[0].get_ydata().tolist() == [2, 2.5, 3]


def test_a_damaged_judgment_is_left_out(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    keep_pictures(folder)
    file = folder / "pictures" / "quality.jsonl"
    for damage in ("{", '{"step": 1}', '{"step": 0, "name": "a", "precision": 1}', "[1]"):
        file.write_text(damage)
        with pytest.raises(RecordError, match=r"quality.jsonl' is damaged"):
            drawn("generator", tmp_path)
