"""Checks of backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fewshot_bench.errors import ConfigError
from fewshot_bench.nn import per_task
from fewshot_bench.testing.checks import Fault, NotClaimed
from fewshot_bench.testing.subject import Shape, require_close
from fewshot_bench.utils.generators import (
    generators_preserved,
    generators_used,
    global_generators,
)

SHAPES: tuple[Shape, ...] = ((1, 28, 28), (3, 32, 32), (3, 84, 84))  # tried on a backbone


@dataclass(frozen=True)
class BackboneSubject:
    """A backbone under test.

    Arguments:
        make: its factory, from an image shape to a module.
        shapes: that it is tried on; it may refuse some with a ConfigError.
    """

    make: Callable[[Shape], nn.Module]
    shapes: tuple[Shape, ...] = SHAPES

    @cached_property
    def taken(self) -> dict[Shape, str]:
        """{shape that is not refused: how it fails, or nothing}.

        Raises:
            Fault: all are refused.
        """
        found, refused = {}, ""
        for shape in self.shapes:
            try:
                with torch.no_grad():
                    self.build(shape)(_images(shape, 2))
                found[shape] = ""
            except ConfigError as error:
                refused = str(error)
            except Exception as error:
                found[shape] = f"{type(error).__name__}: {error}"
        if not found:
            raise Fault(f"it refuses images of {_listed(self.shapes)} ({refused}); {_OTHER}")
        return found

    @property
    def shape(self) -> Shape:
        """The first that it works for; out_shape tells of the others."""
        works = [shape for shape, failed in self.taken.items() if not failed]
        if not works:
            raise NotClaimed("it runs on none of the images that it is tried on; see out-shape")
        return works[0]

    def build(self, shape: Shape, seed: int = 0) -> nn.Module:
        """The module, initialized by a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(shape)


_OTHER = "'--image-shape C,H,W' tries others."


def _listed(shapes: Sequence[Shape]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def _images(shape: tuple[int, int, int], *axes: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*axes, *shape, generator=generator)


def out_shape(subject: BackboneSubject) -> None:
    """Images [N, C, H, W] become maps [N, c, h, w], and out_shape says (c, h, w)."""
    for shape, failed in subject.taken.items():
        if failed:
            raise Fault(
                f"images of {_listed([shape])}: {failed}; a network that does not take them raises "
                f"fewshot_bench.errors.ConfigError in its factory, and {_OTHER}"
            )
        net = subject.build(shape)
        said = getattr(net, "out_shape", None)
        with torch.no_grad():
            got = tuple(net(_images(shape, 2)).shape)
        if got != (2, *(said or ())):
            raise Fault(
                f"for images {shape} it gives {got} and out_shape is {said}; the two are "
                "(N, c, h, w) and (c, h, w)."
            )


def finite(subject: BackboneSubject) -> None:
    """Feature maps of ordinary images are finite."""
    for shape in [shape for shape, failed in subject.taken.items() if not failed]:
        with torch.no_grad():
            maps = subject.build(shape)(_images(shape, 2))
        if not bool(maps.isfinite().all()):
            raise Fault(f"NaN or infinity for images {shape} in [0, 1].")


def builds_alike(subject: BackboneSubject) -> None:
    """The same seed builds the same network."""
    one, two = (subject.build(subject.shape, 3).state_dict() for _ in range(2))
    for name, value in one.items():
        if not torch.equal(value, two[name]):
            raise Fault(f"'{name}' differs between two builds with one seed.")


def keeps_nothing(subject: BackboneSubject) -> None:
    """A call draws no random number and changes no parameter and no buffer, in either mode."""
    net, images = subject.build(subject.shape), _images(subject.shape, 2)
    for mode in ("training", "evaluation"):
        net.train(mode == "training")
        held = {name: value.clone() for name, value in net.state_dict().items()}
        before = global_generators()
        with generators_preserved(), torch.no_grad():
            net(images)
            used = generators_used(before, global_generators())
        if used:
            raise Fault(
                f"in {mode} mode it draws from {used[0]} (nn.Dropout?); a backbone has no key to "
                "draw from: leave it to the method."
            )
        for name, value in net.state_dict().items():
            if not torch.equal(value, held[name]):
                raise Fault(
                    f"in {mode} mode a call changes '{name}'; normalize with "
                    "fewshot_bench.nn.TaskBatchNorm, not with nn.BatchNorm2d."
                )


def independent_tasks(subject: BackboneSubject) -> None:
    """Statistics do not cross tasks: a batch of tasks gives what each alone gives."""
    net = subject.build(subject.shape).double().train()
    images = _images(subject.shape, 2, 3).double()
    with torch.no_grad():
        whole = per_task(net, images)
        single = torch.cat([per_task(net, images[t : t + 1]) for t in range(2)])
    told = "normalize with fewshot_bench.nn.TaskBatchNorm, not with nn.BatchNorm2d."
    require_close(whole, single, 1e-9, told)


def trains(subject: BackboneSubject) -> None:
    """Every parameter takes part: it has a gradient."""
    net = subject.build(subject.shape).train()
    maps = per_task(net, _images(subject.shape, 2, 3))
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    if not named:
        raise NotClaimed("nothing trains")
    gradients = torch.autograd.grad(maps.sum(), [p for _, p in named], allow_unused=True)
    unused = [n for (n, _), g in zip(named, gradients, strict=True) if g is None]
    if unused:
        raise Fault(f"'{unused[0]}' ({len(unused)} in all) takes no part in the output.")


BACKBONE = (out_shape, finite, builds_alike, keeps_nothing, independent_tasks, trains)
