"""What tables are printed with."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class Screen(Console):
    """Standard output as rich has it, without markup; a reader that went away is told to ``main``.

    Arguments:
        more: see :class:`rich.console.Console`.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, highlight=False, **more)

    def on_broken_pipe(self) -> None:
        """Rich would end the process here, with a code that means a failure.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError
