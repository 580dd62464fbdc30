"""``fsb check`` and the pytest plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Answer, InProcess

pytest_plugins = ("pytester",)

MINE = """
import torch
from fewshot_bench import Method


class Mine(Method):
    wants_backbone = False

    def __init__(self, task, *, noise: float = 0.0):
        super().__init__(task)
        self.noise = noise

    def adapt(self, support):
        return support.images.flatten(3).mean(2)

    def predict(self, state, query):
        logits = -torch.cdist(query.flatten(2), state)
        return logits + self.noise * torch.rand_like(logits) if self.noise else logits


def score(logits, target):
    return logits.mean()
"""


Check = Callable[[str], Answer]


@pytest.fixture
def check(tmp_path: Path, fsb: InProcess) -> Check:
    """``fsb check`` in a folder with ``mine.py``."""
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    return lambda typed: fsb("check", *typed.split(), at=tmp_path)


def test_a_line_for_each_check_and_a_summary(check: Check) -> None:
    lines = check("./mine.py:Mine").succeeded().out.splitlines()
    assert lines[0].split()[:2] == ["builds-alike", "ok"]
    assert any(line.split()[:3] == ["class-relabeling", "not", "claimed"] for line in lines)
    assert lines[-1] == "method 'mine.py:Mine': 17 passed, 6 not claimed, 2 note."


def test_a_failure_has_numbers_a_mend_and_code_1(check: Check) -> None:
    answer = check("./mine.py:Mine --noise 0.1 --only repeatable --only shapes")
    assert answer.code == 1
    assert "shapes             ok" in answer.out
    assert "-> it draws from torch's global generator; draw from fewshot_bench.rng" in answer.out


def test_json(check: Check) -> None:
    answer = check("./mine.py:score --kind metrics --json")
    found = json.loads(answer.out)
    assert answer.code == 1
    assert found["checked"] == "metric 'mine.py:score'"
    assert found["checks"][0]["id"] == "one-score-per-task"
    assert found["checks"][0]["status"] == "failed"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("protonett", "no plugin object named 'protonett'; did you mean 'protonet'?"),
        ("accuracy --only order", "no check named 'order'"),
        ("./mine.py:score", "is a function; give --kind backbones or --kind metrics"),
        ("csv", "no plugin object named 'csv'"),
        ("protonet --kind exporters", "no kind to check named 'exporters'"),
        ("maml --inner-stps 3", "did you mean '--inner-steps'?"),
        ("protonet --inner-lr 3", "no option '--inner-lr' here; it belongs to method maml"),
        ("./mine.py:Mine --noise loud", "--noise: expected a number, got 'loud'"),
        ("protonet --image-shape 3,84", "--image-shape: expected C,H,W"),
        ("protonet maml", "unexpected extra argument(s) (maml)"),
        ("", "Missing argument 'NAME'"),
        ("--noise 3 ./mine.py:Mine", "expected NAME first, then options, got '--noise'"),
    ],
)
def test_what_cannot_be_checked(typed: str, expected: str, check: Check) -> None:
    answer = check(typed)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.err
    assert answer.err.count("\n") == 1


def test_the_pytest_plugin_makes_a_test_of_each_check(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(mine=MINE)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.conformance("./mine.py:Mine", noise=0.5)
        def test_mine(fsb_check):
            fsb_check()
        """
    )
    said = pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:randomly", "-rs")
    said.assert_outcomes(passed=10, failed=8, skipped=7)
    said.stdout.fnmatch_lines(["*test_mine?repeatable?*", "*fewshot_bench.rng*"])


def test_torch_is_imported_when_a_check_is_used() -> None:
    """Every pytest of an environment loads the plugin, and with it the package of the checks."""
    script = (
        "import sys\n"
        "import fewshot_bench.testing.pytest_plugin\n"
        "from fewshot_bench import testing\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
        "assert all(getattr(testing, name) is not None for name in testing.__all__)\n"
        "assert not hasattr(testing, 'check_nothing')\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
