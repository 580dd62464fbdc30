"""How many episodes a second the sampler delivers as normalised float tensors on the device."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot_bench.assembly import episodes, load_data
from fewshot_bench.config import configure
from fewshot_bench.hooks.registry import Registry
from fewshot_bench.sampling import EpisodeSource


@pytest.fixture(scope="module")
def source() -> EpisodeSource:
    data = Path(os.environ.get("FSB_DATA", "")) / "omniglot"
    dataset = "omniglot" if data.is_dir() else "glyphs"
    config, registry = configure("protonet", dataset=dataset, way=5, shot=5), Registry.discover()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = load_data(config, registry).splits
    return episodes(splits.test, config, registry, "test", device)


@pytest.mark.parametrize("batch", [4, 32, 128])
def test_episodes_per_second(benchmark: Any, source: EpisodeSource, batch: int) -> None:
    first = iter(range(0, 10**9, batch))

    def deliver() -> None:
        start = next(first)
        source.batch(range(start, start + batch))
        if source.table.device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(deliver, rounds=200, warmup_rounds=20)
    if benchmark.stats:
        benchmark.extra_info["episodes_per_s"] = batch / benchmark.stats.stats.median
        print(f"\n{batch} at a time: {benchmark.extra_info['episodes_per_s']:.0f} episodes/s")
