"""An option has one name: on the command line, in Python and in a grid's file."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from fewshot_bench.config.names import FIELDS, TYPED_ONLY, flag, option_name

import fewshot_bench
from fewshot_bench.cli.compare import compare
from fewshot_bench.cli.evaluate import evaluate
from fewshot_bench.cli.main import app
from fewshot_bench.cli.resume import resume
from fewshot_bench.cli.run import build_command
from fewshot_bench.config.resolve import configure
from fewshot_bench.config.schema import RunConfig
from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.grid import NOT_HERE, SHOWN, Entry, Grid, cells_of, read_grid
from tests.honesty.small import folder_of, small

METHODS = ("maml", "metagan", "nearest-centroid", "protonet", "relationnet", "soft-kmeans")
ALONE = (*TYPED_ONLY, "if_exists")  # no setting of a configuration; run() takes if_exists
PLUGINS = {"metric": "accuracy", "with_": "tensorboard"}


def options(command: Any) -> dict[str, Any]:
    """{the name that the rule gives to a flag: the parameter of the command}."""
    return {
        option_name(p.opts[0]): p
        for p in command.params
        if p.param_type_name == "option" and p.name != "help"
    }


def value_of(name: str, config: RunConfig) -> Any:
    """What may be given for an option: the value that it has, or the name of a plugin."""
    settings = config.to_dict()
    for group in ("method_options", "backbone_options", "dataset_options"):
        settings |= settings.pop(group)
    return PLUGINS.get(name, settings.get(name))


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_a_run_has_its_name_in_python_and_in_files(
    method: str, tmp_path: Path
) -> None:
    config, registry = configure(method), Registry.discover()
    found = options(build_command(method, [], registry))
    assert set(PLUGINS) | set(ALONE) - {"debug", "help"} <= set(found)
    given = {name: value_of(name, config) for name in found if name not in ALONE}
    for name, parameter in found.items():
        assert parameter.name == name
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
        if name not in NOT_HERE
    ]
    table = "\n".join(lines)
    (tmp_path / "grid.toml").write_text(f"[methods.{method}]\n{table}\n", "utf-8")
    (cell,) = cells_of(read_grid(tmp_path / "grid.toml"), registry)
    assert cell.config.to_dict() | {"sources": {}} == same.to_dict() | {"sources": {}}


def test_every_option_of_compare_has_its_key_in_a_file() -> None:
    """But for those on where things are and how they are shown."""
    settings = set(options(build_command("protonet", [], Registry.discover())))
    names = set(inspect.signature(compare).parameters) - {"what"}
    assert names - settings - set(SHOWN) == {"seeds", "format", "output"}
    assert "runs_dir" in NOT_HERE


def test_every_option_of_eval_and_resume_has_its_name_in_python(tmp_path: Path) -> None:
    config = configure("protonet")
    asked = options(typer.main.get_command(app).commands["eval"])  # type: ignore[attr-defined]
    assert {"metric", "trust_code", "json", "way"} <= set(asked)
    changes = {name: value_of(name, config) for name in asked}
    for name in ("json", "trust_code", "part"):
        del changes[name]
    assert with_changes(config, Registry.discover(), {**changes}).metrics == ("accuracy",)
    named = set(inspect.signature(resume).parameters) - {"run", "json"}
    taken = set(inspect.signature(fewshot_bench.resume).parameters)
    for name in named - taken:
        with pytest.raises(fewshot_bench.errors.RecordError, match=r"no record\.json"):
            fewshot_bench.resume(str(tmp_path), **{name: None})
    assert inspect.signature(evaluate).parameters["metric"].name == "metric"


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
        (lambda: fewshot_bench.run(way=5), "run: give the name of a method first"),
        (lambda: fewshot_bench.run(number), "run: give the name of a method first"),
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
        with pytest.raises(ConfigError, match=f"{name} cannot stand here; give "):
            read_grid(tmp_path / "grid.toml")


def test_the_docstring_of_run_states_the_rule() -> None:
    text = " ".join((fewshot_bench.run.__doc__ or "").split())
    for words in ("flag with underscores", "``with_``", "metric=[", "first_order=False"):
        assert words in text
    assert {option_name("--with"), option_name("--metric")} == set(FIELDS)
