"""What stands in pictures of classes, of confusion and of episodes, against values by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fewshot_bench.errors import ConfigError
from fewshot_bench.figures import classes, generator
from tests.figures.axes import bars, points
from tests.figures.drawn_runs import CLASSES, RIGHT, drawn, evaluated, keep_pictures, told, trained

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
    assert left_out[0].startswith("names of the classes, shown by their ids: ")


def test_families_are_means_over_their_classes(tmp_path: Path, monkeypatch) -> None:
    names = classes.Names(("A/a", "A/b", "B/a"), ("A", "A", "B"))
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
    with pytest.raises(ConfigError, match=r"--episode 9: .* 0 to 3"):
        drawn("confusion", tmp_path, episode=9)


def test_runs_of_other_classes_or_episodes_are_left_out(tmp_path: Path) -> None:
    first = evaluated(tmp_path, "alpha")
    other = evaluated(tmp_path, "beta", evaluated_digest="f" * 64)
    later = evaluated(tmp_path, "gamma", episodes_digest="f" * 64)
    figure, left_out = drawn("confusion", tmp_path)
    assert len(figure.axes) == 1
    assert f"'{other}' has other test classes than '{first.name}'" in left_out
    assert f"'{later}' has other episodes than '{first.name}'" in left_out
    assert len(drawn("classes", tmp_path)[1]) == 2  # the names, and beta


def test_confusion_and_episodes_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = evaluated(tmp_path, "alpha")
    evaluated(tmp_path, "beta")
    text = (folder / "confusion.csv").read_text()
    (folder / "confusion.csv").write_text(text + "77,0,0,5\n")
    _, left_out = drawn("classes", tmp_path)
    told = "(its confusion.csv and episodes.csv do not belong together)"
    assert f"'{folder}' {told}" in left_out


# ---- pictures -----------------------------------------------------------------------------------


def test_an_episode_beside_what_was_drawn_for_it(tmp_path: Path) -> None:
    keep_pictures(trained(tmp_path), steps=(0, 10, 20, 30, 40, 50))
    figure, _ = drawn("episode", tmp_path)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["real support set", "before training", "step 20", "step 30", "step 50"]
    real_one, _, second, *_ = [axes.images[0].get_array() for axes in figure.axes]
    assert real_one.tolist() == [[10, 10]] * 2 + [[generator.SHADE] * 2] * 2 + [[10, 10]] * 2
    assert second[0].tolist() == [20, 20]


def test_color_pictures_and_damaged_ones(tmp_path: Path) -> None:
    images = np.arange(2 * 3 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 3, 4, 4)
    sheet = generator.sheet(images)
    assert sheet.shape == (2 * 4 + 2, 3 * 4 + 2 * 2, 3)
    assert (sheet[6:, 12:] == images[1, 2].transpose(1, 2, 0)).all()
    folder = trained(tmp_path)
    keep_pictures(folder)
    (folder / "pictures" / "task.npz").write_bytes(b"no")
    with pytest.raises(Exception, match=r"its pictures are damaged"):
        drawn("episode", tmp_path)
