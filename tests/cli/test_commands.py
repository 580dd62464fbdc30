"""The command of a record makes the configuration of the record again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from fewshot_bench.cli import run as run_command
from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import IGNORED, RunConfig
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.results.runs import command_of


def record_of(method: str, **settings: Any) -> dict[str, Any]:
    config = configure(method, **settings).to_dict()
    return {"method": method, "config": config, "evaluated_from": None}


def parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that 'fsb run' makes of it."""
    program, verb, method, *words = shlex.split(command)
    assert (program, verb) == ("fsb", "run")
    found: list[RunConfig] = []
    monkeypatch.setattr(
        run_command, "_run", lambda draft, settings, **_: found.append(draft.complete(settings))
    )
    run_command.build_command(method, words, Registry.discover()).main(words, standalone_mode=False)
    return found[0].to_dict()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("nearest-centroid", {}),
        ("maml", {"dataset": "omniglot", "way": 20, "shot": 5, "seed": 3, "inner_lr": 0.25}),
        ("metagan", {"base": "maml", "base_first_order": False, "betas": (0.0, 0.9), "steps": 7}),
        ("protonet", {"dataset": "omniglot", "test_rotations": True, "split": "vinyals"}),
        ("protonet", {"dataset": "omniglot", "test_rotations": False, "within_family": True}),
        ("protonet", {"metric": ["cross-entropy"], "backbone": "conv4", "backbone_channels": 8}),
        ("protonet", {"runs_dir": "a folder", "dataset": "folder:/some where/else"}),
    ],
)
def test_it_comes_back(
    method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(method, **settings)
    again = parsed(command_of(record), monkeypatch)
    for name in record["config"]:
        if name not in IGNORED:
            assert again[name] == record["config"][name], name


def test_what_is_written_where_is_left_out() -> None:
    command = command_of(record_of("maml", runs_dir="elsewhere", steps=5))
    assert command == "fsb run maml --steps 5"


def test_the_command_of_an_evaluation_is_what_was_typed() -> None:
    record = record_of("maml") | {"evaluated_from": "maml-1"}
    record["command"] = "'/an environment/bin/fsb' eval 'runs/a b' --way 20"
    assert command_of(record) == "fsb eval 'runs/a b' --way 20"
    record["command"] = "study.py"
    assert command_of(record) == "study.py"
