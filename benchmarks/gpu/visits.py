"""Every visit that is committed, as one: each figure is the newest one that there is.

A visit may measure a part of everything, so the pages' tables take a figure from the newest visit
that has it. Within an item all are of one card, that of the newest visit that has the item: the
time, the peers' rate and the ratio of both are of the same card, and where they are not of one
visit, the row says of which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from reading import TITLES, Results, Row

# As report.py names them: date, device, and a number from the second visit of a day on.
FILE = re.compile(r"\d{4}-\d\d-\d\d-(?P<short>[a-z0-9]+)(?:-(?P<count>\d+))?-gpu\.json")


def visits(folder: Path) -> list[Results]:
    """The visits of a folder, the newest first; no rehearsals, and nothing of a CPU."""
    found = []
    for path in folder.glob("*-gpu.json"):
        if (name := FILE.fullmatch(path.name)) is None:
            continue
        results = Results(json.loads(path.read_text("utf-8")), folder, path.name)
        if results.machine and not results.on_cpu and not results.data.get("small"):
            began = str(results.data.get("began") or "")
            key = (results.machine["date"], began, int(name["count"] or 1), path.name)
            found.append((key, results))
    return [results for _, results in sorted(found, key=lambda one: one[0], reverse=True)]


class Together(Results):
    """Figures of several visits.

    Arguments:
        visits: the newest first.
    """

    def __init__(self, visits: list[Results]) -> None:
        super().__init__({"parts": {}})
        self.visits = visits

    @property
    def machine(self) -> Row:
        """None: each visit has its own."""
        return {}

    @property
    def files(self) -> list[str]:
        """The visits that figures are of, the newest first."""
        rows = [row for item in TITLES for row in self._figures(item)]
        used = {row["visit"] for row in rows}
        return sorted(used, key=[v.file for v in self.visits].index)

    def of(self, file: str) -> Results:
        """The visit of a file."""
        return next(visit for visit in self.visits if visit.file == file)

    def best(self, item: str, precision: str, engine: str = "graph") -> Row | None:
        return _first(visit.best(item, precision, engine) for visit in self._of(item))

    def peer(self, item: str) -> Row | None:
        return _first(visit.peer(item) for visit in self._of(item))

    def evaluations(self) -> list[Row]:
        found: dict[tuple[str, str, int], list[Row]] = {}
        for item in TITLES:
            for visit in self._of(item):
                rows = [row for row in visit.evaluations() if row["item"] == item]
                own: dict[tuple[str, str, int], list[Row]] = {}
                for row in rows:
                    own.setdefault((item, row["precision"], row["episodes"]), []).append(row)
                found = own | found
        return [row for rows in found.values() for row in rows]

    def rows(self, part: str) -> list[Row]:
        if part != "profile":
            raise ValueError(f"the rows of the part {part} are those of one visit")
        found: dict[str, Row] = {}
        for visit in self.visits:
            for row in visit.rows(part):
                if row.get("kernels"):
                    found.setdefault(row["item"], row)
        return [found[item] for item in TITLES if item in found]

    def _of(self, item: str) -> list[Results]:
        """The visits at the card of the newest one that has a time of ours of this item."""
        newest = _first(visit if _times(visit, item) else None for visit in self.visits)
        if newest is None:
            return []
        card = newest.machine["device"]
        return [visit for visit in self.visits if visit.machine["device"] == card]

    def _figures(self, item: str) -> Iterator[Row]:
        yield from (row for p in ("fp32", "tf32", "bf16") if (row := self.best(item, p)))
        yield from (row for row in self.evaluations() if row["item"] == item)
        yield from (row for row in self.rows("profile") if row["item"] == item)
        if peer := self.peer(item):
            yield peer


def _times(visit: Results, item: str) -> bool:
    """Whether a visit has a time of ours of this item."""
    times = (visit.best(item, precision) for precision in ("fp32", "tf32", "bf16"))
    return any(times) or any(row["item"] == item for row in visit.evaluations())


Found = TypeVar("Found")


def _first(found: Iterable[Found | None]) -> Found | None:
    return next((one for one in found if one is not None), None)
