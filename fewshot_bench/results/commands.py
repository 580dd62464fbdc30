"""The command that repeats a run, from its record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewshot_bench.config.options import flag
from fewshot_bench.config.resolve import REPEATED
from fewshot_bench.config.schema import OPTION_FIELDS

# Where files are written changes no number.
LOCAL = ("runs_dir", "cache_dir")


def command_of(record: Mapping[str, Any]) -> str:
    """``fsb run maml --dataset omniglot --seed 2``: what was chosen; the rest are defaults.

    A run that was started in Python, or by ``fsb compare``, has one too. That of a run that
    evaluates another one's weights is the line that was typed.

    Arguments:
        record: of a run.
    """
    if record.get("evaluated_from"):
        program, *rest = shlex.split(record["command"]) or ["fsb"]
        return shlex.join(["fsb" if Path(program).name == "fsb" else program, *rest])
    config = record["config"]
    values = {**config}
    for name in OPTION_FIELDS:
        values |= config.get(name) or {}
    words = ["fsb", "run", str(record["method"])]
    for name, source in (config.get("sources") or {}).items():
        if source == "user" and name in values and name not in LOCAL:
            words += _typed(name, values[name])
    for option, names in REPEATED.items():
        words += [word for name in config.get(names) or () for word in (flag(option), str(name))]
    return shlex.join(words)


def _typed(name: str, value: Any) -> Iterator[str]:
    typed = flag(name)
    if isinstance(value, bool):
        yield typed if value else f"--no-{typed[2:]}"
        return
    yield typed
    if isinstance(value, list | tuple):
        yield from map(str, value)
    else:
        yield "none" if value is None else str(value)
