"""A comparison as one page of HTML: no network, no other file, no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fewshot_bench.config.schema import OPTION_FIELDS
from fewshot_bench.report.gallery import Gallery
from fewshot_bench.results.blocks import blocks
from fewshot_bench.results.commands import command_of
from fewshot_bench.results.comparison import Comparison, Table
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.runs import Run
from fewshot_bench.results.sentences import apart, best_sentences, heading, listed

DOWNLOADS = (
    ("CSV", "comparison.csv", "text/csv", to_csv),
    ("LaTeX", "comparison.tex", "text/x-tex", latex),
    ("Markdown", "comparison.md", "text/markdown", markdown),
    ("JSON", "comparison.json", "application/json", to_json),
)
MOST_TOLD = 12  # sentences of a table that are not folded
# Parts of a record that are told of each run, with the heads of their tables.
PARTS = (
    ("sampler", "Sampler"),
    ("overlap", "Classes seen"),
    ("environment", "Environment"),
    ("device", "Device"),
    ("test", "Test"),
    ("validation", "Validation"),
    ("training", "Training"),
    ("timing", "Times"),
)
FACTS = (
    "id", "dataset", "dataset_digest", "dataset_license", "dataset_source", "split", "part",
    "episode_seed", "episodes_digest", "seed", "preset", "parameters", "evaluated_from",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A table of the comparison with its blocks and pictures."""

    heading: str
    settings: str
    apart: list[str]
    summary: list[str]
    blocks: list[Any]
    gallery: Gallery


@dataclass(frozen=True)
class RunView:
    """What the page tells of one run; values are texts."""

    name: str
    setting: str
    accuracy: str
    id: str
    command: str
    notes: list[str]
    settings: list[tuple[str, str, str]]
    parts: list[tuple[str, list[tuple[str, str]]]]


def html(comparison: Comparison) -> str:
    """The page without pictures: an exporter."""
    return page(comparison, [Gallery([], "") for _ in comparison.tables])


def page(comparison: Comparison, galleries: Sequence[Gallery]) -> str:
    """The whole page.

    Arguments:
        comparison: what to show.
        galleries: one per table.
    """
    style, script = _part("report.css"), _part("report.js")
    sections = [
        _section(table, comparison, gallery)
        for table, gallery in zip(comparison.tables, galleries, strict=True)
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(comparison),
            sections=sections,
            runs=[view for table in comparison.tables for view in _runs(table)],
            problems=comparison.problems,
            downloads=[
                (name, file, _address(kind, to(comparison))) for name, file, kind, to in DOWNLOADS
            ],
            version=version("fewshot-bench"),
            style=style,
            script=script,
            policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
            f"script-src '{_hash(script)}'",
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fewshot_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["capitalized"] = lambda text: text[:1].upper() + text[1:]
    environment.globals["most_told"] = MOST_TOLD
    return environment


@cache
def _part(name: str) -> str:
    return files("fewshot_bench.report").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    """What a content security policy knows an inline text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _address(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _title(comparison: Comparison) -> str:
    """``maml, protonet and 2 more on omniglot``."""
    names = dict.fromkeys(row.name for table in comparison.tables for row in table.rows)
    data = dict.fromkeys(table.dataset for table in comparison.tables)
    return f"{listed(names)} on {listed(data)}"


def _section(table: Table, comparison: Comparison, gallery: Gallery) -> Section:
    parts = blocks(table, comparison)
    told = [sentence for block in parts for sentence in block.told]
    summary = best_sentences(table) + told
    settings = "; ".join(map(str, table.settings))
    return Section(heading(table), settings, apart(table), summary, parts, gallery)


def _runs(table: Table) -> list[RunView]:
    """Every run, in the order of the rows, then of the columns."""
    return [_run(row.name, run) for row in table.rows for run in row.runs]


def _run(name: str, run: Run) -> RunView:
    record = run.record
    test, half = record["test"], record["test"]["half_width"]
    margin = "" if half is None else f" ± {100 * half:.2f}"
    parts = [("Run", [(key, _text(record[key])) for key in FACTS if record.get(key) is not None])]
    parts += [(head, _flat(record[key])) for key, head in PARTS if record.get(key)]
    return RunView(
        name=name,
        setting=str(run.setting),
        accuracy=f"{100 * test['accuracy']:.2f}{margin} %",
        id=str(record["id"]),
        command=command_of(record),
        notes=[str(note) for note in record["notes"]],
        settings=_settings(record["config"]),
        parts=[*parts, ("Plugins", _plugins(record["plugins"]))],
    )


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and who decided it: ``user``, ``preset`` or ``default``."""
    sources = config.get("sources") or {}
    flat = {n: v for n, v in config.items() if n not in (*OPTION_FIELDS, "sources")}
    for group in OPTION_FIELDS:
        flat |= config.get(group) or {}
    return [(name, _text(value), str(sources.get(name, ""))) for name, value in flat.items()]


def _plugins(plugins: Sequence[Any]) -> list[tuple[str, str]]:
    return [
        (f"{one.get('kind')} {one.get('name')}", f"{one.get('distribution')} {one.get('version')}")
        for one in plugins
        if isinstance(one, Mapping)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", _text(value)))
    return found


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
