"""What a run reads: data, files that its options name, and code, each with its content's digest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot_bench.runs.build import Data
from fewshot_bench.config.resolve import RunConfig
from fewshot_bench.errors import RecordError
from fewshot_bench.hooks.registry import Registered, Registry
from fewshot_bench.utils.inputs import WEIGHTS, InputFile, content_of
from fewshot_bench.config.options import (
    backbone_options,
    dataset_options,
    load,
    method_options,
    split_dataset,
)
from fewshot_bench.results.record.code import OWN, code_of
from fewshot_bench.config.schema import CORE, OPTIONS, sampler_options


def file_options(config: RunConfig, registry: Registry) -> dict[str, InputFile]:
    """Every path in a configuration whose content counts, by the name of its option.

    What stands behind the colon of ``--dataset folder:PATH`` is not among them: the images that it
    came to are what counts there.
    """
    options = [option for option in CORE if option.file]
    values = {option.name: getattr(config, option.name) for option in CORE}
    options += method_options(registry, config.method, config.method_options)
    if load(registry, "methods", config.method).wants_backbone:
        options += backbone_options(registry, config.backbone)
    options += dataset_options(registry, config.dataset)
    options += sampler_options(registry, config.sampling)
    values |= {name: value for group in OPTIONS for name, value in getattr(config, group).items()}
    named = {option.name: values.get(option.name) for option in options if option.file}
    return {name: InputFile(value) for name, value in named.items() if value is not None}


def inputs_of(
    config: RunConfig, registry: Registry, data: Data, things: Sequence[Registered]
) -> list[dict[str, Any]]:
    """The record's ``inputs``: all that a run reads, with its content's digest.

    Arguments:
        config: of the run.
        registry: what is installed.
        data: that were read.
        things: what :func:`named_things` found; their code is among the inputs.

    Raises:
        DataError: a file cannot be read.
        RecordError: ``--init`` names a folder without weights.
    """
    found: list[dict[str, Any]] = []

    def add(option: str, path: str | None, absolute: Path | None, sha256: str, size: int) -> None:
        where = None if absolute is None else str(absolute)
        entry = {"option": option, "path": path, "absolute": where}
        found.append({**entry, "sha256": sha256, "bytes": size})

    for name, path in file_options(config, registry).items():
        file = path.path / WEIGHTS if name == "init" else path.path
        if name == "init" and not file.is_file():
            raise RecordError(f"'{path}' has no {WEIGHTS}; --init takes the folder of a run.")
        content = content_of(file)
        add(name, str(path), path.path, content.sha256, content.bytes)
    _, typed = split_dataset(registry, config.dataset)
    root = data.root if typed is None else InputFile(typed).path
    root = None if root is None else root.absolute()
    add("dataset", typed or config.data_root, root, data.content.sha256, data.content.bytes)
    code = code_of(OWN)
    add("code of fewshot-bench", OWN, code.path, code.sha256, code.bytes)
    for thing in things:
        if thing.kind != "observers" and thing.source.partition(".")[0] != OWN:
            code = code_of(thing.source)
            what = f"code of {thing.kind[:-1]} {thing.name}"
            add(what, thing.source, code.path, code.sha256, code.bytes)
    return found
