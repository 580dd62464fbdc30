"""TaskBatchNorm: statistics of each task, and what the running ones would become."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fewshot_bench.nn import TaskBatchNorm, per_task, task_weights, uses_batch_statistics
from fewshot_bench.nn.norm import norm_context, observed
from fewshot_bench.nn.tasks import _batched, _looped

SHAPES = [(5, 3), (4, 3, 2, 5)]  # [N, C] and [N, C, H, W]


def layer(statistics: str = "batch") -> TaskBatchNorm:
    torch.manual_seed(0)
    norm = TaskBatchNorm(3, statistics).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm


def inputs(shape: tuple[int, ...], tasks: int = 2) -> Tensor:
    """[T, *shape], with another mean and spread in each task."""
    torch.manual_seed(1)
    each = torch.arange(1.0, tasks + 1, dtype=torch.float64).view(-1, *[1] * len(shape))
    return torch.randn(tasks, *shape, dtype=torch.float64) * each + 3 * each


def shared(module: nn.Module, x: Tensor) -> Tensor:
    return per_task(module, x)


def looped(module: nn.Module, x: Tensor) -> Tensor:
    return _looped(module, x, task_weights(module, len(x)))


def batched(module: nn.Module, x: Tensor) -> Tensor:
    return _batched(module, x, task_weights(module, len(x)))


PATHS = pytest.mark.parametrize("path", [shared, looped, batched])


@pytest.mark.parametrize("shape", SHAPES)
def test_one_task_equals_torch(shape: tuple[int, ...]) -> None:
    norm, x = layer(), inputs(shape, 1)[0]
    torch_norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3).double()
    torch_norm.load_state_dict(norm.state_dict(), strict=False)
    torch.testing.assert_close(norm(x), torch_norm(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("twice", [False, True])
def test_tasks_of_unequal_size_are_refused(layout: torch.memory_format, twice: bool) -> None:
    """A network that sees one image more in a call would have one task's in another's mean."""

    class Anchored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = layer()

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.cat([x, x[:1] + 9]).contiguous(memory_format=layout))[:-1]

    x = inputs((4, 3, 2, 5), tasks=3)
    with (
        norm_context(double_backward=twice),
        pytest.raises(ValueError, match="13 images of 3 tasks"),
    ):
        shared(Anchored(), x)
    for task in x:
        assert shared(Anchored(), task[None]).shape == (1, 4, 3, 2, 5)


@PATHS
@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tasks_together_equal_tasks_one_by_one(
    shape: tuple[int, ...], statistics: str, path: Callable[..., Tensor]
) -> None:
    norm, x = layer(statistics), inputs(shape)
    expected = torch.stack([norm(task) for task in x])
    torch.testing.assert_close(path(norm, x), expected, rtol=1e-13, atol=1e-13)
    mixed = norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    assert (mixed - expected).abs().max() > 0.1  # statistics across tasks would be another thing


@PATHS
@pytest.mark.parametrize("shape", SHAPES)
def test_observed_statistics_are_what_torch_would_store_for_each_task(
    shape: tuple[int, ...], path: Callable[..., Tensor]
) -> None:
    norm, x = layer("running"), inputs(shape)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    module = nn.Sequential(nn.Identity(), norm)
    with observed(module, 2) as buffers:
        path(module, x)
    assert set(buffers) == {"1.running_mean", "1.running_var"}
    for t, task in enumerate(x):
        torch_norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3).double()
        torch_norm.load_state_dict(before, strict=False)
        torch_norm(task)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(
                buffers[f"1.{name}"][t], getattr(torch_norm, name), rtol=1e-13, atol=1e-13
            )
    for name, value in norm.state_dict().items():  # a forward pass stores nothing
        assert torch.equal(value, before[name])


@PATHS
def test_observations_of_several_passes_are_averaged(path: Callable[..., Tensor]) -> None:
    norm, (first, second) = layer("running"), (inputs((5, 3)), inputs((7, 3)) ** 2)
    with observed(norm, 2) as once:
        path(norm, first)
    with observed(norm, 2) as again:
        path(norm, second)
    with observed(norm, 2) as both:
        path(norm, first)
        path(norm, second)
    assert set(both) == {"running_mean", "running_var"}
    for name, value in both.items():
        torch.testing.assert_close(value, (once[name] + again[name]) / 2)


@PATHS
def test_a_layer_that_a_module_uses_twice_is_observed_twice(path: Callable[..., Tensor]) -> None:
    norm, x = layer("running"), inputs((5, 3))
    twice = nn.Sequential(norm, nn.Tanh(), norm)
    with observed(twice, 2) as buffers:
        path(twice, x)
    inside = torch.stack([torch.tanh(norm(task)) for task in x])
    with observed(norm, 2) as by_hand:
        for tasks in (x, inside):
            per_task(norm, tasks)
    assert set(buffers) == {"0.running_mean", "0.running_var"}
    for name, value in buffers.items():
        torch.testing.assert_close(value, by_hand[name.removeprefix("0.")])


@PATHS
def test_running_statistics_are_used_in_eval_mode_and_not_observed(
    path: Callable[..., Tensor],
) -> None:
    norm, x = layer("running").eval(), inputs((4, 3, 2, 5))
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    torch_norm = nn.BatchNorm2d(3).double().eval()
    torch_norm.load_state_dict(norm.state_dict(), strict=False)
    with observed(norm, 2) as buffers:
        y = path(norm, x)
    torch.testing.assert_close(y, torch.stack([torch_norm(task) for task in x]))
    assert buffers == {}


@PATHS
def test_batch_statistics_are_used_in_eval_mode_too(path: Callable[..., Tensor]) -> None:
    norm, x = layer("batch"), inputs((4, 3, 2, 5))
    with observed(norm, 2) as buffers:
        training = path(norm, x)
    assert torch.equal(path(norm.eval(), x), training)
    assert buffers == {}


def test_which_modules_use_batch_statistics() -> None:
    assert uses_batch_statistics(nn.Sequential(nn.Linear(2, 2), TaskBatchNorm(2, "batch")))
    assert uses_batch_statistics(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)))
    assert not uses_batch_statistics(nn.Sequential(TaskBatchNorm(2, "running"), nn.BatchNorm2d(2)))
