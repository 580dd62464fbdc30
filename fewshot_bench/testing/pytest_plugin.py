"""A pytest plugin: each check of a conformance suite is a test; see :mod:`fewshot_bench.testing`.

Every pytest of the environment loads it, so it imports torch only when a test asks for a check.
"""

from functools import partial

import pytest

FIXTURE = "fsb_check"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "conformance(name, kind=None, **options): checks of fewshot-bench on a plugin's object; "
        f"the test takes {FIXTURE} and calls it",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each check, with the ids of ``fsb check``."""
    if FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("conformance")
    if marker is None:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid} takes {FIXTURE}; mark it with "
            '@pytest.mark.conformance("NAME")'
        )
    from fewshot_bench.hooks.registry import Registry
    from fewshot_bench.testing.suites import suite

    found = suite(Registry.discover(), *marker.args, **marker.kwargs)

    def call(id: str) -> None:
        (outcome,) = found.run([id])
        if outcome.status == "failed":
            pytest.fail(f"{outcome.sentence} {outcome.message}", pytrace=False)
        if outcome.status == "not claimed":
            pytest.skip(f"not claimed: {outcome.message}")

    ids = [check.id for check in found.checks]
    metafunc.parametrize(FIXTURE, [partial(call, id) for id in ids], ids=ids)
