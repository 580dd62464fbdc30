"""A control equals its base to the last bit, under the documented conditions only.

MetaGAN with the weights of all GAN terms at 0 is the method that it wraps: after a whole training
every weight and every test accuracy has the same bits, over MAML (first and second order, constant
and annealed rate) and over a Relation Network, if both have the same optimizer, schedule and
training tasks. Where this is not so (alternating updates, other factors of Adam, another schedule,
clipped gradients, a sum over tasks, the wider last layer over MAML, the learned scale over
ProtoNet) the documentation says so, and a test shows the difference.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fsb_maml.maml import MAML
from pandas import read_csv
from safetensors.torch import load_file

import fewshot_bench
from fewshot_bench import method as contract
from fewshot_bench.config.resolve import configure
from fewshot_bench.episode import Task
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.runs.build import build_method
from fewshot_bench.testing import TinyBackbone

WHOLE, SHORT = 60, 4  # steps

DATA: dict[str, Any] = {
    "dataset": "glyphs", "train_classes": 12, "validation_classes": 6, "test_classes": 6,
    "way": 3, "shot": 1, "query": 2, "train_way": 3, "train_query": 2, "task_batch": 2,
    "episodes": 12, "validation_episodes": 3, "validate_every": 30, "backbone_channels": 4,
}  # fmt: skip
NO_GAN = {
    f"{term}_weight": 0.0
    for term in ("outer_real", "outer_fake", "inner_real", "inner_fake", "generator")
}
# What MetaGAN has to be given beside that to train as its base does.
AS_A_BASE: dict[str, Any] = NO_GAN | {
    "generator_network": "small", "encoder_network": "small", "generator_z_dim": 4,
    "generator_fakes_per_class": 1,
    "update": "joint", "reduction": "mean", "lr": 2e-3, "betas": (0.9, 0.999), "halve_every": 0,
    "anneal": False,
}  # fmt: skip
FIRST_ORDER = {"first_order": True, "pooling": "flatten", "inner_steps": 1}
MAML_ALONE = FIRST_ORDER | {"lr": 2e-3, "anneal": False}
OVER_MAML: dict[str, Any] = {f"base_{name}": value for name, value in FIRST_ORDER.items()}
# Its squared error and its clipping have no counterpart in MetaGAN.
RELATIONS = {"lr": 2e-3, "loss": "cross_entropy", "clip": None, "halve_every": 0}
OF_RELATIONS = {"backbone": "conv4-relation", "backbone_statistics": "running"}
PROTOTYPES = {"lr": 2e-3, "halve_every": 0}

Result = tuple[dict[str, torch.Tensor], list[float]]


class Trained:
    """Trains what is asked for, once: the weights of a run and its test accuracies."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, dict[str, Result]()

    def __call__(self, method: str, **options: Any) -> Result:
        name = repr((method, sorted(options.items())))
        if name not in self.known:
            places = {"runs_dir": str(self.folder), "cache_dir": str(self.folder / "cache")}
            record = fewshot_bench.run(method, **(DATA | places | options))
            folder = self.folder / record["id"]
            accuracies = read_csv(folder / "episodes.csv")["accuracy"].tolist()
            self.known[name] = load_file(folder / "weights.safetensors"), accuracies
        return self.known[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("runs"))


def differing(base: Result, control: Result) -> set[str]:
    """Weights of the base that the control has otherwise, to the bit."""
    own, others = base[0], control[0]
    return {name for name, w in own.items() if not torch.equal(w, others[f"base.{name}"])}


