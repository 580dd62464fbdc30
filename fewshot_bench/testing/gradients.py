"""Each player's gradient against finite differences of its loss, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewshot_bench.engine.executors.eager import differentiate
from fewshot_bench.engine.players import check_players
from fewshot_bench.episode import Episode
from fewshot_bench.errors import UnknownName
from fewshot_bench.method import Method
from fewshot_bench.nn import record, replay


def gradient_error(
    method: Method,
    episode: Episode,
    players: Sequence[str] | None = None,
    *,
    eps: float = 1e-4,
    samples: int = 12,
) -> dict[str, float]:
    """How far each player's gradient is from finite differences of its loss.

    A copy of the method is cast to float64 and set to training; its loss, summed over tasks, is
    differentiated by autograd as the training loop does it, and by central differences of fourth
    order through everything that the loss contains, inner loops too. If ``method.gradient`` is
    ``"surrogate"``, the tensors that went through :func:`fewshot_bench.nn.stop` are kept at their
    values meanwhile; else they are not, and a stopped term shows as an error.

    Arguments:
        method: has to have no kinks (no ReLU, no max-pooling), or the differences mean nothing.
        episode: a batch of tasks; cast to float64.
        players: names; None: all.
        eps: step of the differences.
        samples: how many entries of each parameter are checked, spread evenly over it.

    Returns:
        {player: the worst error of its parameters}. The error of a parameter is the norm of
        (difference - gradient) over its checked entries, divided by the norm of those gradients;
        where that is next to nothing (the bias before a batch normalization has gradient 0), by
        a thousandth of the largest such norm of the player.

    Raises:
        UnknownName: no such player.
    """
    method, episode = copy.deepcopy(method).double().train(), episode.to(torch.float64)
    owners = check_players(method)
    names = list(owners) if players is None else list(players)
    for name in names:
        if name not in owners:
            raise UnknownName("player", name, owners)
    with record() as constants:
        gradients = differentiate(method, episode, owners, names).gradients

    def loss(name: str) -> float:
        with torch.enable_grad():  # an inner loop differentiates
            if method.gradient == "exact":
                return method.losses(episode).players[name].sum().item()
            with replay(constants):
                return method.losses(episode).players[name].sum().item()

    errors = {}
    for name in names:
        misses, sizes = [], []
        for parameter, gradient in zip(
            owners[name].parameters.values(), gradients[name], strict=True
        ):
            count = min(samples, parameter.numel())
            chosen = torch.linspace(0, parameter.numel() - 1, count, dtype=torch.float64)
            where = chosen.long().tolist()
            exact = gradient.flatten()[where]
            slopes = exact.new_tensor([_slope(loss, name, parameter, i, eps) for i in where])
            misses.append(float((slopes - exact).norm()))
            sizes.append(float(exact.norm()))
        miss, size = torch.tensor(misses), torch.tensor(sizes)
        ratio = miss / size.clamp_min(1e-3 * float(size.max()))
        errors[name] = float(torch.where(miss == 0, 0.0, ratio).max())  # NaN stays NaN
    return errors


@torch.no_grad()
def _slope(loss: Callable[[str], float], name: str, weight: Tensor, i: int, eps: float) -> float:
    """d loss / d weight[i] by the five-point formula, whose error falls with eps**4."""
    flat = weight.view(-1)
    before = flat[i].item()
    values = []
    for step in (-2, -1, 1, 2):
        flat[i] = before + step * eps
        values.append(loss(name))
    flat[i] = before
    a, b, c, d = values
    return (a - 8 * b + 8 * c - d) / (12 * eps)
