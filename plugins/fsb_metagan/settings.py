"""Groups of MetaGAN's settings: ``--generator-*``, ``--encoder-*``, ``--inner-*``, ``--outer-*``.

Defaults are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fsb_metagan.networks import Size


@dataclass(frozen=True)
class Generator:
    """G(z, T)."""

    network: Annotated[Size, "G(z, T), the generator network"] = "paper"
    z_dim: Annotated[int, "normal noise values that a fake is made from"] = 100
    fakes_per_class: Annotated[
        int | None,
        "fakes per class, beside the support set and Q^u; none: as many as real images there "
        "(algorithm 1)",
    ] = None
    loss: Annotated[
        Literal["non_saturating", "feature_matching"],
        "what the generator minimizes: eq. 4, or the squared distance of mean features",
    ] = "non_saturating"
    weight: Annotated[float, "weight of the generator's loss (eqs. 4, 9)"] = 1.0
    lr: Annotated[float, "Adam's rate for the generator and the encoder"] = 1e-3


@dataclass(frozen=True)
class Encoder:
    """The task encoder, for h_T."""

    network: Annotated[Size, "the task encoder network, for h_T"] = "paper"
    dropout: Annotated[float, "share of the task encoder's outputs dropped in training"] = 0.2


@dataclass(frozen=True)
class Inner:
    """The inner loop (eq. 7); of no effect over a base without one."""

    gan: Annotated[bool, "real and fake terms in the inner loop too (eq. 7)"] = True
    test_fakes: Annotated[bool, "eq. 7's real and fake terms when adapting at test too"] = True
    through_fakes: Annotated[
        bool,
        "the generator's gradient (eq. 9) also flows through eq. 7's fakes; a first-order base "
        "has none to give",
    ] = True
    supervised_weight: Annotated[float, "weight of eq. 2 in the inner loss (eq. 7)"] = 1.0
    real_weight: Annotated[float, "weight of eq. 3's real term in the inner loss (eq. 7)"] = 1.0
    fake_weight: Annotated[float, "weight of eq. 3's fake term in the inner loss (eq. 7)"] = 1.0


@dataclass(frozen=True)
class Outer:
    """The discriminator's loss on the query set (eq. 8)."""

    supervised_weight: Annotated[float, "weight of eq. 2 in the outer loss (eq. 8)"] = 1.0
    real_weight: Annotated[float, "weight of eq. 3's real term in the outer loss (eq. 8)"] = 1.0
    fake_weight: Annotated[float, "weight of eq. 3's fake term in the outer loss (eq. 8)"] = 1.0
