"""What a visit at a GPU has brought, written where people look for it.

    python benchmarks/gpu/report.py DIR

Reads ``DIR/results.json`` and the runs that were kept in ``DIR``. Writes
``benchmarks/results/<date>-<device>-gpu.json`` and ``.md``, the rows of
``benchmarks/results/published.md`` that finished runs stand for, and the parts between markers of
``README.md`` and ``docs/speed.md``, which have the newest figures of all visits (``visits.py``).
``DIR`` may be a JSON file of ``benchmarks/results`` as well. ``--to FOLDER`` writes the two files
there and nothing else: all that can be had of a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT), str(ROOT / "plugins")]

import reading  # noqa: E402
from carried import unpack  # noqa: E402
from published import fill  # noqa: E402
from reading import (  # noqa: E402
    PRECISIONS,
    TITLES,
    UNMEASURED,
    Results,
    bars,
    memory,
    number,
    percent,
    spent,
    table,
)
from visits import Together, visits  # noqa: E402

from fewshot_bench.results.runs import load_runs  # noqa: E402

PAGES = {"README.md": "readme", "docs/speed.md": "speed"}
MARKERS = re.compile(r"(<!-- gpu: begin, of ([^>]+) -->\n)(.*?)(<!-- gpu: end -->)", re.DOTALL)
PARTS = (
    "machine", "tests", "repeat", "precision", "agree", "maml", "protonet", "evaluation",
    "metagan", "profile", "peers", "rows", "growth",
)  # fmt: skip


class Problem(Exception):
    """One line for people."""


def main(words: list[str] | None = None) -> int:
    """Write everything; one line for each file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--to", type=Path, help="write the two files into this folder, no pages")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout; for tests")
    asked = parser.parse_args(words)
    try:
        for path in write(asked.folder, asked.to, asked.root):
            print(path)
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def write(folder: Path, to: Path | None, root: Path) -> Iterator[Path]:
    """Write the files and, without ``to``, the pages; each file that was written.

    Raises:
        Problem: there are no results, or they are a rehearsal's.
    """
    published = root / "benchmarks/results"
    data = read(folder)
    if data.get("small") and to is None:
        raise Problem("these are a rehearsal's results, no figures; --to FOLDER writes them there")
    results = Results(data, published)
    if not results.machine:
        raise Problem("it is not known what this was measured on: the part 'machine' has no row")
    if results.on_cpu and not data.get("small"):
        raise Problem("these results are of a CPU; measure.py and report.py are for those of a GPU")
    out = to or published
    out.mkdir(parents=True, exist_ok=True)
    path = place(out, data, results.machine)
    path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    yield path
    yield write_page(path, published)
    if to is not None:
        return
    if folder.is_dir():
        yield from fill_published(folder, published / "published.md")
    together = Together(visits(published))
    if not together.files:
        return  # there is nothing that the pages could say
    for name in PAGES:
        page = root / name
        page.write_text(filled(page.read_text("utf-8"), PAGES[name], together), "utf-8")
        yield page


