"""A trained run on other episodes, another task or other data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fewshot_bench import assembly
from fewshot_bench.config import RunConfig, reconfigure
from fewshot_bench.defaults import as_recorded
from fewshot_bench.engine.interrupt import Signals
from fewshot_bench.engine.observer import Progress, Silent
from fewshot_bench.engine.players import check_players
from fewshot_bench.engine.weights import load_weights, save_weights
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.parts import describe, prepare, stem
from fewshot_bench.results.record import FILE as RECORD
from fewshot_bench.results.record import new_run_folder, read_record, write_record
from fewshot_bench.runner import test


def evaluate_run(
    run_folder: str | Path, progress: Progress | None = None, **changes: Any
) -> dict[str, Any]:
    """Evaluate a finished run's weights again: other episodes, task or data.

    Arguments:
        run_folder: the folder of a run.
        changes: options of ``fsb run`` with underscores (``way``, ``episodes``, ``dataset``, ...).

    Returns:
        A record of its own, with ``evaluated_from`` naming the run; also written.
    """
    folder = Path(run_folder)
    folder = folder.parent if folder.name == RECORD else folder
    before = read_record(folder)
    changes = {"init": None, "observers": (), "profile": False, "pictures": False, **changes}
    meant = as_recorded(Registry.discover(), before["config"], before["plugins"])
    config = reconfigure(RunConfig.from_dict(meant), **changes)
    assembly.check_writable(Path(config.runs_dir))
    parts = prepare(config, progress or Silent(), train_split=False)
    if check_players(parts.method):
        load_weights(parts.method, folder)
    target = new_run_folder(Path(config.runs_dir), stem(config) + "-eval")
    record = describe(parts, target) | {"evaluated_from": before["id"]}
    record["training"], record["validation"] = before["training"], before["validation"]
    try:
        with Signals() as signals, parts.lowering.running():
            test(parts, target, record, signals.check)
        record["status"] = "completed"
        if check_players(parts.method):
            save_weights(parts.method, target)
        write_record(target, record)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return record
