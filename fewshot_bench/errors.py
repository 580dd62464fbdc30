"""Every error that fewshot-bench raises on purpose.

::

    FewshotBenchError              something a user can mend; shown as one line    exit 2
    ├── ConfigError                a setting that cannot be, or does not exist
    │   └── UnknownName            a name that nothing registers; suggests the nearest
    ├── DataError                  a data file that is missing, damaged or not what it claims
    ├── PluginError                a plugin that fails to load or breaks its contract
    ├── RecordError                a run folder or record that cannot be read
    ├── OutOfMemory                a task that does not fit into the device's memory
    ├── Diverged                   a loss, gradient or weight became NaN or infinite    exit 1
    └── Stopped                    a signal ended a command    exit 128 + its number

:class:`PluginWarning` is told, and what was asked goes on without the plugin;
:class:`InterfaceDeprecation` is told with the plugin's line, and all goes on.

The message of each says what was asked, what is possible and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class FewshotBenchError(Exception):
    """Base of all errors that are meant for the person at the keyboard."""

    exit_code = 2


class ConfigError(FewshotBenchError):
    """A setting that is impossible, out of range or not known."""


class UnknownName(ConfigError):
    """A name that nothing registers.

    Arguments:
        kind: what was looked for, in the singular (``"method"``).
        name: what was asked.
        known: the names that exist.
        hint: what to type next; a sentence of its own.
        near: what was meant, where that is known; default: the nearest of the known names.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], hint: str = "", near: str | None = None
    ) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = near or next(iter(difflib.get_close_matches(name, self.known, 1, 0.6)), None)
        message = f"no {kind} named '{name}'"
        message += f"; did you mean '{near}'?" if near else "."
        message += f" Known: {', '.join(self.known)}." if self.known else " None is registered."
        super().__init__(message + (f" {hint}" if hint else ""))


class DataError(FewshotBenchError):
    """A data file that is missing, damaged, or not what it claims to be."""


class PluginError(FewshotBenchError):
    """A plugin that cannot be loaded or that breaks the contract it registered for."""


class PluginWarning(UserWarning):
    """A plugin that failed where others could take its place."""


class InterfaceDeprecation(DeprecationWarning):
    """A plugin uses a part of the interface that is to go. Says what to write in its place.

    For a hook or its argument it is given to ``hookspec`` (``warn_on_impl``,
    ``warn_on_impl_args``); a function warns with it and ``stacklevel=2``. So the warning has the
    plugin's line, which ``fsb`` shows.
    """


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn what a plugin's code raises into a PluginError that names it.

    Arguments:
        what: was called, e.g. ``"MyMethod.adapt()"``.
    """
    try:
        yield
    except FewshotBenchError:
        raise
    except Exception as error:
        if is_out_of_memory(error):  # no fault of the plugin's: less at a time may do
            raise
        text = " ".join(str(error).split()) or "no message"
        raise PluginError(f"{what} raised {type(error).__name__}: {text}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: Python's, a GPU's, or torch's on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "CUDA out of memory" in text
    )


class RecordError(FewshotBenchError):
    """A run folder or record that cannot be read."""


class Stopped(FewshotBenchError):
    """A signal ended a command; the message says how to go on.

    Arguments:
        message: one line.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Diverged(FewshotBenchError):
    """A loss, gradient or weight became NaN or infinite.

    Arguments:
        step: number of the meta-step, counted from 1.
        player: name of the player whose loss or gradient it was.
        what: ``"loss"``, ``"gradient"`` or ``"weight"``.
        origin: which operation it came from, as part of a sentence; None where nothing looked.
    """

    exit_code = 1

    def __init__(
        self, step: int, player: str, what: str = "loss", origin: str | None = None
    ) -> None:
        self.step, self.player, self.what, self.origin = step, player, what, origin
        hint = "; --detect-anomaly names the operation" if origin is None else ""
        super().__init__(
            f"step {step}: the {what} of player '{player}' is not finite{origin or ''}; the last "
            f"good weights are kept. Try a smaller learning rate, or another --seed{hint}."
        )


class OutOfMemory(FewshotBenchError):
    """A single task, or tasks that cannot be parted, need more memory than the device has."""
