"""Whether a run exists already: two runs are the same if what decides their numbers is the same.

That is settings, data, code, versions of plugins and of torch, and the kind of device. A path
counts by its content, not as it was typed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_bench.config.options import split_dataset
from fewshot_bench.config.schema import IGNORED, OPTION_FIELDS, RESUMABLE, WATCHED, RunConfig
from fewshot_bench.errors import RecordError
from fewshot_bench.results.record import is_locked, read_record
from fewshot_bench.results.record.code import code_digest
from fewshot_bench.results.record.environment import installed_version
from fewshot_bench.results.runs import Run, age, run_folders
from fewshot_bench.runs.context import RunContext, contents_of


@dataclass(frozen=True)
class Found:
    """The newest runs of a configuration."""

    finished: Run | None = None
    unfinished: Path | None = None  # interrupted, and no process writes it now
    near: str | None = None  # a line on a finished run that differs in its origin alone


class RunIndex:
    """The runs in and below some folders, to be found by configuration; ignores broken records."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_settings: dict[str, list[Run]] = {}  # oldest first
        runs = [run for path in paths for folder in run_folders(path) for run in _read(folder)]
        for run in sorted(runs, key=age):
            if run.record["evaluated_from"] is None:
                key = settings_key(run.record["config"], paths_of(run.record["inputs"]))
                self._by_settings.setdefault(key, []).append(run)

    def find(self, context: RunContext, *, watched: bool = False) -> Found:
        """The newest runs of a configuration, whose data are read if settings match.

        ``watched``: pictures, profile and observers have to be the same, too.
        """
        config = context.config
        wanted = config.to_dict()
        _, path = split_dataset(context.registry, config.dataset)
        typed = {**context.input_files, **({"dataset": path} if path else {})}
        compared = {name: wanted[name] for name in WATCHED} if watched else {}
        same = self._by_settings.get(settings_key(wanted, typed), [])
        same = [run for run in same if compared.items() <= run.record["config"].items()]
        origin: dict[str, Any] = {}
        if same:  # of the run that the context would start
            plugins = [plugin.identity for plugin in context.plugins]
            code = code_digest(context.sources), installed_version("torch"), context.device.type
            origin = _origin(context.data.splits.digest, plugins, *code, context.inputs)
        unfinished, near = None, None
        for run in reversed(same):
            different = differing(origin_of(run.record), origin)
            if run.record["status"] != "completed":
                if not different and unfinished is None and not is_locked(run.folder):
                    unfinished = run.folder
            elif different:
                near = near or f"'{run.folder}' has different {' and '.join(different)}"
            else:
                return Found(run, unfinished)
        return Found(None, unfinished, near)


def _read(folder: Path) -> Iterator[Run]:
    """The run in this folder, if it is finished or can be resumed."""
    with suppress(RecordError):
        record = read_record(folder)
        whole = record["status"] == "completed" and record["test"]
        if whole or record["status"] in ("running", "interrupted"):
            yield Run(folder, record)


def resumable(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run takes from this configuration, and not from its record."""
    return {name: getattr(config, name) for name in RESUMABLE}


def settings_key(config: Mapping[str, Any], paths: Mapping[str, str] = {}) -> str:
    """The settings that decide numbers, of a record's configuration, as one text.

    Of ``paths``, those of them that are paths by name, only counts that there is one (the content
    is in :func:`contents_of`); other paths count as they were typed.
    """
    masked = with_paths(config, {name: (path, "*") for name, path in paths.items()})
    return json.dumps({n: v for n, v in masked.items() if n not in IGNORED}, sort_keys=True)


def with_paths(config: Mapping[str, Any], paths: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """A record's configuration with {option: (path as it is there, replacement)} applied.

    That of ``dataset`` is the path after the colon, or the ``data_root``.
    """
    values = dict(config)
    for name, (typed, other) in paths.items():
        if name == "dataset":
            if str(values["dataset"]).endswith(f":{typed}"):
                values["dataset"] = values["dataset"].removesuffix(typed) + other
            elif values.get("data_root") == typed:
                values["data_root"] = other
        elif values.get(name) == typed:
            values[name] = other
        else:
            for group in OPTION_FIELDS:
                options = values.get(group)
                if isinstance(options, Mapping) and options.get(name) == typed:
                    values[group] = {**options, name: other}
    return values


def paths_of(inputs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The settings of a record that are paths, from its ``inputs``."""
    named = [e for e in inputs if e["path"] is not None and not e["option"].startswith("code ")]
    return {entry["option"]: entry["path"] for entry in named}


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came from besides its settings; JSON values."""
    data, plugins, inputs = record["dataset_digest"], record["plugins"], record["inputs"]
    made, device = record["environment"], record["device"]["type"]
    return _origin(data, plugins, made["code"], made["torch"], device, inputs)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def _origin(
    data: str, plugins: Sequence[Mapping[str, str]], code: Any, torch: Any, device: str, inputs: Any
) -> dict[str, Any]:
    names = ("kind", "name", "distribution", "version")
    versions = sorted([one[n] for n in names] for one in plugins if one["kind"] != "observers")
    found = {"data": data, "plugin versions": versions, "code": code, "torch": torch}
    return {**found, "device": device, **contents_of(inputs)}
