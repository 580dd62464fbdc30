"""Runs that stand for a configuration: found again by what they are.

A run stands for a configuration if it has the same settings, data, code, plugin and torch versions
and kind of device. Where it was written and who watched do not matter. Of a path the content
counts, and not how it was typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewshot_bench.runs import build
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.config.presets import with_paths
from fewshot_bench.utils.devices import pick_device
from fewshot_bench.errors import RecordError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.config.options import load, split_dataset
from fewshot_bench.results.record.code import code_digest
from fewshot_bench.results.record.environment import torch_version
from fewshot_bench.results.record.io import is_held, read_record
from fewshot_bench.results.runs import Run, age, run_folders
from fewshot_bench.runs.inputs import file_options, inputs_of

# Settings that leave a run's numbers alone.
ASIDE = (
    "runs_dir", "data_root", "cache_dir", "device", "sources", "profile", "pictures", "observers",
    "checkpoint_every", "keep_checkpoints", "detect_anomaly",
)  # fmt: skip
# Those of them that a run which goes on takes from what was typed now.
HERE = ("data_root", "cache_dir", "device", "checkpoint_every", "keep_checkpoints",
        "detect_anomaly")  # fmt: skip
# Those of them that leave files which somebody who asks for them wants to see.
WATCHED = ("profile", "pictures", "observers")


@dataclass(frozen=True)
class Found:
    """What there is of a configuration.

    Arguments:
        finished: the newest finished run.
        unfinished: the newest run that was broken off and that no process writes now.
        nearly: a line, where there is neither, on a finished run that nearly fits.
    """

    finished: Run | None = None
    unfinished: Path | None = None
    nearly: str | None = None


class Alike:
    """The runs of some folders.

    Arguments:
        paths: folders of runs, or with runs anywhere below; broken records are passed over.
        registry: what is installed now.
    """

    def __init__(self, paths: Iterable[Path], registry: Registry) -> None:
        self.registry = registry
        self._alike: dict[str, list[Run]] = {}  # by settings, oldest first
        runs = [run for path in paths for folder in run_folders(path) for run in _read(folder)]
        for candidate in sorted(runs, key=age):
            if "evaluated_from" not in candidate.record:
                key = settings_key(candidate.record["config"], paths_of(candidate.record["inputs"]))
                self._alike.setdefault(key, []).append(candidate)
        self._data: dict[str, build.Data] = {}  # what was looked at once

    def find(self, config: RunConfig, *, watched: bool = False) -> Found:
        """The newest runs that stand for a configuration.

        Arguments:
            config: the configuration.
            watched: pictures, profile and observers have to be the same, too.
        """
        wanted = config.to_dict()
        alike = [
            run
            for run in self._alike.get(self._key(config), [])
            if not watched or all(run.record["config"].get(n) == wanted[n] for n in WATCHED)
        ]
        origin = self._origin(config) if alike else {}
        unfinished: Path | None = None
        nearly: str | None = None
        for candidate in reversed(alike):
            status = candidate.record["status"]
            other = differing(origin_of(candidate.record), origin)
            if status == "completed" and not other:
                return Found(candidate, unfinished)
            if status == "completed":
                nearly = nearly or f"'{candidate.folder}' is of other {' and '.join(other)}"
            elif not other and unfinished is None and not is_held(candidate.folder):
                unfinished = candidate.folder
        return Found(None, unfinished, nearly)

    def _key(self, config: RunConfig) -> str:
        """What the settings of a run that stands for a configuration come to."""
        _, path = split_dataset(self.registry, config.dataset)
        typed = dict(file_options(config, self.registry)) | ({"dataset": path} if path else {})
        return settings_key(config.to_dict(), typed)

    def _origin(self, config: RunConfig) -> dict[str, Any]:
        """What ``origin_of`` would say of a run that were started now."""
        backbone = load(self.registry, "methods", config.method).wants_backbone
        things = build.named_things(config, self.registry, backbone)
        where = repr((config.dataset, sorted(config.dataset_options.items()), config.data_root))
        if where not in self._data:
            self._data[where] = build.load_data(config, self.registry)
        data = self._data[where]
        return {
            "data": data.splits.digest,
            "plugin versions": _versions([thing.identity for thing in things]),
            "code": code_digest(build.sources_of(things)),
            "torch": torch_version(),
            "device": pick_device(config.device).type,
            **contents_of(inputs_of(config, self.registry, data, things)),
        }


def _read(folder: Path) -> list[Run]:
    """The run in this folder, if it is one that is finished or can be gone on with."""
    try:
        record = read_record(folder)
    except RecordError:
        return []
    whole = record["status"] == "completed" and record["test"]
    usable = whole or record["status"] in ("running", "interrupted")
    return [Run(folder, record)] if usable else []


def of_here(config: RunConfig) -> dict[str, Any]:
    """What a run that goes on takes from this configuration, and not from its record."""
    return {name: getattr(config, name) for name in HERE}


def settings_key(config: Mapping[str, Any], paths: Mapping[str, str] | None = None) -> str:
    """The part of a configuration, or of a record's, that decides numbers, as one text.

    Arguments:
        config: the settings.
        paths: those of them that are paths, by name: only that there is one counts here, and its
            content elsewhere (:func:`contents_of`). Without it paths count as they were typed.
    """
    masked = with_paths(config, {name: (path, "*") for name, path in (paths or {}).items()})
    return json.dumps({n: v for n, v in masked.items() if n not in ASIDE}, sort_keys=True)


def paths_of(inputs: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """The settings of a record that are paths, from its ``inputs``."""
    found = {e["option"]: e["path"] for e in inputs or () if not e["option"].startswith("code ")}
    return {name: path for name, path in found.items() if path is not None}


def contents_of(inputs: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """Digests of what was read; of the code there is one for all, with the origin."""
    digests = {e["option"]: e["sha256"] for e in inputs or ()}
    said = {"dataset": "images, classes or split"}
    return {
        said.get(name, f"content of --{name.replace('_', '-')}"): digest
        for name, digest in digests.items()
        if not name.startswith("code ")
    }


def origin_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came from besides its settings; JSON values."""
    return {
        "data": record["dataset_digest"],
        "plugin versions": _versions(record["plugins"]),
        "code": record["environment"].get("code"),
        "torch": record["environment"].get("torch"),
        "device": record["device"]["type"],
        **contents_of(record["inputs"]),
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two origins."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def _versions(things: Sequence[Mapping[str, str]]) -> list[list[str]]:
    names = ("kind", "name", "distribution", "version")
    return sorted([thing[n] for n in names] for thing in things if thing["kind"] != "observers")
