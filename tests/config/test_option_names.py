"""An option has one name: on the command line, in Python and in a grid's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fewshot_bench
from fewshot_bench.cli import compare, evaluate, resume, run
from fewshot_bench.config.options import flag, option_name
from fewshot_bench.config.resolve import REPEATED, RESERVED, configure, with_changes
from fewshot_bench.config.schema import CHANGEABLE, OPTION_FIELDS, RESUMABLE, SETTINGS, RunConfig
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.grid import ELSEWHERE, SHOWN, Entry, Grid, cells_of, read_grid
from tests.honesty.small import folder_of, small

METHODS = ("maml", "metagan", "nearest-centroid", "protonet", "relationnet", "soft-kmeans")
PLUGINS = {"metric": "accuracy", "with_": "tensorboard"}


def options(command: Any) -> dict[str, Any]:
    """{the name that the rule gives to a flag: the parameter of the command}."""
    return {
        option_name(max(p.opts, key=len)): p
        for p in command.params
        if p.param_type_name == "option" and p.name != "help"
    }


def value_of(name: str, config: RunConfig) -> Any:
    """What may be given for an option: the value that it has, or the name of a plugin."""
    settings = config.to_dict()
    for group in OPTION_FIELDS:
        settings |= settings.pop(group)
    return PLUGINS.get(name, settings.get(name))


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_a_run_has_its_name_in_python_and_in_files(
    method: str, tmp_path: Path
) -> None:
    config, registry = configure(method), Registry.discover()
    found = options(run.build_command(method, [], registry))
    assert {*PLUGINS, *RESERVED} - {"debug", "help"} <= set(found)
    given = {name: value_of(name, config) for name in found if name not in RESERVED}
    for name, parameter in found.items():
        assert parameter.name == REPEATED.get(name, name)
        assert flag(name) == parameter.opts[0]
        if parameter.secondary_opts:  # a switch
            assert parameter.secondary_opts == [f"--no-{flag(name)[2:]}"]
    same = configure(method, **given)
    assert (same.metrics, same.observers) == (("accuracy",), ("tensorboard",))
    not_given = {name for name, source in same.sources.items() if source != "user"}
    assert not_given == ({"backbone"} if method == "nearest-centroid" else set())
    # TOML has no null: what is none is typed so.
    lines = [
        f"{flag(name)[2:]} = {json.dumps('none' if value is None else value)}"
        for name, value in given.items()
        if name not in ELSEWHERE
    ]
    table = "\n".join(lines)
    (tmp_path / "grid.toml").write_text(f"[methods.{method}]\n{table}\n", "utf-8")
    (cell,) = cells_of(read_grid(tmp_path / "grid.toml"), registry)
    assert cell.config.to_dict() | {"sources": {}} == same.to_dict() | {"sources": {}}


def test_every_option_of_compare_has_its_key_in_a_file() -> None:
    """But for those on where things are and how they are shown."""
    registry = Registry.discover()
    settings = set(options(run.build_command("protonet", [], registry)))
    names = set(options(compare.build_command([], registry)))
    assert names - settings - set(SHOWN) == {"seeds", "format", "output"}
    assert "runs_dir" in ELSEWHERE


def test_every_option_of_eval_and_resume_has_its_name_in_python(tmp_path: Path) -> None:
    config, registry = configure("protonet"), Registry.discover()
    offered = set(options(evaluate.build_command([], registry)))
    names = {SETTINGS[name].option or name for name in CHANGEABLE}
    assert offered == {"json", "trust_code", "part", *names}
    changes = {REPEATED.get(name, name): value_of(name, config) for name in names}
    assert with_changes(config, registry, changes).metrics == ("accuracy",)
    offered = set(options(resume.build_command()))
    assert offered == {"json", "trust_code", "allow_changes", *RESUMABLE}
    for name in RESUMABLE:
        with pytest.raises(fewshot_bench.errors.RecordError, match=r"no record\.json"):
            fewshot_bench.resume(str(tmp_path), **{name: None})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("metrics", "no option named 'metrics'; did you mean 'metric'?"),
        ("observers", "no option named 'observers'; did you mean 'with_'?"),
        ("with", "no option named 'with'; did you mean 'with_'?"),
        ("inner-lr", "no option named 'inner-lr'; did you mean 'inner_lr'?"),
        ("no_first_order", "did you mean 'first_order=False'?"),
        ("if_exist", "did you mean 'if_exists'?"),
        ("inner_rl", "no option named 'inner_rl'; did you mean 'inner_lr'?"),
        ("json", "a run returns its record"),
    ],
)
def test_another_name_is_refused_with_the_right_one(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        fewshot_bench.run("maml", **{name: "x"})
    assert message in str(told.value)


def test_an_evaluation_offers_only_what_it_takes(data_cache: Path, tmp_path: Path) -> None:
    settings = small(data_cache, "nearest-centroid") | {"runs_dir": str(tmp_path)}
    folder = str(folder_of(fewshot_bench.run("nearest-centroid", **settings)))
    with pytest.raises(UnknownName, match="no option named 'if_exists'") as told:
        fewshot_bench.evaluate(folder, if_exists="reuse")
    said = str(told.value)
    assert "did you mean" not in said
    assert said.endswith("See 'fsb eval --help'.")
    assert {"metric", "part", "trust_code", "way", "test_rotations"} <= set(told.value.known)
    assert not {"with_", "steps", "if_exists"} & set(told.value.known)
    for name, known in (("metrics", "did you mean 'metric'?"), ("partt", "did you mean 'part'?")):
        with pytest.raises(UnknownName) as told:
            fewshot_bench.evaluate(folder, **{name: "x"})
        assert known in str(told.value)
    with pytest.raises(ConfigError, match="an evaluation has no observers"):
        fewshot_bench.evaluate(folder, with_="tensorboard")


def test_what_is_no_call_is_told_in_a_line() -> None:
    record: Any = {"id": "x"}
    nothing: Any = None
    number: Any = 5
    for call, said in (
        (lambda: fewshot_bench.run(way=5), "run: expected the name of a method first"),
        (lambda: fewshot_bench.run(number), "run: expected the name of a method first"),
        (
            lambda: fewshot_bench.run("maml", method="protonet"),
            "the method is given twice, maml and protonet",
        ),
        (lambda: fewshot_bench.evaluate(record), "give the folder of a run, a path, and not"),
        (lambda: fewshot_bench.evaluate(nothing), r"evaluate: give the folder of a run, a path\."),
        (lambda: fewshot_bench.resume(record), "resume: give the folder of a run"),
        (lambda: configure("maml", registry=1), "no option named 'registry'"),
    ):
        with pytest.raises(ConfigError, match=said):
            call()


@pytest.mark.parametrize("name", ["method", "registry"])
def test_a_grid_has_no_key_that_is_no_option(name: str) -> None:
    grid = Grid((Entry("a", "maml"), Entry("b", "protonet")), {name: "protonet"})
    with pytest.raises(UnknownName, match=f"no option named '{name}'"):
        cells_of(grid, Registry.discover())


def test_only_what_is_this_machines_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no option named 'steps'"):
        fewshot_bench.resume(str(tmp_path), steps=9)


@pytest.mark.parametrize(("line", "name"), [("seed = 3", "seed"), ("runs-dir = 'x'", "runs-dir")])
def test_a_file_cannot_say_what_would_be_passed_over(line: str, name: str, tmp_path: Path) -> None:
    for text in (f"{line}\n[methods.maml]\n", f"[methods.maml]\n{line}\n"):
        (tmp_path / "grid.toml").write_text(text, "utf-8")
        with pytest.raises(ConfigError, match=f"{flag(name)[2:]} .*; give "):
            read_grid(tmp_path / "grid.toml")


def test_the_docstring_of_run_states_the_rule() -> None:
    text = " ".join((fewshot_bench.run.__doc__ or "").split())
    for words in ("flag with underscores", "``with_``", "metric=[", "first_order=False"):
        assert words in text
    assert {option_name("--with"), option_name("--metric")} == set(REPEATED)
