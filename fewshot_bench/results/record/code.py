"""The code behind a result: the files that a plugin consists of, and a digest of their content.

A plugin is its whole package, and whatever else its modules import, transitively, as long as
that is no installed distribution of somebody else: of those the version counts. Imports are read,
not run. An import whose name is put together at run time is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

OWN = "fewshot_bench"
DISTRIBUTION = "fewshot-bench"
# Parts of this package that show results and do not make them.
SHOWING = ("cli", "figures", "report", "results", "testing")
# Their versions stand in the record's environment.
APART = {OWN, "torch", "torchvision", "numpy", "scipy"}
INSTALLED = ("site-packages", "dist-packages")
# In the folder of a package, and no part of what it computes.
NOT_CODE = (".pyc", ".pyo", ".md", ".rst", ".log", ".tmp", ".lock", "~")


@dataclass(frozen=True)
class Code:
    """What a plugin consists of.

    Arguments:
        path: of the file that is named.
        sha256: over the names and contents of all files, and the versions of what they import.
        files: how many.
        bytes: of all of them.
    """

    path: Path | None
    sha256: str
    files: int
    bytes: int


def code_of(source: str) -> Code:
    """The code of a module (``"package.module"``) or of a single file (an absolute path).

    It is as it was when this process first asked: a process keeps what it has imported while
    somebody edits the files, and a long grid would otherwise record newer code for its later runs.
    A single file is imported again when it has changed, so its content is read each time.
    """
    if source.endswith(".py"):
        return _of_file(source, hashlib.sha256(Path(source).read_bytes()).hexdigest())
    return _of_module(source)


def code_digest(sources: Iterable[str]) -> str:
    """sha256 over the code of this package and of some plugins: what made the numbers of a run.

    Arguments:
        sources: modules, or absolute paths of single files; see :func:`code_of`.
    """
    each = sorted({code_of(source).sha256 for source in (OWN, *sources)})
    return hashlib.sha256("".join(each).encode()).hexdigest()


@cache
def _of_file(path: str, sha256: str) -> Code:
    found = _Collected("")
    found.folder = Path(path).parent
    found.files["file"] = Path(path)  # its name and folder are none of its content
    found.follow_imports(Path(path), "")
    return found.code(Path(path), {"file": sha256})


@cache
def _of_module(name: str) -> Code:
    found = _Collected(name.partition(".")[0])
    found.add_package(name)
    return found.code(_origin(_spec(name)))


class _Collected:
    """Files by the names that they count under, and versions of what is somebody else's."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.folder: Path | None = None  # of a single file: where its helpers may lie
        self.files: dict[str, Path] = {}
        self.versions: set[str] = set()
        self._seen: set[str] = set()
        self._whole: str | None = None  # the package that is in already

    def code(self, path: Path | None, known: dict[str, str] | None = None) -> Code:
        known = known or {}
        sha, size = hashlib.sha256(), 0
        for name, file in sorted(self.files.items()):
            digest, length = _content(file)
            sha.update(f"{name}\0{known.get(name, digest)}\n".encode())
            size += length
        for line in sorted(self.versions):
            sha.update(f"{line}\n".encode())
        return Code(path, sha.hexdigest(), len(self.files), size)

    def add_package(self, name: str) -> None:
        """All of the outermost package around a module; of one that is in none, the module."""
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            spec = _spec(".".join(parts[:i]))
            origin = _origin(spec)
            if spec is None or origin is None:
                continue  # a namespace: not even a folder of its own
            self._whole = spec.name
            if spec.submodule_search_locations is None:
                self._add_module(spec.name, origin, is_package=False)
                return
            own = list(_files(origin.parent, spec.name))
            self.files |= {f"{spec.name}/{relative}": file for relative, file in own}
            for relative, file in own:
                if file.suffix == ".py" and spec.name != OWN:  # its requirements are no plugin's
                    self.follow_imports(file, ".".join([spec.name, *relative.split("/")[:-1]]))
            return

    def follow_imports(self, file: Path, package: str) -> None:
        """Add what a file imports."""
        for name in _imports(file, package):
            self._follow(name)

    def _follow(self, name: str) -> None:
        top = name.partition(".")[0]
        if name in self._seen or top in APART or top in sys.stdlib_module_names:
            return
        self._seen.add(name)
        if self._whole and (name == self._whole or name.startswith(f"{self._whole}.")):
            return
        spec = _spec(top, self.folder)
        where = _place(spec)
        if spec is None or where is None:
            return
        if INSTALLED[0] in where.parts or INSTALLED[1] in where.parts:
            others = _distributions(top)
            if others and not others & (_distributions(self.top) | {DISTRIBUTION}):
                self.versions |= {f"{other}=={_version(other)}" for other in others}
                return
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            inner = ".".join(parts[:i])
            spec = _spec(inner, self.folder)
            origin = _origin(spec)
            if spec is not None and origin is not None:
                is_package = spec.submodule_search_locations is not None
                self._add_module(inner, origin, is_package=is_package)

    def _add_module(self, name: str, origin: Path, *, is_package: bool) -> None:
        if name in self.files:
            return
        self.files[name] = origin
        if origin.suffix == ".py":
            self.follow_imports(origin, name if is_package else name.rpartition(".")[0])


def _imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; ``from a import b`` gives a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return  # of another Python, or a template; its bytes count all the same
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = package.split(".") if package else []
                around = around[: len(around) - node.level + 1]
                base = ".".join([*around, base] if base else around)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                name = first.value
                yield f"{package}{name}" if name.startswith(".") else name


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _spec(name: str, folder: Path | None = None) -> ModuleSpec | None:
    """Where a module is, without importing it or the packages around it."""
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
    except (ValueError, ImportError, AttributeError):  # half a module, or a finder that fails
        spec = None
    if spec is None and folder is not None:  # a file may put its own folder on the path
        spec = PathFinder.find_spec(top, [str(folder)])
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec


def _origin(spec: ModuleSpec | None) -> Path | None:
    """The file of a module; None for a namespace and for what is built in."""
    if spec is None or not spec.origin or not spec.has_location:
        return None
    path = Path(spec.origin)
    return path if path.is_file() else None


def _place(spec: ModuleSpec | None) -> Path | None:
    """The file of a module, or a folder of a namespace."""
    if (origin := _origin(spec)) is not None or spec is None:
        return origin
    return next((Path(path) for path in spec.submodule_search_locations or ()), None)


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


@cache
def _content(path: Path) -> tuple[str, int]:
    """sha256 and length of a file, as they were when this process first asked."""
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), len(content)


@cache
def _distributions(top: str) -> set[str]:
    """The distributions that a top-level module belongs to."""
    return set(packages_distributions().get(top, ()))


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
