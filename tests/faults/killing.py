"""Processes of ``fsb`` that can be killed at any moment; they start in an instant, by forking."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

# What changes files: a process may die before or after each call.
CALLS = ("replace", "fsync", "mkdir", "unlink", "chmod", "open")


def server() -> Any:
    """Where processes come from: a process that has imported everything, and started no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["fewshot_bench.cli.main", "fewshot_bench.runs.train", "fewshot_bench.cli.progress",
         "fewshot_bench.cli.summary", "torch.utils.flop_counter", "torch._dynamo", "scipy.stats",
         "fsb_protonet.protonet", "fsb_maml.maml", "fsb_metagan.metagan", "fsb_glyphs.glyphs",
         "fsb_backbones.conv"]
    )  # fmt: skip
    return context


class Fsb:
    """A process that runs ``fsb``.

    Arguments:
        context: see :func:`server`.
        arguments: of the command.
        at: folder that it runs in.
        dies: (call of ``CALLS`` or "any", its number, whether it is still done): where it dies.
    """

    def __init__(
        self,
        context: Any,
        arguments: Sequence[str],
        at: Path,
        dies: tuple[str, int, bool] | None = None,
    ) -> None:
        self.said = at / f"said-{time.monotonic_ns()}"
        self.process = context.Process(target=_main, args=(list(arguments), at, self.said, dies))
        self.process.start()

    def kill_at(self, condition: Callable[[], object], after: float) -> bool:
        """Kill it some seconds after a condition holds; whether it still ran."""
        while self.process.is_alive() and not condition():
            time.sleep(0.002)
        self.process.join(after)
        alive = bool(self.process.is_alive())
        if alive:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return alive

    def end(self) -> tuple[int, str]:
        """Its exit code, and all that it said."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None
        return self.process.exitcode, self.said.read_text("utf-8")


def _main(arguments: list[str], at: Path, said: Path, dies: tuple[str, int, bool] | None) -> None:
    handle = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(at)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # a fork server ignores one
        number = getattr(signal, name)
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["fsb", *arguments]
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    if dies is not None:
        _die_at(*dies)
    from fewshot_bench.cli.main import main

    main()


def _die_at(call: str, number: int, done: bool) -> None:
    """Have this process killed at a call of the operating system."""
    seen = 0

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            here = seen == number
            if here and not done:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **named)
            finally:
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return function

    for name in CALLS if call == "any" else (call,):
        setattr(os, name, watched(getattr(os, name)))
