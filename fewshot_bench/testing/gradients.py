"""How far gradients are from finite differences, and float32 gradients from float64 ones."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fewshot_bench.engine.executors import TaskThreads, choose, differentiate
from fewshot_bench.engine.training import check_players
from fewshot_bench.episode import Episode
from fewshot_bench.errors import UnknownName
from fewshot_bench.method import Method, losses_call
from fewshot_bench.nn import per_task, record, replay
from fewshot_bench.utils.torch_private import TorchDispatchMode, aten


def gradient_error(
    method: Method, episode: Episode, players: Sequence[str] | None = None, *,
    eps: float = 1e-4, samples: int = 12,
) -> dict[str, float]:  # fmt: skip
    """How far each player's gradient is from finite differences of its loss.

    A copy of the method in float64 and training mode is differentiated as the training loop does
    it, and by central differences of fourth order through everything that the loss (summed over
    tasks) contains, inner loops too. If ``method.gradient`` is ``"surrogate"``, tensors that went
    through :func:`fewshot_bench.nn.stop` stay fixed; otherwise a stopped term shows as an error.

    Arguments:
        method: without kinks (no ReLU, no max-pooling), or the differences mean nothing.
        players: names, or UnknownName; None: all.
        eps: step of the differences.
        samples: number of entries checked per parameter, spread evenly over it.

    Returns:
        {player: the largest error of its parameters}. The error of a parameter is the norm of
        (difference - gradient) over its checked entries, divided by the norm of those gradients;
        where that is close to zero (the bias before a batch normalization has gradient 0), by
        a thousandth of the largest such norm of the player.
    """
    method, episode = copy.deepcopy(method).double().train(), episode.to(torch.float64)
    owners = check_players(method)
    names = list(owners) if players is None else list(players)
    for name in names:
        if name not in owners:
            raise UnknownName("player", name, owners)
    losses = getattr(method, losses_call(episode))
    with record() as constants:
        gradients = differentiate(method, episode, owners, names).gradients

    def loss(name: str) -> float:
        fixed = nullcontext() if method.gradient == "exact" else replay(constants)
        with torch.enable_grad(), fixed:  # an inner loop differentiates
            return losses(episode).players[name].sum().item()

    @torch.no_grad()
    def slope(name: str, weight: Tensor, i: int) -> float:
        """d loss / d weight[i] by the five-point formula, whose error is of order eps**4."""
        flat, values = weight.view(-1), []
        before = flat[i].item()
        for step in (-2, -1, 1, 2):
            flat[i] = before + step * eps
            values.append(loss(name))
        flat[i] = before
        a, b, c, d = values
        return (a - 8 * b + 8 * c - d) / (12 * eps)

    errors = {}
    for name in names:
        found = []
        weights = owners[name].parameters.values()
        for weight, gradient in zip(weights, gradients[name], strict=True):
            count = min(samples, weight.numel())
            chosen = torch.linspace(0, weight.numel() - 1, count, dtype=torch.float64)
            entries = chosen.long().tolist()
            exact = gradient.flatten()[entries]
            slopes = exact.new_tensor([slope(name, weight, i) for i in entries])
            found.append((float((slopes - exact).norm()), float(exact.norm())))
        miss, size = torch.tensor(found).T
        ratio = miss / size.clamp_min(1e-3 * float(size.max()))
        errors[name] = float(torch.where(miss == 0, 0.0, ratio).max())  # NaN stays NaN
    return errors


def precision_error(method: Method, episode: Episode, engine: str = "auto") -> dict[str, float]:
    """How far each player's float32 gradient is from the float64 one.

    Two copies of the method in training mode, one of each type, take the gradient of the batch as
    the training loop does. Where the outcome of a ReLU or of max-pooling depends on rounding, the
    second follows the first (:class:`ReplayDecisions`).

    ``episode``: of images that are exact in float32. Returns {player: norm of the difference over
    the norm of the float64 gradient}.
    """

    def gradients(dtype: torch.dtype, mode: TorchDispatchMode) -> dict[str, Tensor]:
        own, batch = copy.deepcopy(method).to(dtype).train(), episode.to(dtype)
        players = check_players(own)
        executor = choose(engine, own, batch.query.device)
        parts = [batch]
        if isinstance(executor, TaskThreads):  # a dispatch mode holds for one thread
            executor.limit(1)
            parts = [batch.tasks(t, t + 1) for t in range(len(batch))]
        with executor.running(), mode:
            each = [executor.gradients(part, players, tuple(players)).gradients for part in parts]
        return {n: torch.stack([_flattened(one[n]) for one in each]).mean(0) for n in each[0]}

    return _relative_errors(gradients)


def network_precision_error(network: nn.Module, images: Tensor) -> float:
    """The same of a network alone: of its output, and of the gradient of a sum over it."""

    def results(dtype: torch.dtype, mode: TorchDispatchMode) -> dict[str, Tensor]:
        own = copy.deepcopy(network).to(dtype)
        with mode:
            maps = per_task(own, images.to(dtype))
            weights = [p for p in own.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(maps.sin().sum(), weights)
        return {"": _flattened([maps.detach(), *gradients])}

    return _relative_errors(results)[""]


def _flattened(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def _relative_errors(
    run: Callable[[torch.dtype, TorchDispatchMode], dict[str, Tensor]],
) -> dict[str, float]:
    """Of results in float32 against those in float64 with the same decisions, by name."""
    recorded = RecordDecisions()
    rough = run(torch.float32, recorded)
    exact = run(torch.float64, ReplayDecisions(recorded.decisions))
    misses = {name: float((rough[name] - exact[name]).norm()) for name in exact}
    sizes = {name: float(exact[name].norm()) for name in exact}
    return {name: miss / sizes[name] if sizes[name] else miss for name, miss in misses.items()}


# A gradient jumps where the input of a ReLU crosses 0, and where another input of a pooling window
# becomes the largest. Such an input may fall on one side in float32 and on the other in float64;
# both gradients are right. To compare their arithmetic, the second has to decide as the first did.

# {operation: the argument whose sign decides}; a ReLU's output has the sign of its input
_SIGNS = {aten.relu.default: 0, aten.relu_.default: 0, aten.leaky_relu_backward.default: 1}
_LARGEST = (aten.max_pool2d_with_indices.default, aten.max.dim)
# An input is undecided within this fraction of the root mean square of all inputs: 50 roundings of
# float32. torch's inaccurate sums in channels-last layout are off by more.
NEAR = 50 * torch.finfo(torch.float32).eps
Decision = tuple[Callable[..., Any], Tensor]  # an operation, and its choice for each input


class RecordDecisions(TorchDispatchMode):
    """Record what this thread's ReLU and max-pooling operations decide: ``decisions``, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[Decision] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in _SIGNS:  # before the call, which may overwrite its input
            self.decisions.append((func, args[_SIGNS[func]] > 0))
        result = func(*args, **(kwargs or {}))
        if func in _LARGEST:
            self.decisions.append((func, result[1]))
        return result


