"""A run with the same configuration may be there already: shown, gone on with, or run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot_bench.runs.identity import Alike, of_here
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.engine.observer import Progress, Silent
from fewshot_bench.errors import ConfigError
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.config.options import split_dataset
from fewshot_bench.runs.context import stem
from fewshot_bench.results.record.io import resume_command
from fewshot_bench.runs.train import resume, run

IF_EXISTS = ("resume", "reuse", "fresh")


def run_unless(
    config: RunConfig, if_exists: str, progress: Progress | None = None
) -> tuple[dict[str, Any], Path]:
    """The record of a configuration, and its folder.

    Arguments:
        config: what is wanted.
        if_exists: what to do with a run of the same configuration, data, code and versions in the
            runs folder. ``resume``: show it if it is finished, go on with it if it was broken
            off; ``reuse``: only show one that is finished; ``fresh``: run again.
        progress: is told in one line what was found.

    Raises:
        ConfigError: ``if_exists`` is something else; else as :func:`fewshot_bench.runs.train.run`.
    """
    if if_exists not in IF_EXISTS:
        raise ConfigError(f"--if-exists {if_exists}: it is one of {', '.join(IF_EXISTS)}.")
    progress = progress or Silent()
    runs_dir = Path(config.runs_dir)
    if if_exists != "fresh" and runs_dir.is_dir():
        registry = Registry.discover()
        # A path behind the data set's name may have been typed in another way.
        plain = replace(config, dataset=split_dataset(registry, config.dataset)[0])
        begin = stem(plain).rpartition("-")[0]
        folders = sorted(runs_dir.glob(f"{begin}-*"))
        found = Alike(folders, registry).find(config, watched=True)
        if found.finished is not None:
            folder = found.finished.folder
            progress.message(f"there already, in '{folder}'; --if-exists fresh runs it again")
            return found.finished.record, folder
        if found.unfinished is not None and if_exists == "resume":
            folder = found.unfinished
            progress.message(f"going on with '{folder}'; --if-exists fresh begins another run")
            record = resume(folder, progress, trust_code=True, **of_here(config))
            return record, folder
        if found.unfinished is not None:
            how = resume_command(found.unfinished)
            progress.message(f"'{found.unfinished}' did not finish; this goes on with it: {how}")
        elif found.nearly is not None:
            progress.message(f"{found.nearly}; this is a new run")
    record = run(config, progress)
    return record, runs_dir / record["id"]
