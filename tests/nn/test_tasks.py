"""Weights of each task: the loop, the batched path and replicas agree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fewshot_bench.nn import TaskBatchNorm, per_task, replica, task_weights, tasks
from fewshot_bench.nn.norm import observed
from fewshot_bench.testing import TinyBackbone

Weights = dict[str, Tensor]


def network(statistics: str = "batch") -> nn.Sequential:
    torch.manual_seed(0)
    backbone = TinyBackbone((1, 6, 6), statistics=statistics)
    return nn.Sequential(backbone, nn.Flatten(), nn.Linear(27, 3)).double()


def images(count: int = 3, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, 1, 6, 6, dtype=torch.float64, generator=g)


def scattered(module: nn.Module, count: int = 3) -> Weights:
    """A weight set for each task, all different."""
    torch.manual_seed(2)
    return {
        name: (weight + 0.3 * torch.randn_like(weight)).detach().requires_grad_()
        for name, weight in task_weights(module, count).items()
    }


def alone(module: nn.Module, x: Tensor, weights: Weights) -> Tensor:
    """A plain copy of the module for each task."""
    outputs = []
    for t, task in enumerate(x):
        copy = network("running" if "running" in repr(module) else "batch")
        copy.load_state_dict({name: weight[t] for name, weight in weights.items()}, strict=False)
        outputs.append(copy(task))
    return torch.stack(outputs)


@pytest.mark.parametrize("path", [tasks._looped, tasks._batched])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_each_task_has_its_own_weights(statistics: str, path) -> None:
    module, x = network(statistics), images()
    weights = scattered(module)
    torch.testing.assert_close(
        path(module, x, weights), alone(module, x, weights), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("path", [tasks._looped, tasks._batched])
def test_parameters_that_are_not_named_are_the_modules_own(path) -> None:
    module, x = network(), images()
    weights = scattered(module)
    some = {name: w for name, w in weights.items() if name.startswith("2.")}
    own = {name: w for name, w in task_weights(module, 3).items() if name not in some}
    expected = alone(module, x, own | some)
    torch.testing.assert_close(path(module, x, some), expected, rtol=1e-12, atol=1e-12)


def adapted_loss(module: nn.Module, path, second_order: bool = True) -> Tensor:
    """The loss of each task after two steps: [T]."""
    x, y = images(), images(seed=2)
    theta = task_weights(module, 3)
    for _ in range(2):
        loss = path(module, x, theta).square().mean((1, 2)).sum()
        gradient = torch.autograd.grad(loss, list(theta.values()), create_graph=second_order)
        theta = {n: w - 0.5 * g for (n, w), g in zip(theta.items(), gradient, strict=True)}
    return path(module, y, theta).logsumexp(2).mean(1)


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_batched_equals_looped_through_second_order_steps(statistics: str) -> None:
    module = network(statistics)
    parameters = list(module.parameters())
    values, gradients = [], []
    for path in (tasks._looped, tasks._batched):
        values.append(adapted_loss(module, path))
        gradients.append(torch.autograd.grad(values[-1].sum(), parameters))
    first = torch.autograd.grad(adapted_loss(module, tasks._looped, False).sum(), parameters)
    assert (values[0] - values[1]).abs().max() < 1e-10
    size = max(g.abs().max() for g in gradients[0])
    assert max((a - b).abs().max() for a, b in zip(*gradients, strict=True)) < 1e-10 * size
    assert max((a - b).abs().max() for a, b in zip(gradients[0], first, strict=True)) > 1e-3 * size


def test_on_a_cpu_tasks_are_looped_over_and_shared_weights_take_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, calls = network(), []
    module.register_forward_hook(lambda _, args, __: calls.append(args[0].shape[0]))
    monkeypatch.setattr(tasks, "_batched", None)
    own = per_task(module, images(), task_weights(module, 3))
    assert calls == [5, 5, 5]
    torch.testing.assert_close(per_task(module, images()), own, rtol=1e-12, atol=1e-12)
    assert calls == [5, 5, 5, 15]


def test_gradients_of_task_weights_are_per_task_and_reach_the_module() -> None:
    module = nn.Linear(2, 1).double()
    theta = task_weights(module, 3)
    assert theta["weight"].shape == (3, 1, 2)
    loss = (theta["weight"].sum((1, 2)) * torch.tensor([1.0, 2.0, 4.0])).sum()
    (each,) = torch.autograd.grad(loss, theta["weight"], retain_graph=True)
    (total,) = torch.autograd.grad(loss, module.weight)
    assert each.tolist() == [[[1.0, 1.0]], [[2.0, 2.0]], [[4.0, 4.0]]]
    assert total.tolist() == [[7.0, 7.0]]


def test_task_weights_of_a_frozen_module_are_leaves() -> None:
    theta = task_weights(nn.Linear(2, 1).requires_grad_(False), 3)
    (g,) = torch.autograd.grad(theta["bias"].sum(), theta["bias"])
    assert g.tolist() == [[1.0]] * 3


@pytest.mark.parametrize("path", [tasks._looped, tasks._batched])
def test_a_module_in_two_places_keeps_its_own_weights(path) -> None:
    shared = nn.Linear(3, 3).double()
    module = nn.Sequential(shared, nn.Tanh(), shared)
    before, x = shared.weight, torch.randn(2, 4, 3, dtype=torch.float64)
    weights = {n: w + torch.randn_like(w) for n, w in task_weights(module, 2).items()}
    y = path(module, x, weights)
    expected = []
    for t in range(2):
        w, b = weights["0.weight"][t], weights["0.bias"][t]
        expected.append(torch.tanh(x[t] @ w.T + b) @ w.T + b)
    torch.testing.assert_close(y, torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert shared.weight is before


@pytest.mark.parametrize("path", [tasks._looped, tasks._batched])
def test_a_parameter_of_two_modules_has_the_tasks_weight_in_both(path) -> None:
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    module[2].weight = module[0].weight
    x, w = torch.randn(2, 4, 3), torch.randn(2, 3, 3)
    expected = torch.stack([torch.tanh(x[t] @ w[t].T) @ w[t].T for t in range(2)])
    torch.testing.assert_close(path(module, x, {"0.weight": w}), expected)
    assert module[2].weight is module[0].weight


def test_a_replica_shares_tensors_and_no_structure() -> None:
    shared = TaskBatchNorm(3, "running")
    module = nn.Sequential(nn.Linear(3, 3), shared, nn.Tanh(), shared)
    twin = replica(module)
    assert type(twin) is nn.Sequential
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in module.named_parameters()]
    for a, b in zip(twin.parameters(), module.parameters(), strict=True):
        assert a is b
    for a, b in zip(twin.buffers(), module.buffers(), strict=True):
        assert a is b
    assert not set(twin.modules()) & set(module.modules())
    assert twin[1] is twin[3]
    twin[0].weight = nn.Parameter(torch.zeros(3, 3))
    assert module[0].weight.abs().sum() > 0
    with observed(twin, 1) as buffers:
        twin(torch.randn(4, 3))
    assert set(buffers) == {"1.running_mean", "1.running_var"}


def test_threads_on_replicas_give_what_one_thread_gives() -> None:
    module, calls = network("running"), 60
    batches = [images(2, seed) for seed in range(4)]
    sets = [
        {n: (w * (1 + 0.1 * i)).detach() for n, w in task_weights(module, 2).items()}
        for i in range(4)
    ]

    def work(own: nn.Module, start: int) -> list[tuple[Tensor, Tensor]]:
        results = []
        for i in range(start, start + calls):
            with observed(own, 2) as buffers:
                y = per_task(own, batches[i % 4], sets[i % 4])
            results.append((y, buffers["0.layers.1.running_mean"]))
        return results

    expected = work(module, 0)[:4]
    own_weights = [p.clone() for p in module.parameters()]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, replica(module), start) for start in (0, 1)]
        for start, future in enumerate(futures):
            for i, (y, mean) in enumerate(future.result()):
                assert torch.equal(y, expected[(start + i) % 4][0])
                assert torch.equal(mean, expected[(start + i) % 4][1])
    assert all(map(torch.equal, module.parameters(), own_weights))
