"""What stands in the axes, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_runs import CLASSES, RIGHT, drawn, evaluated, keep_pictures, legend_of, told, trained
from scipy import stats

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.figures import classes, pictures, real
from fewshot_bench.figures.series import gather, stretches
from fewshot_bench.figures.settings import panels_of
from fewshot_bench.results.statistics import student_interval


def points(container) -> tuple[list[float], list[float]]:
    """x and y of an errorbar's markers."""
    line = container.lines[0]
    return list(line.get_xdata()), list(line.get_ydata())


def bars(container) -> np.ndarray:
    """The ends of an errorbar's intervals: [points, 2 ends, (x, y)]."""
    segments = container.lines[2][0].get_segments()
    return np.array([s if len(s) else np.full((2, 2), np.nan) for s in segments])


# ---- learning and time ------------------------------------------------------------------------


def test_learning_of_one_seed(tmp_path: Path) -> None:
    trained(tmp_path)
    figure, _ = drawn("learning", tmp_path)
    seen, loss = figure.axes
    assert seen.lines[0].get_xydata().tolist() == [[50, 50], [100, 75]]
    assert not seen.collections  # no band that nobody measured
    # 100 steps in 50 stretches of two: steps (1, 2) have the losses 1 and 1/2.
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
    assert left_out == [f"'{alone}' has no run of base on the same episodes beside it"]


def test_forest_without_a_baseline(tmp_path: Path) -> None:
    evaluated(tmp_path, "base")
    with pytest.raises(ConfigError, match="give --baseline METHOD"):
        drawn("forest", tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'base'"):
        drawn("forest", tmp_path, baseline="bas")


# ---- classes and confusion ----------------------------------------------------------------------


def test_classes_are_sorted_and_have_intervals_over_their_episodes(tmp_path: Path) -> None:
    evaluated(tmp_path)
    figure, left_out = drawn("classes", tmp_path)
    (axes,) = figure.axes
    scores = {c: RIGHT[c == CLASSES] / 5 for c in range(3)}
    assert [scores[c].tolist() for c in range(3)] == [[1, 0.8, 1], [0.8, 0.6, 1], [1, 0.4]]
    order = [label.get_text() for label in axes.get_yticklabels()]
    assert order == ["class 2", "class 1", "class 0"]
    x, y = points(axes.containers[0])
    assert x == pytest.approx([70, 80, 100 * 2.8 / 3])
    assert y == [0, 1, 2]
    low, high = stats.ttest_1samp(100 * scores[1], 0).confidence_interval(0.95)
    assert high > 100  # which no accuracy is
    assert bars(axes.containers[0])[1][:, 0] == pytest.approx([low, 100])
    assert left_out[0].startswith("names of the classes, whose ids stand for them: ")


def test_families_are_means_over_their_classes(tmp_path: Path, monkeypatch) -> None:
    names = real.Names(("A/a", "A/b", "B/a"), ("A", "A", "B"))
    monkeypatch.setattr(classes, "names_of", lambda run, ask: names)
    evaluated(tmp_path)
    figure, left_out = drawn("classes", tmp_path)
    of_classes, of_families = figure.axes
    assert not left_out
    assert [t.get_text() for t in of_classes.get_yticklabels()] == ["B/a", "A/b", "A/a"]
    assert [t.get_text() for t in of_families.get_yticklabels()] == ["B", "A"]
    x, _ = points(of_families.containers[0])
    means = 100 * np.array([2.8 / 3, 0.8])
    assert x == pytest.approx([70, means.mean()])
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert bars(of_families.containers[0])[1][:, 0] == pytest.approx([low, min(high, 100)])


def test_many_classes_become_a_profile(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(classes, "NAMED", 2)
    evaluated(tmp_path)
    evaluated(tmp_path, "beta", right=RIGHT[:, ::-1])
    figure, _ = drawn("classes", tmp_path)
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[1, 70], [2, 80], [3, 280 / 3]]))
    assert "Hardest for alpha: class 2 (70 %), class 1 (80 %), class 0 (93 %)." in told(figure)


