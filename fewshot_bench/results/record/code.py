"""The code behind a result: the files that a plugin consists of, and a digest of their content.

A plugin is its whole package, and whatever else its modules import, transitively, as long as
that is no installed distribution of somebody else: of those the version counts. Imports are read,
not run. An import whose name is put together at run time is not seen.
"""

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from fewshot_bench.hooks.registry import CORE
from fewshot_bench.results.record.environment import installed_version
from fewshot_bench.utils.inputs import content_of

OWN = "fewshot_bench"
# Parts of this package that show results and do not make them.
SHOWING = ("cli", "figures", "report", "results", "testing")
# Their versions are in the record's environment.
APART = {OWN, "torch", "torchvision", "numpy", "scipy"}
INSTALLED = {"site-packages", "dist-packages"}
# In the folder of a package, and no part of what it computes.
NOT_CODE = (".pyc", ".pyo", ".md", ".rst", ".log", ".tmp", ".lock", "~")


@dataclass(frozen=True)
class Code:
    """What a plugin consists of."""

    path: Path | None  # of the file that is named
    sha256: str  # over the names and contents of all files, and the versions of what they import
    files: int  # how many
    bytes: int  # of all of them


def code_of(source: str) -> Code:
    """The code of a module (``"package.module"``) or of a single file (an absolute path).

    It is as it was when this process first asked, as what it has imported is. A single file is
    imported again when it has changed, so its content is read each time.
    """
    if source.endswith(".py"):
        return _of_file(source, hashlib.sha256(Path(source).read_bytes()).hexdigest())
    return _of_module(source)


def code_digest(sources: Iterable[str]) -> str:
    """sha256 over the code of this package and of some plugins; sources as in :func:`code_of`."""
    each = sorted({code_of(source).sha256 for source in (OWN, *sources)})
    return hashlib.sha256("".join(each).encode()).hexdigest()


@cache
def _of_file(path: str, sha256: str) -> Code:
    found = _Collected("", Path(path).parent)
    found.files["file"] = Path(path)  # its name and folder are none of its content
    found.follow_imports(Path(path), "")
    return found.code(Path(path), {"file": sha256})


@cache
def _of_module(name: str) -> Code:
    found = _Collected(name.partition(".")[0])
    found.add_package(name)
    return found.code(_origin(_spec(name)), {})


class _Collected:
    """Files by the names that they count under, and versions of what is somebody else's."""

    def __init__(self, top: str, folder: Path | None = None) -> None:
        self.top = top
        self.folder = folder  # of a single file: where its helpers may lie
        self.files: dict[str, Path] = {}
        self.versions: set[str] = set()
        self._seen: set[str] = set()
        self._whole: str | None = None  # the package that is in already

    def code(self, path: Path | None, known: dict[str, str]) -> Code:
        """The digest, with the content of some files as it was ``known`` before."""
        sha, size = hashlib.sha256(), 0
        for name, file in sorted(self.files.items()):
            content = _content(file)
            sha.update(f"{name}\0{known.get(name, content.sha256)}\n".encode())
            size += content.bytes
        for line in sorted(self.versions):
            sha.update(f"{line}\n".encode())
        return Code(path, sha.hexdigest(), len(self.files), size)

    def add_package(self, name: str) -> None:
        """All of the outermost package around a module; of one that is in none, the module."""
        for outer in _prefixes(name):
            spec = _spec(outer)
            origin = _origin(spec)
            if spec is None or origin is None:
                continue  # a namespace: not even a folder of its own
            self._whole = outer
            if spec.submodule_search_locations is None:
                self._add_module(outer, origin, spec.parent)
                return
            own = list(_files(origin.parent, outer))
            self.files |= {f"{outer}/{relative}": file for relative, file in own}
            for relative, file in own:
                if file.suffix == ".py" and outer != OWN:  # its requirements are no plugin's
                    self.follow_imports(file, ".".join([outer, *relative.split("/")[:-1]]))
            return

    def follow_imports(self, file: Path, package: str) -> None:
        """Add what a file imports."""
        for name in _imports(file, package):
            if name not in self._seen:
                self._seen.add(name)
                self._follow(name)

    def _follow(self, name: str) -> None:
        top = name.partition(".")[0]
        if top in APART or top in sys.stdlib_module_names:
            return
        if self._whole and f"{name}.".startswith(f"{self._whole}."):
            return
        spec = _spec(top, self.folder)
        where = _origin(spec)
        if spec is not None and where is None:  # a namespace has folders
            where = next(map(Path, spec.submodule_search_locations or ()), None)
        if where is None:
            return
        if INSTALLED & set(where.parts):
            others = _distributions(top)
            if others and not others & (_distributions(self.top) | {CORE}):
                self.versions |= {f"{other}=={installed_version(other)}" for other in others}
                return
        for inner in _prefixes(name):
            spec = _spec(inner, self.folder)
            origin = _origin(spec)
            if spec is not None and origin is not None:
                self._add_module(inner, origin, spec.parent)

    def _add_module(self, name: str, origin: Path, package: str | None) -> None:
        if name not in self.files:
            self.files[name] = origin
            if origin.suffix == ".py":
                self.follow_imports(origin, package or "")


def _prefixes(name: str) -> Iterator[str]:
    """``a.b.c`` to ``a``, ``a.b``, ``a.b.c``."""
    return accumulate(name.split("."), "{}.{}".format)


def _imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; ``from a import b`` gives a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # of another Python, or a template; its bytes count all the same
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=level, names=names):
                base = module or ""
                if level:
                    around = package.split(".") if package else []
                    around = around[: len(around) - level + 1]
                    base = ".".join([*around, base] if base else around)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in names if alias.name != "*")
            case ast.Call(
                func=ast.Name("import_module" | "__import__")
                | ast.Attribute(attr="import_module" | "__import__"),
                args=[ast.Constant(str(name)), *_],
            ):
                yield f"{package}{name}" if name.startswith(".") else name


def _spec(name: str, folder: Path | None = None) -> ModuleSpec | None:
    """Where a module is, without importing it or the packages around it."""
    top, *rest = name.split(".")
    spec = None
    with suppress(ValueError, ImportError, AttributeError):  # half a module, or a faulty finder
        spec = find_spec(top)
    if spec is None and folder is not None:  # a file may put its own folder on the path
        spec = PathFinder.find_spec(top, [str(folder)])
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec


def _origin(spec: ModuleSpec | None) -> Path | None:
    """The file of a module; None for a namespace and for what is built in."""
    path = Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
    return path if path is not None and path.is_file() else None


def _files(root: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The files of a package's folder, without caches, texts and the folders of runs."""
    for at, folders, names in os.walk(root):
        if "record.json" in names:
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__pycache__")))
        for name in sorted(names):
            file = Path(at, name)
            relative = file.relative_to(root)
            if name.startswith(".") or name.endswith(NOT_CODE) or not file.is_file():
                continue
            if package == OWN and relative.parts[0] in SHOWING:
                continue
            yield relative.as_posix(), file


_content = cache(content_of)  # as it was when this process first asked


@cache
def _distributions(top: str) -> set[str]:
    """The distributions that a top-level module belongs to."""
    return set(packages_distributions().get(top, ()))
