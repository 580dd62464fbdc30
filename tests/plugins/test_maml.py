"""MAML: the inner loop by hand, gradients against differences and against a plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from fsb_maml.maml import MAML
from torch import Tensor, nn

from fewshot_bench.config.options import load
from fewshot_bench.engine.executors import differentiate
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.method import preset_settings
from fewshot_bench.nn import Frozen, tasks
from fewshot_bench.testing import TINY, TinyBackbone, gradient_error, tiny_episode


class Identity(nn.Module):
    """Images of two pixels are their own features."""

    out_shape = (1, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x


def tiny(statistics: str = "batch", **options: object) -> MAML:
    torch.manual_seed(0)
    settings = {"inner_lr": 0.3, "inner_steps": 3, "pooling": "flatten"} | options
    return MAML(TINY, TinyBackbone(statistics=statistics), **settings).double()


def gradient(method: MAML, episode: Episode) -> list[Tensor]:
    players = method.players()
    return differentiate(method, episode, players, ("meta",)).gradients["meta"]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference, relative to the largest entry."""
    pairs = list(zip(found, expected, strict=True))
    largest = max(float(e.abs().max()) for e in expected)
    return max(float((f - e).abs().max()) for f, e in pairs) / largest


@pytest.fixture(params=["looped", "batched"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A loop over tasks as on a CPU, and vmap as on a GPU, both here on the CPU."""
    if request.param == "batched":
        monkeypatch.setattr(tasks, "_looped", tasks._batched)
    return request.param


# ---- by hand ------------------------------------------------------------------------------------


def linear_case() -> tuple[MAML, Episode]:
    """Two classes, one shot, features (1, 0) and (0, 1), a last layer that starts at 0."""
    method = MAML(
        Task(2, 1, 1, image_shape=(1, 1, 2)),
        Identity(),
        inner_lr=0.5,
        inner_steps=1,
        pooling="flatten",
    ).double()
    nn.init.zeros_(method.net.head.weight)
    nn.init.zeros_(method.net.head.bias)
    support = torch.eye(2, dtype=torch.float64).view(1, 2, 1, 1, 1, 2)
    query = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=torch.float64).view(1, 2, 1, 1, 2)
    key = torch.zeros(1, dtype=torch.int64)
    target = torch.tensor([[0, 1]])
    return method, Episode(Support(support, None, key), query, target, target, key)


def test_one_inner_step_by_hand() -> None:
    """At zero weights p = (1/2, 1/2); dL/dlogits = (p - onehot) / 2 = +-1/4 for each image."""
    method, episode = linear_case()
    theta = method.adapt(episode.support)
    # Weight -0.5 * +-1/4: toward the own class, away from the other. The biases' cancel.
    assert theta["head.weight"].tolist() == [[[0.125, -0.125], [-0.125, 0.125]]]
    assert theta["head.bias"].tolist() == [[0.0, 0.0]]
    logits = method.predict(theta, episode.query)
    assert logits.tolist() == [[[0.25, -0.25], [-0.25, 0.25]]]
    loss = method.losses(episode).players["meta"]
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-12)


def test_two_test_steps_by_hand() -> None:
    """The second step starts from weights of +-1/8: p of the wrong class is s(-1/4)."""
    method, episode = linear_case()
    method.test_steps = 2
    theta = method.eval().adapt(episode.support)
    wrong = 1 / (1 + math.exp(0.25))
    assert theta["head.weight"][0, 0, 0].item() == pytest.approx(0.125 + 0.5 * wrong / 2, rel=1e-12)
    assert method.train().adapt(episode.support)["head.weight"][0, 0, 0].item() == 0.125


def test_the_first_order_gradient_is_the_gradient_at_the_adapted_weights() -> None:
    method, episode = tiny(first_order=True), tiny_episode()
    theta = {n: w.detach().requires_grad_() for n, w in method.adapt(episode.support).items()}
    logits = method.predict(theta, episode.query)
    loss = sum(map(F.cross_entropy, logits, episode.target))
    expected = [g.sum(0) for g in torch.autograd.grad(loss, list(theta.values()))]
    assert worst(gradient(method, episode), expected) < 1e-10


# ---- finite differences -------------------------------------------------------------------------


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("pooling", ["mean", "flatten"])
def test_gradient_matches_finite_differences(
    first_order: bool, statistics: str, pooling: str, executor: str
) -> None:
    method = tiny(statistics, first_order=first_order, pooling=pooling)
    assert method.gradient == ("surrogate" if first_order else "exact")
    assert gradient_error(method, tiny_episode(tasks=2), samples=5)["meta"] < 1e-6


def test_first_order_is_another_gradient_than_second_order() -> None:
    episode = tiny_episode()
    second = gradient(tiny(), episode)
    assert worst(gradient(tiny(first_order=True), episode), second) > 1e-2


# ---- a plain loop -------------------------------------------------------------------------------


def plain_network(theta: list[Tensor], x: Tensor) -> Tensor:
    """TinyBackbone and the last layer, written out."""
    conv1, bias1, scale1, shift1, conv2, bias2, scale2, shift2, head, bias = theta
    x = F.conv2d(x, conv1, bias1, stride=2, padding=1)
    x = F.softplus(F.batch_norm(x, None, None, scale1, shift1, True))
    x = F.conv2d(x, conv2, bias2, padding=1)
    x = torch.tanh(F.batch_norm(x, None, None, scale2, shift2, True))
    return F.linear(x.flatten(1), head, bias)


def plain_gradient(method: MAML, episode: Episode) -> list[Tensor]:
    """Algorithm 2 of Finn et al. 2017 with nothing but autograd."""
    theta = [p.detach().clone().requires_grad_() for p in method.net.parameters()]
    total = torch.zeros((), dtype=torch.float64)
    for images, query, target in zip(
        episode.support.images, episode.query, episode.target, strict=True
    ):
        labels = torch.arange(TINY.way).repeat_interleave(TINY.shot)
        adapted = theta
        for _ in range(method.inner_steps):
            loss = F.cross_entropy(plain_network(adapted, images.flatten(0, 1)), labels)
            step = torch.autograd.grad(loss, adapted, create_graph=True)
            adapted = [w - method.inner_lr * g for w, g in zip(adapted, step, strict=True)]
        total = total + F.cross_entropy(plain_network(adapted, query), target)
    return list(torch.autograd.grad(total, theta))


def test_second_order_gradient_equals_a_plain_loop(executor: str) -> None:
    method = tiny()
    names = [name for name, _ in method.net.named_parameters()]
    assert names[:4] == [
        f"backbone.layers.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")
    ]
    episode = tiny_episode(tasks=3)
    assert worst(gradient(method, episode), plain_gradient(method, episode)) < 1e-10


def test_a_batch_of_tasks_equals_its_tasks_one_by_one(executor: str) -> None:
    method, both = tiny(), tiny_episode(tasks=2)
    together = method.losses(both).players["meta"]
    alone = [method.losses(both.tasks(t, t + 1)).players["meta"] for t in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


# ---- at test ------------------------------------------------------------------------------------


def test_at_test_no_graph_is_kept_and_the_weights_stay() -> None:
    method, episode = tiny().eval(), tiny_episode()
    before = [p.detach().clone() for p in method.parameters()]
    theta = method.adapt(episode.support)
    logits = method.predict(theta, episode.query)
    assert not any(w.requires_grad for w in theta.values())
    assert not logits.requires_grad
    assert all(map(torch.equal, before, method.parameters()))
    assert {w.shape[0] for w in theta.values()} == {2}


@pytest.mark.parametrize("first_order", [False, True])
def test_adaptation_at_test_is_that_of_training(first_order: bool) -> None:
    method, episode = tiny(first_order=first_order), tiny_episode()
    trained, tested = method.adapt(episode.support), method.eval().adapt(episode.support)
    for name, weight in trained.items():
        torch.testing.assert_close(weight.detach(), tested[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("whole", [True, False])
def test_what_the_backbone_freezes_stays_in_the_inner_loop(executor: str, whole: bool) -> None:
    """Adapted weights are those that may move, and prediction takes the others from the network."""
    torch.manual_seed(0)
    backbone = TinyBackbone(statistics="running")
    first = backbone.layers[0].requires_grad_(False)
    method = MAML(TINY, Frozen(backbone) if whole else backbone, pooling="flatten").double()
    batch = tiny_episode()
    theta = method.adapt(batch.support)
    moving = {name for name, p in method.net.named_parameters() if p.requires_grad}
    assert set(theta) == moving
    assert {"head.weight", "head.bias"} <= moving
    assert (len(moving) == 2) == whole
    assert gradient_error(method, batch, samples=4)["meta"] < 1e-6
    features = method.features(theta, batch.query)
    with torch.no_grad():
        first.weight.mul_(2)
    assert not torch.allclose(method.features(theta, batch.query), features)
    # A method that is frozen as a whole, to be used as it is, learns its tasks as before.
    method.requires_grad_(False)
    assert set(method.eval().adapt(batch.support)) == moving


def test_inner_steps_lower_the_loss_of_the_support_set() -> None:
    method, episode = tiny(test_steps=20, inner_lr=0.1).eval(), tiny_episode()
    images, labels = episode.support.labeled()

    def loss(steps: int) -> Tensor:
        method.test_steps = steps
        logits = method.predict(method.adapt(episode.support), images)
        return torch.stack([F.cross_entropy(task, labels) for task in logits])

    assert (loss(20) < loss(5)).all()
    assert (loss(5) < loss(1)).all()


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_transductive_is_what_the_backbone_makes_it(statistics: str) -> None:
    method, episode = tiny(statistics).eval(), tiny_episode()
    state = method.adapt(episode.support)
    one = method.predict(state, episode.query[:, :1])
    influenced = not torch.allclose(one, method.predict(state, episode.query)[:, :1], atol=1e-12)
    assert influenced is method.transductive is (statistics == "batch")


# ---- options and presets ------------------------------------------------------------------------


def test_a_loss_summed_over_classes_at_alpha_is_the_mean_at_way_times_alpha() -> None:
    """What lets the paper preset write 2.0 for the authors' 0.4 (and one shot a class)."""
    episode = tiny_episode(shot=1)
    torch.manual_seed(0)
    task = Task(3, 1, 2, image_shape=TINY.image_shape)
    method = MAML(task, TinyBackbone(), inner_lr=0.4 * 3, inner_steps=1).double()
    theta = method.adapt(episode.support)
    images, labels = episode.support.labeled()

    def summed(theta: dict[str, Tensor]) -> Tensor:
        logits = method.predict(theta, images)
        return torch.stack([F.cross_entropy(task, labels, reduction="sum") for task in logits])

    method.inner_lr = 0.4
    for name, weight in method.descend(summed, len(episode)).items():
        torch.testing.assert_close(weight, theta[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"inner_steps": 0}, {"test_steps": 0}, {"inner_lr": 0.0}])
def test_impossible_options_are_told(options: dict[str, float]) -> None:
    flag = next(iter(options)).replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{flag}: .*got {next(iter(options.values()))}"):
        tiny(**options)


def test_another_way_than_the_trained_one_is_told() -> None:
    tiny().check_task(TINY)
    with pytest.raises(ConfigError, match=r"3 classes \(--train-way\).* --way 5"):
        tiny().check_task(Task(5, 1))


@pytest.mark.parametrize(
    ("dataset", "way", "expected"),
    [
        ("omniglot", 5, {"inner_lr": 2.0, "inner_steps": 1, "test_steps": 3, "task_batch": 32}),
        ("omniglot", 20, {"inner_lr": 2.0, "inner_steps": 5, "test_steps": 5, "task_batch": 16}),
        ("folder", 5, {"inner_lr": 0.05, "inner_steps": 5, "test_steps": 10, "task_batch": 4}),
    ],
)
def test_paper_preset_trains_as_the_paper_does(
    dataset: str, way: int, expected: dict[str, float]
) -> None:
    data = load(Registry.discover(), "datasets", dataset)
    preset = preset_settings(MAML, "paper", data, Task(way, 1))
    assert preset is not None
    assert {name: preset[name] for name in expected} == expected
    assert (preset["steps"], preset["lr"], preset["first_order"]) == (60_000, 1e-3, False)
    assert preset_settings(MAML, "tutorial", data, Task(way, 1)) is None


def test_annealing_lets_the_rate_fall_to_0() -> None:
    schedule: Callable[[int, int], float] | None = tiny(anneal=True).players()["meta"].schedule
    assert schedule is not None
    assert [schedule(s, 100) for s in (0, 50, 100)] == pytest.approx([1, 0.5, 0], abs=1e-6)
