"""The reference pages of the Python API: signatures and docstrings of the public names."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from docs._site.docstrings import markdown

WIDTH = 96


@dataclass(frozen=True)
class Page:
    """A page: its title, and {module: names}; no names: all that are public and its own."""

    title: str
    parts: dict[str, tuple[str, ...]]


PAGES = {
    "running": Page("Running", {"fewshot_bench": ("run", "resume", "evaluate")}),
    "methods": Page(
        "Methods",
        {
            "fewshot_bench": ("Method", "Player", "Losses", "Preset", "Without"),
            "fewshot_bench.method": (
                "accuracy", "cross_entropy", "trainable", "halving", "cosine",
            ),
        },
    ),
    "episodes": Page(
        "Episodes and sampling",
        {
            "fewshot_bench": (
                "Task", "Support", "Episode", "UnlabeledSupport", "UnlabeledEpisode", "Sampler",
            ),
            "fewshot_bench.sampling": (
                "Indices",
                "EpisodeSource",
                "ClosedSampler",
                "OpenSampler",
                "BalancedOpenSampler",
                "InOrderSampler",
                "BatchSource",
                "draw_episodes",
            ),
        },
    ),
    "data": Page(
        "Data and files",
        {
            "fewshot_bench": ("Dataset", "LabeledImages", "Splits", "InputFile"),
            "fewshot_bench.data": (
                "ClassTable",
                "select_classes",
                "shuffled",
                "random_splits",
                "ClassLists",
                "read_split_file",
                "check_lists",
                "Resize",
                "resize",
                "with_rotations",
                "Decoded",
                "cached",
                "file_stamp",
                "expand_home",
                "download_file",
                "IMAGE_SUFFIXES",
                "read_image",
                "decode_image",
                "open_zip",
                "image_members",
                "read_member",
                "extract_files",
                "file_sha256",
            ),
        },
    ),
    "nn": Page("Building blocks", {"fewshot_bench.nn": ()}),
    "random": Page("Random numbers", {"fewshot_bench.rng": ()}),
    "semisupervised": Page("Few labels", {"fewshot_bench.sampling.few_labels": ()}),
    "testing": Page("Testing a plugin", {"fewshot_bench.testing": ()}),
    "intervals": Page(
        "Intervals",
        {
            "fewshot_bench.results.stats": (
                "INTERVALS", "UNEVEN", "Interval", "bootstrap_interval", "class_interval",
                "few_classes", "hierarchical_interval", "seeds_interval", "student_interval",
                "what_it_covers",
            )
        },
    ),
    "statistics": Page(
        "Differences",
        {
            "fewshot_bench.results.stats": (
                "Paired", "detectable_difference", "detectable_over_seeds", "episodes_needed",
                "holm", "paired_difference", "paired_over_seeds", "paired_power",
            )
        },
    ),
    "errors": Page("Errors", {"fewshot_bench.errors": ()}),
}  # fmt: skip


def page(content: Page) -> str:
    """The page as Markdown."""
    parts = [f"# {content.title}"]
    for module_name, names in content.parts.items():
        module = importlib.import_module(module_name)
        parts.append(f"From `{module_name}`:")
        for name in names or public(module):
            parts += entry(name, getattr(module, name))
    return "\n\n".join(parts) + "\n"


def public(module: Any) -> tuple[str, ...]:
    """The names of a module: its ``__all__``, or what it defines, in the order of its source."""
    exported = getattr(module, "__all__", None)
    if exported is not None:
        return tuple(exported)
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    return tuple(n for n, v in own.items() if not n.startswith("_") and callable(v))


def entry(name: str, thing: Any) -> Iterator[str]:
    """Heading, signature, docstring; for a class also its documented members."""
    yield f"## {name}"
    if not inspect.isroutine(thing) and not inspect.isclass(thing):
        yield code(f"{name} = {value(thing)}")
        return
    if not inspect.isclass(thing):
        yield code(signature(name, thing))
        yield from described(thing)
        return
    if issubclass(thing, BaseException):
        own = "__init__" in vars(thing)
        yield code(f"class {signature(name, thing) if own else name}")
        yield f"Base class: `{thing.__mro__[1].__name__}`."
    else:
        yield code(f"class {signature(name, thing)}")
    yield from described(thing)
    for member_name, member in vars(thing).items():
        if member_name.startswith("_") and member_name != "__call__":
            continue
        if isinstance(member, property):
            text, line = member.__doc__, member_name
        elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
            function = getattr(thing, member_name)
            text, line = function.__doc__, signature(member_name, function, member)
        else:
            continue
        if text:
            yield f"### {name}.{member_name}".replace("__", r"\_\_")
            yield code(line)
            yield markdown(text)


def described(thing: Any) -> Iterator[str]:
    """Its own docstring, if it has one."""
    text = thing.__doc__
    if text and not (is_dataclass(thing) and text.startswith(f"{thing.__name__}(")):
        yield markdown(text)


def signature(name: str, function: Any, member: Any = None) -> str:
    """``name(arguments) -> result``, on several lines where one is too short."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())
    if isinstance(member, types.FunctionType):
        parameters = parameters[1:]  # self
    words = list(_words(parameters, function))
    result = ""
    if found.return_annotation not in (found.empty, None, "None") and not inspect.isclass(function):
        result = f" -> {annotation(found.return_annotation)}"
    line = f"{name}({', '.join(words)}){result}"
    if len(line) > WIDTH:
        inner = "".join(f"    {word},\n" for word in words)
        line = f"{name}(\n{inner}){result}"
    return line


def _words(parameters: list[inspect.Parameter], function: Any) -> Iterator[str]:
    factories = {f.name for f in fields(function) if f.default_factory is not MISSING} if (
        is_dataclass(function)
    ) else set()  # fmt: skip
    starred = False
    for parameter in parameters:
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        word = star + parameter.name
        if parameter.annotation is not parameter.empty:
            word += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            equals = " = " if ":" in word else "="
            default = "..." if parameter.name in factories else value(parameter.default)
            word += equals + default
        yield word


def annotation(hint: Any) -> str:
    """The annotation as in the source: names without their modules."""
    text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    text = re.sub(r"\b(?!torch\.d)(?:[a-z_]\w*\.)+(?=\w)", "", text)
    return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", text)


def value(thing: Any) -> str:
    """The text of a constant or default; ``...`` if it is not readable."""
    if isinstance(thing, dict):
        return "{" + ", ".join(f"{key!r}: {value(v)}" for key, v in thing.items()) + "}"
    text = repr(thing)
    return "..." if " at 0x" in text or inspect.isroutine(thing) or "<" in text else text


def code(line: str) -> str:
    """A text block."""
    return f"```text\n{line}\n```"
