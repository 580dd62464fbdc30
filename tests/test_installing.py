"""What is installed changes no number of what does not name it, and costs next to no time."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fewshot_bench
from fewshot_bench.hooks.registry import KINDS, Registry
from tests.command_line import Process
from tests.ratios import ratio

# It registers something of every kind, takes names of built-in things, answers every hook, and
# tries to get at the random numbers when it is imported.
EVERYTHING = """
import random
import numpy
import torch
from fewshot_bench import hookimpl

random.seed(1)
numpy.random.seed(1)
torch.manual_seed(1)
torch.rand(7)
""" + "".join(
    f"""
@hookimpl
def register_{kind}():
    return {{"everything": "json:loads", "{taken}": "json:loads"}}
"""
    for kind, taken in (
        ("methods", "maml"),
        ("datasets", "glyphs"),
        ("backbones", "conv4-strided"),
        ("samplers", "closed"),
        ("metrics", "accuracy"),
        ("observers", "tensorboard"),
        ("exporters", "markdown"),
    )
)
EVERYTHING += """
@hookimpl(tryfirst=True)
def locate_dataset(name):
    return "/no/such/folder"
"""
# They say when and where, and how long it took.
NOT_COMPARED = ("id", "started", "ended", "timing", "environment", "command", "training")


def numbers(method: str, folder: Path, **more: Any) -> dict[str, Any]:
    """A small run's record and weights, without what tells the time."""
    record = fewshot_bench.run(
        method, way=3, shot=1, query=2, steps=2, task_batch=2, episodes=5, validation_episodes=3,
        train_classes=10, validation_classes=6, test_classes=6, runs_dir=str(folder),
        cache_dir=str(folder / "cache"), **more,
    )  # fmt: skip
    weights = folder / record["id"] / "weights.safetensors"
    kept = {name: value for name, value in record.items() if name not in NOT_COMPARED}
    kept["config"] = {n: v for n, v in record["config"].items() if n not in ("runs_dir",)}
    kept["best"] = record["validation"] and record["validation"]["accuracy"]
    return kept | {"weights": weights.read_bytes()}


def bare(value: Any) -> Any:
    """Without the distribution in front of names that are claimed twice."""
    if isinstance(value, str):
        return value.removeprefix("fewshot-bench:")
    if isinstance(value, dict):
        return {name: bare(v) for name, v in value.items()}
    return [bare(v) for v in value] if isinstance(value, list) else value


def test_a_plugin_that_registers_everything_changes_no_number(
    fake_distribution: Callable[..., Path], tmp_path: Path
) -> None:
    before = numbers("metagan", tmp_path / "runs")
    fake_distribution("fake-everything", "fake_everything", EVERYTHING)
    registry = Registry.discover()
    assert all("everything" in registry.names(kind) for kind in KINDS)
    after = numbers("metagan", tmp_path / "runs")
    assert before["test"]["accuracy"] is not None
    assert bare(after) == before


def test_help_with_twenty_plugins_is_quick(
    fake_distribution: Callable[..., Path], tmp_path: Path, fsb_process: Process
) -> None:
    def shows_help(path: str) -> None:
        answer = fsb_process("--help", PYTHONPATH=path)
        assert (answer.code, answer.err) == (0, "")

    def of_children() -> float:
        """Seconds of processor time of all processes that ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    site = tmp_path / "site"
    source = "from fewshot_bench import hookimpl\n@hookimpl\ndef register_methods():\n"
    for i in range(19):
        names = f"    return {{'dummy-{i}': 'json:loads'}}\n"
        fake_distribution(f"dummy-{i}", f"dummy_{i}", source + names)
    fake_distribution("dummy-broken", "dummy_broken", "import no_such_module")
    together, alone = (lambda: shows_help(str(site))), (lambda: shows_help(""))
    assert ratio(together, alone, 1.3, of_children) < 1.3
    rows = Registry.discover().plugins
    assert [plugin.name for plugin in rows if plugin.error] == ["dummy_broken"]
    assert sum(plugin.name.startswith("dummy_") for plugin in rows) == 20
