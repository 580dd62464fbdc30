"""A new plugin from the files in ``templates/``, whose ``$names`` differ from plugin to plugin."""

import keyword
import re
import unicodedata
from collections.abc import Iterator
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from string import Template

from fewshot_bench.errors import ConfigError, UnknownName
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.hooks.specs import INTERFACE

KINDS = ("method", "dataset", "backbone", "sampler", "metric", "observer")
FUNCTIONS = ("backbone", "metric")  # what these register is a function, of the others a class
# Package data hold no names that begin with a dot.
RENAMED = {"github": ".github", "gitignore": ".gitignore"}


def new_plugin(name: str, kind: str, into: Path, registry: Registry) -> list[Path]:
    """Write a complete distribution in a folder below ``into``; returns its files.

    ConfigError for an unknown kind, a name that is taken or not valid, or a folder that exists.
    """
    if kind not in KINDS:
        raise UnknownName("kind of plugin", kind, KINDS)
    names = derive(name, kind, registry)
    folder = into / names["distribution"]
    if folder.exists():
        raise ConfigError(f"'{folder}' exists and is not overwritten; give another name or --into.")
    templates = files("fewshot_bench.hooks") / "templates"
    texts = {path: text for part in ("common", kind) for path, text in _templates(templates / part)}
    written = []
    for path, text in sorted(texts.items()):
        written.append(target := folder / Template(path).substitute(names))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(text).substitute(names), "utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write '{target}': {error.strerror}.") from error
    return written


def derive(name: str, kind: str, registry: Registry) -> dict[str, str]:
    """The names that a template may use; ConfigError if none can be derived, or they are taken."""
    if "/" in name or "\\" in name:
        raise ConfigError(f"'{name}' is a path; give a name, and the folder above with --into.")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", plain))
    distribution = "-".join(words).lower()
    module = distribution.replace("-", "_")
    if not module.isidentifier():
        letter = "begins with a letter from a to z, as a Python module's does"
        raise ConfigError(f"'{name}': expected a name that {letter}.")
    if taken := registry.names(f"{kind}s").get(distribution):
        raise ConfigError(f"{taken[0].title} has the name '{distribution}'; give another.")
    if keyword.iskeyword(module) or find_spec(module) is not None:
        what = f"Python has '{module}' already, as a keyword or an installed module"
        raise ConfigError(f"'{name}': {what}; give another name.")
    title = "".join(word.capitalize() for word in module.split("_"))
    attribute = module if kind in FUNCTIONS else title
    return {
        "distribution": distribution, "module": module, "name": distribution, "title": title,
        "attribute": attribute, "kind": kind, "kinds": f"{kind}s", "interface": str(INTERFACE),
        "version": version("fewshot-bench"),
    }  # fmt: skip


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path of the file to write, its template) of a folder of ``templates/``."""
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = item.name.removesuffix(".in")
        path = prefix + {"module": "$module", **RENAMED}.get(name, name)
        if item.is_dir():
            yield from _templates(item, path + "/")
        elif item.name.endswith(".in"):
            yield path, item.read_text("utf-8")
