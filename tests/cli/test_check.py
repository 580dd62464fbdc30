"""``fsb check`` and the pytest plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_bench.cli.main import main

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


@pytest.fixture
def fsb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """The command in this process, in a folder with ``mine.py``."""
    (tmp_path / "mine.py").write_text(MINE, "utf-8")
    monkeypatch.chdir(tmp_path)

    def call(typed: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fsb", *typed.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return call


def test_a_line_for_each_check_and_a_summary(fsb: Callable) -> None:
    code, out, _ = fsb("check ./mine.py:Mine")
    lines = out.splitlines()
    assert code == 0, out
    assert lines[0].split()[:2] == ["builds-alike", "ok"]
    assert any(line.split()[:3] == ["class-relabeling", "not", "claimed"] for line in lines)
    assert lines[-1] == "method 'mine.py:Mine': 17 passed, 6 not claimed, 2 note."


def test_a_failure_has_numbers_a_mend_and_code_1(fsb: Callable) -> None:
    code, out, _ = fsb("check ./mine.py:Mine --noise 0.1 --only repeatable --only shapes")
    assert code == 1
    assert "shapes             ok" in out
    assert "-> it draws from torch's global generator; draw from fewshot_bench.rng" in out


def test_json(fsb: Callable) -> None:
    code, out, _ = fsb("check ./mine.py:score --kind metrics --json")
    found = json.loads(out)
    assert code == 1
    assert found["checked"] == "metric 'mine.py:score'"
    assert found["checks"][0]["id"] == "one-score-per-task"
    assert found["checks"][0]["status"] == "failed"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("check protonett", "no plugin object named 'protonett'; did you mean 'protonet'?"),
        ("check accuracy --only order", "no check named 'order'"),
        ("check ./mine.py:score", "is a function; give --kind backbones or --kind metrics"),
        ("check csv", "no plugin object named 'csv'"),
        ("check protonet --kind exporters", "no kind to check named 'exporters'"),
        ("check maml --inner-stps 3", "did you mean '--inner-steps'?"),
        ("check --noise 3 ./mine.py:Mine", "the name comes first"),
    ],
)
def test_what_cannot_be_checked(typed: str, expected: str, fsb: Callable) -> None:
    code, out, err = fsb(typed)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


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
