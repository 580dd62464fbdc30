"""Every error that fewshot-bench raises on purpose.

::

    FewshotBenchError              something that a user can fix; shown as one line   exit 2
    ├── ConfigError                an option or value that is unknown or impossible
    │   └── UnknownName            a name that no plugin registers; suggests the nearest
    ├── DataError                  a data file that is missing, damaged or unexpected
    ├── PluginError                a plugin that fails to load or breaks its contract
    ├── RecordError                a run folder or record that cannot be read
    ├── OutOfMemory                a task that does not fit into the device's memory
    ├── Diverged                   a loss, gradient or weight became NaN or infinite    exit 1
    └── Stopped                    a signal ended the command    exit 128 + its number

    PluginWarning                  a plugin failed; the command continues without it
    InterfaceDeprecation           a plugin uses a part of the interface that will be removed

A message says what was expected, what was found, and what to type.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MOST_NAMED = 20  # known names in a message that has a hint where to read all


class FewshotBenchError(Exception):
    """Base of all errors that are meant for the user."""

    exit_code = 2


class ConfigError(FewshotBenchError):
    """An option or value that is unknown, impossible or out of range."""


class UnknownName(ConfigError):
    """A name that no plugin registers.

    Arguments:
        kind: what was looked up, in the singular (``"method"``).
        hint: what to type; a sentence of its own.
        near: the name that was probably meant; default: the most similar of the known names.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], hint: str = "", near: str | None = None
    ) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        near = near or next(iter(difflib.get_close_matches(name, self.known, 1, 0.6)), None)
        message = f"no {kind} named '{name}'"
        message += f"; did you mean '{near}'?" if near else "."
        if not self.known:
            message += " None is registered."
        elif len(self.known) <= MOST_NAMED or not hint:
            message += f" Known: {', '.join(self.known)}."
        super().__init__(message + (f" {hint}" if hint else ""))


class DataError(FewshotBenchError):
    """A data file that is missing, damaged or unexpected."""


class PluginError(FewshotBenchError):
    """A plugin that cannot be loaded or that breaks the contract it registered for."""


class PluginWarning(UserWarning):
    """A plugin failed; the command continues without it."""


class InterfaceDeprecation(DeprecationWarning):
    """A plugin uses a part of the interface that will be removed; says what replaces it.

    Hooks pass it to ``hookspec`` (``warn_on_impl``, ``warn_on_impl_args``); functions warn with
    ``stacklevel=2``, so that the warning points to the plugin's line.
    """


@contextmanager
def plugin_errors(what: str) -> Iterator[None]:
    """Turn exceptions of a plugin's code, e.g. of ``"MyMethod.adapt()"``, into a PluginError."""
    try:
        yield
    except FewshotBenchError:
        raise
    except Exception as error:
        if is_out_of_memory(error):  # not the plugin's fault; smaller batches may fit
            raise
        text = " ".join(str(error).split()) or "no message"
        raise PluginError(f"{what} raised {type(error).__name__}: {text}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory: Python's, a GPU's, or torch's on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    signs = ("DefaultCPUAllocator", "CUDA out of memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


class RecordError(FewshotBenchError):
    """A run folder or record that cannot be read."""


class Stopped(FewshotBenchError):
    """The signal with this number ended the command; the message says how to resume."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Diverged(FewshotBenchError):
    """A loss, gradient or weight (``what``) became NaN or infinite.

    Arguments:
        step: counted from 1.
        origin: the operation that caused it, as part of a sentence; None: not searched for.
    """

    exit_code = 1

    def __init__(
        self, step: int, player: str, what: str = "loss", origin: str | None = None
    ) -> None:
        self.step, self.player, self.what, self.origin = step, player, what, origin
        hint = "; --detect-anomaly names the operation" if origin is None else ""
        where = f"step {step}: the {what} of player '{player}' is not finite{origin or ''}"
        advice = f"Try a smaller learning rate, or another --seed{hint}."
        super().__init__(f"{where}; the last finite weights are saved. {advice}")


class OutOfMemory(FewshotBenchError):
    """One task, or a batch of tasks that cannot be split, does not fit into the memory."""
