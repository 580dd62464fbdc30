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

from typing import TYPE_CHECKING

from fewshot_bench.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from fewshot_bench.testing.checks import *  # noqa: F403
    from fewshot_bench.testing.gradients import *  # noqa: F403
    from fewshot_bench.testing.suites import *  # noqa: F403
    from fewshot_bench.testing.tiny import *  # noqa: F403
else:
    _names = {
        "suites": "SUITES check_backbone check_dataset check_method check_metric check_observer "
        "check_sampler",
        "tiny": "TINY TinyBackbone separable_images tiny_episode",
        "checks": "Check Fault NotClaimed Outcome",
        "gradients": "gradient_error precision_error",
    }
    __getattr__ = lazy_exports(__name__, **_names)
    __all__ = [name for names in _names.values() for name in names.split()]
