"""Presets named after papers test as the papers' code does, down to the number of queries.

If a method normalizes with batch statistics, the queries of an episode help each other, so their
number is part of the protocol and not a matter of precision. The number of queries per class, in
training and at test, of each such preset, data set and task is compared with the authors' code, and
is in the record of a run. If a method's code differs from its paper, an option selects one of the
two.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fsb_protonet.soft_kmeans import SoftKMeans

import fewshot_bench
from fewshot_bench.config.resolve import configure

TASKS = ((5, 1), (5, 5), (20, 1), (20, 5))
# Queries a class in training and at test, of the tasks above; and whether statistics are a batch's.
OMNIGLOT = {
    ("maml", "paper"): ([1, 5, 1, 5], [1, 5, 1, 5], "batch"),
    ("metagan", "paper"): ([1, 5, 1, 5], [1, 5, 1, 5], "batch"),
    ("relationnet", "paper"): ([19, 15, 10, 5], [1, 5, 1, 5], "batch"),
    ("metagan", "paper-relationnet"): ([19, 15, 10, 5], [1, 5, 1, 5], "batch"),
    ("protonet", "paper"): ([5, 5, 5, 5], [15, 15, 15, 15], "running"),
}
PICTURES = {
    ("maml", "paper"): ([15, 15], [1, 5], "batch"),
    ("metagan", "paper"): ([15, 15], [1, 5], "batch"),
    ("relationnet", "paper"): ([15, 10], [3, 5], "batch"),
    ("metagan", "paper-relationnet"): ([15, 10], [3, 5], "batch"),
    ("protonet", "paper"): ([15, 15], [15, 15], "running"),
}


@pytest.mark.parametrize(
    ("dataset", "table"), [("omniglot", OMNIGLOT), ("mini-imagenet", PICTURES)]
)
def test_queries_are_those_of_the_authors_code(dataset: str, table: dict[Any, Any]) -> None:
    """The queries of every preset that is named after a paper are listed, in training and at test:
    they are the authors', and so is the kind of batch norm statistics.
    """
    for (method, preset), (train, test, statistics) in table.items():
        for (way, shot), train_query, query in zip(TASKS, train, test, strict=False):
            config = configure(method, preset=preset, dataset=dataset, way=way, shot=shot)
            found = (config.train_query, config.query)
            assert found == (train_query, query), (method, preset, way, shot)
            assert config.backbone_options["backbone_statistics"] == statistics


@pytest.mark.parametrize("dataset", ["omniglot", "mini-imagenet", "folder:pictures"])
def test_a_preset_over_a_base_has_the_bases_protocol(dataset: str) -> None:
    """MetaGAN's presets over MAML and over a Relation Network are compared with those of MAML and
    of the Relation Network: a copy that is not updated is detected.
    """
    shared = (
        "query", "train_query", "train_shot", "train_way", "validation_episodes", "backbone",
        "dataset_options", "backbone_options",
    )  # fmt: skip
    for base, preset in (("maml", "paper"), ("relationnet", "paper-relationnet")):
        for way, shot in TASKS[:2] if dataset != "omniglot" else TASKS:
            task = {"dataset": dataset, "way": way, "shot": shot}
            own = vars(configure(base, preset="paper", **task))
            over = vars(configure("metagan", preset=preset, **task))
            assert {name: own[name] for name in shared} == {name: over[name] for name in shared}


@pytest.mark.parametrize("shot", [1, 5])
def test_a_run_of_the_paper_is_tested_so(shot: int, tmp_path: Any) -> None:
    """``relationnet --preset paper`` is run: the record has K test queries per class, for
    validation and test, and an accuracy is a multiple of one in way times K.
    """
    record = fewshot_bench.run(
        "relationnet", preset="paper", dataset="glyphs", train_classes=10, validation_classes=6,
        test_classes=6, way=3, shot=shot, train_query=1, steps=1, episodes=4,
        validation_episodes=1, backbone_channels=4, runs_dir=str(tmp_path),
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert record["task"]["query"] == shot
    rights = record["test"]["accuracy"] * 4 * 3 * shot
    assert rights == pytest.approx(round(rights), abs=1e-6)
    assert record["test"]["transductive"]


def test_more_queries_are_other_information() -> None:
    """The same untrained Relation Network classifies images beside few and beside many others: with
    batch statistics the predictions differ, with running ones they do not.
    """
    from fsb_relationnet.relationnet import RelationNet

    from fewshot_bench.testing import TINY, TinyBackbone, tiny_episode

    for statistics, differ in (("batch", True), ("running", False)):
        torch.manual_seed(0)
        backbone = TinyBackbone(statistics=statistics)  # type: ignore[arg-type]
        method = RelationNet(TINY, backbone, hidden=3).double().eval()
        episode = tiny_episode(query=15)
        with torch.no_grad():
            state = method.adapt(episode.support)
            alone = method.predict(state, episode.query[:, : TINY.way])
            among = method.predict(state, episode.query)[:, : TINY.way]
        assert (not torch.allclose(alone, among, rtol=1e-6)) == differ


def test_the_papers_equations_are_the_default_of_soft_k_means() -> None:
    """Soft k-means is configured with and without ``--follow code``: the run's configuration says
    which, and the stopped gradient of the code's plain variant is declared.
    """
    from fewshot_bench.testing import TINY, TinyBackbone

    assert configure("soft-kmeans").method_options["follow"] == "paper"
    assert configure("soft-kmeans", follow="code").method_options["follow"] == "code"
    declared = {
        (kind, follow): SoftKMeans(
            TINY,
            TinyBackbone(),
            distractors_are=kind,
            follow=follow,  # type: ignore[arg-type]
        ).gradient
        for kind in ("ignored", "cluster", "masked")
        for follow in ("paper", "code")
    }
    surrogate = {case for case, kind in declared.items() if kind == "surrogate"}
    assert surrogate == {("ignored", "code"), ("masked", "paper"), ("masked", "code")}
