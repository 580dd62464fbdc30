"""Plugins of a single file, without packaging: ``./my_method.py:MyMethod``.

Nothing looks for such files: one is imported when its path is typed, wherever a name may stand.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from fewshot_bench.errors import ConfigError, PluginError

DISTRIBUTION = "file"  # in place of a distribution, in records

# The files that may be imported now; None: any, because a person typed its path.
_ALLOWED: ContextVar[frozenset[tuple[Path, str]] | None] = ContextVar("allowed", default=None)


@contextmanager
def only_typed(names: Iterable[object], trust: bool = False) -> Iterator[None]:
    """Import no file in the block but those that were typed: those in a record are not trusted.

    ``trust``: somebody looked at the files that the record names, and lets them through.
    """
    files = [name for name in names if isinstance(name, str) and is_file(name)]
    token = _ALLOWED.set(None if trust else frozenset(split(name, module=True) for name in files))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_file(name: str) -> bool:
    """Whether this is typed as ``PATH.py:ATTRIBUTE`` (or as a path alone, which is refused)."""
    return name.endswith(".py") or ".py:" in name


def split(name: str, module: bool = False) -> tuple[Path, str]:
    """Absolute path and attribute, which is empty where ``module`` allows the file alone.

    Raises:
        ConfigError: no such file, no attribute after it, or it was not typed (:func:`only_typed`).
    """
    head, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    path = Path(head).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"'{name}': there is no file '{head}'.")
    if not attribute.isidentifier() and not (module and name.endswith(".py")):
        example = "MyMethod"  # or a class of the file, read without running it
        with suppress(SyntaxError, ValueError, OSError):
            parts = reversed(ast.parse(path.read_text("utf-8")).body)
            example = next((n.name for n in parts if isinstance(n, ast.ClassDef)), example)
        what = "a class or function has to follow"
        raise ConfigError(f"'{name}': {what}, as in {head}:{example}.")
    allowed = _ALLOWED.get()
    if allowed is not None and (path, attribute) not in allowed:
        what = f"the run's record names code in a file, '{name}', which was not typed here"
        trust = "with --trust-code, 'fsb eval', 'fsb predict' and 'fsb resume' import it"
        raise ConfigError(f"{what}. Look at the file; {trust}.")
    return path, attribute


def content(path: Path) -> str:
    """``sha256:`` and the beginning of the content's digest: what a file has for a version."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


class _AsRead(SourceFileLoader):
    """Runs the bytes that were read; Python's cache may have those of a second before."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.path)


def load(path: Path) -> ModuleType:
    """Import a file; once, as long as its content stays."""
    source = path.read_bytes()
    key = hashlib.sha256(str(path).encode() + source).hexdigest()[:16]
    name = f"fewshot_bench_file_{key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path, loader=_AsRead(name, path, source))
    assert isinstance(spec, ModuleSpec), path
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there while classes are made
    try:
        with redirect_stdout(sys.stderr):  # standard output is for results
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        what = f"'{path}'{line} cannot be imported: {text}; --debug shows where."
        raise PluginError(what) from error
    return module
