"""The loop: it learns, keeps what validation chose, stops at the first bad number."""

import math

import numpy as np
import pytest
import torch

from fewshot_bench.engine.evaluation import evaluate
from fewshot_bench.engine.executors import Eager, choose, differentiate
from fewshot_bench.engine.memory import cost_of_step
from fewshot_bench.engine.training import Plan, Trainer, check_players
from fewshot_bench.episode import Episode, Support, UnlabeledEpisode
from fewshot_bench.errors import ConfigError, Diverged, PluginError
from fewshot_bench.method import Losses, Player
from fewshot_bench.sampling.few_labels import UnlabeledTasks
from tests.engine.toys import Prototypes, TwoPlayers, source, two_threads


def build(kind, **options):
    torch.manual_seed(0)
    return kind(**options)


def trained(method, executor=Eager, steps=20, **plan):
    runs = executor(method)
    trainer = Trainer(method, runs, source(), Plan(steps, 4, **plan))
    with runs.running():
        trainer.run()
    return trainer


@pytest.mark.parametrize("kind", [Prototypes, TwoPlayers])
def test_every_executor_takes_the_same_steps(kind) -> None:
    eager, threads = build(kind).double(), build(kind).double()
    for method, executor in ((eager, Eager), (threads, two_threads)):
        data = source()
        data.dtype = torch.float64
        runs = executor(method)
        with runs.running():
            Trainer(method, runs, data, Plan(15, 4)).run()
    for (name, a), b in zip(eager.state_dict().items(), threads.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-9), name


def test_threads_repeat_to_the_bit() -> None:
    one, two = (trained(build(Prototypes), two_threads) for _ in range(2))
    for a, b in zip(
        one.method.state_dict().values(), two.method.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    for a, b in zip(
        one.history.steps.arrays().values(), two.history.steps.arrays().values(), strict=True
    ):
        assert np.array_equal(a, b, equal_nan=True)


def test_it_learns() -> None:
    method = build(Prototypes)
    runs, data = Eager(method), source(seed=1, noise=60)
    before = evaluate(runs, data, 200, chunk=50).accuracy.mean()
    trained(method, steps=60)
    after = evaluate(runs, data, 200, chunk=50).accuracy.mean()
    assert after > max(before, 0.9)


def test_running_statistics_move_and_nothing_else_in_losses() -> None:
    method = build(Prototypes)
    before = {n: v.clone() for n, v in method.state_dict().items()}
    players, batch = method.train().players(), source().batch(range(3))
    found = Eager(method).gradients(batch, players, ("meta",)).buffers
    assert all(torch.equal(before[n], v) for n, v in method.state_dict().items())
    images = torch.cat([batch.support.images.flatten(1, 2), batch.query], 1).flatten(2)
    layer = method.embed[1]
    seen = torch.stack([layer(part).mean(1) for part in images.split([6, 9], 1)]).mean(0)
    assert torch.allclose(found["embed.2.running_mean"], 0.1 * seen, atol=1e-6)


def test_the_mean_of_the_tasks_is_what_the_loop_differentiates() -> None:
    method, batch = build(Prototypes), source().batch(range(4))
    players = method.players()
    got = Eager(method).gradients(batch, players, ("meta",)).gradients["meta"]
    loss = method.losses(batch).players["meta"].mean()
    want = torch.autograd.grad(loss, list(players["meta"].parameters.values()))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_player_gets_only_its_own_gradient_and_sums_if_it_says_so() -> None:
    method, batch = build(TwoPlayers), source().batch(range(4))
    players = method.players()
    got = differentiate(method, batch, players, ("critic", "forger")).gradients
    losses = method.losses(batch).players
    for name in ("critic", "forger"):
        own = list(players[name].parameters.values())
        want = torch.autograd.grad(losses[name].sum(), own, retain_graph=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got[name], want, strict=True))


def test_turns_get_fresh_batches_and_move_one_player_each() -> None:
    seen = []

    class Watched(TwoPlayers):
        def losses(self, episode):
            seen.append(episode.key.tolist())
            return super().losses(episode)

    trainer = trained(build(Watched), steps=3)
    keys = [key for batch in seen for key in batch]
    assert len(seen) == 6
    assert len(set(keys)) == len(keys)
    assert len(trainer.timer.columns()["step_ms"]) == 3
    assert set(trainer.history.steps.arrays()) >= {"loss_critic", "loss_forger", "accuracy"}


def test_labeled_and_unlabeled_batches_alternate_by_step() -> None:
    """Not by turn: each player has to see both kinds."""
    seen = []

    class Watched(TwoPlayers):
        unlabeled_tasks = True

        def losses(self, episode):
            seen.append(type(episode))
            return super().losses(episode)

        def unlabeled_losses(self, episode):
            seen.append(type(episode))
            images = episode.support.images.unflatten(1, (3, 2))
            support = Support(images, None, episode.support.key)
            target = torch.zeros(episode.query.shape[:2], dtype=torch.int64)
            whole = Episode(support, episode.query, target, episode.class_ids, episode.key)
            return super().losses(whole)

    method, whole = build(Watched), source()
    runs = Eager(method)
    unlabeled = UnlabeledTasks(whole.sampler)
    with runs.running():
        Trainer(method, runs, whole, Plan(4, 2), unlabeled=unlabeled).run()
    assert seen == [Episode, Episode, UnlabeledEpisode, UnlabeledEpisode] * 2


