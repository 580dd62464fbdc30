"""What the package stands on, judged without a network: declared, told, licensed, as published."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SOURCES = [*(ROOT / "fewshot_bench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
OURS = {"fewshot_bench", *(path.name for path in (ROOT / "plugins").glob("fsb_*"))}
# No release below these floors: earlier ones have a known fault that a file can reach here.
FLOORS = {
    "torch": (2, 6),  # weights_only=True could run code
    "pillow": (10, 3),  # buffer overflow
    "jinja2": (3, 1, 6),  # templates left their sandbox
}
# The licenses of what is installed with the package; words of their names or classifiers.
LICENSES = re.compile(r"MIT|BSD|Apache|PSF|Python Software|MPL|ISC|HPND|CMU|NVIDIA|Unlicense|0BSD")
LARGEST = 2**20  # bytes of a file that is hashed


def plain(requirement: str) -> str:
    """The name in a requirement, in the spelling of an index."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = {plain(text): text for text in PROJECT["dependencies"]}
OPTIONAL = {plain(text): text for texts in EXTRAS.values() for text in texts}


def rows() -> dict[str, str]:
    """Package: why, of every table of docs/dependencies.md."""
    text = (ROOT / "docs/dependencies.md").read_text("utf-8")
    found = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    return {cells[-2]: cells[-1] for cells in found if len(cells) > 1 and cells[-2] != "package"}


def test_every_dependency_is_justified_in_one_line() -> None:
    told = {name: why for name, why in rows().items() if not name.startswith("-")}
    assert set(told) == set(REQUIRED) | set(OPTIONAL)
    assert all(len(why) > 20 for why in told.values())


def test_no_version_has_an_upper_end_and_known_faults_are_below_the_lower_one() -> None:
    for name, text in {**REQUIRED, **OPTIONAL}.items():
        assert re.fullmatch(r"[\w-]+>=[\d.]+", text), text
        floor = tuple(int(part) for part in text.partition(">=")[2].split("."))
        assert floor >= FLOORS.get(name, ()), name


def imported() -> Iterator[tuple[str, Path]]:
    """Top-level module and file of every import in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").partition(".")[0], path


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    distributions = metadata.packages_distributions()
    outside = {
        (plain(distributions.get(module, [module])[0]), path.name)
        for module, path in imported()
        if module not in sys.stdlib_module_names and module not in OURS
    }
    # The plugin for pytest is loaded by it; Triton is used where torch brings it.
    names = {name for name, _ in outside} - {"pytest", "triton"}
    assert names <= set(REQUIRED) | set(OPTIONAL), sorted(outside)
    assert set(REQUIRED) <= names


def installed() -> Iterator[metadata.Distribution]:
    """Every distribution that comes with the package, what its dependencies need included."""
    seen: set[str] = set()
    left = sorted(REQUIRED)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        yield found
        left += [plain(text) for text in found.requires or () if "extra ==" not in text]


def test_every_license_is_known() -> None:
    for found in installed():
        told = found.metadata
        words = [*told.get_all("Classifier", []), told.get("License") or ""]
        words += [told.get("License-Expression") or "", told["Name"]]
        assert LICENSES.search(" ".join(words)), told["Name"]


def test_installed_files_are_as_they_were_published() -> None:
    """What an index sent is what is there: a file that was changed afterwards is named."""
    changed, looked = [], 0
    for found in installed():
        for file in found.files or ():
            path = Path(str(file.locate()))
            if file.hash is None or path.suffix != ".py" or not path.is_file():
                continue
            if path.stat().st_size > LARGEST:
                continue
            looked += 1
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
                changed.append(str(file))
    assert changed == []
    assert looked > 1000


def test_nothing_of_ours_runs_what_a_file_says() -> None:
    """Beside ruff's rules (S301, S307, ...): the words that open the doors."""
    doors = re.compile(
        r"\btorch\.(load|jit\.load|hub)\b|allow_pickle=True|\bimport pickle\b|\bmarshal\b"
        r"|\bshelve\b|\bextractall\b|shell=True|\bos\.system\b|(?<![.\w])(eval|exec)\(|\|\s*safe\b"
    )
    found = {
        f"{path.parent.name}/{path.name}": sorted({hit[0] for hit in doors.finditer(text)})
        for path in SOURCES
        if doors.search(text := path.read_text("utf-8"))
    }
    # The reader of CIFAR-100, which makes nothing but arrays.
    assert found == {"fsb_cifar100/files.py": ["import pickle"]}
    template = (ROOT / "fewshot_bench/report/templates/page.html").read_text("utf-8")
    assert re.findall(r"{{ (\w+) \| safe }}", template) == ["style", "script"]  # our own files


@pytest.mark.parametrize(
    "name", ["SECURITY.md", "docs/reference/faults.md", "docs/dependencies.md"]
)
def test_the_pages_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500