@pytest.mark.parametrize("anneal", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_over_maml_it_is_maml(trained: Trained, first_order: bool, anneal: bool) -> None:
    """MAML and its control are trained for 60 steps, with and without ``--anneal``: no weight and
    no test accuracy differs in a bit.
    """
    own = MAML_ALONE | {"first_order": first_order, "anneal": anneal}
    base = trained("maml", steps=WHOLE, **own)
    over = OVER_MAML | {"base_first_order": first_order, "anneal": anneal}
    control = trained("metagan", base="maml", steps=WHOLE, **(AS_A_BASE | over))
    assert len(base[0]) == 18
    assert differing(base, control) == set()
    assert base[1] == control[1]


@pytest.mark.parametrize("head", ["logsumexp", "extra"])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_over_a_relation_network_it_is_that(trained: Trained, statistics: str, head: str) -> None:
    """A Relation Network with the softmax loss and its control are trained for 60 steps with a rate
    that is halved: no weight and no test accuracy differs in a bit.
    """
    backbone = OF_RELATIONS | {"backbone_statistics": statistics}
    own = backbone | RELATIONS | {"halve_every": 20}
    base = trained("relationnet", steps=WHOLE, **own)
    control = trained(
        "metagan", base="relationnet", steps=WHOLE,
        **(AS_A_BASE | backbone | {"halve_every": 20, "head": head}),
    )  # fmt: skip
    assert differing(base, control) == set()
    assert base[1] == control[1]


@pytest.mark.parametrize(
    "change",
    [
        {"update": "alternating"},  # the generator's turns take every other batch of tasks
        {"betas": (0.5, 0.9)},  # MetaGAN's own default
        {"eps": 1e-4},
        {"halve_every": 1},
        {"anneal": True},
        {"head": "extra"},  # the last layer is larger, and drawn anew
        {"inner_supervised_weight": 0.5},
    ],
    ids=lambda change: "-".join(change),
)
def test_under_other_conditions_it_is_not_maml(trained: Trained, change: dict[str, Any]) -> None:
    """Each condition that the README names is violated in turn: every weight then differs from
    MAML's.
    """
    base = trained("maml", steps=SHORT, **MAML_ALONE)
    same = trained("metagan", base="maml", steps=SHORT, **(AS_A_BASE | OVER_MAML))
    assert differing(base, same) == set()
    own, others = base[0], trained(
        "metagan", base="maml", steps=SHORT, **(AS_A_BASE | OVER_MAML | change)
    )[0]  # fmt: skip
    equal = {
        name
        for name, w in own.items()
        if w.shape == others[f"base.{name}"].shape and torch.equal(w, others[f"base.{name}"])
    }
    assert equal == set()


def test_a_sum_over_tasks_is_another_step(trained: Trained) -> None:
    """``--reduction sum`` doubles the gradient of two tasks, which only Adam's epsilon shows: with
    a large one the weights differ.
    """
    options = AS_A_BASE | OVER_MAML | {"eps": 1e-2}
    mean = trained("metagan", base="maml", steps=SHORT, **options)[0]
    total = trained("metagan", base="maml", steps=SHORT, **(options | {"reduction": "sum"}))[0]
    assert not any(torch.equal(w, total[name]) for name, w in mean.items() if "base." in name)


@pytest.mark.parametrize("own", [{"clip": 1e-3}, {"loss": "squared_error"}, {"halve_every": 1}])
def test_under_its_own_settings_a_relation_network_is_not_its_control(
    trained: Trained, own: dict[str, Any]
) -> None:
    """A Relation Network with clipping, its paper's squared error or another schedule is trained
    beside its control: they differ.
    """
    base = trained("relationnet", steps=SHORT, **(OF_RELATIONS | RELATIONS))
    control = trained("metagan", base="relationnet", steps=SHORT, **(AS_A_BASE | OF_RELATIONS))
    assert differing(base, control) == set()
    other = trained("relationnet", steps=SHORT, **(OF_RELATIONS | RELATIONS | own))
    assert differing(other, control)


def test_over_protonet_it_has_a_learned_scale(trained: Trained) -> None:
    """ProtoNet and its control are trained equally: the control learns a scale of distances that
    ProtoNet lacks, and every weight differs.
    """
    backbone = {"backbone": "conv4", "backbone_statistics": "running"}
    base = trained("protonet", steps=SHORT, **(backbone | PROTOTYPES))
    control = trained("metagan", base="protonet", steps=SHORT, **(AS_A_BASE | backbone))
    learned = {name for name in base[0] if "running" not in name and "num_batches" not in name}
    assert learned <= differing(base, control)
    assert set(control[0]) - {f"base.{name}" for name in base[0]} >= {"base.log_scale"}
    assert control[0]["base.log_scale"].item() != 0


def every_schedule() -> Mapping[str, Any]:
    """Each schedule of each built-in method that trains, over its options that choose one."""
    registry, found = Registry.discover(), dict[str, Any]()
    for method in ("maml", "protonet", "relationnet", "soft-kmeans", "metagan"):
        for option in ({"anneal": True}, {"halve_every": 7}):
            if not option.keys() <= configure(method).method_options.keys():
                continue
            chosen = configure(method, **option).method_options
            with torch.random.fork_rng(devices=[]):
                built = build_method(registry, method, chosen, TASK, TinyBackbone())
            found |= {
                f"{method} {option} {name}": player.schedule
                for name, player in built.players().items()
            }
    return found


TASK = Task(3, 1, 2, image_shape=(1, 8, 8))


def test_there_is_one_place_for_schedules() -> None:
    """The schedules of all built-in methods are collected: each is a function of
    ``fewshot_bench.method``, so that two methods with one option have one rate.
    """
    found = every_schedule()
    assert len(found) >= 7
    for name, schedule in found.items():
        if schedule is not None:
            assert inspect.getmodule(schedule) is contract, name
    cosines = {schedule for name, schedule in found.items() if "anneal': True" in name}
    assert cosines == {contract.cosine}


def test_the_cosine_has_the_precision_of_python() -> None:
    """A method's annealed rate is compared with half a cosine wave in double precision: they are
    equal.
    """
    import math

    schedule = MAML(TASK, TinyBackbone(), anneal=True).players()["meta"].schedule
    assert schedule is not None
    for step in range(7):
        assert schedule(step, 7) == 0.5 + 0.5 * math.cos(math.pi * step / 7)