def test_validation_chooses_the_weights() -> None:
    method, snapshots = build(Prototypes), {}
    scores = {2: 0.5, 4: 0.9, 6: 0.7}
    runs = Eager(method)

    def validate(step: int) -> float:
        snapshots[step] = {n: v.clone() for n, v in method.state_dict().items()}
        return scores[step]

    trainer = Trainer(method, runs, source(), Plan(6, 2, validate_every=2), validate)
    with runs.running():
        history = trainer.run()
    assert history.best_step == 4
    assert history.validation == list(scores.items())
    for name, value in method.state_dict().items():
        assert torch.equal(value, snapshots[4][name])


class Exploding(Prototypes):
    """Its loss is NaN when it is called for the fifth time."""

    calls = 0

    def losses(self, episode):
        self.calls += 1
        losses = super().losses(episode)
        if self.calls == 5:
            return Losses({"meta": losses.players["meta"] * math.nan})
        return losses


@pytest.mark.parametrize("window", [1, 8])
def test_nan_names_step_and_player_and_keeps_good_weights(window: int) -> None:
    method = build(Exploding)
    runs = Eager(method)
    trainer = Trainer(method, runs, source(), Plan(8, 2, window=window))
    with runs.running(), pytest.raises(Diverged, match="step 5: the loss of player 'meta'"):
        trainer.run()
    good = trained(build(Prototypes), steps=4)
    # the same batches of two tasks: train a twin for four steps and compare
    twin = build(Prototypes)
    runs = Eager(twin)
    with runs.running():
        Trainer(twin, runs, source(), Plan(4, 2)).run()
    assert good.step == 4
    for (name, a), b in zip(method.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_interrupt_keeps_weights() -> None:
    class Stopped(Prototypes):
        def losses(self, episode):
            if int(self.steps_done) == 3:
                raise KeyboardInterrupt
            self.steps_done += 1
            return super().losses(episode)

        steps_done = 0

    method = build(Stopped)
    runs = Eager(method)
    trainer = Trainer(method, runs, source(), Plan(9, 2))
    with runs.running(), pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.history.best_step == 3
    assert len(trainer.history.steps) == 3


def test_clip_bounds_the_step_and_ema_is_what_is_kept() -> None:
    method = build(Prototypes, clip=1e-12)
    before = method.embed[1].weight.detach().clone()
    trained(method, steps=1)
    assert (method.embed[1].weight - before).abs().max() < 1e-3  # Adam of a gradient under its eps

    averaged, plain = build(Prototypes, ema=0.5), build(Prototypes)
    start = plain.embed[1].weight.detach().clone()
    trained(averaged, steps=1)
    trained(plain, steps=1)
    want = torch.lerp(start, plain.embed[1].weight, 0.5)
    assert torch.allclose(averaged.embed[1].weight, want, atol=1e-6)


def test_schedule_scales_the_rate() -> None:
    class Frozen(Prototypes):
        def players(self):
            player = super().players()["meta"]
            return {
                "meta": Player(player.parameters, player.optimizer, schedule=lambda s, n: s < 2)
            }

    two, many = build(Frozen), build(Frozen)
    trained(two, steps=2)
    trained(many, steps=9)
    assert torch.equal(two.embed[1].weight, many.embed[1].weight)


def test_bad_plugins_are_told() -> None:
    class Shared(TwoPlayers):
        def players(self):
            return {n: Player(dict(self.critic.named_parameters())) for n in ("critic", "forger")}

    class Unknown(TwoPlayers):
        turns = (("critic", "judge"),)

    class WrongShape(Prototypes):
        def losses(self, episode):
            return Losses({"meta": super().losses(episode).players["meta"].mean()})

    class Silent(Prototypes):
        def losses(self, episode):
            return Losses({})

    with pytest.raises(PluginError, match="belongs to both 'critic' and 'forger'"):
        check_players(build(Shared))
    with pytest.raises(PluginError, match="names player 'judge'"):
        check_players(build(Unknown))
    with pytest.raises(PluginError, match=r"shape \(4,\), for player 'meta', got shape \(\)"):
        trained(build(WrongShape))
    with pytest.raises(PluginError, match="no loss for player 'meta'"):
        trained(build(Silent))


def test_choice_of_engine() -> None:
    cpu = torch.device("cpu")
    assert choose("auto", build(Prototypes), cpu).name == "threads"
    assert choose("auto", build(Prototypes), torch.device("cuda")).name == "eager"

    class Coupled(Prototypes):
        batchable = False

    assert choose("auto", build(Coupled), cpu).name == "eager"
    with pytest.raises(ConfigError, match="--engine eager"):
        choose("threads", build(Coupled), cpu)
    with pytest.raises(ConfigError, match=r"--engine: expected one of auto, .*got 'warp'"):
        choose("warp", build(Prototypes), cpu)


def test_flops_of_a_step_are_counted() -> None:
    method = build(Prototypes)
    got = cost_of_step(method, Eager(method), source(), method.players(), task_batch=4).flops
    # Linear 36 -> 8 on 15 images, forward and weight gradient (inputs need none), 2 FLOP a MAC.
    linear = 2 * 36 * 8 * 15 * 2
    assert got >= 4 * linear
    assert got < 4 * linear * 1.5
