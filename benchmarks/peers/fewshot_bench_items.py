"""fewshot-bench itself, so that one clock times everybody. Runs in its own environment."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from common import Bench, Step

sys.path.insert(0, str(Path(__file__).parents[1]))

from work import SETTINGS
from work import prepare as prepare_work

# Its executor's threads live as long as the worker.
_open = ExitStack()


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item, through the toolkit's own loop and evaluation."""
    assert item in SETTINGS, item
    work = prepare_work(item, bench.device, small=bench.small)
    _open.enter_context(work.executor.running())
    return work.step
