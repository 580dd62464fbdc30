"""The written results: one JSON file and one table in Markdown for people."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from limit import Limits

from fewshot_bench.results.record.environment import describe_device, environment


def describe_machine(device: torch.device, limits: Limits) -> dict[str, Any]:
    """What a figure was taken on."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": describe_device(device)["name"],
        "short": _short(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "environment": environment(),
        "limits": asdict(limits),
    }


def _short(device: torch.device) -> str:
    """``cpu-2core`` or the GPU's own word, ``h200``."""
    if device.type == "cpu":
        return f"cpu-{os.cpu_count()}core"
    words = re.sub(r"[^a-z0-9 ]", " ", torch.cuda.get_device_name(device).lower()).split()
    return next((word for word in words if any(c.isdigit() for c in word)), words[-1])


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write ``<date>-<device>.json`` and ``.md``; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = results["machine"]
    path = folder / f"{machine['date']}-{machine['short']}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(markdown(results), "utf-8")
    return path


def markdown(results: dict[str, Any]) -> str:
    """The table, and what it was taken on."""
    machine, limits = results["machine"], results["machine"]["limits"]
    peers = list(dict.fromkeys(p for item in results["items"].values() for p in item["peers"]))
    head = ["item", "unit", "ours", "least to largest", *peers, "ours / best peer", "of the limit"]
    lines = [
        f"# Speed, {machine['date']}, {machine['device']}",
        "",
        f"`uv run python benchmarks/run.py`, {results['turns']} turns, torch {machine['torch']}, "
        f"Python {machine['python']}. Matrix product {limits['flops'] / 1e9:.0f} GFLOP/s, copy "
        f"{limits['bytes'] / 1e9:.1f} GB/s, {limits['launch_us']:.1f} us an operation. Medians; "
        "what the items are: [README](../README.md).",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    reasons: dict[str, list[str]] = {}
    for name, item in results["items"].items():
        cells = [name, item["unit"], number(item["ours"]), " to ".join(map(number, item["spread"]))]
        for peer in peers:
            rate = item["peers"].get(peer)
            cells.append(number(rate) if isinstance(rate, float) else "-")
            if isinstance(rate, str):
                reasons.setdefault(f"{peer}: {rate}", []).append(name)
        ratio, share = item["ratio_to_best_peer"], item["fraction_of_limit"]
        cells.append("" if ratio is None else f"{ratio:.2f} ({item['best_peer']})")
        cells.append("" if share is None else f"{share:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    if reasons:
        lines += ["", "A peer without a figure:", ""]
        lines += [f"- {reason} ({', '.join(items)})" for reason, items in reasons.items()]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
