"""What the registry holds: names that plugins registered, and a row for each plugin."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from fewshot_bench.errors import FewshotBenchError, PluginError
from fewshot_bench.hooks import single_file as files
from fewshot_bench.hooks.checks import said


@dataclass(frozen=True)
class Registered:
    """A name that a plugin registered.

    Arguments:
        kind: one of ``KINDS``.
        name: without its distribution.
        target: ``"module:attribute"``.
        distribution, version: what installed it.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str

    @property
    def title(self) -> str:
        """What it is and where it came from, for messages."""
        return f"{self.kind[:-1]} '{self.name}' of {self.distribution} {self.version}"

    @property
    def full_name(self) -> str:
        """What always works when typed: ``distribution:name``."""
        return f"{self.distribution}:{self.name}"

    @property
    def identity(self) -> dict[str, str]:
        """What a record keeps of it."""
        return {n: getattr(self, n) for n in ("kind", "name", "distribution", "version")}

    @property
    def source(self) -> str:
        """The module that it comes from, for digests of code."""
        return self.target.partition(":")[0]

    def load(self) -> Any:
        """Import the object.

        Raises:
            PluginError: the import fails; names the distribution and the reason.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results
                module = importlib.import_module(module_name)
        except FewshotBenchError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.title} cannot be loaded from '{self.target}' ({said(error)}); "
                f"'fsb plugins --trace {self.name}' shows where."
            ) from error
        return self._attribute(module, attribute)

    def _attribute(self, module: Any, attribute: str) -> Any:
        try:
            return getattr(module, attribute)
        except AttributeError as error:
            near = difflib.get_close_matches(attribute, dir(module), n=1)
            hint = f"; is '{near[0]}' meant?" if near else "."
            raise PluginError(
                f"{self.title} cannot be loaded: there is no '{attribute}' in "
                f"'{self.target.rpartition(':')[0]}'{hint}"
            ) from error


@dataclass(frozen=True)
class InFile(Registered):
    """What stands in a file whose path was typed. ``target`` is the absolute path and attribute."""

    @property
    def title(self) -> str:
        return f"{self.kind[:-1]} '{self.name}'"

    @property
    def full_name(self) -> str:
        return self.target

    @property
    def source(self) -> str:
        return self.target.rpartition(":")[0]

    def load(self) -> Any:
        path, attribute = files.split(self.target)
        return self._attribute(files.load(path), attribute)


@dataclass
class PluginInfo:
    """One entry point, and how it fared."""

    name: str
    distribution: str
    version: str
    module: str
    kinds: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None
    traceback: str = ""

    @property
    def status(self) -> str:
        """``ok`` or ``broken``."""
        return "broken" if self.error else "ok"

    @property
    def told(self) -> str:
        """What is wrong, in one line that names the distribution."""
        return f"plugin '{self.name}' of {self.distribution} {self.version} is broken: {self.error}"

    def fail(self, error: BaseException, told: str) -> None:
        """Note what went wrong and where; call it while the error is being handled."""
        self.error = " ".join(told.split()).removesuffix(".")
        self.traceback = "".join(traceback.format_exception(error))
