"""A pytest plugin that comes with fewshot-bench: a test for each check of a conformance suite.

::

    @pytest.mark.conformance("my-method")
    def test_conformance(fsb_check):
        fsb_check()

Loaded by every pytest of the environment, so nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIXTURE = "fsb_check"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "conformance(name, kind=None, **options): checks of fewshot-bench on a plugin's object; "
        f"the test takes {FIXTURE} and calls it",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each check, of the same ids as ``fsb check`` shows."""
    if FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("conformance")
    if marker is None:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} takes {FIXTURE}, so it needs a mark: "
            '@pytest.mark.conformance("NAME")'
        )
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.testing.named import suite

    found = suite(Registry.discover(), *marker.args, **marker.kwargs)
    calls = [_call(check, found.subject) for check in found.checks]
    metafunc.parametrize(FIXTURE, calls, ids=[check.id for check in found.checks])


def _call(check: object, subject: object) -> Callable[[], None]:
    """What a test calls: fails with the check's message, or skips what is not claimed."""
    from fewshot_bench.testing.checks import Check, perform

    assert isinstance(check, Check)

    def call() -> None:
        outcome = perform(check, subject)
        if outcome.status == "failed":
            pytest.fail(f"{outcome.sentence} {outcome.message}", pytrace=False)
        if outcome.status == "not claimed":
            pytest.skip(f"not claimed: {outcome.message}")

    return call
