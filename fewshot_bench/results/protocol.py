"""What was measured, in words: which sampler drew the episodes, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewshot_bench.hooks.registry import CORE
from fewshot_bench.results.record.part import VALIDATION

NOT_KNOWN = "not known"  # how many queries each class has, of an older record
EVEN = ("query", "unlabeled")  # parts of an episode that may be of unequal classes
DIGITS = 8  # of a code digest, in words


def sampler_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """``name``, ``distribution``, ``version``, ``options`` and ``code`` of the sampler.

    A record from before it had a ``sampler`` names it among its plugins.
    """
    if record.get("sampler"):
        return dict(record["sampler"])
    named = (one for one in record.get("plugins") or () if one.get("kind") == "samplers")
    found = next(named, {"name": record["test"]["sampling"], "distribution": CORE, "version": ""})
    return {**found, "options": {}, "code": None}


def sampler_protocol(record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a run's protocol that tell of its sampler.

    ``sampler`` is its name, of a plugin with the distribution and version that it came from, and
    its options, files by their content; ``sampler_code`` the digest of a plugin's code;
    ``unequal`` the parts of an episode that have other numbers of images per class than the task
    says, as the episodes were drawn.
    """
    sampler, own = sampler_of(record), dict(record["task"])
    words, code = str(sampler["name"]), None
    if sampler["distribution"] != CORE:
        words += f" of {sampler['distribution']} {sampler['version']}".rstrip()
        code = sampler["code"][:DIGITS] if sampler["code"] else NOT_KNOWN
    if chosen := _named_by_content(record, sampler["options"]):
        words += f" ({', '.join(f'{name} {_value(value)}' for name, value in chosen.items())})"
    if "query" in sampler:
        parts = [part for part in EVEN if list(sampler[part]) != [own[part]] * 2]
        unequal = " and ".join(parts)
    else:
        unequal = "" if sampler["distribution"] == CORE else NOT_KNOWN
    return {"sampler": words, "sampler_code": code, "unequal": unequal}


def _named_by_content(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler's options with ``file 1a2b3c4d`` for a path, as far as the record has its digest.

    One path can hold other content in every run, and one content can lie under several paths.
    """
    read = {one["option"]: f"file {one['sha256'][:DIGITS]}" for one in record.get("inputs") or ()}
    return {
        name: read.get(f"sampling_{name}", value) if value else value
        for name, value in options.items()
    }


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def query_words(protocol: Mapping[str, Any]) -> str:
    """``15 queries per class``, where it is so; else what is so."""
    query, unequal = protocol["query"], protocol["unequal"]
    if unequal == NOT_KNOWN:
        return f"{query} queries per class on average (of each class: not known)"
    words = f"{query} queries per class"
    if "query" in unequal:
        words += " on average, of unequal classes"
    return words + (", unlabeled images of unequal classes" if "unlabeled" in unequal else "")


def sampler_words(protocol: Mapping[str, Any]) -> str:
    """`` drawn by dirichlet of fsb-dirichlet 1.0 (alpha 0.5)``; empty if the kind says it."""
    if protocol["sampler"] == protocol["sampling"] and protocol["sampler_code"] is None:
        return ""
    code = f", code {protocol['sampler_code']}" if protocol["sampler_code"] else ""
    return f" drawn by {protocol['sampler']}{code}"


def part_words(protocol: Mapping[str, Any]) -> str:
    """``, validation split``; empty for the test split."""
    return ", validation split" if protocol["part"] == VALIDATION else ""


def evaluated_words(protocol: Mapping[str, Any]) -> str:
    """What sets an evaluation apart from one of closed test episodes; empty where nothing does."""
    return part_words(protocol) + sampler_words(protocol)
