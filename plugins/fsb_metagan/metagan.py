"""MetaGAN: few-shot learning helped by generated images.

Zhang, Che, Ghahramani, Bengio and Song, "MetaGAN: An Adversarial Approach to Few-Shot Learning",
NeurIPS 2018. A few-shot classifier D becomes the discriminator of a GAN: beside the N classes of
a task it knows one more, "fake". A generator G, conditioned on the task T, makes images that are
near the data but of none of the classes, and D draws tighter boundaries to separate them.

Symbols as in the paper: ``theta`` weights of D, ``theta_T`` (theta') those adapted to task T,
``h_T`` the task encoder's code of the support set, ``x_fake`` = G(z, T), S support, Q query,
superscripts s and u for the labeled and the unlabeled part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench import (
    Episode,
    Losses,
    Method,
    Player,
    Support,
    Task,
    UnlabeledEpisode,
    UnlabeledSupport,
    Without,
)
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import State, accuracy, cosine, halving, trainable
from fewshot_bench.nn import per_task, stop, unobserved
from fewshot_bench.rng import normal, uniform
from fsb_metagan import losses as terms
from fsb_metagan.adapters import InnerLoss, adapter_of
from fsb_metagan.networks import make_encoder, make_generator
from fsb_metagan.presets import PRESETS
from fsb_metagan.settings import Encoder, Generator, Inner, Outer

D, G = "discriminator", "generator"


class MetaGAN(Method):
    """A base method as the discriminator of a GAN (Zhang et al. 2018).

    It learns from unlabeled images of a task (Q^u) and from tasks without labels.

    Raises:
        ConfigError: the base cannot be wrapped, or a number is out of range.
    """

    unlabeled_tasks = True
    capturable = True  # where the base is
    presets = PRESETS

    def __init__(
        self,
        task: Task,
        backbone: nn.Module | None = None,
        *,
        base: Annotated[
            Method,
            "the few-shot classifier that becomes the discriminator",
            # What it minimizes and how fast is decided below.
            Without(["lr", "anneal", "halve_every", "clip", "loss"]),
        ] = "maml",  # type: ignore[assignment]
        head: Annotated[
            Literal["logsumexp", "extra"],
            "N logits with the fake logit fixed at 0 (eq. 10), or N + 1 logits (eqs. 2, 3)",
        ] = "logsumexp",
        generator: Generator = Generator(),
        encoder: Encoder = Encoder(),
        update: Annotated[
            Literal["alternating", "joint"],
            "a fresh batch of tasks for each player (algorithm 1), or one batch for both",
        ] = "alternating",
        inner: Inner = Inner(),
        outer: Outer = Outer(),
        lr: Annotated[float, "Adam's rate for the discriminator"] = 1e-3,
        betas: Annotated[tuple[float, float], "Adam's averaging factors, for both"] = (0.5, 0.9),
        eps: Annotated[float, "Adam's epsilon, both players"] = 1e-8,
        halve_every: Annotated[int, "halve both rates after so many steps; 0: never"] = 10_000,
        anneal: Annotated[bool, "let both rates fall to 0 along a cosine instead"] = False,
        reduction: Annotated[
            Literal["mean", "sum"], "how the losses of a batch of tasks become one"
        ] = "mean",
    ) -> None:
        super().__init__(task)
        _check(generator, encoder, inner, outer)
        self.generation, self.dropout = generator, encoder.dropout
        self.inner, self.outer, self.reduction = inner, outer, reduction
        self.schedule = cosine if anneal else halving(halve_every)
        self.rates = {D: lr, G: generator.lr}
        self.adapter, self.extra = adapter_of(base), int(head == "extra")
        self.adapter.become_discriminator(base, self.extra)
        self.base = base
        encodes = make_encoder(encoder.network, task.image_shape)
        self.encoder: nn.Module = encodes
        self.generator: nn.Module = make_generator(
            generator.network,
            generator.z_dim + encodes.out_features,
            task.image_shape,
            task.pixel_range,
        )
        self.adam = partial(Adam, betas=betas, eps=eps)
        self.turns = ((D,), (G,)) if update == "alternating" else ((D, G),)
        stopped = inner.gan and not inner.through_fakes
        self.gradient = "surrogate" if stopped else base.gradient
        self.capturable = bool(base.capturable)  # type: ignore[misc]

    # ---- the discriminator ------------------------------------------------------------------

    def discriminate(self, theta_T: State, images: Tensor) -> tuple[Tensor, Tensor]:
        """D: logits [T, M, way, or way + 1] and features [T, M, d] of images [T, M, C, H, W]."""
        logits, features = self.adapter.discriminate(self.base, theta_T, images)
        return logits, features

    def discriminate_fakes(self, theta_T: State, x_fake: Tensor) -> tuple[Tensor, Tensor]:
        """D of fakes: a pass of its own, which leaves running statistics alone."""
        with unobserved():
            return self.discriminate(theta_T, x_fake)

    def way(self, logits: Tensor) -> int:
        """N, of logits [..., way, or way + 1]."""
        return logits.shape[-1] - self.extra

    # ---- the generator ----------------------------------------------------------------------

    def encode(self, support: Support | UnlabeledSupport) -> Tensor:
        """h_T [T, d]: the mean code of the support images, with dropout in training."""
        codes = per_task(self.encoder, images_of(support))
        if self.training and self.dropout:
            noise = uniform(support.key, "metagan/dropout", codes.shape[1:], codes.dtype)
            codes = codes * (noise >= self.dropout) / (1 - self.dropout)
        return codes.mean(1)

    def generate(self, h_T: Tensor, key: Tensor, tag: str, real: int) -> Tensor:
        """x_fake of each task, as many as ``real`` images unless set: [T, F, C, H, W]."""
        per_class = self.generation.fakes_per_class
        return self.draw(h_T, key, tag, self.task.way * per_class if per_class else real)

    def draw(self, h_T: Tensor, key: Tensor, tag: str, count: int) -> Tensor:
        """x_fake = G(z, T) with z ~ N(0, 1): [T, count, C, H, W]."""
        z = normal(key, f"metagan/z/{tag}", (count, self.generation.z_dim), h_T.dtype)
        code = torch.cat([z, h_T.unsqueeze(1).expand(-1, count, -1)], dim=-1)
        return per_task(self.generator, code)

    # ---- adapting to a task (eq. 7) ----------------------------------------------------------

    def inner_loss(
        self, support: Support | UnlabeledSupport, h_T: Callable[[], Tensor] | None
    ) -> InnerLoss:
        """Eq. 7: the three terms on the support set, with S^u = S^s; from theta to [T].

        In an unlabeled task S^s is empty, and there is no supervised term.

        Arguments:
            support: S.
            h_T: gives the code of each task; None: no real and fake terms. Fakes are made when
                they are first used: a base without an inner loop never does.
        """
        images = images_of(support)
        labels = support.labeled()[1] if isinstance(support, Support) else None

        @cache
        def x_fake() -> Tensor:
            assert h_T is not None
            x = self.generate(h_T(), support.key, "support", images.shape[1])
            return x if self.inner.through_fakes else stop(x)

        def loss(theta: State) -> Tensor:
            logits, _ = self.discriminate(theta, images)
            way = self.way(logits)
            if labels is None:
                total = 0 * logits.sum((1, 2))  # there may be no term to descend at all
            else:
                total = self.inner.supervised_weight * terms.supervised(logits, labels, way)
            if h_T is None:
                return total
            fake_logits, _ = self.discriminate_fakes(theta, x_fake())
            return terms.add_weighted(
                total,
                (self.inner.real_weight, terms.real(logits, way)),
                (self.inner.fake_weight, terms.fake(fake_logits, way)),
            )

        return loss

    def learn(self, support: Support | UnlabeledSupport, h_T: Callable[[], Tensor] | None) -> State:
        """theta_T = theta - alpha * gradient of eq. 7, for as many steps as the base takes.

        To a base without an inner loop, each image of an unlabeled task is a class of its own:
        the evidence for real is then the sum over those.
        """
        inner_loss = self.inner_loss(support, h_T)
        if isinstance(support, UnlabeledSupport):
            support = Support(support.images.unsqueeze(2), support.images, support.key)
        return self.adapter.adapt(self.base, support, inner_loss)

    def adapt(self, support: Support) -> State:
        with_fakes = self.inner.gan and (self.training or self.inner.test_fakes)
        return self.learn(support, partial(self.encode, support) if with_fakes else None)

    def predict(self, state: State, query: Tensor) -> Tensor:
        logits, _ = self.discriminate(state, query)
        return logits[..., : self.way(logits)]

    # ---- the game (eqs. 8 and 9) -------------------------------------------------------------

    def losses(self, episode: Episode) -> Losses:
        """Both players' losses on the query set, at the adapted theta_T.

        Q^u is the unlabeled set where a task has one (sample-level semi-supervised learning), else
        the query set.
        """
        support, h_T = episode.support, self.encode(episode.support)
        theta_T = self.learn(support, (lambda: h_T) if self.inner.gan else None)
        query = real = self.discriminate(theta_T, episode.query)
        if support.unlabeled is not None:
            real = self.discriminate(theta_T, support.unlabeled)
        return self.play(episode.key, h_T, theta_T, real, (query[0], episode.target))

    def unlabeled_losses(self, episode: UnlabeledEpisode) -> Losses:
        """The same without the supervised term (task-level semi-supervised learning)."""
        h_T = self.encode(episode.support)
        theta_T = self.learn(episode.support, (lambda: h_T) if self.inner.gan else None)
        real = self.discriminate(theta_T, episode.query)
        return self.play(episode.key, h_T, theta_T, real, None)

    def play(
        self,
        key: Tensor,
        h_T: Tensor,
        theta_T: State,
        real: tuple[Tensor, Tensor],
        labeled: tuple[Tensor, Tensor] | None,
    ) -> Losses:
        """Eqs. 8 and 9, of D's output for Q^u and, if there is a Q^s, its logits and targets.

        The fakes need no stop for the discriminator's sake: each player's loss is differentiated
        by its own parameters only, and theta makes no fakes.
        """
        real_logits, real_features = real
        x_fake = self.generate(h_T, key, "query", real_logits.shape[1])
        fake_logits, fake_features = self.discriminate_fakes(theta_T, x_fake)
        way = self.way(real_logits)
        real_term, fake_term = terms.real(real_logits, way), terms.fake(fake_logits, way)  # eq. 3
        log = {
            "real": real_term,
            "fake": fake_term,
            "p_real_of_real": terms.real_logit(real_logits, way).sigmoid().mean(-1),
            "p_real_of_fake": terms.real_logit(fake_logits, way).sigmoid().mean(-1),
        }
        loss_D = 0 * real_term
        if labeled is not None:
            logits, target = labeled
            supervised = terms.supervised(logits, target, way)  # eq. 2
            log |= {"accuracy": accuracy(logits[..., :way], target), "supervised": supervised}
            loss_D = self.outer.supervised_weight * supervised
        loss_D = terms.add_weighted(
            loss_D, (self.outer.real_weight, real_term), (self.outer.fake_weight, fake_term)
        )  # eq. 8
        if self.generation.loss == "non_saturating":
            loss_G = terms.non_saturating(fake_logits, way)  # eqs. 4, 9
        else:
            loss_G = terms.feature_matching(real_features, fake_features)
        return Losses({D: loss_D, G: self.generation.weight * loss_G}, log)

    def players(self) -> dict[str, Player]:
        """The discriminator owns the base's parameters, the generator G's and the encoder's."""
        named = trainable(self)
        of_base = {name: p for name, p in named.items() if name.startswith("base.")}
        others = {name: p for name, p in named.items() if name not in of_base}
        return {
            name: Player(
                parameters,
                optimizer=partial(self.adam, lr=self.rates[name]),
                schedule=self.schedule,
                reduction=self.reduction,
            )
            for name, parameters in ((D, of_base), (G, others))
        }

    # ---- what else a method has --------------------------------------------------------------

    def pictures(self, support: Support) -> dict[str, Tensor]:
        """As many fakes as support images. G knows the task alone, so a row is no class."""
        way, shot = support.images.shape[1:3]
        fakes = self.draw(self.encode(support), support.key, "pictures", way * shot)
        return {"generated images": fakes.unflatten(1, (way, shot))}

    def features(self, state: State, images: Tensor) -> Tensor:
        """The features that feature matching compares, under the adapted theta_T."""
        return self.discriminate(state, images)[1]

    @property
    def transductive(self) -> bool:
        """As the base: fakes and encoder see nothing of the query set."""
        return bool(self.base.transductive)

    def check_task(self, task: Task) -> None:
        self.base.check_task(task)


