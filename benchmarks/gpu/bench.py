"""What a part of ``measure.py`` is given, and the process that parts run in.

A part is a function that writes rows as it goes; a row is one JSON object on a line. It looks at
its clock and leaves what does not fit. A script of parts ends in ``main(...)``:

    python parts.py PART --out FILE [--device cuda] [--end CLOCK] [--small]      one part
    python parts.py --serve [--device cuda] [--small]                            those that it reads

Serving, it reads orders from standard input, ``{"part", "out", "end", "keep"}`` on a line, and
answers each with ``{"ended": PART, "error": null or a line, "broken": whether the device answers
no more}``; then it ends, because an error of CUDA stays with a process.

The end of a part is a reading of ``time.monotonic()``, which all processes of a machine share: a
part that counted seconds from where its process can read would not count its imports.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fewshot_bench.utils import devices


class Broken(RuntimeError):
    """The device answers no more in this process."""


class Bench:
    """What a part is given: where, how long, and where its rows go.

    Arguments:
        device: where.
        small: everything in miniature, no figures.
        keep: folder of what comes back; ``results.json`` of the parts before stands there.
        end: when the part has to end, by ``time.monotonic()``.
        out: file of the rows.
        carried: folders that may hold what an earlier visit kept.
        volumes: how many files the kept runs may fill.
        rows: words of the titles of published rows; none: all rows.
    """

    def __init__(
        self,
        device: torch.device,
        small: bool,
        keep: Path,
        end: float,
        out: Path,
        carried: tuple[Path, ...] = (),
        volumes: int = 2,
        rows: tuple[str, ...] = (),
    ) -> None:
        self.device, self.small, self.keep = device, small, keep
        self.carried, self.volumes, self.rows = carried, volumes, rows
        self.end, self._out = end, out

    @property
    def cuda(self) -> bool:
        """Whether this is a GPU."""
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def over(self, seconds: float, what: str) -> bool:
        """Whether fewer seconds are left than this needs; then a row says that it was left out."""
        if self.small or self.left() >= seconds:
            return False
        self.row(left=what)
        return True

    def row(self, **values: Any) -> None:
        """Write a row, now."""
        with self._out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(plain(values)) + "\n")

    @contextmanager
    def told(self, **what: Any) -> Iterator[dict[str, Any]]:
        """A row with these values, and those that are put into the dictionary; errors are rows.

        Raises:
            Broken: after an error the device answers no more.
        """
        row = dict(what)
        began = time.monotonic()
        try:
            yield row
        except Exception as error:
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        row["took_s"] = round(time.monotonic() - began, 2)
        self.row(**row)
        if "error" in row:
            self.check()

    def check(self) -> None:
        """Whether the device still answers.

        Raises:
            Broken: it does not.
        """
        try:
            self.wait()
        except Exception as error:
            raise Broken(
                f"the device answers no more: {' '.join(str(error).split())[:300]}"
            ) from None

    def wait(self) -> None:
        """Until the device has done everything."""
        devices.wait(self.device)

    def fresh(self) -> None:
        """Give back what nobody uses, and count the largest memory from here on."""
        gc.collect()
        devices.release_memory(self.device)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        """Largest memory since :meth:`fresh`, in bytes; None on a CPU."""
        return devices.peak_memory(self.device) if self.cuda else None

    def machine(self) -> dict[str, Any]:
        """The row of the part ``machine``, if it has been measured."""
        path = self.keep / "results.json"
        if not path.exists():
            return {}
        rows = json.loads(path.read_text("utf-8"))["parts"].get("machine", {}).get("rows", [])
        return rows[0] if rows else {}


def plain(value: Any) -> Any:
    """JSON has no number that is not finite: those are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


Part = Callable[[Bench], None]


def main(parts: dict[str, Part]) -> int:
    """Run one part, or those that standard input asks for."""
    parser = argparse.ArgumentParser(description="Parts of measure.py.")
    parser.add_argument("part", nargs="?", choices=[*parts])
    parser.add_argument("--serve", action="store_true", help="read orders from standard input")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, default=Path("."), help="folder for what comes back")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--end", type=float, metavar="CLOCK", default=time.monotonic() + 60,
        help="by time.monotonic(); default: in a minute",
    )  # fmt: skip
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--carried", type=Path, nargs="*", default=[])
    parser.add_argument("--volumes", type=int, default=2)
    parser.add_argument("--rows", nargs="*", default=[])
    asked = parser.parse_args()
    if not asked.serve:
        if asked.part is None or asked.out is None:
            parser.error("name a part and --out, or --serve")
        parts[asked.part](made(asked, asked.keep, asked.end, asked.out))
        return 0
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what parts and libraries print goes to the log
    for line in sys.stdin:
        order = json.loads(line)
        answer = served(parts, order, asked)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer["broken"]:
            return 1
    return 0


def made(asked: argparse.Namespace, keep: Path, end: float, out: Path) -> Bench:
    """What a part is given."""
    device = torch.device(asked.device)
    carried, rows = tuple(asked.carried), tuple(asked.rows)
    return Bench(device, asked.small, keep, end, out, carried, asked.volumes, rows)


def served(
    parts: dict[str, Part], order: dict[str, Any], asked: argparse.Namespace
) -> dict[str, Any]:
    """Run the part of an order."""
    name, error, broken = order["part"], None, False
    bench = made(asked, Path(order["keep"]), order["end"], Path(order["out"]))
    try:
        parts[name](bench)
    except Exception as found:
        traceback.print_exc()
        error = f"{type(found).__name__}: {' '.join(str(found).split())[:300]}"
    try:
        bench.check()
        bench.fresh()
    except Broken as found:
        error, broken = str(found), True
    return {"ended": name, "error": error, "broken": broken}
