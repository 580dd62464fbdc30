"""A comparison as one HTML page: no network, no other file, no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from fewshot_bench.errors import ConfigError, FewshotBenchError, RecordError
from fewshot_bench.figures import KINDS, check, draw
from fewshot_bench.results.blocks import blocks
from fewshot_bench.results.comparison import Comparison, Row, Table
from fewshot_bench.results.formats.data import to_csv, to_json
from fewshot_bench.results.formats.latex import latex
from fewshot_bench.results.formats.markdown import markdown
from fewshot_bench.results.record import write_atomically
from fewshot_bench.results.runs import Run, command_of, flat_settings
from fewshot_bench.results.sentences import apart, best_sentences, heading, listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
DOWNLOADS = (
    ("CSV", "comparison.csv", "text/csv", to_csv),
    ("LaTeX", "comparison.tex", "text/x-tex", latex),
    ("Markdown", "comparison.md", "text/markdown", markdown),
    ("JSON", "comparison.json", "application/json", to_json),
)
MOST_SENTENCES = 12  # of a table; more are folded
# Parts of a record that are shown of each run, with the titles of their tables.
PARTS = {"sampler": "Sampler", "overlap": "Class overlap", "environment": "Environment",
         "device": "Device", "test": "Test", "validation": "Validation", "training": "Training",
         "timing": "Times"}  # fmt: skip
FACTS = (
    "id", "dataset", "dataset_digest", "dataset_license", "dataset_source", "split", "part",
    "episode_seed", "episodes_digest", "seed", "preset", "parameters", "evaluated_from",
)  # fmt: skip
# Figures of more rows are unreadable; tables after these have no figures.
MOST_ROWS, MOST_TABLES = 8, 3
TITLES = {
    "forest": "paired differences from the baseline, by setting",
    "confusion": "confusion of the classes of the hardest test episode",
}
# Where readers who do not see a figure find its numbers.
NUMBERS = {
    "forest": " The numbers are in the table of differences.",
    "time": " Training times are in the table of speed.",
    "settings": " The numbers are in the table of accuracies.",
    "steps": " Medians are in the table of speed.",
}


def write_report(comparison: Comparison, folder: Path, *, pictures: bool = True) -> list[str]:
    """Write ``folder/index.html``, which contains everything that it shows; nothing else changes.

    Returns a line for each figure that failed although its runs have what it needs. ConfigError if
    the folder cannot be made or written, or there is no matplotlib.
    """
    hint = "give another folder with -o"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make '{folder}' ({error.strerror}); {hint}.") from error
    galleries, failures = gallery(comparison) if pictures else (None, [])
    write_atomically(folder / PAGE, html(comparison, galleries), hint)
    return failures


class Picture(NamedTuple):
    """A figure inside the page."""

    kind: str  # one of KINDS
    title: str  # what it shows
    alt: str  # the same in words, with where the numbers are
    source: str  # a data: URL of an SVG


class Gallery(NamedTuple):
    """The figures of a table, and a sentence about those that are not drawn."""

    pictures: Sequence[Picture] = ()
    omitted: str = ""


def gallery(comparison: Comparison) -> tuple[list[Gallery], list[str]]:
    """Draw the figures of the first ``MOST_TABLES`` tables, of their best ``MOST_ROWS`` rows.

    Returns one gallery per table, and a line for each figure that failed.
    """
    check("learning")
    from fewshot_bench.figures.style import rendered

    failures: list[str] = []
    omitted = f"Figures are drawn for the first {MOST_TABLES} tables; fsb figure draws others."
    galleries = [Gallery(omitted=omitted)] * len(comparison.tables)
    for i, table in enumerate(comparison.tables[:MOST_TABLES]):
        rows = table.rows[:MOST_ROWS]  # the best, and the baselines
        for baseline in table.baselines:
            if baseline is not None and all(baseline is not row for row in rows):
                rows = [*rows, baseline]
        pictures = []
        for kind, what in KINDS.items():
            try:
                figure = _figure(kind, table, rows, comparison.level_of(table))
            except RecordError:  # no run has what this kind needs
                continue
            except FewshotBenchError as error:
                failures.append(f"figure '{kind}': {error}")
                continue
            title = TITLES.get(kind, what.sentence)
            alt = f"{title}, for {listed(row.name for row in rows)} on {heading(table)}."
            source = _data_url("image/svg+xml", rendered(figure, "svg"))
            pictures.append(Picture(kind, title, alt + NUMBERS.get(kind, ""), source))
        hidden = len(table.rows) - len(rows)
        omitted = f"Figures of {len(rows)} rows; {hidden} more are in the tables." if hidden else ""
        galleries[i] = Gallery(pictures, omitted)
    return galleries, failures


def _figure(kind: str, table: Table, rows: list[Row], level: float) -> Figure:
    """RecordError if the table has nothing for it."""
    if kind == "forest":
        if not table.paired:
            raise RecordError("no differences")
        from fewshot_bench.figures.comparison import forest_of_table
        from fewshot_bench.figures.style import in_use

        with in_use():
            return forest_of_table(table, rows, level)
    if kind == "settings" and len(table.settings) < 2:
        raise RecordError("a lone point")
    runs = [run for row in rows for run in row.runs]
    if kind == "confusion":  # of the best row and of the baseline
        best = next((cell.runs[0] for row in rows if (cell := row.cells[0]) is not None), None)
        base = table.baselines[0] and table.baselines[0].cells[0]
        both = (best, base.runs[0] if base else None)
        runs = list({id(run): run for run in both if run is not None}.values())
    return draw(kind, runs)


def html(comparison: Comparison, galleries: Sequence[Gallery] | None = None) -> str:
    """The page, and an exporter; ``galleries``: one per table; None: no figures."""
    folder = files("fewshot_bench.report").joinpath("templates")
    style, script = (folder.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    tables = comparison.tables
    names = listed(dict.fromkeys(row.name for table in tables for row in table.rows))
    downloads = [
        (name, file, _data_url(f"{kind};charset=utf-8", export(comparison).encode()))
        for name, file, kind, export in DOWNLOADS
    ]
    environment = Environment(
        loader=PackageLoader("fewshot_bench.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["capitalized"] = lambda text: text[:1].upper() + text[1:]
    return environment.get_template("page.html").render(
        title=f"{names} on {listed(dict.fromkeys(table.dataset for table in tables))}",
        sections=[
            _section(table, comparison, own)
            for table, own in zip(tables, galleries or [Gallery()] * len(tables), strict=True)
        ],
        runs=[_run(row.name, run) for table in tables for row in table.rows for run in row.runs],
        problems=comparison.problems,
        downloads=downloads,
        version=version("fewshot-bench"),
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'",
        most_sentences=MOST_SENTENCES,
    )


def _hash(text: str) -> str:
    """The hash of an inline text for the content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _section(table: Table, comparison: Comparison, own: Gallery) -> dict[str, Any]:
    """A table of the comparison with its blocks and figures."""
    parts = blocks(table, comparison)
    return {
        "heading": heading(table),
        "settings": "; ".join(map(str, table.settings)),
        "warnings": apart(table),
        "summary": best_sentences(table) + [line for block in parts for line in block.findings],
        "blocks": parts,
        "gallery": own,
    }


def _run(name: str, run: Run) -> dict[str, Any]:
    """What the page shows of a run, as text."""
    record = run.record
    half = record["test"]["half_width"]
    margin = "" if half is None else f" ± {100 * half:.2f}"
    facts = {key: record[key] for key in FACTS if record[key] is not None}
    parts = [("Run", _flat(facts))]
    parts += [(title, _flat(record[key])) for key, title in PARTS.items() if record[key]]
    plugins = [
        (f"{one['kind']} {one['name']}", f"{one['distribution']} {one['version']}")
        for one in record["plugins"]
    ]
    return {
        "name": name,
        "setting": str(run.setting),
        "accuracy": f"{100 * record['test']['accuracy']:.2f}{margin} %",
        "id": record["id"],
        "command": command_of(record),
        "notes": record["notes"],
        "settings": _settings(record["config"]),
        "parts": [*parts, ("Plugins", plugins)],
    }


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and source: ``user``, ``preset`` or ``default``."""
    sources, flat = config["sources"], flat_settings(config)
    return [(n, _text(value), sources.get(n, "")) for n, value in flat.items() if n != "sources"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{name}.") if nested else [(prefix + name, _text(value))]
    return found


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    words = {None: "none", True: "on", False: "off"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
