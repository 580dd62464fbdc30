"""higher: differentiable inner loops; no few-shot models and no sampler.

Follows the project's ``examples/maml-omniglot.py``: ``innerloop_ctx`` around each task.
"""

from __future__ import annotations

import higher
import torch
from common import (
    FIVE_WAY,
    INNER_RATE,
    INNER_STEPS,
    MAML_ITEMS,
    Bench,
    Episode,
    Maml,
    NotOffered,
    Step,
    StridedNet,
    evaluation,
    loss,
    meta_training,
)
from torch import Tensor


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item; NotOffered where higher has nothing for it."""
    if item in MAML_ITEMS:
        maml = MAML_ITEMS[item]
        return (_first_order if maml.first_order else _second_order)(bench, maml)
    if item == "W4_maml":
        return _evaluation(bench)
    if item == "W3":
        # Its Omniglot loader is a helper of an example, which the released package leaves out.
        raise NotOffered("higher's package has no episode sampler")
    raise NotOffered("higher has no prototypical network")


def _second_order(bench: Bench, item: Maml) -> Step:
    network = StridedNet(item.shape.way).to(bench.device)
    inner = torch.optim.SGD(network.parameters(), lr=INNER_RATE)

    def backward(episode: Episode) -> None:
        with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (fast, optimizer):
            for _ in range(item.inner_steps):
                optimizer.step(loss(fast(episode.support), episode.support_labels))
            loss(fast(episode.query), episode.query_labels).backward()

    return meta_training(bench, item, network, backward)


def _first_order(bench: Bench, item: Maml) -> Step:
    """No higher derivatives are tracked; the gradient at the last weights is the meta-gradient.

    That is what the maintainers answer to the question of first-order MAML (higher's issue 63).
    """
    network = StridedNet(item.shape.way).to(bench.device)
    inner = torch.optim.SGD(network.parameters(), lr=INNER_RATE)
    weights = list(network.parameters())

    def backward(episode: Episode) -> None:
        with higher.innerloop_ctx(network, inner, track_higher_grads=False) as (fast, optimizer):
            for _ in range(item.inner_steps):
                optimizer.step(loss(fast(episode.support), episode.support_labels))
            query_loss = loss(fast(episode.query), episode.query_labels)
            gradients = torch.autograd.grad(query_loss, list(fast.parameters()))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)

    return meta_training(bench, item, network, backward)


def _evaluation(bench: Bench) -> Step:
    network = StridedNet(FIVE_WAY.way).to(bench.device)
    inner = torch.optim.SGD(network.parameters(), lr=INNER_RATE)

    def logits_of(episode: Episode) -> Tensor:
        with higher.innerloop_ctx(network, inner, track_higher_grads=False) as (fast, optimizer):
            for _ in range(INNER_STEPS):
                optimizer.step(loss(fast(episode.support), episode.support_labels))
            with torch.no_grad():
                return fast(episode.query)

    return evaluation(bench, logits_of)