def images_of(support: Support | UnlabeledSupport) -> Tensor:
    """The support set [T, M, C, H, W], without its labels."""
    return support.labeled()[0] if isinstance(support, Support) else support.images


def _check(generator: Generator, encoder: Encoder, inner: Inner, outer: Outer) -> None:
    """Raise ConfigError for a number out of range."""
    if generator.z_dim < 1:
        raise ConfigError(f"--generator-z-dim: expected an integer >= 1, got {generator.z_dim}.")
    if generator.fakes_per_class is not None and generator.fakes_per_class < 1:
        raise ConfigError(
            f"--generator-fakes-per-class: expected an integer >= 1, got "
            f"{generator.fakes_per_class}; to learn without fakes, give --outer-fake-weight 0 "
            "--inner-fake-weight 0."
        )
    if not 0 <= encoder.dropout < 1:
        raise ConfigError(
            f"--encoder-dropout: expected a number >= 0 and < 1, got {encoder.dropout}."
        )
    groups: dict[str, Any] = {"generator": generator, "inner": inner, "outer": outer}
    for prefix, group in groups.items():
        for name, value in vars(group).items():
            if name.endswith("weight") and not 0 <= value < float("inf"):
                option = f"--{prefix}-{name.replace('_', '-')}"
                raise ConfigError(f"{option}: expected a number >= 0, got {value}.")
