"""Checks that plugin authors run: a conformance suite for each kind of plugin, and its parts.

::

    from fewshot_bench.testing import check_method

    assert not [o for o in check_method(MyMethod) if o.status == "failed"]

    episode = tiny_episode()
    assert max(gradient_error(MyMethod(TINY, TinyBackbone()), episode).values()) < 1e-6

With pytest (the plugin comes with fewshot-bench) a test for each check::

    @pytest.mark.conformance("my-method")
    def test_conformance(fsb_check):
        fsb_check()

Nothing here needs data or a trained network, but for the data sets that are checked.
"""

from fewshot_bench.testing.checks import Check, Fault, NotClaimed, Outcome
from fewshot_bench.testing.gradients import gradient_error
from fewshot_bench.testing.precision import precision_error
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