class ReplayDecisions(TorchDispatchMode):
    """Make this thread decide as recorded wherever the input is undecided.

    From the first operation or size that differs from the recorded one, nothing is changed.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        super().__init__()
        self._decisions = iter(decisions)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        at = _SIGNS.get(func)
        if at is not None and (positive := self._next(func, args[at].shape)) is not None:
            x = args[at]
            undecided = ((x > 0) != positive) & (x.abs() <= _near(x))
            # The smallest number on the other side: the value stays, the derivative changes.
            least = torch.full_like(x, torch.finfo(x.dtype).tiny)
            moved = torch.where(undecided, torch.where(positive, least, -least), x)
            if func is aten.relu_.default:
                moved = x.copy_(moved)
            args = (*args[:at], moved, *args[at + 1 :])
        result = func(*args, **(kwargs or {}))
        if func in _LARGEST and (chosen := self._next(func, result[1].shape)) is not None:
            x, (values, indices) = args[0], result
            if func is aten.max.dim:
                axis, keepdim = args[1], len(args) > 2 and args[2]
                candidates = x.gather(axis, chosen if keepdim else chosen.unsqueeze(axis))
            else:
                candidates = x.flatten(-2).gather(-1, chosen.flatten(-2))
            undecided = values - candidates.view_as(values) <= _near(x)
            return values, torch.where(undecided, chosen, indices)
        return result

    def _next(self, func: Any, shape: torch.Size) -> Tensor | None:
        recorded, decided = next(self._decisions, (None, None))
        if decided is not None and recorded is func and decided.shape == shape:
            return decided
        self._decisions = iter(())
        return None


def _near(x: Tensor) -> Tensor:
    return NEAR * x.square().mean().sqrt()
