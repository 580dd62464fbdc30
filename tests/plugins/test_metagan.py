"""MetaGAN over small bases: the game's numbers by hand, its players, its randomness."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from fsb_metagan.metagan import MetaGAN
from torch import Tensor, nn

from fewshot_bench.config.options import arguments_of
from fewshot_bench.engine.executors import Eager, TaskThreads, differentiate
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Method
from fewshot_bench.nn import TaskBatchNorm
from tests.plugins.metagan_cases import (
    TASK,
    Descent,
    Metric,
    TinyEncoder,
    episode,
    gradient_of,
    metagan,
)

HEADS = ("logsumexp", "extra")


class Slope(Method):
    """Logits (theta * mean of the image, 0): one weight, one inner step of rate 0.3."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.theta = nn.Parameter(torch.zeros(1))

    def adapt(self, support: Support, inner_loss: Any = None) -> Tensor:
        theta = self.theta.expand(len(support.key), 1)
        (gradient,) = torch.autograd.grad(inner_loss(theta).sum(), theta, create_graph=True)
        return theta - 0.3 * gradient

    def discriminate(self, state: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.mean((2, 3, 4))
        return torch.stack([state * mean, torch.zeros_like(mean)], dim=-1), mean.unsqueeze(-1)

    def become_discriminator(self, outputs: int) -> None:
        assert outputs == 0


class Constant(nn.Module):
    """A generator of images with one gray value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, code: Tensor) -> Tensor:
        return self.value.expand(len(code), *TASK.image_shape)


def slope(**options: Any) -> tuple[MetaGAN, Episode]:
    """Support: class 0 has the gray value 2, class 1 has 0; query the same; fakes have 3."""
    task = Task(way=2, shot=1, query=1, image_shape=TASK.image_shape)
    small = {"generator_network": "small", "encoder_network": "small", "encoder_dropout": 0.0}
    method = MetaGAN(task, base=Slope(task), **arguments_of(MetaGAN, small | options))
    method.encoder, method.generator = TinyEncoder(), Constant(3.0)
    images = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1, 1, 1).expand(1, 2, 1, *TASK.image_shape)
    key = torch.tensor([0])
    target = torch.tensor([[0, 1]])
    batch = Episode(Support(images.double(), None, key), images[:, :, 0].double(), target, key, key)
    return method.double(), batch


def test_inner_loss_eq_7_by_hand() -> None:
    # At theta = 0 every logit is 0, so p = (1/2, 1/2) and p(real) = 2/3. Derivatives by theta:
    # supervised ((1/2 - 1) * 2 + 0) / 2 = -1/2; real -1/3 * 1/2 * (2 + 0) / 2 = -1/6;
    # fake 2/3 * 1/2 * 3 = 1. theta' = -0.3 * (their weighted sum).
    for weights, expected in (
        ({}, -0.3 * (-1 / 2 - 1 / 6 + 1)),
        ({"inner_real_weight": 3.0, "inner_fake_weight": 0.5}, -0.3 * (-1 / 2 - 3 / 6 + 1 / 2)),
        ({"inner_gan": False}, -0.3 * (-1 / 2)),
    ):
        method, batch = slope(**weights)
        assert method.adapt(batch.support).item() == pytest.approx(expected, rel=1e-12)


def test_outer_losses_eqs_1_to_4_by_hand() -> None:
    # theta' = -0.1: the first logit is -0.2 (class 0), 0 (class 1) and -0.3 (fakes).
    method, batch = slope(outer_supervised_weight=2.0, outer_real_weight=3.0, outer_fake_weight=5.0)
    mass = [math.exp(-0.2) + 1, 2.0]
    supervised = -(math.log(math.exp(-0.2) / mass[0]) + math.log(1 / mass[1])) / 2
    real = -sum(math.log(m / (1 + m)) for m in mass) / 2
    fake_mass = math.exp(-0.3) + 1
    fake = -math.log(1 / (1 + fake_mass))
    got = method.losses(batch)
    assert got.players["discriminator"].item() == pytest.approx(
        2 * supervised + 3 * real + 5 * fake
    )
    assert got.players["generator"].item() == pytest.approx(-math.log(1 - math.exp(-fake)))
    assert got.log["p_real_of_fake"].item() == pytest.approx(fake_mass / (1 + fake_mass))
    assert got.log["p_real_of_real"].item() == pytest.approx(sum(m / (1 + m) for m in mass) / 2)
    # Feature matching: mean gray values 1 and 3.
    method, batch = slope(generator_loss="feature_matching", generator_weight=0.5)
    assert method.losses(batch).players["generator"].item() == pytest.approx(0.5 * (1 - 3) ** 2)


def test_unlabeled_images_take_the_real_term_of_the_query_set() -> None:
    method, batch = slope()
    gray = torch.full((1, 3, *TASK.image_shape), 7.0, dtype=torch.float64)
    batch = replace(batch, support=replace(batch.support, unlabeled=gray))
    mass = math.exp(-0.1 * 7) + 1  # S^u = S^s, so theta' stays -0.1
    got = method.losses(batch).log
    assert got["real"].item() == pytest.approx(-math.log(mass / (1 + mass)))


def test_there_are_as_many_fakes_as_real_images_of_q_u(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = metagan(generator_fakes_per_class=None), episode()
    counts: list[int] = []
    draw = method.draw
    monkeypatch.setattr(method, "draw", lambda *a: (counts.append(a[-1]), draw(*a))[1])
    method.losses(batch)
    gray = torch.zeros(batch.query.shape[0], 7, *TASK.image_shape, dtype=torch.float64)
    method.losses(replace(batch, support=replace(batch.support, unlabeled=gray)))
    support = TASK.way * TASK.shot
    assert counts == [support, batch.query.shape[1], support, 7]


def test_with_all_gan_weights_0_the_discriminator_is_its_base_exactly() -> None:
    for first_order in (False, True):
        base = Descent(TASK, first_order).double()
        batch = episode()
        alone = base.losses(batch).players["meta"]
        own = torch.autograd.grad(alone.sum(), list(base.parameters()))
        zero = dict.fromkeys(
            ("outer_real_weight", "outer_fake_weight", "inner_real_weight", "inner_fake_weight",
             "generator_weight"),
            0.0,
        )  # fmt: skip
        method = metagan(base, **zero)
        losses = method.losses(batch)
        assert torch.equal(losses.players["discriminator"], alone)
        gradients = gradient_of(method, batch)
        assert all(map(torch.equal, gradients["discriminator"], own))
        assert all((g == 0).all() for g in gradients["generator"])


@pytest.mark.parametrize("inner_through_fakes", [True, False])
def test_each_player_moves_its_own_parameters_only(inner_through_fakes: bool) -> None:
    method = metagan(inner_through_fakes=inner_through_fakes)
    players = method.players()
    discriminator, generator = (set(map(id, p.parameters.values())) for p in players.values())
    assert not discriminator & generator
    assert discriminator == set(map(id, method.base.parameters()))
    assert discriminator | generator == set(map(id, method.parameters()))

    # What the discriminator gets is what it would get from fakes that nobody generates.
    batch, free = episode(), gradient_of(method, episode())["discriminator"]
    make = method.generate
    method.generate = lambda *args: make(*args).detach()  # type: ignore[method-assign]
    frozen = torch.autograd.grad(
        method.losses(batch).players["discriminator"].sum(),
        list(players["discriminator"].parameters.values()),
    )
    for a, b in zip(free, frozen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_through_fakes_changes_the_generator_alone() -> None:
    on, off = (gradient_of(metagan(inner_through_fakes=flag), episode()) for flag in (True, False))
    for a, b in zip(on["discriminator"], off["discriminator"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(on["generator"][0], off["generator"][0])


def test_numbers_depend_on_the_task_and_nothing_else() -> None:
    method, batch = metagan(encoder_dropout=0.5), episode(tasks=3)
    together = method.losses(batch).players
    torch.manual_seed(99)
    again = method.losses(batch).players
    for name, loss in together.items():
        assert torch.equal(loss, again[name])
        alone = [method.losses(batch.tasks(t, t + 1)).players[name] for t in range(3)]
        torch.testing.assert_close(torch.cat(alone), loss, rtol=1e-12, atol=0)
    other = replace(batch, key=batch.key + 1, support=replace(batch.support, key=batch.key + 1))
    assert not torch.equal(method.losses(other).players["generator"], together["generator"])


def test_task_threads_give_the_same_gradients() -> None:
    method, batch = metagan(encoder_dropout=0.3), episode(tasks=4)
    players = method.players()
    turn = tuple(players)
    expected = Eager(method).gradients(batch, players, turn)
    threads = TaskThreads(method, threads=2)
    with threads.running():
        got = threads.gradients(batch, players, turn)
    for name in turn:
        torch.testing.assert_close(got.losses[name], expected.losses[name], rtol=1e-12, atol=0)
        torch.testing.assert_close(got.gradients[name], expected.gradients[name])


def test_support_and_query_fakes_differ_and_are_counted() -> None:
    method, batch = metagan(), episode()
    h_T = method.encode(batch.support)
    assert h_T.shape == (2, 3)
    support = method.generate(h_T, batch.key, "support", 6)
    query = method.generate(h_T, batch.key, "query", 6)
    assert support.shape == query.shape == (2, 6, *TASK.image_shape)
    assert not torch.equal(support, query)
    assert metagan(generator_fakes_per_class=4).generate(h_T, batch.key, "query", 6).shape[1] == 12


def test_dropout_is_of_the_encoder_in_training_only() -> None:
    method, batch = metagan(encoder_dropout=0.5), episode()
    dropped = method.encode(batch.support)
    plain = metagan(encoder_dropout=0.0).encode(batch.support)
    assert not torch.equal(dropped, plain)
    method.eval()
    assert torch.equal(method.encode(batch.support), plain)


def test_adaptation_at_test_with_and_without_fakes() -> None:
    batch = episode()
    base = metagan(inner_gan=False).eval().adapt(batch.support)
    without = metagan(inner_test_fakes=False)
    in_training = without.adapt(batch.support)
    at_test = without.eval().adapt(batch.support)
    with_fakes = metagan().eval().adapt(batch.support)
    for name, weight in base.items():
        assert torch.equal(at_test[name], weight)
    assert not torch.equal(in_training["head.weight"], base["head.weight"])
    assert not torch.equal(with_fakes["head.weight"], base["head.weight"])


@pytest.mark.parametrize("head", HEADS)
def test_predictions_have_a_logit_per_class(head: str) -> None:
    method, batch = metagan(head=head).eval(), episode()
    logits = method.predict(method.adapt(batch.support), batch.query)
    assert logits.shape == (2, 6, TASK.way)
    assert method.base.head.out_features == TASK.way + (head == "extra")


def test_fakes_leave_no_trace_in_running_statistics() -> None:
    class Normal(Metric):
        def __init__(self, task: Task) -> None:
            super().__init__(task)
            self.body.insert(1, TaskBatchNorm(16, statistics="running"))

    batch = episode()
    method = metagan(Normal(TASK))
    seen = differentiate(method, batch, method.players(), method.turns[0]).buffers
    assert set(seen) == {"base.body.1.running_mean", "base.body.1.running_var"}
    means = [x.flatten(2).mean(1) for x in (batch.support.labeled()[0], batch.query)]
    torch.testing.assert_close(seen["base.body.1.running_mean"], 0.1 * (means[0] + means[1]) / 2)


def test_turns_and_schedule() -> None:
    method = metagan(halve_every=100, lr=0.01, generator_lr=0.02, reduction="sum")
    assert method.turns == (("discriminator",), ("generator",))
    assert metagan(update="joint").turns == (("discriminator", "generator"),)
    for name, rate in (("discriminator", 0.01), ("generator", 0.02)):
        player = method.players()[name]
        assert player.reduction == "sum"
        group = player.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]
        assert (group["lr"], group["betas"], group["eps"]) == (rate, (0.5, 0.9), 1e-8)
        assert [player.schedule(step, 300) for step in (0, 99, 100, 250)] == [1, 1, 0.5, 0.25]
    assert metagan(halve_every=0).players()["generator"].schedule is None
    annealed = metagan(anneal=True).players()["discriminator"].schedule
    assert [annealed(step, 300) for step in (0, 150, 300)] == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "maml"}, "metagan cannot wrap 'maml'"),
        (
            {"base": Method(TASK)},
            "cannot wrap 'Method', which lacks become_disc.* and discriminate",
        ),
        ({"generator_z_dim": 0}, "--generator-z-dim: .*got 0"),
        ({"generator_fakes_per_class": 0}, "--generator-fakes-per-class: .*got 0"),
        ({"encoder_dropout": 1.0}, "--encoder-dropout: .*got 1.0"),
        ({"inner_fake_weight": -0.1}, "--inner-fake-weight: .*got -0.1"),
    ],
)
def test_impossible_options_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        metagan(**options)
    assert "\n" not in str(caught.value)
