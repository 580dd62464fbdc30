"""The terms of MetaGAN's losses, for a batch of tasks: every function gives one number per task.

Zhang, Che, Ghahramani, Bengio and Song, "MetaGAN: An Adversarial Approach to Few-Shot Learning",
NeurIPS 2018. A discriminator of N real classes and one fake class (number N + 1) has either N + 1
logits or N: adding a number to all N + 1 logits changes nothing, so the fake one may be fixed at 0
(Salimans et al. 2016; eq. 10 of MetaGAN). Both give one real/fake logit,

    l(x) = logsumexp(class logits) - fake logit,    p(y <= N | x) = sigmoid(l(x)),

and the terms below need no more than that and the class logits.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fewshot_bench.method import cross_entropy


def real_logit(logits: Tensor, way: int) -> Tensor:
    """Log-odds of real against fake: [T, M, way] or [T, M, way + 1] -> [T, M].

    With ``way`` logits the fake one is fixed at 0.
    """
    evidence = logits[..., :way].logsumexp(-1)
    return evidence if logits.shape[-1] == way else evidence - logits[..., way]


def supervised(logits: Tensor, target: Tensor, way: int) -> Tensor:
    """-L_sup, eq. 2: mean of -log p_D(y | x, y <= N); [T, M, way or way + 1] -> [T]."""
    return cross_entropy(logits[..., :way], target)


def real(logits: Tensor, way: int) -> Tensor:
    """First half of -L_unsup, eq. 3: mean of -log p_D(y <= N | x) over real images; -> [T]."""
    return F.softplus(-real_logit(logits, way)).mean(-1)


def fake(logits: Tensor, way: int) -> Tensor:
    """Second half of -L_unsup, eq. 3: mean of -log p_D(N + 1 | x) over fakes; -> [T]."""
    return F.softplus(real_logit(logits, way)).mean(-1)


def non_saturating(fake_logits: Tensor, way: int) -> Tensor:
    """Generator loss, eq. 4: mean of -log p_D(y <= N | x) over fakes; -> [T].

    The paper prints p_D(N + 1), which would have the generator help the discriminator.
    """
    return real(fake_logits, way)


def feature_matching(real_features: Tensor, fake_features: Tensor) -> Tensor:
    """Generator loss of Salimans et al. 2016: squared distance of the mean features.

    [T, M, d] of real images and [T, F, d] of fakes -> [T].
    """
    return (real_features.mean(1) - fake_features.mean(1)).square().sum(-1)


def add_weighted(total: Tensor, *parts: tuple[float, Tensor]) -> Tensor:
    """The total plus weight * term of each part; a weight of 0 leaves no trace, not even a
    rounding, so that the loss of a control without GAN terms is its base's to the last bit."""
    for weight, term in parts:
        if weight:
            total = total + weight * term
    return total
