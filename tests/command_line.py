"""The command line in tests: the fixtures ``fsb`` and ``fsb_process`` of conftest.py.

``fsb`` calls ``main()`` in this process, where torch is imported already: a hundredth of the time
of a process. ``fsb_process`` starts ``python -m fewshot_bench``, for what only a process has:
signals, closed pipes, a cold start, modules that cannot be imported.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
WIDE = {"COLUMNS": "200"}  # unless a test asks for another width


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    def succeeded(self) -> Answer:
        """Itself; fails the test where the exit code is not 0."""
        assert self.code == 0, self.err
        return self


class InProcess:
    """Runs the command line in this process: ``fsb("run", "maml", at=tmp_path)``."""

    def __call__(self, *words: str | Path, at: Path | None = None, **environment: str) -> Answer:
        """Run a command.

        Arguments:
            words: behind ``fsb``.
            at: the working folder; default: the present one.
            environment: further variables.
        """
        from fewshot_bench.cli.main import main
        from fewshot_bench.errors import PluginWarning

        out, err = io.StringIO(), io.StringIO()
        code = 0
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(sys, "argv", ["fsb", *map(str, words)]))
            stack.enter_context(mock.patch.dict(os.environ, {**WIDE, **environment}))
            stack.enter_context(chdir(at or Path.cwd()))
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(_as_before())
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            warnings.simplefilter("default", PluginWarning)  # pytest makes errors of them
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
        return Answer(code, out.getvalue(), err.getvalue())


@contextmanager
def _as_before() -> Iterator[None]:
    """Forget the handlers of log messages and the plugins that a command brought along.

    A plugin is a module from outside of this repository and of what is installed: the next
    command imports it anew, as its own process would.
    """
    logger = logging.getLogger("fewshot_bench")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    modules = set(sys.modules)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate
        places = (str(ROOT), sys.prefix, sys.base_prefix)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not str(Path(file).resolve()).startswith(places):
                del sys.modules[name]


class Process:
    """Runs the command line in a process of its own: ``fsb_process("list", at=tmp_path)``."""

    def __call__(
        self, *words: str | Path, at: Path | None = None, before: str = "", **environment: str
    ) -> Answer:
        """Run a command until it ends; see :meth:`start`."""
        process = self.start(*words, at=at, before=before, **environment)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return Answer(process.returncode, out, err)

    def start(
        self, *words: str | Path, at: Path | None = None, before: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command.

        Arguments:
            words: behind ``fsb``.
            at: the working folder; default: the present one.
            before: Python to run before anything of fewshot-bench is imported.
            environment: further variables.
        """
        script = f"{before}\nfrom fewshot_bench.cli.main import main\nmain()\n"
        program = ["-c", script] if before else ["-m", "fewshot_bench"]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            cwd=at,
            env={**os.environ, **WIDE, "PYTHONIOENCODING": "utf-8", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # Where the tests run in the background, Ctrl-C is ignored; a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def without(*modules: str) -> str:
    """For ``before``: importing these modules fails, as where they are not installed."""
    return f"import sys\nfor name in {modules!r}: sys.modules[name] = None"


def reporting(*modules: str) -> str:
    """For ``before``: the last line of output is ``imported: [...]``, those of these modules."""
    return (
        "import atexit, sys\n"
        f"watched = set({modules!r})\n"
        "atexit.register(lambda: print('imported:', sorted(watched & set(sys.modules))))"
    )


fsb, fsb_process = InProcess(), Process()
