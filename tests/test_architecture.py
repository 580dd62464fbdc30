"""What the source of the package may hold: who imports whom, names, lengths, start-up."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fewshot_bench
from fewshot_bench.hooks.registry import Registry
from tests.command_line import Process, reporting

PACKAGE = Path(fewshot_bench.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ENGLISH = {"folder"}  # a data set whose name messages use as a word

# A room imports from itself and from rooms above it.
ORDER = (
    "errors",
    "rng",
    "utils",
    "episode",
    "nn",
    "method",
    "data",
    "sampling",
    "hooks",
    "config",
    "engine",
    "results",
    "runs",
    "figures",
    "report",
    "testing",
    "cli",
    "__main__",
)
ROOT_MODULES = {"__init__", "__main__", "errors", "rng", "episode", "method"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import in a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            # `from package import module` names a module too
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def rooms_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in imports_of(path):
        parts = module.split(".")
        if parts[0] == "fewshot_bench" and parts[1:] and parts[1] in ORDER:
            yield line, parts[1]


def test_every_room_is_in_the_order() -> None:
    assert {room_of(path) for path in SOURCES} == {*ORDER, "__init__"}


def test_the_root_holds_six_modules_and_no_more() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES


def test_a_room_imports_only_from_rooms_above_it() -> None:
    wrong = []
    for path in SOURCES:
        room = room_of(path)
        if room == "__init__":
            continue  # the package's face: names of all rooms, imported when used
        for line, other in rooms_imported(path):
            if ORDER.index(other) > ORDER.index(room):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {other}")
    assert not wrong, "\n".join(wrong)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_imports() -> dict[str, set[str]]:
    """{module: modules of the package that it names in an import, wherever in the file}.

    Also inside functions and under ``TYPE_CHECKING``. That Python runs a package's ``__init__``
    before a module in it is no import of anybody's.
    """
    modules = {module_of(path): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        named = {
            name if name in modules else name.rpartition(".")[0] for _, name in imports_of(path)
        }
        graph[module] = (named & modules.keys()) - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """Groups of modules that import each other, directly or by way of others."""

    def reachable(module: str) -> set[str]:
        seen: set[str] = set()
        left = [module]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    reach = {module: reachable(module) for module in graph}
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }
    return sorted(groups, key=sorted)


def test_no_modules_import_each_other() -> None:
    found = [sorted(group) for group in circles(module_imports())]
    assert not found, found


def test_circles_are_found_through_other_modules() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [frozenset("abc")]


def test_the_order_sees_imports_inside_functions() -> None:
    found = {room for _, room in rooms_imported(PACKAGE / "cli" / "run.py")}
    assert {"hooks", "config", "runs"} <= found


def test_the_core_imports_no_plugin() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in SOURCES
        for line, module in imports_of(path)
        if module.split(".")[0].startswith("fsb_")
    ]
    assert not wrong, "\n".join(wrong)


def plugin_sources() -> dict[Path, str]:
    """Sources of built-in plugins, of the tutorial, and of what ``fsb new`` writes."""
    found = {path: path.read_text("utf-8") for path in (ROOT / "plugins").rglob("*.py")}
    for path in (ROOT / "docs" / "tutorial").rglob("*.py"):
        found[path] = path.read_text("utf-8")
    for path in (PACKAGE / "hooks" / "templates").rglob("*.py.in"):
        found[path] = re.sub(r"\$\w+", "replaced", path.read_text("utf-8"))
    return found


def is_public(module: str, name: str) -> bool:
    """Whether a room, or a module of the root, exports a name."""
    folders = module.split(".")[1:]
    if not (PACKAGE.joinpath(*folders).is_dir() or folders[0] in ROOT_MODULES):
        return False  # a module inside of a room
    room = importlib.import_module(module)
    if (PACKAGE.joinpath(*folders) / f"{name}.py").exists() and name not in vars(room):
        return False
    return hasattr(room, name) and not name.startswith("_")


def test_plugins_use_the_public_api_alone() -> None:
    """Built-in plugins import what a third party may import: names that rooms export."""
    wrong, seen = [], 0
    for path, source in plugin_sources().items():
        for node in ast.walk(ast.parse(source)):
            names: list[tuple[str, str]] = []
            if isinstance(node, ast.Import):
                names = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "", alias.name) for alias in node.names]
            for module, name in names:
                if module.split(".")[0] == "fewshot_bench":
                    seen += 1
                    if not name or not is_public(module, name):
                        wrong.append(f"{path.relative_to(ROOT)}: {module}.{name}")
    assert seen > 80
    assert not wrong, "\n".join(wrong)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """(line, value) of the strings of a file that are no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_core_knows_no_method_data_set_or_backbone() -> None:
    registry = Registry.discover()
    names = {n for kind in ("methods", "datasets", "backbones") for n in registry.names(kind)}
    assert {"protonet", "omniglot", "conv4"} <= names
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {value!r}"
        for path in SOURCES
        for line, value in literals(path)
        if value in names or set(value.split()) & (names - ENGLISH)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str], fsb_process: Process) -> None:
    heavy = reporting("torch", "numpy", "scipy", "torchvision", "rich")
    answer = fsb_process(*arguments, before=heavy).succeeded()
    assert answer.out.endswith("imported: []\n")
    assert len(answer.out.splitlines()) > 1
