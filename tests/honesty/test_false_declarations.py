"""A plugin with a false declaration fails ``fsb check``, and one with true declarations passes.

Each declaration that the engine relies on is compared with the behavior of the plugin, and a run
itself checks those that would put a wrong mark on a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fewshot_bench.engine.executors import Eager
from fewshot_bench.engine.inspection import inspect_test
from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Losses, Method, cross_entropy
from fewshot_bench.nn import TaskBatchNorm, per_task
from fewshot_bench.sampling.base import ClosedSampler
from fewshot_bench.sampling.open import OpenSampler
from fewshot_bench.testing import (
    TINY,
    TinyBackbone,
    check_backbone,
    check_method,
    check_sampler,
    tiny_episode,
)
from fewshot_bench.testing.method_checks import CHECKED, MethodSubject
from tests.command_line import InProcess
from tests.honesty.means import Means


class Detaching(Means):
    """Its gradient is cut without nn.stop, and it calls that a surrogate."""

    gradient = "surrogate"

    def adapt(self, support: Any) -> Any:
        return super().adapt(support).detach()


class Pixels(Means):
    """Wants a backbone, and looks at pixels."""

    def embed(self, images: Any) -> Any:
        return images.flatten(2)


def said(**declared: Any) -> type[Method]:
    return type("Said", (Means,), declared)


LIARS: dict[str, tuple[type[Method], str, str]] = {
    "transductive, and is not": (said(transductive=True), "inductive", "change no prediction"),
    "inductive, over batch statistics": (
        said(transductive=False), "inductive", "batch statistics: off by",
    ),
    "a surrogate, by detach()": (Detaching, "gradients", "gradient of player 'meta' differs"),
    "unlabeled tasks": (said(unlabeled_tasks=True), "unlabeled-tasks", "it raised"),
    "wants a backbone": (Pixels, "declarations", "wants_backbone = False"),
    "mini-batches": (said(source="batches"), "finite", "before any training"),
    "a source that is none": (said(source="pictures"), "declarations", "episodes or batches"),
    "a gradient that is none": (said(gradient="about right"), "declarations", "exact or surrog"),
    "a word for a switch": (said(batchable="yes"), "declarations", "expected True or False"),
    "a turn of nobody": (said(turns=(("nobody",),)), "players", "nobody"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIARS)
def test_a_method_with_a_false_declaration_fails(what: str) -> None:
    """A method that does not do what it declares fails the check of this declaration."""
    kind, check, told = LIARS[what]
    (found,) = check_method(kind, only=[check])
    assert found.status == "failed", found
    assert told in found.message
    (right,) = check_method(Means, only=[check])
    assert right.status in ("passed", "not claimed"), right


def test_a_run_checks_the_declaration_that_marks_its_result() -> None:
    """A method that hides that it is transductive gets no unmarked result."""
    episode = tiny_episode(dtype=torch.float32)
    hiding = said(transductive=False)(TINY, TinyBackbone(statistics="batch"))
    with pytest.raises(PluginError, match="says transductive = False"):
        inspect_test(Eager(hiding), episode)
    assert inspect_test(Eager(Means(TINY, TinyBackbone(statistics="batch"))), episode) == []


class Closing(OpenSampler):
    """Its plan is shorter than it says."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.own, self.length = self.length, self.length + 9

    def __call__(self, ids: Any) -> Any:
        return super().__call__(ids % self.own)


class LateTwin(ClosedSampler):
    """After a thousand episodes one image has two parts."""

    def __call__(self, ids: Any) -> Any:
        indices = super().__call__(ids)
        if int(ids.max()) < 1000:
            return indices
        return replace(indices, query=indices.support[:, :, 0].repeat(1, 2))


def test_a_sampler_with_a_false_declaration_fails() -> None:
    """A sampler with a plan that is too short, with an invalid declaration, or with errors in later
    episodes fails.
    """
    worded = type("Worded", (ClosedSampler,), {"sampling": "fair"})
    for kind, check in ((Closing, "used-once"), (worded, "used-once"), (LateTwin, "valid")):
        (found,) = check_sampler(kind, only=[check])
        assert found.status == "failed", kind


