"""Every way to run a batch gives the same gradients and predictions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fsb_maml.maml import MAML
from fsb_metagan.metagan import MetaGAN
from fsb_metagan.settings import Encoder, Generator
from fsb_protonet.protonet import ProtoNet

from fewshot_bench import Method
from fewshot_bench.engine.executors import CudaGraphs, Eager, Executor, TaskThreads, choose
from fewshot_bench.engine.executors.base import products_in
from fewshot_bench.engine.executors.graph import make_capturable
from fewshot_bench.engine.training import Plan, Trainer
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Player
from fewshot_bench.testing import TINY, TinyBackbone, tiny_episode
from tests.engine.toys import Prototypes, logged, source

CPU = torch.device("cpu")


def maml(**options) -> MAML:
    return MAML(TINY, TinyBackbone(statistics="running"), inner_steps=3, inner_lr=0.5, **options)


def metagan() -> MetaGAN:
    return MetaGAN(
        TINY,
        base=maml(),
        update="joint",
        head="extra",
        generator=Generator("small", z_dim=4),
        encoder=Encoder("small"),
    )


METHODS: dict[str, Callable[[], Method]] = {
    "maml second order": maml,
    "maml first order": lambda: maml(first_order=True),
    "protonet": lambda: ProtoNet(TINY, TinyBackbone(statistics="running")),
    "metagan": metagan,
}
EXECUTORS: dict[str, Callable[[Method], Executor]] = {
    "batched": lambda m: Eager(m, strategy="batched"),
    "im2col": lambda m: Eager(m, strategy="im2col"),
    "chunks of 2": lambda m: Eager(m, task_chunk=2),
    "batched chunks of 2": lambda m: Eager(m, strategy="batched", task_chunk=2),
    "threads": lambda m: TaskThreads(m, threads=2),
}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("kind", METHODS)
def test_same_gradients(kind: str, executor: str) -> None:
    torch.manual_seed(0)
    method = METHODS[kind]().double().train()
    players, episode = method.players(), tiny_episode(tasks=5)
    turn = tuple(players)
    want = Eager(method, strategy="looped").gradients(episode, players, turn)
    runs = EXECUTORS[executor](method)
    with runs.running():
        got = runs.gradients(episode, players, turn)
    for name in turn:
        assert torch.allclose(got.losses[name], want.losses[name], rtol=1e-10, atol=1e-12)
        for a, b in zip(got.gradients[name], want.gradients[name], strict=True):
            assert (a - b).norm() <= 1e-10 * (1 + b.norm())
    for name, value in want.buffers.items():
        assert torch.allclose(got.buffers[name], value, rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize("executor", EXECUTORS)
def test_same_predictions(executor: str) -> None:
    torch.manual_seed(0)
    method, episode = maml().double().eval(), tiny_episode(tasks=5)
    want = Eager(method).predict(episode).logits
    runs = EXECUTORS[executor](method)
    with runs.running():
        got = runs.predict(episode)
    assert torch.allclose(got.logits, want, rtol=1e-10, atol=1e-12)
    assert got.adapt_ms.shape == (5,)


def test_convolutions_of_every_shape_as_matrix_products() -> None:
    """Strides, paddings, dilations; groups and words are left to the plain convolution."""
    from fewshot_bench.nn import per_task, per_task_strategy, task_weights

    for settings in (
        {"stride": 2, "padding": 1},
        {"stride": (2, 1), "padding": (0, 2), "bias": False},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
    ):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(2, 4, 3, **settings).double()
        images, weights = torch.randn(3, 5, 2, 9, 8).double(), task_weights(layer, 3)
        want = per_task(layer, images, weights)
        with per_task_strategy("im2col"):
            got = per_task(layer, images, weights)
        assert torch.allclose(got, want, atol=1e-12), settings


def test_precision_is_applied_and_undone() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    with products_in("tf32"):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        with products_in("fp32"):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_bf16_reaches_the_products_of_every_thread() -> None:
    torch.manual_seed(0)
    method = ProtoNet(TINY, TinyBackbone(statistics="running"))
    episode = tiny_episode(tasks=4, dtype=torch.float32)
    players = method.players()
    full = Eager(method).gradients(episode, players, ("meta",)).losses["meta"]
    losses = []
    for runs in (Eager(method, precision="bf16"), TaskThreads(method, 2, precision="bf16")):
        with runs.running():
            losses.append(runs.gradients(episode, players, ("meta",)).losses["meta"])
    assert torch.allclose(losses[0], losses[1], rtol=1e-2)
    assert torch.allclose(losses[0], full, rtol=0.1)
    assert not torch.allclose(losses[0], full, rtol=1e-5)  # it did change something


def test_what_cannot_be_is_told() -> None:
    class Coupled(Prototypes):
        batchable = False

    with pytest.raises(ConfigError, match="--precision bf16: Prototypes"):
        choose("auto", Prototypes(), CPU, precision="bf16")
    with pytest.raises(ConfigError, match=r"--precision: .*got 'fp8'"):
        choose("auto", Prototypes(), CPU, precision="fp8")
    with pytest.raises(ConfigError, match="cannot be split"):
        choose("eager", Coupled(), CPU, task_chunk=2)
    with pytest.raises(ConfigError, match="--engine graph needs a GPU"):
        choose("graph", ProtoNet(TINY, TinyBackbone()), CPU)


def test_a_chunk_bounds_the_tasks_in_memory_of_threads_too() -> None:
    for chunk, held in ((None, torch.get_num_threads()), (1, 1), (100, torch.get_num_threads())):
        runs = choose("auto", Prototypes(), CPU, task_chunk=chunk)
        assert isinstance(runs, TaskThreads)
        assert runs.at_once(64) == held


def test_auto_on_a_gpu_captures_what_declares_it_and_tells_of_what_does_not() -> None:
    cuda = torch.device("cuda")
    with logged() as lines:
        assert choose("auto", ProtoNet(TINY, TinyBackbone()), cuda).graph
        assert not lines
        assert not choose("auto", Prototypes(), cuda).graph
    assert lines == ["engine: eager, because Prototypes does not declare capturable = True"]


def test_an_optimizer_that_cannot_be_captured_is_told_and_training_goes_on() -> None:
    class SecondOrder(Prototypes):
        def players(self):
            return {"meta": Player(super().players()["meta"].parameters, torch.optim.LBFGS)}

    method = SecondOrder()
    runs = CudaGraphs(method)
    with logged() as lines:
        Trainer(method, runs, source(), Plan(2, 2))
    assert lines == [
        "engine: eager, because no CUDA graph could be captured: LBFGS has no capturable form"
    ]
    assert runs.name == "eager"


def test_rates_on_the_device_follow_the_schedule() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([parameter], lr=0.5)
    assert make_capturable([adam], CPU) is None
    assert isinstance(adam.param_groups[0]["lr"], torch.Tensor)
