"""What properties are tried with, and what has to hold of every answer."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.command_line import Answer
from tests.faults.fault import OBEYED

FEW, MANY = 25, 1500
HEALTH = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
HOSTILE = st.sampled_from(
    ["", "../../x", "/etc/passwd", "\x1b[2J", "\u202egnp.exe", "<script>", "=1+1", "$\\frac{",
     "[/red]", "\ud800", "a\nb", "{{7*7}}", "%s%n", "nan", "x" * 300, "\0"]
)  # fmt: skip
TEXTS = st.text(max_size=8) | HOSTILE
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, -1, 1e308, 10**30])
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


def bounded(count: int) -> Any:
    """The settings of a property: the same examples each time for the few, others for the many."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=HEALTH,
        derandomize=count == FEW,
        phases=[Phase.explicit, Phase.generate] if count == FEW else list(Phase),
        database=None,
    )


def check(said: Answer) -> None:
    """What holds of every answer."""
    assert "Traceback" not in said.out + said.err
    assert "(--debug shows where)" not in said.err, said.err
    assert not OBEYED.search(said.out + said.err)
    assert said.code in (0, 1, 2)
