"""What stands in the axes, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.figures.comparison import panels_of
from fewshot_bench.figures.series import gather
from fewshot_bench.figures.training import windows
from fewshot_bench.results.stats import student_interval
from tests.figures.axes import bars, points
from tests.figures.drawn_runs import RIGHT, drawn, evaluated, legend_of, told, trained

# ---- learning and time ------------------------------------------------------------------------


def test_learning_of_one_seed(tmp_path: Path) -> None:
    trained(tmp_path)
    figure, _ = drawn("learning", tmp_path)
    seen, loss = figure.axes
    assert seen.lines[0].get_xydata().tolist() == [[50, 50], [100, 75]]
    assert not seen.collections  # no band that nobody measured
    # 100 steps in 50 windows of two: steps (1, 2) have the losses 1 and 1/2.
    x, y = loss.lines[0].get_data()
    assert (len(x), x[0], x[-1]) == (50, 1.5, 99.5)
    assert y[0] == pytest.approx(0.75)
    assert y[-1] == pytest.approx((1 / 99 + 1 / 100) / 2)
    band = loss.collections[0].get_paths()[0].vertices
    at_first = band[np.isclose(band[:, 0], 1.5), 1]
    assert (at_first.min(), at_first.max()) == (pytest.approx(0.55), pytest.approx(0.95))
    assert "spread of a validation over its episodes is not recorded" in told(figure)


def test_learning_of_several_seeds(tmp_path: Path) -> None:
    for seed, accuracies in enumerate([(0.5, 0.7), (0.6, 0.9), (0.7, 0.8)]):
        trained(tmp_path, accuracies=accuracies, seed=seed)
    figure, _ = drawn("learning", tmp_path)
    assert legend_of(figure) == ["alpha, 3 seeds"]
    axes = figure.axes[0]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([60, 80])
    band = axes.collections[0].get_paths()[0].vertices
    for step, low, high in ((50, 50, 70), (100, 70, 90)):
        at = band[band[:, 0] == step, 1]
        assert (at.min(), at.max()) == (pytest.approx(low), pytest.approx(high))
    assert "from the lowest to the highest" in told(figure)
    assert "not recorded" not in told(figure)


def test_each_player_has_a_panel_of_its_own(tmp_path: Path) -> None:
    trained(tmp_path, "alpha")
    trained(tmp_path, "beta", players=("first", "second"))
    figure, _ = drawn("learning", tmp_path)
    labels = [axes.get_ylabel() for axes in figure.axes[1:]]
    assert labels == [f"training loss ({name})" for name in ("meta", "first", "second")]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1, 1]


def test_a_run_that_trained_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    trained(tmp_path, "alpha")
    folder = evaluated(tmp_path, "beta")
    for kind in ("learning", "time", "steps"):
        _, left_out = drawn(kind, tmp_path)
        assert left_out == [f"'{folder}' (it trained nothing)"]


def test_time(tmp_path: Path) -> None:
    """50 steps of 20 ms are a second."""
    folder = trained(tmp_path, step_ms=20)
    figure, _ = drawn("time", tmp_path)
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[1, 50], [2, 75]]))
    assert axes.get_xlabel() == "time in training steps (s)"
    accuracy = 100 * RIGHT.sum() / 40
    assert points(axes.containers[0]) == ([2.0], [pytest.approx(accuracy)])
    scores = 100 * RIGHT.sum(1) / 10
    interval = student_interval(scores)
    assert bars(axes.containers[0])[0][:, 1] == pytest.approx([interval.low, interval.high])
    assert legend_of(figure) == ["alpha", "test accuracy"]
    assert "Different devices" not in told(figure)
    trained(tmp_path, "beta", step_ms=4000, device={"type": "cuda", "name": "a card"})
    figure, _ = drawn("time", tmp_path)
    assert figure.axes[0].get_xlabel() == "time in training steps (min)"
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([1 / 60, 2 / 60])
    assert figure.axes[0].get_xscale() == "log"
    assert "Different devices, so times do not compare: a processor; a card." in told(figure)
    assert folder.is_dir()


# ---- forest -----------------------------------------------------------------------------------


def test_forest(tmp_path: Path) -> None:
    other = np.array([[5, 5], [4, 5], [2, 5], [5, 5]])
    evaluated(tmp_path, "base")
    evaluated(tmp_path, "better", right=other)
    evaluated(tmp_path, "same")
    figure, left_out = drawn("forest", tmp_path, baseline="base")
    (axes,) = figure.axes
    assert not left_out
    assert [label.get_text() for label in axes.get_yticklabels()] == ["better", "same"]
    difference = 100 * (other - RIGHT).sum(1) / 10  # 10, 10, 10, 0
    assert points(axes.containers[0]) == ([pytest.approx(difference.mean())], [0])
    low, high = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert bars(axes.containers[0])[0][:, 0] == pytest.approx([low, high])
    assert axes.lines[0].get_xdata() == [0, 0]  # the line at zero
    assert axes.texts[0].get_text() == f"+7.50 [{low:+.2f}, {high:+.2f}]".replace(
        "-", "\N{MINUS SIGN}"
    )
    assert axes.texts[1].get_text() == "+0.00 [+0.00, +0.00]"
    filled = [container.lines[0].get_markerfacecolor() for container in axes.containers]
    assert filled == ["white", "white"]  # 7.5 -0.46 to 15.46: not sure; and no difference
    assert "not corrected for the number of rows" in told(figure)


def test_forest_has_a_panel_for_each_setting(tmp_path: Path) -> None:
    for shot in (1, 5):
        evaluated(tmp_path, "base", shot=shot)
        evaluated(tmp_path, "other", right=RIGHT[:, ::-1], shot=shot)
    alone = evaluated(tmp_path, "alone", shot=10)
    figure, left_out = drawn("forest", tmp_path, baseline="base")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["2-way 1-shot", "2-way 5-shot"]
    assert left_out == [f"'{alone}' has no run of base on the same episodes"]


def test_forest_without_a_baseline(tmp_path: Path) -> None:
    evaluated(tmp_path, "base")
    with pytest.raises(ConfigError, match="give --baseline METHOD"):
        drawn("forest", tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'base'"):
        drawn("forest", tmp_path, baseline="bas")


# ---- steps and settings -------------------------------------------------------------------------


def test_steps_without_the_warm_up(tmp_path: Path) -> None:
    timing = dict.fromkeys(("step_ms", "tasks_per_s", "adapt_ms", "predict_ms"))
    folder = trained(tmp_path, step_ms=10, timing=timing | {"warmup_steps": 50})
    table = (folder / "steps.csv").read_text().splitlines()
    table[1:51] = [line.replace(",10.0,1.0,", ",9999.0,1.0,") for line in table[1:51]]
    (folder / "steps.csv").write_text("\n".join(table) + "\n")
    figure, _ = drawn("steps", tmp_path)
    left, right = figure.axes
    assert left.texts[0].get_text() == "10"
    assert [bar.get_width() for bar in right.patches] == pytest.approx([10, 70, 20])
    assert [bar.get_x() for bar in right.patches] == pytest.approx([0, 10, 80])
    assert "Device: a processor." in told(figure)


def test_settings_has_a_panel_for_what_varies(tmp_path: Path) -> None:
    def run(method: str, way: int, shot: int, accuracy: float, seed: int = 0) -> None:
        task = {"way": way, "shot": shot, "query": 5, "unlabeled": 0, "distractors": 0}
        ends = {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy + 0.1]}
        evaluated(tmp_path, method, task=task, test=ends, seed=seed)

    run("alpha", 5, 1, 0.6)
    run("alpha", 5, 5, 0.8)
    run("alpha", 20, 1, 0.4)
    run("beta", 5, 1, 0.5, seed=0)
    run("beta", 5, 1, 0.7, seed=1)
    figure, left_out = drawn("settings", tmp_path)
    by_shot, by_way = figure.axes
    assert not left_out
    assert (by_shot.get_title(), by_way.get_title()) == ("5-way", "1-shot")
    assert by_way.get_xlabel() == "classes of an episode (way)"
    assert [t.get_text() for t in by_way.get_xticklabels()] == ["5", "20"]
    alpha, beta = by_shot.containers
    assert points(alpha)[1] == pytest.approx([60, 80])
    assert points(alpha)[0] == pytest.approx([-0.03, 0.97])
    assert bars(alpha)[0][:, 1] == pytest.approx([50, 70])
    assert points(beta)[1] == pytest.approx([60])
    assert bars(beta)[0][:, 1] == pytest.approx([50, 70])  # the two seeds
    assert points(by_way.containers[0])[1] == pytest.approx([60, 40])
    assert "from the lowest to the highest" in told(figure)


def test_panels_of_settings_that_share_nothing() -> None:
    assert panels_of({"a": {(5, 1): (1, 1, 1), (20, 5): (1, 1, 1)}}) == [(1, 5), (1, 20)]
    assert panels_of({"a": {(5, 1): (1, 1, 1)}, "b": {(5, 5): (1, 1, 1)}}) == [(1, 5)]


# ---- series -------------------------------------------------------------------------------------


def test_a_repeated_run_counts_once_the_newest(tmp_path: Path) -> None:
    from fewshot_bench.figures import Request
    from tests.figures.drawn_runs import loaded

    old = trained(tmp_path)
    new = trained(tmp_path)
    names = sorted([old, new], key=lambda folder: folder.name)
    ask = Request()
    (series,) = gather(loaded(tmp_path), ask)
    assert [run.folder for run in series.runs] == [names[1]]
    assert ask.left_out == [f"'{names[0]}' is a duplicate; using the newer '{names[1].name}'"]


def test_windows_have_all_steps_once() -> None:
    parts = windows(np.arange(7.0), most=3)[0]
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]
    assert len(windows(np.arange(2.0), most=3)[0]) == 2
