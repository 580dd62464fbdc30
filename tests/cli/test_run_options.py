"""The options of ``fsb run METHOD``: built from signatures, shown by --help, refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import InProcess

Install = Callable[..., Path]
Helped = Callable[..., str]

CHATTY = """
print("imported by the registry")
from fewshot_bench import hookimpl

@hookimpl
def register_methods():
    return {"chatty": "fake_chatty_method:Chatty", "outer": "fake_chatty_method:Outer"}
"""
CHATTY_METHOD = """
print("imported when named")
from typing import Annotated
from fewshot_bench import Method, Preset
from fsb_nearest_centroid.nearest_centroid import NearestCentroid

class Chatty(NearestCentroid):
    "Talks about [T, Q] tensors."
    def adapt(self, support):
        print("adapting")
        return super().adapt(support)

class Outer(Method):
    def __init__(self, task, backbone=None, *, base: Annotated[Method, "inside"] = "maml",
                 pair: tuple[int, int] | None = None, maybe: int | None = None):
        super().__init__(task, backbone)

    presets = {"quick": Preset({"base": "protonet"}), "plain": Preset()}
"""


@pytest.fixture
def site(fake_distribution: Install) -> Path:
    """A distribution whose modules print."""
    folder = fake_distribution("fake-chatty", "fake_chatty", CHATTY)
    (folder / "fake_chatty_method.py").write_text(CHATTY_METHOD, "utf-8")
    return folder


@pytest.fixture
def helped(fsb: InProcess) -> Callable[..., str]:
    """The help of ``fsb run ...`` with runs of blanks and frames as one blank."""

    def call(*arguments: str) -> str:
        said = fsb("run", *arguments, "--help", COLUMNS="300")
        assert said.code == 0, said.err
        return re.sub(r"[ │]+", " ", said.out)

    return call


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("maml --inner-rl 3", "fsb run maml: no option '--inner-rl'; did you mean '--inner-lr'?"),
        ("maml --inner-rl=3", "fsb run maml: no option '--inner-rl'; did you mean '--inner-lr'?"),
        ("maml -seed 3", "fsb run maml: no option '-seed'; did you mean '--seed'?"),
        ("maml --no-way", "fsb run maml: no option '--no-way'; did you mean '--way'?"),
        ("metagan --base-inner-rl 3", "did you mean '--base-inner-lr'?"),
        ("maml --split vinyals", "no option '--split' here; it belongs to dataset omniglot."),
        ("protonet --inner-lr 1", "no option '--inner-lr' here; it belongs to method maml."),
        ("maml --xyzzyx 3", "fsb run maml: no option '--xyzzyx'. See 'fsb run maml --help'."),
        ("maml --way", "'--way' requires an argument. See 'fsb run maml --help'."),
        ("maml --seed 1.5", "error: --seed: expected an integer, got '1.5'."),
        ("maml --train-way 1.5", "error: --train-way: expected an integer >= 2, got '1.5'."),
        ("maml --inner-lr nan", "error: --inner-lr: expected a number, got 'nan'."),
        ("maml --pixels bytes", "error: --pixels: expected one of unit, signed, got 'bytes'."),
        ("metagan --betas 1", "'--betas' requires 2 arguments"),
        ("metagan --betas 1 x", "error: --betas: expected 2 numbers, got ('1', 'x')."),
        ("maml more", "unexpected extra argument"),
        ("--seed 3 maml", "fsb run: expected METHOD first, then its options: fsb run METHOD"),
        ("nearest-centroid --dataset glyphs:x", "'glyphs' takes nothing after a colon"),
    ],
)
def test_what_is_no_option_is_told(typed: str, expected: str, fsb: InProcess) -> None:
    said = fsb("run", *typed.split())
    assert said.code == 2
    assert expected in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_help_shows_types_defaults_and_help_in_panels(helped: Helped) -> None:
    text = helped("metagan")
    panels = [text.index(f"─ {panel} ─") for panel in ("Run", "Method", "Backbone", "Data set")]
    assert panels == sorted(panels)
    of_run, of_method = text[panels[0] : panels[1]], text[panels[1] : panels[2]]
    assert "--way <int> classes per episode (default 5)" in of_run
    assert "--within-family --no-within-family" in of_run
    for flag in ("--dataset", "--train-shot", "--init", "--json", "--with", "--engine"):
        assert f" {flag} " in of_run
    assert "--base <str>" in of_method
    assert "--base-inner-lr <float>" in of_method
    assert "--betas <float> <float> Adam's averaging factors, for both (default 0.5 0.9)" in text
    of_backbone = text[panels[2] : panels[3]]
    assert "--backbone-statistics batch|running " in of_backbone
    assert "(default batch)" in of_backbone


def test_help_follows_data_set_and_backbone(helped: Helped) -> None:
    text = helped("protonet", "--dataset", "omniglot", "--backbone=resnet18")
    assert "--split " in text
    assert "--alphabet-size" not in text
    assert "(default omniglot)" in text
    assert "(default resnet18)" in text
    assert "--alphabet-size" in helped("protonet")


def test_help_follows_the_inner_method_that_preset_or_user_names(
    site: Path, helped: Helped
) -> None:
    text = helped("outer")
    assert "--base <str> inside (default protonet)" in text
    assert "--base-halve-every" in text
    assert "--base-inner-lr" not in text
    assert "--pair <int> <int>" in text
    assert "--maybe <int> (default none)" in text
    typed = helped("outer", "--base", "maml")
    assert "--base-inner-lr" in typed
    assert "--base-halve-every" not in typed


def test_json_is_alone_on_standard_output(site: Path, tmp_path: Path, fsb: InProcess) -> None:
    words = ("--json", "--episodes=2", f"--runs-dir={tmp_path / 'runs'}")
    answer = fsb("run", "chatty", *words).succeeded()
    assert json.loads(answer.out)["method"] == "chatty"
    printed = ("imported by the registry", "imported when named", "adapting")
    assert all(line in answer.err for line in printed)


def test_a_docstring_is_no_markup(site: Path, helped: Helped) -> None:
    assert "Talks about [T, Q] tensors." in helped("chatty")


def test_a_method_claimed_twice_spoils_no_list(
    fake_distribution: Install, fsb: InProcess, helped: Helped
) -> None:
    source = "from fewshot_bench import hookimpl\n@hookimpl\n"
    source += "def register_methods():\n    return {'maml': 'fsb_maml.maml:MAML'}\n"
    fake_distribution("fake-maml", "fake_maml", source)
    said = fsb("run", "--help")
    assert said.code == 0, said.err
    assert "fewshot-bench:maml" in said.out
    assert "fake-maml:maml" in said.out
    bare = fsb("run", "maml")
    assert bare.code == 2
    assert "write fake-maml:maml or fewshot-bench:maml" in bare.err
    assert "--inner-lr" in helped("fake-maml:maml")
    assert helped("protonet")
