"""TorchOpt: differentiable optimizers; no few-shot models and no sampler.

Training follows the project's ``examples/few-shot/maml_omniglot.py``. ``MetaSGD`` always builds the
graph of the second derivative; without it (first order, evaluation) the functional optimizers of
the documentation are used, with gradients that have no graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchopt
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
from torch.func import functional_call

Weights = dict[str, Tensor]


def prepare(item: str, bench: Bench) -> Step:
    """The step of an item; NotOffered where TorchOpt has nothing for it."""
    if item in MAML_ITEMS:
        maml = MAML_ITEMS[item]
        return (_first_order if maml.first_order else _second_order)(bench, maml)
    if item == "W4_maml":
        return _evaluation(bench)
    if item == "W3":
        raise NotOffered("torchopt has no episode sampler")
    raise NotOffered("torchopt has no prototypical network")


def _second_order(bench: Bench, item: Maml) -> Step:
    """``MetaSGD``; the network's weights are put back by reference after each task."""
    network = StridedNet(item.shape.way).to(bench.device)
    inner = torchopt.MetaSGD(network, lr=INNER_RATE)
    weights = torchopt.extract_state_dict(network, by="reference", detach_buffers=True)
    state = torchopt.extract_state_dict(inner, by="reference")

    def backward(episode: Episode) -> None:
        for _ in range(item.inner_steps):
            inner.step(loss(network(episode.support), episode.support_labels))
        loss(network(episode.query), episode.query_labels).backward()
        torchopt.recover_state_dict(network, weights)
        torchopt.recover_state_dict(inner, state)

    return meta_training(bench, item, network, backward)


def _adapter(network: StridedNet) -> Callable[[Weights, Episode, int], Weights]:
    """Inner steps with ``torchopt.sgd`` as a function of the weights, without a graph of them."""
    sgd = torchopt.sgd(lr=INNER_RATE)

    def adapt(weights: Weights, episode: Episode, inner_steps: int) -> Weights:
        names, values = list(weights), tuple(weights.values())
        state = sgd.init(values)
        for _ in range(inner_steps):
            logits = functional_call(
                network, dict(zip(names, values, strict=True)), episode.support
            )
            gradients = torch.autograd.grad(loss(logits, episode.support_labels), values)
            updates, state = sgd.update(gradients, state, inplace=False)
            values = torchopt.apply_updates(values, updates, inplace=False)
        return dict(zip(names, values, strict=True))

    return adapt


def _first_order(bench: Bench, item: Maml) -> Step:
    network = StridedNet(item.shape.way).to(bench.device)
    weights, adapt = dict(network.named_parameters()), _adapter(network)

    def backward(episode: Episode) -> None:
        adapted = adapt(weights, episode, item.inner_steps)
        logits = functional_call(network, adapted, episode.query)
        loss(logits, episode.query_labels).backward()

    return meta_training(bench, item, network, backward)


def _evaluation(bench: Bench) -> Step:
    network = StridedNet(FIVE_WAY.way).to(bench.device)
    weights, adapt = dict(network.named_parameters()), _adapter(network)

    def logits_of(episode: Episode) -> Tensor:
        adapted = adapt(weights, episode, INNER_STEPS)
        with torch.no_grad():
            return functional_call(network, adapted, episode.query)

    return evaluation(bench, logits_of)
