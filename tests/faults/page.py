"""Makes ``docs/reference/faults.md``: ``python tests/faults/page.py`` writes it anew."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import files, machine, plugins, records, typed, unfinished
from tests.faults.fault import Fault, meet, row

PAGE = Path(__file__).parents[2] / "docs/reference/faults.md"
GROUPS = {
    "On the command line": typed.CASES,
    "In a run's folder": records.CASES,
    "In interrupted runs": unfinished.CASES,
    "In data and in files": files.CASES,
    "In plugins": plugins.CASES,
    "In the machine and in numbers": machine.CASES,
}
CASES = [fault for cases in GROUPS.values() for fault in cases]
HEAD = """# Faults and bad input

How to read this page: each row is a fault, the command that meets it, and the exit code and message
of that command. A row without a message shows a command that does what was asked, or says nothing.
`...` stands for the options of a run of a few seconds. No fault shows a traceback, unless `--debug`
is given. A fault in one run leaves the others in the table, and is reported as `left out`.

Exit codes: 0 success; 1 the loss, a gradient or a weight became NaN or infinite; 2 an error that
you can fix; 141 the reader of a pipe ended; 130, 143, 138 and 129 a run that SIGINT, SIGTERM,
SIGUSR1 or SIGHUP ended, with a checkpoint ([interrupted runs](../resume.md)).

The tests make all {count} faults, each in a folder of its own, and `python tests/faults/page.py`
writes this page. The same for broken plugins: [errors of plugins](wrong-plugins.md).
"""


def table(cases: tuple[Fault, ...], stock: Path) -> list[str]:
    """The rows of some faults."""
    rows = ["| fault | command | exit code | message |", "|---|---|---|---|"]
    for number, fault in enumerate(cases):
        if (why := fault.why_not()) is not None:
            raise SystemExit(f"'{fault.what}' cannot be made here: {why}")
        at = stock / f"world-{number}" / "here"
        rows.append(row(fault, meet(fault, at, stock), at))
    return rows


def page() -> str:
    """The whole page."""
    parts = [HEAD.format(count=len(CASES))]
    for title, cases in GROUPS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = table(cases, Path(folder).resolve())
        parts.append("\n".join([f"## {title}", "", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
