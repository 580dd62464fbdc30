"""Names of the test classes, from a run's classes.csv or, for older runs, from its data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fewshot_bench.errors import DataError, FewshotBenchError, RecordError
from fewshot_bench.figures import Ask
from fewshot_bench.results.compare import Run
from fewshot_bench.results.record.class_names import FILE, read_classes
from fewshot_bench.results.record.part import part_of
from fewshot_bench.results.tables import read_table


@dataclass(frozen=True)
class Names:
    """What the classes of a test split are called.

    Arguments:
        classes: by class id.
        families: name of each class's family, by class id; None if the data have none.
    """

    classes: tuple[str, ...]
    families: tuple[str, ...] | None


def names_of(run: Run, ask: Ask) -> Names | None:
    """The names, or None (and a line in ``ask``) if the data are not at hand. Downloads nothing."""
    try:
        if (run.folder / FILE).is_file():
            return _written(run)
        return _read(run)
    except FewshotBenchError as error:
        ask.left_out.append(f"names of the classes, whose ids stand for them: {error}")
        return None


def _written(run: Run) -> Names:
    """As the run wrote them.

    Raises:
        RecordError: the file is damaged, or names not all classes of the episodes.
    """
    classes = read_classes(run.folder, run.record.get("part") or "test")
    columns = [f"class_{slot}" for slot in range(run.record["task"]["way"])]
    for ids in read_table(run.folder / "episodes.csv", columns).values():
        if not ((ids >= 0) & (ids < len(classes))).all():
            raise RecordError(f"'{run.folder / FILE}' does not name all classes of the episodes.")
    families = tuple(c.family for c in classes)
    return Names(tuple(c.name for c in classes), families if len(set(families)) > 1 else None)


def _read(run: Run) -> Names:
    """Load the data set as the run did.

    Raises:
        FewshotBenchError: it is not there, has changed, or an older configuration does not fit.
    """
    from fewshot_bench.config.schema import RunConfig
    from fewshot_bench.hooks.single_file import only_typed
    from fewshot_bench.runs.context import RunContext
    from fewshot_bench.runs.resume import as_placed

    recorded = as_placed(run.record["config"], run.record["inputs"])
    # Neither code nor a place to write to is taken from a record.
    config = replace(RunConfig.from_dict(recorded), cache_dir=None)
    with only_typed(()):
        splits = RunContext(config).load_data(download=False).splits
    if splits.digest != run.record["dataset_digest"]:
        raise DataError(f"the data of {config.dataset} here are of other content than the run's.")
    test = getattr(splits, part_of(run.record))
    names = [test.family_names[i] for i in test.families]
    return Names(test.class_names, tuple(names) if len(test.family_names) > 1 else None)
