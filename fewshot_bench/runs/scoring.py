"""What an evaluation puts into the record besides the accuracy."""

from __future__ import annotations

from typing import Any

from fewshot_bench.sampling.inspection import agree
from fewshot_bench.engine.evaluation import Scores, evaluate
from fewshot_bench.runs.context import Parts
from fewshot_bench.results.record.files import result_of
from fewshot_bench.sampling.base import EpisodeSource


def validate_untrained(
    parts: Parts, source: EpisodeSource, record: dict[str, Any], chunk: int
) -> None:
    """Evaluate a method that trains nothing on the validation split: to choose its settings by.

    Arguments:
        parts: of the run.
        source: the validation episodes.
        record: of the run; its ``validation`` is filled in.
        chunk: tasks per call.
    """
    config = parts.config
    scores = evaluate(parts.lowering, source, config.validation_episodes, chunk=chunk)
    parts.observers.tell("evaluation_ended", "validation", scores.accuracy.tolist())
    result = result_of(scores, config.level, parts.method.transductive, source)
    record["validation"] = {"best_step": None, **result}
    parts.progress.message(f"validation accuracy {result['accuracy']:.2%}; choose settings by this")


def note_drawn(parts: Parts, scores: Scores, record: dict[str, Any]) -> None:
    """Fill in what the episodes were, which were looked at before: they have to be the same.

    Raises:
        PluginError: the sampler gave the evaluation other episodes.
    """
    assert parts.drawn is not None
    item = parts.registry.resolve("samplers", parts.config.sampling)
    agree(parts.drawn, scores.class_ids, scores.confusion.sum(-1), item.title)
    record["episodes_digest"] = parts.drawn.digest
