"""Times every work item, ours and the peers' in turn, and writes one table.

    uv run python benchmarks/run.py

Writes ``results/<date>-<device>.md`` and ``.json``. The peers take part if
``peers/install.py`` has made their environment; a peer that cannot do an item is listed with its
reason. Ratios are taken turn by turn between neighbors in time, so that they hold on a machine
whose speed drifts; the table has their medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from commands import COMMANDS, time_command
from limit import Limits, measure
from table import describe_machine, markdown, write
from turns import Worker, peers_python
from work import SETTINGS, prepare, unit, write_arrays

PEERS = ("learn2learn", "torchopt", "higher", "torchmeta", "easyfsl")
NO_PEER = ("W5",)  # nobody else has it
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Time every work item, ours and the peers'.")
    parser.add_argument("--items", nargs="*", default=[*SETTINGS, *COMMANDS])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="only these")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--small", action="store_true", help="a check that it works, no figures")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    unknown = [item for item in arguments.items if item not in (*SETTINGS, *COMMANDS)]
    if unknown:
        parser.error(f"no item '{unknown[0]}'; the items are {', '.join([*SETTINGS, *COMMANDS])}")
    device = torch.device(arguments.device)
    machine = describe_machine(device, measure(device))
    results: dict[str, Any] = {"machine": machine, "turns": arguments.turns, "items": {}}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        write_arrays(data)
        for item in arguments.items:
            print(item, file=sys.stderr, flush=True)
            if item in COMMANDS:
                results["items"][item] = time_command(item, arguments.turns, arguments.small)
            else:
                none = arguments.no_peers or item in NO_PEER
                peers = () if none else tuple(arguments.peers)
                results["items"][item] = time_item(item, peers, data, device, arguments)
            print(f"  {results['items'][item]}", file=sys.stderr, flush=True)
            write(results, arguments.out)  # after every item: a run that is cut off leaves these
    print(markdown(results), end="")


def time_item(
    item: str, peers: tuple[str, ...], data: Path, device: torch.device, arguments: Any
) -> dict[str, Any]:
    """Start everybody's worker, let them take turns, compare.

    Returns:
        ``ours`` (median rate), ``unit``, ``spread`` (least and largest rate), ``peers`` (a rate or
        the reason why there is none), ``best_peer``, ``ratio_to_best_peer`` and
        ``fraction_of_limit``.
    """
    small = arguments.small
    ours = Worker(sys.executable, "fewshot_bench", item, data, device, small)
    if ours.error is not None:
        raise RuntimeError(f"{item}: {ours.error}")
    others = {peer: Worker(peers_python(), peer, item, data, device, small) for peer in peers}
    able = {peer: worker for peer, worker in others.items() if worker.error is None}
    rates: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer in able}
    limits: list[Limits] = []
    for _ in range(arguments.turns):
        limits.append(measure(device, repeats=2))
        rates.append(ours.turn())
        for peer, worker in list(able.items()):
            try:
                theirs[peer].append(worker.turn())
            except RuntimeError as error:  # it takes no further turn; the others do
                worker.error = str(error)
                del able[peer], theirs[peer]
    for worker in (ours, *others.values()):
        worker.close()
    medians = {peer: statistics.median(values) for peer, values in theirs.items()}
    best = max(medians, key=medians.__getitem__, default=None)
    ratios = [a / b for a, b in zip(rates, theirs[best], strict=True)] if best else []
    work = prepare(item, device, small=small)
    return {
        "ours": statistics.median(rates),
        "unit": unit(item),
        "spread": [min(rates), max(rates)],
        "peers": {peer: medians.get(peer, worker.error) for peer, worker in others.items()},
        "best_peer": best,
        "ratio_to_best_peer": statistics.median(ratios) if ratios else None,
        "ratios": ratios,
        "fraction_of_limit": fraction(work, rates, limits),
        "flops_per_unit": work.flops_per_unit,
        "limits": asdict(limits[len(limits) // 2]),
    }


def fraction(work: Any, rates: list[float], limits: list[Limits]) -> float:
    """Median over turns of the share of the machine's limit that the needed work reaches."""
    shares = [
        rate * (work.flops_per_unit / limit.flops + work.bytes_per_unit / limit.bytes)
        for rate, limit in zip(rates, limits, strict=True)
    ]
    return statistics.median(shares)


if __name__ == "__main__":
    main()
