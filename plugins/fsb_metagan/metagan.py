"""MetaGAN: few-shot learning helped by images that a generator makes up.

Zhang, Che, Ghahramani, Bengio and Song, "MetaGAN: An Adversarial Approach to Few-Shot Learning",
NeurIPS 2018. A few-shot classifier D becomes the discriminator of a GAN: beside the N classes of
a task it knows one more, "fake". A generator G, conditioned on the task T, makes images that are
near the data but are of none of the classes, and D draws tighter boundaries to tell them apart.

Symbols as in the paper: ``theta`` weights of D, ``theta_T`` (theta') those adapted to task T,
``h_T`` what the task encoder makes of the support set, ``x_fake`` = G(z, T), S support, Q query,
superscripts s and u for the labeled and the unlabeled part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from fewshot_bench.engine.schedules import cosine, halving
from fewshot_bench.episode import Episode, Support, Task
from fewshot_bench.errors import ConfigError
from fewshot_bench.method import Losses, Method, Player, State, Without, accuracy, trainable
from fewshot_bench.nn import per_task, stop, unobserved
from fewshot_bench.rng import normal, uniform
from fsb_metagan import losses as terms
from fsb_metagan.base import InnerLoss, as_discriminator, support_images
from fsb_metagan.networks import Size, make_encoder, make_generator
from fsb_metagan.presets import PRESETS, preset

D, G = "discriminator", "generator"


class MetaGAN(Method):
    """A base method as the discriminator of a GAN (Zhang et al. 2018).

    It learns from unlabeled images of a task (Q^u) and from tasks without labels.

    Raises:
        ConfigError: the base cannot be wrapped, or a number is out of range.
    """

    unlabeled_tasks = True
    capturable = True  # where the base is

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
        generator_loss: Annotated[
            Literal["non_saturating", "feature_matching"],
            "what the generator minimizes: eq. 4, or the squared distance of mean features",
        ] = "non_saturating",
        generator: Annotated[Size, "G(z, T), the generator network"] = "paper",
        encoder: Annotated[Size, "the task encoder network, for h_T"] = "paper",
        z_dim: Annotated[int, "normal noise values that a fake is made from"] = 100,
        fakes_per_class: Annotated[
            int | None,
            "fakes per class, beside the support set and Q^u; none: as many as real images there "
            "(algorithm 1)",
        ] = None,
        update: Annotated[
            Literal["alternating", "joint"],
            "a fresh batch of tasks for each player (algorithm 1), or one batch for both",
        ] = "alternating",
        inner_gan: Annotated[bool, "real and fake terms in the inner loop too (eq. 7)"] = True,
        test_fakes: Annotated[bool, "eq. 7's real and fake terms when adapting at test too"] = True,
        through_fakes: Annotated[
            bool,
            "the generator's gradient (eq. 9) also flows through eq. 7's fakes; a first-order base "
            "has none to give",
        ] = True,
        supervised_weight: Annotated[float, "of eq. 2 in the outer loss (eq. 8)"] = 1.0,
        real_weight: Annotated[float, "of eq. 3's real term in the outer loss (eq. 8)"] = 1.0,
        fake_weight: Annotated[float, "of eq. 3's fake term in the outer loss (eq. 8)"] = 1.0,
        inner_supervised_weight: Annotated[float, "of eq. 2 in the inner loss (eq. 7)"] = 1.0,
        inner_real_weight: Annotated[float, "of eq. 3's real term in the inner loss (eq. 7)"] = 1.0,
        inner_fake_weight: Annotated[float, "of eq. 3's fake term in the inner loss (eq. 7)"] = 1.0,
        generator_weight: Annotated[float, "of the generator's loss (eqs. 4, 9)"] = 1.0,
        dropout: Annotated[float, "share of the task encoder's outputs dropped in training"] = 0.2,
        lr: Annotated[float, "Adam's rate for the discriminator"] = 1e-3,
        generator_lr: Annotated[float, "Adam's rate for the generator and the encoder"] = 1e-3,
        betas: Annotated[tuple[float, float], "Adam's averaging factors, for both"] = (0.5, 0.9),
        eps: Annotated[float, "Adam's epsilon, both players"] = 1e-8,
        halve_every: Annotated[int, "halve both rates after so many steps; 0: never"] = 10_000,
        anneal: Annotated[bool, "let both rates fall to 0 along a cosine instead"] = False,
        reduction: Annotated[
            Literal["mean", "sum"], "how the losses of a batch of tasks become one"
        ] = "mean",
    ) -> None:
        super().__init__(task)
        self.generator_loss, self.z_dim = generator_loss, z_dim
        self.fakes_per_class = fakes_per_class
        self.inner_gan, self.test_fakes, self.through_fakes = inner_gan, test_fakes, through_fakes
        self.weights = {
            "supervised": supervised_weight, "real": real_weight, "fake": fake_weight,
            "inner supervised": inner_supervised_weight, "inner real": inner_real_weight,
            "inner fake": inner_fake_weight, "generator": generator_weight,
        }  # fmt: skip
        self.dropout, self.reduction = dropout, reduction
        self.schedule = cosine if anneal else halving(halve_every)
        self.rates = {D: lr, G: generator_lr}
        self._check()
        self.extra = int(head == "extra")
        self.base: Any = as_discriminator(base, self.extra)
        encodes = make_encoder(encoder, task.image_shape)
        self.encoder: nn.Module = encodes
        self.generator: nn.Module = make_generator(
            generator, z_dim + encodes.out_features, task.image_shape, task.pixel_range
        )
        self.adam = partial(Adam, betas=betas, eps=eps)
        self.turns = ((D,), (G,)) if update == "alternating" else ((D, G),)
        stopped = inner_gan and not through_fakes
        self.gradient = "surrogate" if stopped else self.base.gradient
        self.capturable = bool(self.base.capturable)  # type: ignore[misc]

    # ---- the generator ----------------------------------------------------------------------

    def encode(self, support: Support) -> Tensor:
        """h_T [T, d]: the mean of the support images' codes, some of them dropped in training."""
        codes = per_task(self.encoder, support_images(support))
        if self.training and self.dropout:
            noise = uniform(support.key, "metagan/dropout", codes.shape[1:], codes.dtype)
            codes = codes * (noise >= self.dropout) / (1 - self.dropout)
        return codes.mean(1)

    def generate(self, h_T: Tensor, key: Tensor, tag: str, real: int) -> Tensor:
        """x_fake = G(z, T) with z ~ N(0, 1), in place of ``real`` images: [T, F, C, H, W]."""
        count = self.task.way * self.fakes_per_class if self.fakes_per_class else real
        return self.draw(h_T, key, tag, count)

    def draw(self, h_T: Tensor, key: Tensor, tag: str, count: int) -> Tensor:
        """``count`` fakes of each task: [T, count, C, H, W]."""
        z = normal(key, f"metagan/z/{tag}", (count, self.z_dim), h_T.dtype)
        code = torch.cat([z, h_T.unsqueeze(1).expand(-1, count, -1)], dim=-1)
        return per_task(self.generator, code)

    def pictures(self, support: Support) -> dict[str, Tensor]:
        """As many fakes as support images. G knows the task alone, so a row is no class."""
        assert support.images is not None
        way, shot = support.images.shape[1:3]
        fakes = self.draw(self.encode(support), support.key, "pictures", way * shot)
        return {"generated images": fakes.unflatten(1, (way, shot))}

    def features(self, state: State, images: Tensor) -> Tensor:
        """The features that feature matching compares, under the adapted theta_T."""
        features: Tensor = self.base.discriminate(state, images)[1]
        return features

    # ---- the discriminator ------------------------------------------------------------------

    def discriminate_fakes(self, theta_T: State, x_fake: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of fakes: a pass of their own, unseen by running statistics."""
        with unobserved():
            logits, features = self.base.discriminate(theta_T, x_fake)
        return logits, features

    def inner_loss(self, support: Support, h_T: Callable[[], Tensor] | None) -> InnerLoss:
        """Eq. 7: the three terms on the support set, with S^u = S^s; [T] from theta.

        In an unlabeled task S^s is empty, and there is no supervised term. ``h_T`` None: without
        real and fake terms. Fakes are made when they are first asked for: a base without an inner
        loop never does.
        """
        images = support_images(support)
        labels = None if support.images is None else support.labeled()[1]

        @cache
        def x_fake() -> Tensor:
            assert h_T is not None
            x = self.generate(h_T(), support.key, "support", images.shape[1])
            return x if self.through_fakes else stop(x)

        def loss(theta: State) -> Tensor:
            logits, _ = self.base.discriminate(theta, images)
            way = logits.shape[-1] - self.extra
            if labels is None:
                total = 0 * logits.sum((1, 2))  # there may be no term to descend at all
            else:
                total = self.weights["inner supervised"] * terms.supervised(logits, labels, way)
            if h_T is None:
                return total
            fake_logits, _ = self.discriminate_fakes(theta, x_fake())
            return terms.add_weighted(
                total,
                (self.weights["inner real"], terms.real(logits, way)),
                (self.weights["inner fake"], terms.fake(fake_logits, way)),
            )

        return loss

    def learn(self, support: Support, h_T: Callable[[], Tensor] | None) -> State:
        """theta_T = theta - alpha * gradient of eq. 7, as often as the base does.

        To a base that has no inner loop, each image of an unlabeled task is a class of its own:
        the evidence for real is then the sum over those.
        """
        inner = self.inner_loss(support, h_T)
        if support.images is None:
            support = replace(support, images=support_images(support).unsqueeze(2))
        return self.base.adapt(support, inner)

    def adapt(self, support: Support) -> State:
        with_fakes = self.inner_gan and (self.training or self.test_fakes)
        return self.learn(support, partial(self.encode, support) if with_fakes else None)

    def predict(self, state: State, query: Tensor) -> Tensor:
        logits, _ = self.base.discriminate(state, query)
        return logits[..., : logits.shape[-1] - self.extra]

    # ---- the game ---------------------------------------------------------------------------

    def losses(self, episode: Episode) -> Losses:
        """Eqs. 8 and 9: both players' losses on the query set, at the adapted theta_T.

        Q^u is the unlabeled set where a labeled task has one (sample-level semi-supervised
        learning), else the query set. An unlabeled task (task-level) has no supervised term. The
        fakes need no stop for the discriminator's sake: each player's loss is differentiated by
        its own parameters only, and theta makes no fakes.
        """
        support, target, weights = episode.support, episode.target, self.weights
        h_T = self.encode(support)
        theta_T = self.learn(support, (lambda: h_T) if self.inner_gan else None)
        logits, features = self.base.discriminate(theta_T, episode.query)
        real_logits, real_features = logits, features
        if target is not None and support.unlabeled is not None:
            real_logits, real_features = self.base.discriminate(theta_T, support.unlabeled)
        x_fake = self.generate(h_T, episode.key, "query", real_logits.shape[1])
        fake_logits, fake_features = self.discriminate_fakes(theta_T, x_fake)

        way = logits.shape[-1] - self.extra
        real, fake = terms.real(real_logits, way), terms.fake(fake_logits, way)  # eq. 3
        log = {
            "real": real,
            "fake": fake,
            "p_real_of_real": terms.real_logit(real_logits, way).sigmoid().mean(-1),
            "p_real_of_fake": terms.real_logit(fake_logits, way).sigmoid().mean(-1),
        }
        loss_D = 0 * real
        if target is not None:
            supervised = terms.supervised(logits, target, way)  # eq. 2
            log |= {"accuracy": accuracy(logits[..., :way], target), "supervised": supervised}
            loss_D = weights["supervised"] * supervised
        loss_D = terms.add_weighted(
            loss_D, (weights["real"], real), (weights["fake"], fake)
        )  # eq. 8
        if self.generator_loss == "non_saturating":
            loss_G = terms.non_saturating(fake_logits, way)  # eqs. 4, 9
        else:
            loss_G = terms.feature_matching(real_features, fake_features)
        return Losses({D: loss_D, G: weights["generator"] * loss_G}, log)

    def players(self) -> dict[str, Player]:
        """The discriminator owns the base's parameters, the generator G's and the encoder's."""
        named = trainable(self)
        mine = {name: name.startswith("base.") for name in named}
        parameters = {
            D: {name: p for name, p in named.items() if mine[name]},
            G: {name: p for name, p in named.items() if not mine[name]},
        }
        return {
            name: Player(
                parameters[name],
                optimizer=partial(self.adam, lr=self.rates[name]),
                schedule=self.schedule,
                reduction=self.reduction,
            )
            for name in (D, G)
        }

    def _check(self) -> None:
        """Raise ConfigError for a number that is out of its range."""
        if self.z_dim < 1:
            raise ConfigError(f"--z-dim {self.z_dim}: it has to be at least 1.")
        if self.fakes_per_class is not None and self.fakes_per_class < 1:
            raise ConfigError(
                f"--fakes-per-class {self.fakes_per_class}: it has to be at least 1; fakes have no "
                "part in learning with --fake-weight 0 --inner-fake-weight 0."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"--dropout {self.dropout}: it has to be at least 0, and below 1.")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                option = name.replace(" ", "-")
                raise ConfigError(f"--{option}-weight {weight}: give 0 or a positive number.")

    # ---- declarations -----------------------------------------------------------------------

    @property
    def transductive(self) -> bool:
        """As the base: fakes and encoder see nothing of the query set."""
        return bool(self.base.transductive)

    def check_task(self, task: Task) -> None:
        self.base.check_task(task)

    @classmethod
    def presets(cls, name: str, dataset: str, task: Task) -> Mapping[str, Any] | None:
        return preset(name, dataset, task)

    @classmethod
    def preset_names(cls) -> Sequence[str]:
        return PRESETS
