"""What a check is and how it is run, and the comparison of tensors that checks share."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fewshot_bench.errors import FewshotBenchError, UnknownName

Status = Literal["passed", "failed", "not claimed", "note"]


class Fault(Exception):
    """A check failed. The message has the values found and a suggested fix."""


class NotClaimed(Exception):
    """The object does not declare the capability that the check is about. The message names it."""


@dataclass(frozen=True)
class Check:
    """One check: ``sentence`` says what has to hold; ``id`` is for ``--only``.

    ``run`` takes the subject, and returns None or a note, or raises :class:`Fault` or
    :class:`NotClaimed`.
    """

    id: str
    sentence: str
    run: Callable[[Any], str | None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check, with its id and sentence.

    A capability that is not declared is ``not claimed``; a ``note`` is a measurement or suggestion.
    """

    id: str
    sentence: str
    status: Status
    message: str = ""  # the values found and a suggested fix; empty for a check that passed


def check_of(function: Callable[[Any], str | None], id: str = "") -> Check:
    """A check from a function: the first sentence of its docstring, and its name as the id."""
    sentence = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    return Check(id or function.__name__.replace("_", "-"), sentence, function)


def run_check(check: Check, subject: Any) -> Outcome:
    """Any exception becomes an outcome."""
    status: Status = "failed"
    try:
        message = check.run(subject)
        status = "passed" if message is None else "note"
    except NotClaimed as reason:
        status, message = "not claimed", str(reason)
    except Exception as error:
        message = explained(error)
    return Outcome(check.id, check.sentence, status, " ".join((message or "").split()))


def explained(error: Exception) -> str:
    """The message of an error; with its type unless it is one of this package."""
    own = isinstance(error, Fault | FewshotBenchError)
    return str(error) if own else f"it raised {type(error).__name__}: {error}"


def run_checks(
    checks: Sequence[Check], subject: Any, only: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Run checks in order: those with the ids ``only``, or all; UnknownName if there is no such."""
    ids = [check.id for check in checks]
    for wanted in only:
        if wanted not in ids:
            raise UnknownName("check", wanted, ids)
    return (run_check(check, subject) for check in checks if not only or check.id in only)


def changed_entry(one: Mapping[str, Any], two: Mapping[str, Any]) -> str | None:
    """The first entry of a ``state_dict`` that differs in another."""
    for name, value in one.items():
        equal = torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]
        if not equal:
            return name
    return None


def max_difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value (or absolute if that is below 1)."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    scale = float(torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1))
    return float((a.double() - b.double()).abs().max()) / scale


def require_close(a: Tensor, b: Tensor, tolerance: float, advice: str) -> None:
    """Raise :class:`Fault` with the difference and the advice if it exceeds the tolerance."""
    difference = max_difference(a, b)
    if not difference <= tolerance:  # NaN fails, too
        raise Fault(f"off by {difference:.3g} (tolerance {tolerance:.0e}): {advice}")