def net(channels: int, *behind: nn.Module, refuses: bool) -> Callable[..., nn.Module]:
    def make(shape: Any) -> nn.Module:
        if refuses and shape[0] != channels:
            raise ConfigError(f"it takes images of {channels} channels, not of {shape[0]}.")
        layers = [nn.Conv2d(channels, 2, 3, stride=2, padding=1), *behind]
        made = nn.Sequential(*layers)
        made.out_shape = (2, (shape[1] + 1) // 2, (shape[2] + 1) // 2)
        return made

    return make


def test_an_rgb_network_passes_if_it_refuses_gray_images() -> None:
    """A network for RGB only that says so passes; one that crashes fails this one check."""
    outcomes = check_backbone(net(3, refuses=True))
    assert [o.status for o in outcomes] == ["passed"] * len(outcomes)
    outcomes = check_backbone(net(3, refuses=False))
    assert [o.id for o in outcomes if o.status == "failed"] == ["out-shape"]
    assert "ConfigError" in next(o.message for o in outcomes if o.status == "failed")
    (only,) = check_backbone(net(5, refuses=True), only=["out-shape"])
    assert "it takes images of 5 channels" in only.message
    assert check_backbone(net(5, refuses=True), image_shapes=[(5, 9, 9)])[0].status == "passed"


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm2d(2)])
def test_a_backbone_that_draws_or_keeps_fails(layer: nn.Module) -> None:
    """A backbone with dropout or plain batch normalization fails for this reason."""
    (found,) = check_backbone(net(3, layer, refuses=True), only=["keeps-nothing"])
    assert found.status == "failed"
    assert ("Dropout" in found.message) is isinstance(layer, nn.Dropout)
    (right,) = check_backbone(net(3, TaskBatchNorm(2), refuses=True), only=["keeps-nothing"])
    assert right.status == "passed"


def test_a_method_for_gray_images_alone_may_say_so() -> None:
    """A method that refuses RGB passes, and one that crashes on it fails with the images named."""

    class Gray(Means):
        def __init__(self, task: Any, backbone: Any) -> None:
            super().__init__(task, backbone)
            if task.image_shape[0] != 1:
                raise ConfigError("it takes gray images only.")

    class Breaking(Means):
        def embed(self, images: Any) -> Any:
            return per_task(self.backbone, images).flatten(2) * images[:, :, :1, :1, :1].reshape(
                *images.shape[:2], -1
            ) if images.shape[2] == 1 else 1 / 0  # fmt: skip

    (gray,) = check_method(Gray, only=["shapes"])
    assert gray.status == "passed"
    (breaking,) = check_method(Breaking, only=["shapes"])
    assert breaking.message.startswith("with images 3x8x8 and batch statistics: it raised ZeroDiv")


def test_image_shapes_are_an_option(fsb: InProcess) -> None:
    """fsb check --image-shape uses other images, and refuses what is not a shape."""
    for typed, code, message in (
        ("conv4 --image-shape 3,32,32 --image-shape 1,16,16 --only out-shape", 0, "1 passed"),
        ("conv4 --image-shape 3,8,8 --only out-shape", 1, "it refuses images of 3x8x8"),
        ("conv4 --image-shape 3x8", 2, "--image-shape: expected C,H,W such as 3,84,84, got '3x8'"),
        ("accuracy --image-shape 3,8,8", 2, "is for methods and backbones"),
    ):
        answer = fsb("check", *typed.split())
        assert answer.code == code, answer
        assert message in answer.out + answer.err


def test_large_images_hide_no_fault_and_make_none() -> None:
    """The checks of a method alone use small images; a method with a fixed size gets its own.

    Images of 64x64 are so easy for class means that their gradient is nothing but rounding.
    """

    class Large(Means):
        def __init__(self, task: Any, backbone: Any) -> None:
            super().__init__(task, backbone)
            if task.image_shape[1:] != (20, 24):
                raise ConfigError("it takes images of 20x24.")

    class Stopped(Means):
        def predict(self, state: Any, query: Any) -> Any:
            return super().predict(state.detach(), query)

    large = replace(CHECKED, image_shape=(1, 64, 64))
    (right,) = check_method(Means, task=large, only=["gradients"])
    assert right.status == "passed"
    (stopped,) = check_method(Stopped, task=large, only=["gradients"])
    assert stopped.status == "failed"
    assert "A detached or stopped term?" in stopped.message
    fixed = replace(CHECKED, image_shape=(1, 20, 24))
    assert MethodSubject(Large, task=fixed, shapes=()).small.task == fixed
    assert MethodSubject(Means, task=fixed, shapes=()).small.task == CHECKED


def test_losses_of_another_split_of_the_batch_are_noticed() -> None:
    """A method that declares batchable and mixes its tasks fails, with both kinds of statistics."""

    class Mixing(Means):
        def losses(self, episode: Any) -> Losses:
            logits = self.predict(self.adapt(episode.support), episode.query)
            return Losses({"meta": cross_entropy(logits - logits.mean(0), episode.target)})

    (found,) = check_method(Mixing, only=["independent-tasks"])
    assert found.status == "failed"