def read(folder: Path) -> dict[str, Any]:
    """The results of a folder, or of a file."""
    path = folder / "results.json" if folder.is_dir() else folder
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Problem(f"cannot read '{path}' ({error.strerror})") from error
    except ValueError as error:
        raise Problem(f"'{path}' is no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("parts"), dict):
        raise Problem(f"'{path}' has no results of measure.py")
    return data


def place(folder: Path, data: dict[str, Any], machine: dict[str, Any]) -> Path:
    """The file of these results: a new name where another visit of that day has the first one."""
    stem = f"{machine['date']}-{machine['short']}"
    for count in range(1, 100):
        path = folder / f"{stem}{'' if count == 1 else f'-{count}'}-gpu.json"
        if not path.exists() or json.loads(path.read_text("utf-8")) == data:
            return path
    raise Problem(f"'{folder}' is full of results of {stem}")


def write_page(path: Path, published: Path) -> Path:
    """Write the page beside a file of results."""
    page = path.with_suffix(".md")
    page.write_text(page_of(path, published), "utf-8")
    return page


def page_of(path: Path, published: Path) -> str:
    """The page of a file of results."""
    results = Results(json.loads(path.read_text("utf-8")), published)
    own = path.with_name(path.name.replace("-gpu.json", ".md"))
    lines = head(results, own.name if own.exists() else None, path.name)
    for title, section in SECTIONS.items():
        lines += ["", f"## {title}", "", *(section(results) or [f"{UNMEASURED.capitalize()}."])]
    return "\n".join(lines) + "\n"


def head(results: Results, own: str | None, file: str) -> list[str]:
    """What it was taken on."""
    machine = results.machine
    products, limits = machine.get("products") or {}, machine["limits"]
    rates = [f"{PRECISIONS[p]} {number(v / 1e12)}" for p, v in products.items()]
    rates = rates or [f"fp32 {number(limits['flops'] / 1e12)}"]
    driver, commit = machine.get("nvidia_smi"), machine["environment"].get("commit")
    lines = [
        f"# Measured on a {'CPU' if results.on_cpu else 'GPU'}: {machine['device']}, "
        f"{machine['date']}",
        "",
        "Measured by `benchmarks/gpu/measure.py` and written by `benchmarks/gpu/report.py`, from "
        f"[{file}]({file}). Python {machine['python']}, torch {machine['torch']}, commit {commit}; "
        f"{driver or 'no driver'}.",
        "",
        f"The machine's limits: matrix products, TFLOP/s: {', '.join(rates)}; a copy "
        f"{number(limits['bytes'] / 1e12)} TB/s, read and written; a small operation "
        f"{number(limits['launch_us'])} us of the host.",
    ]
    if "triton" in machine:
        lines[-1] += (
            f" Triton's kernels for columns: {'used' if machine['triton'] else 'not used'}."
        )
    if results.data.get("small"):
        lines += ["", "**A rehearsal in miniature: no figures.**"]
    if own is not None:
        lines += ["", f"To be read with [what was found in it]({own}), faults among it."]
    return lines


def section_bars(results: Results, label: Label | None = None) -> list[str]:
    """Each bar: figure and verdict."""
    rows = []
    for bar in bars(results):
        named = {str(row.get("peer") or bar_of(row)): row for row in bar.rows}
        visit = [] if label is None else [label(named)]
        rows.append((bar.asked, bar.figure, percent(bar.of_limit), bar.verdict, *visit))
    columns = ("asked", "figure", ">of the limit", "", *([] if label is None else ["visit"]))
    return [
        *table(columns, rows), "",
        "Of the limit: the operations of convolutions and matrix products that a step needs, over "
        "the card's own matrix product at that precision. Where the rest goes: below.",
    ]  # fmt: skip


def bar_of(row: dict[str, Any]) -> str:
    """A row of ours among those of a bar."""
    return f"{row['item']} {PRECISIONS[row['precision']]}"


def section_tests(results: Results) -> list[str]:
    """Tests by name, what repeats, precision, peers' gradients."""
    lines: list[str] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results.rows("tests"):
        if row.get("test"):
            groups.setdefault(str(row["test"]).partition("[")[0], []).append(row)
    rows = []
    for name, cases in groups.items():
        failed = [c for c in cases if "failure" in c or "error" in c]
        known, skipped = ([c for c in cases if kind in c] for kind in ("known", "skipped"))
        passed = len(cases) - len(failed) - len(known) - len(skipped)
        counts = map(str, (passed, len(failed), len(known), len(skipped)))
        which = [cases_of(failed), f"as known: {cases_of(known)}" if known else ""]
        rows.append((name, *counts, "; ".join(filter(None, which))))
    if rows:
        head = ("test", ">passed", ">failed", ">failed as known", ">skipped", "failed")
        lines += table(head, rows)
    lines += ["", *after(results, "tests")]
    for title, part, found in (
        ("Does a training repeat to the bit?", "repeat", repeats(results)),
        (
            "TF32 and bf16 against fp32, on the same episodes, points",
            "precision",
            rounding(results),
        ),
        ("Meta-gradients of the peers against ours in float64", "agree", gradients(results)),
    ):
        lines += ["", f"### {title}", "", *(found or [f"{UNMEASURED.capitalize()}."])]
        lines += ["", *note] if (note := after(results, part)) else []
    return [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]


def cases_of(rows: list[dict[str, Any]]) -> str:
    """What stands between the brackets of tests' names; the name of one that has none."""
    names = (str(row["test"]) for row in rows)
    return ", ".join(name.partition("[")[2].rstrip("]") or name for name in names)


def repeats(results: Results) -> list[str]:
    """What repeats, by what switch, at what cost; and what breaks it."""
    rows, broken = [], []
    base: dict[str, dict[str, Any]] = {}
    for row in results.rows("repeat"):
        if "kind" not in row:
            continue
        if "looked" in row:
            found = row.get("broken_by")
            names = [words_of(one) for one in found or []]
            said = row.get("error") or "; ".join(names)
            broken.append(f"- {row['kind']}: {said or 'no operation of one step was caught'}")
            continue
        if "error" in row:
            rows.append((row["kind"], row["switch"], f"error: {row['error']}", "", ""))
            continue
        first = base.setdefault(row["kind"], row)
        cost = f"{number(row['step_ms'])} ms, x {row['step_ms'] / first['step_ms']:.2f}"
        if row.get("ran_as") != first.get("ran_as"):  # a switch may keep a graph from being made
            cost += f" ({row['ran_as']}, not {first['ran_as']})"
        apart = "the same bits" if row["repeats"] else f"{row['apart']:.1e} apart"
        warned = "; ".join(row.get("warned") or [])
        rows.append((row["kind"], row["switch"], apart, cost, warned))
    if not rows:
        return []
    lines = table(("training", "switch", "twice", "a step", "warned of"), rows)
    if broken:
        lines += [
            "",
            "The first operations whose inputs are equal and results are not:",
            "",
            *broken,
        ]
    return lines


def words_of(one: dict[str, Any]) -> str:
    """An operation that does not repeat."""
    if "place" not in one:
        return f"{one['operation']} from number {one['at']} on"
    inputs = ", ".join(one["inputs"])
    return f"`{one['operation']}` {one['place']} of {inputs} ({one['times']} times)"


def rounding(results: Results) -> list[str]:
    """Differences that TF32 and bf16 make."""
    rows = []
    for row in results.rows("precision"):
        if "method" not in row:
            continue
        name = (row["method"], PRECISIONS[row["precision"]])
        if "error" in row or "not_offered" in row:
            said = f"error: {row['error']}" if "error" in row else row["not_offered"]
            rows.append((*name, said, "", ""))
            continue
        pairs = (row.get(f"{word}_minus_fp32") for word in ("evaluated", "trained"))
        cells = ["" if p is None else f"{p['points']:+.2f} ± {p['half_width']:.2f}" for p in pairs]
        rows.append((*name, f"{100 * row['accuracy']:.2f}", *cells))
    head = ("method", "precision", ">accuracy", ">the same weights", ">trained anew")
    return table(head, rows) if rows else []


def gradients(results: Results) -> list[str]:
    """How far the peers' gradients are from ours."""
    rows = []
    for row in results.rows("agree"):
        if "peer" in row:
            said = row.get("error") or f"{row['apart']:.1e}"
            verdict = "" if "error" in row else "yes" if row["agrees"] else "**no**"
            rows.append((row["item"], row["peer"], said, verdict))
    return (
        table(("item", "whose, in float32", ">relative distance", "agrees"), rows) if rows else []
    )


def section_speed(results: Results) -> list[str]:
    """Every training row."""
    rows = []
    for row in results.trained():
        phases = ", ".join(number(v) for v in (row.get("phases") or {}).values())
        way = row["ran_as"] + (f", {row['strategy']}" if row.get("strategy") else "")
        rows.append((
            row["item"], way, PRECISIONS[row["precision"]], number(row["step_ms"]),
            number(row["p95_ms"]), phases, f"{number(row['rate'])} {row['unit']}",
            percent(row.get("of_limit")), percent(row.get("sampling_share")),
            memory(row.get("peak_memory")),
        ))  # fmt: skip
    columns = (
        "item", "engine", "precision", ">ms a step", ">95 %", ">sampling, both passes, optimizer",
        ">rate", ">of the limit", ">sampling", ">GB",
    )  # fmt: skip
    lines = table(columns, rows) if rows else []
    for part in reading.TRAINING_PARTS:
        lines += after(results, part)
    return lines


def section_evaluation(results: Results) -> list[str]:
    """Evaluations and the delivery of episodes."""
    rows = []
    for row in results.evaluations():
        rate = number(row["episodes"] / row["seconds"])
        way = ", ".join(row[name] for name in ("way", "ran_as") if row.get(name))
        rows.append((
            row["item"], way, PRECISIONS[row["precision"]], str(row["chunk"]),
            number(row["seconds"]), number(row["first_s"]), rate,
        ))  # fmt: skip
    columns = ("item", "as", "precision", ">tasks a call", ">s", ">first, s", ">episodes/s")
    lines = table(columns, rows) if rows else []
    delivered = next((r for r in results.rows("evaluation") if r.get("item") == "W3"), {})
    if "rate" in delivered:
        limit = percent(delivered.get("of_limit"))
        lines += ["", f"{TITLES['W3']}: {number(delivered['rate'])}/s" + (
            f", {limit} of a copy." if limit else "."
        )]  # fmt: skip
    return lines + after(results, "evaluation")


def section_peers(results: Results) -> list[str]:
    """The others on the same card."""
    rows = []
    for row in results.rows("peers"):
        if "item" not in row:
            continue
        rate = results.rate(row["item"])
        said = row.get("error") or row.get("not_offered")
        said = said or f"{number(row['rate'])} {row['unit']}"
        ratio = "" if rate is None or "rate" not in row else number(rate / row["rate"])
        turns = str(row.get("turns", ""))
        rows.append((row["item"], row["peer"], said, turns, ratio))
    lines = table(("item", "peer", ">rate", ">turns", ">ours in fp32, over it"), rows)
    return (lines if rows else []) + after(results, "peers")


def section_spent(results: Results, label: Label | None = None) -> list[str]:
    """What a step's time is spent on."""
    lines: list[str] = []
    for row in results.rows("profile"):
        if "item" not in row:
            continue
        if "error" in row:
            lines += [f"- {row['item']}: error: {row['error']}"]
            continue
        kinds = spent(row)
        total = row["kernels"][0]
        shares = ", ".join(f"{kind} {ms / total['ms']:.0%}" for kind, ms in kinds.items() if ms)
        said = f"- {TITLES[row['item']]}: {number(total['ms'])} ms in {total['calls']:.0f} kernels"
        if row.get("step_ms") and not results.on_cpu:  # of which the profiler sees one thread
            idle = max(0.0, 1 - total["ms"] / row["step_ms"])
            said += f", of {number(row['step_ms'])} ms a step"
            said += f" in {PRECISIONS[row['precision']]}" if "precision" in row else ""
            said += f" (no kernel runs in {idle:.0%} of it)"
        of = "" if label is None else f" ({label({'': row})})"
        lines += [f"{said}{of}: {shares}."]
    return lines + after(results, "profile")


def section_rows(results: Results) -> list[str]:
    """Rows of the table of published figures: the last word on each."""
    last: dict[str, dict[str, Any]] = {}
    for row in results.rows("rows"):
        title = row.get("row") or ("method" in row and
            f"{row['method']} {row['way']}w{row['shot']}s")  # fmt: skip
        if title and ("error" in row or "status" in row):
            last[str(title)] = row
    rows = []
    for title, row in last.items():
        test = row.get("test") or {}
        accuracy = test.get("accuracy")
        said = row.get("error") or ("" if accuracy is None else
            f"{100 * accuracy:.2f} ± {100 * test['half_width']:.2f}")  # fmt: skip
        steps = " of ".join(str(row[n]) for n in ("step", "steps") if row.get(n) is not None)
        seconds = "" if row.get("seconds") is None else number(row["seconds"])
        note = "; ".join(str(row[n]) for n in ("stopped", "not_kept") if row.get(n))
        rows.append((title, row.get("status", "error"), said, steps, seconds, note))
    columns = (
        "row",
        "",
        ">accuracy, %",
        ">steps",
        ">training, s",
        "why it ended, what is not kept",
    )
    return (table(columns, rows) if rows else []) + after(results, "rows")


def section_growth(results: Results) -> list[str]:
    """Time against size, block by block; where the card is full, what stopped it."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for row in results.rows("growth"):
        if "block" in row:
            blocks.setdefault(row["block"], []).append(row)
    rows = []
    for block, own in blocks.items():
        sizes = [row for row in own if "value" in row]
        cells = [
            f"{row['value']}: {number(row['step_ms'])} ms"
            + (f", {memory(row['peak_memory'])} GB" if row.get("peak_memory") else "")
            if "step_ms" in row
            else f"{row['value']}: {row.get('error') or row['stopped']}"
            for row in sizes
        ]
        word = next((row for row in own if "full_from" in row), {})
        full = "" if not word else str(word["full_from"] or "not reached")
        rows.append((block, "; ".join(cells), full, word.get("stopped_by") or ""))
    lines = table(("what grows", "a step", ">full from", "stopped by"), rows) if rows else []
    return lines + after(results, "growth")


def section_parts(results: Results) -> list[str]:
    """Every part: how it ended."""
    rows = []
    for part in PARTS:
        found = results.parts.get(part)
        if found is None:
            rows.append((part, "", "not run"))
            continue
        of = f" (of {results.known[part]})" if part in results.known else ""
        rows.append((part, number(found.get("seconds") or 0), (found["error"] or "whole") + of))
    return table(("part", ">s", "how it ended"), rows)


def after(results: Results, part: str) -> list[str]:
    """A line on a part that is not whole."""
    error = results.error(part)
    return [] if error is None else ["", f"Part `{part}` is not whole: {reading.cell(error)}."]


SECTIONS: dict[str, reading.Section] = {
    "What was asked": section_bars,
    "Speed of training": section_speed,
    "What the time is spent on": section_spent,
    "Evaluation": section_evaluation,
    "Peers on the same card": section_peers,
    "Correctness": section_tests,
    "Published rows": section_rows,
    "Growth": section_growth,
    "Parts": section_parts,
}


# ---- pages ----------------------------------------------------------------------------------


def filled(text: str, kind: str, together: Together) -> str:
    """A page with the part between its markers written anew.

    Raises:
        Problem: the page has no markers.
    """
    if not MARKERS.search(text):
        raise Problem(
            "a page has lost its markers '<!-- gpu: begin, of FILE -->', '<!-- gpu: end -->'"
        )
    files = " ".join(together.files)
    new = f"<!-- gpu: begin, of {files} -->\n\n{block(kind, together)}\n<!-- gpu: end -->"
    return MARKERS.sub(lambda _: new, text)


def block(kind: str, together: Together) -> str:
    """What stands between the markers of a page."""
    folder = "benchmarks/results/" if kind == "readme" else "../benchmarks/results/"
    lines = introduced(together, folder)
    label = Label(folder, together) if len(together.files) > 1 else None
    lines += ["", *summary(together, label)]
    if kind == "speed":
        lines += ["", *section_bars(together, label), "", "What a step's time is spent on:", ""]
        lines += section_spent(together, label) or [f"{UNMEASURED.capitalize()}."]
    return "\n".join(lines) + "\n"


def introduced(together: Together, folder: str) -> list[str]:
    """What the figures were taken on: one visit, or several."""
    taken = []
    for file in together.files:
        machine = together.of(file).machine
        said = f"{machine['device']}, torch {machine['torch']}, {machine['date']}"
        taken.append((said, link(file, folder)))
    if len(taken) == 1:
        said, page = taken[0]
        return [f"Measured on one {said}, beside the peers on the same card: {page}."]
    return [
        "Measured on a GPU, beside the peers on the same card. Each figure is of the newest visit "
        "that has it:", "", *(f"- {page}: one {said}" for said, page in taken),
    ]  # fmt: skip


def link(file: str, folder: str) -> str:
    """The page of a visit, linked."""
    return f"[{file.removesuffix('-gpu.json')}]({folder}{file.replace('.json', '.md')})"


@dataclass(frozen=True)
class Label:
    """Says which visits figures are of.

    Arguments:
        folder: of their pages, from where it stands.
        together: the visits.
    """

    folder: str
    together: Together

    def __call__(self, figures: Mapping[str, dict[str, Any] | None]) -> str:
        """{what: its row} in a cell: a visit alone if all are of it, else with what is of it."""
        of: dict[str, list[str]] = {}
        for name, row in figures.items():
            if row is not None:
                of.setdefault(row["visit"], []).append(name)
        if len(of) == 1:
            return link(*of, self.folder)
        files = sorted(of, key=[visit.file for visit in self.together.visits].index)
        return "; ".join(f"{', '.join(of[file])}: {link(file, self.folder)}" for file in files)


def summary(results: Results, label: Label | None = None) -> list[str]:
    """An item a line: our time, the best peer's, the fraction of the limit."""
    rows = []
    for item in (*reading.TRAINED, "W4_maml"):
        peer = results.peer(item)
        other = "" if peer is None else f"{number(peer['rate'])} {peer['unit']} ({peer['peer']})"
        if item == "W4_maml":
            full, fast = results.evaluated("fp32"), results.evaluated("tf32")
            times = [UNMEASURED if r is None else f"{number(r['seconds'])} s" for r in (full, fast)]
            limit = ""
        else:
            full, fast = results.best(item, "fp32"), results.best(item, "tf32")
            times = [
                UNMEASURED if r is None else f"{number(r['step_ms'])} ms" for r in (full, fast)
            ]
            limit = percent(full and full.get("of_limit"))
        rate = results.rate(item)
        over = "" if rate is None or peer is None else number(rate / peer["rate"])
        visit = [] if label is None else [label({"fp32": full, "TF32": fast, "peer": peer})]
        rows.append((TITLES[item], *times, other, over, limit, *visit))
    columns = (
        "a step", ">fp32", ">TF32", ">best peer, fp32", ">ours over it", ">of the limit, fp32",
        *([] if label is None else ["visit"]),
    )  # fmt: skip
    return table(columns, rows)


def fill_published(folder: Path, page: Path) -> Iterator[Path]:
    """Write the rows of the table of published figures that runs of a visit stand for."""
    with tempfile.TemporaryDirectory() as name:
        for problem in unpack(folder, Path(name)):
            print(f"{problem}", file=sys.stderr)
        if not any(Path(name).iterdir()):
            return
        runs, problems = load_runs([Path(name)])
        for line in problems:
            print(line, file=sys.stderr)
        page.write_text(fill(page.read_text("utf-8"), runs), "utf-8")
        yield page


if __name__ == "__main__":
    raise SystemExit(main())