def test_confusion_of_the_hardest_and_of_a_named_episode(tmp_path: Path) -> None:
    evaluated(tmp_path)
    evaluated(tmp_path, "beta", right=RIGHT[:, ::-1])
    figure, _ = drawn("confusion", tmp_path)
    first, second = figure.axes
    assert first.images[0].get_array().tolist() == [[2, 3], [1, 4]]  # episode 2: 2 + 4 of 10
    assert second.images[0].get_array().tolist() == [[4, 1], [3, 2]]
    assert [t.get_text() for t in first.get_xticklabels()] == ["class 2", "class 0"]
    assert [text.get_text() for text in first.texts] == ["2", "3", "1", "4"]
    assert first.get_title() == "alpha: 60.0 %"
    assert told(figure).startswith("Test episode 2, the hardest of alpha")
    figure, _ = drawn("confusion", tmp_path, episode=3)
    assert figure.axes[0].images[0].get_array().tolist() == [[5, 0], [0, 5]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "5"]
    assert told(figure).startswith("Test episode 3:")
    with pytest.raises(ConfigError, match="--episode 9: the first run has episodes 0 to 3"):
        drawn("confusion", tmp_path, episode=9)


def test_runs_of_other_classes_or_episodes_are_left_out(tmp_path: Path) -> None:
    first = evaluated(tmp_path, "alpha")
    other = evaluated(tmp_path, "beta", dataset_digest="f" * 64)
    later = evaluated(tmp_path, "gamma", episodes_digest="f" * 64)
    figure, left_out = drawn("confusion", tmp_path)
    assert len(figure.axes) == 1
    assert f"'{other}' has other test classes than '{first.name}'" in left_out
    assert f"'{later}' met other episodes than '{first.name}'" in left_out
    assert len(drawn("classes", tmp_path)[1]) == 2  # the names, and beta


def test_confusion_and_episodes_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, "alpha")
    evaluated(tmp_path, "beta")
    text = (folder / "confusion.csv").read_text()
    (folder / "confusion.csv").write_text(text + "77,0,0,5\n")
    _, left_out = drawn("classes", tmp_path)
    told = "(its confusion.csv and episodes.csv do not belong together)"
    assert f"'{folder}' {told}" in left_out


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
        task = {"way": way, "shot": shot, "query": 5, "unlabelled": 0, "distractors": 0}
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


# ---- pictures -----------------------------------------------------------------------------------


def test_an_episode_beside_what_was_drawn_for_it(tmp_path: Path) -> None:
    keep_pictures(trained(tmp_path), steps=(0, 10, 20, 30, 40, 50))
    figure, _ = drawn("episode", tmp_path)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["real support set", "before training", "step 20", "step 30", "step 50"]
    real_one, _, second, *_ = [axes.images[0].get_array() for axes in figure.axes]
    assert real_one.tolist() == [[10, 10]] * 2 + [[pictures.SHADE] * 2] * 2 + [[10, 10]] * 2
    assert second[0].tolist() == [20, 20]


def test_colour_pictures_and_damaged_ones(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 3, 4, 4)
    sheet = pictures.sheet(images)
    assert sheet.shape == (2 * 4 + 2, 3 * 4 + 2 * 2, 3)
    assert (sheet[6:, 12:] == images[1, 2].transpose(1, 2, 0)).all()
    folder = trained(tmp_path)
    keep_pictures(folder)
    (folder / "pictures" / "task.npz").write_bytes(b"no")
    with pytest.raises(Exception, match=r"its pictures are damaged"):
        drawn("episode", tmp_path)


# ---- series -------------------------------------------------------------------------------------


def test_a_repeated_run_counts_once_the_newest(tmp_path: Path) -> None:
    from drawn_runs import loaded

    from fewshot_bench.figures import Ask

    old = trained(tmp_path)
    new = trained(tmp_path)
    names = sorted([old, new], key=lambda folder: folder.name)
    ask = Ask()
    (series,) = gather(loaded(tmp_path), ask)
    assert [run.folder for run in series.runs] == [names[1]]
    assert ask.left_out == [f"'{names[0]}' is repeated by '{names[1].name}', which is newer"]


def test_stretches_have_all_steps_once() -> None:
    parts = stretches(np.arange(7.0), most=3)[0]
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]
    assert len(stretches(np.arange(2.0), most=3)[0]) == 2
