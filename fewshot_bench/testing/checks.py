"""What a check is, and how one is run: an id, a sentence, and on failure numbers and a mend."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fewshot_bench.errors import UnknownName

Status = Literal["passed", "failed", "not claimed", "note"]


class Fault(Exception):
    """A check failed. The message has the numbers, and says what to do."""


class NotClaimed(Exception):
    """The thing does not declare the capability that the check is about. Says which."""


@dataclass(frozen=True)
class Check:
    """One check.

    Arguments:
        id: as it is typed behind ``--only``.
        sentence: what has to hold.
        run: from the subject to None or a note; raises :class:`Fault` or :class:`NotClaimed`.
    """

    id: str
    sentence: str
    run: Callable[[Any], str | None]


@dataclass(frozen=True)
class Outcome:
    """How a check went.

    Arguments:
        id, sentence: of the check.
        status: ``passed``, ``failed``, ``not claimed`` (the capability is not declared) or
            ``note`` (nothing can fail; the message is worth reading).
        message: the numbers and what to do; empty for a check that passed.
    """

    id: str
    sentence: str
    status: Status
    message: str = ""


def checks_of(functions: Iterable[Callable[[Any], str | None]]) -> tuple[Check, ...]:
    """Checks from functions: the name is the id, the docstring's first sentence the sentence."""
    made = []
    for function in functions:
        text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        made.append(Check(function.__name__.replace("_", "-"), text, function))
    return tuple(made)


def perform(check: Check, subject: Any) -> Outcome:
    """Run one check; whatever it raises is an outcome."""
    try:
        note = check.run(subject)
    except Fault as fault:
        return Outcome(check.id, check.sentence, "failed", _line(fault))
    except NotClaimed as reason:
        return Outcome(check.id, check.sentence, "not claimed", _line(reason))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return Outcome(check.id, check.sentence, "failed", f"it raised {_line(told)}")
    status: Status = "passed" if note is None else "note"
    return Outcome(check.id, check.sentence, status, note or "")


def perform_all(
    checks: Sequence[Check], subject: Any, only: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Run checks in order.

    Arguments:
        only: ids; empty: all.

    Raises:
        UnknownName: no such check.
    """
    for wanted in only:
        if wanted not in [check.id for check in checks]:
            raise UnknownName("check", wanted, [check.id for check in checks])
    return (perform(check, subject) for check in checks if not only or check.id in only)


def _line(text: object) -> str:
    """In one line."""
    return " ".join(str(text).split())
