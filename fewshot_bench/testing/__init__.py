"""Conformance checks for plugin authors: a suite for each kind of plugin, and its parts.

::

    from fewshot_bench.testing import check_method

    assert not [o for o in check_method(MyMethod) if o.status == "failed"]

    episode = tiny_episode()
    assert max(gradient_error(MyMethod(TINY, TinyBackbone()), episode).values()) < 1e-6

With pytest (the plugin comes with fewshot-bench) each check is a test::

    @pytest.mark.conformance("my-method")
    def test_conformance(fsb_check):
        fsb_check()

Only checks of data sets need data. Plugins may use what is exported here; torch is imported when a
name is used, because every pytest of an environment imports this package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot_bench.testing.checks import Check, Fault, NotClaimed, Outcome
    from fewshot_bench.testing.gradients import gradient_error, precision_error
    from fewshot_bench.testing.suites import (
        SUITES,
        check_backbone,
        check_dataset,
        check_method,
        check_metric,
        check_observer,
        check_sampler,
    )
    from fewshot_bench.testing.tiny import TINY, TinyBackbone, separable_images, tiny_episode

__all__ = [
    "SUITES",
    "TINY",
    "Check",
    "Fault",
    "NotClaimed",
    "Outcome",
    "TinyBackbone",
    "check_backbone",
    "check_dataset",
    "check_method",
    "check_metric",
    "check_observer",
    "check_sampler",
    "gradient_error",
    "precision_error",
    "separable_images",
    "tiny_episode",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("checks", "tiny", "gradients", "suites"):
            found = importlib.import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
