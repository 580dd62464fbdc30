"""Taking up a run that was broken off: its record, and whether it may still become one result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot_bench.alike import differing, origin_of
from fewshot_bench.disk import sweep
from fewshot_bench.errors import RecordError
from fewshot_bench.parts import Parts, describe
from fewshot_bench.results.record import resume_command

# Of the machine; they may change the last bits of a sum, and no more.
MACHINE = ("cpu", "threads", "python")


def taken_up(
    parts: Parts, folder: Path, before: dict[str, Any], *, allow_changes: bool
) -> dict[str, Any]:
    """The record of a run that goes on, as it stands before anything more is trained.

    Arguments:
        parts: of the run, as they are now.
        folder: of the run; leftovers of a process that was killed are removed.
        before: its record.
        allow_changes: go on also if the result will be of more than one origin, with a note.

    Raises:
        RecordError: data, code or versions are others than those that the run began with.
    """
    record = describe(parts, folder)
    other = differing(origin_of(before), origin_of(record))
    what = " and ".join(other)
    if other and not allow_changes:
        raise RecordError(
            f"'{folder}' was begun with other {what}: its result would be of both. Run it again "
            f"(fsb run ... --if-exists fresh), or: {resume_command(folder)} --allow-changes"
        )
    record["notes"] += [note for note in before["notes"] if note not in record["notes"]]
    if other:
        _note(parts, record, f"the run was interrupted and went on with other {what}")
    then, now = before["environment"], record["environment"]
    moved = [f"{name} {then.get(name)}, then {now[name]}" for name in MACHINE
             if then.get(name) != now[name]]  # fmt: skip
    if moved:
        _note(
            parts,
            record,
            f"the run was interrupted and went on elsewhere ({'; '.join(moved)}): the last bits of "
            "sums may be others than on one machine",
        )
    for name in ("id", "command", "config"):
        record[name] = before[name]
    record["timing"]["interruptions"] = before["timing"].get("interruptions", 0) + 1
    sweep(folder)
    return record


def _note(parts: Parts, record: dict[str, Any], text: str) -> None:
    parts.progress.message(text)
    if text not in record["notes"]:
        record["notes"].append(text)
