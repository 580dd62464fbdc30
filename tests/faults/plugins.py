"""Plugins with unsafe names; docs/reference/wrong-plugins.md has the broken ones."""

from __future__ import annotations

from typing import Any

from tests.faults.fault import Fault, World

HEAD = "from fewshot_bench import Dataset, Method, hookimpl\n"


def plugin(name: str, target: str = "json:loads", kind: str = "datasets") -> Any:
    """A file of a plugin that registers a name."""
    source = f"{HEAD}@hookimpl\ndef register_{kind}():\n    return {{{name!r}: {target!r}}}\n"

    def spoil(world: World) -> Any:
        import importlib
        import sys
        from unittest import mock

        world.write("site/evil_plugin.py", source)
        info = "site/evil_plugin-1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: evil-plugin\nVersion: 1.0\n"
        world.write(f"{info}/METADATA", metadata)
        world.write(f"{info}/entry_points.txt", "[fewshot_bench]\nevil = evil_plugin\n")
        sys.modules.pop("evil_plugin", None)
        importlib.invalidate_caches()
        return mock.patch.object(sys, "path", [str(world.at / "site"), *sys.path])

    return spoil


CASES = (
    Fault("a plugin that registers '../x'", "run nearest-centroid --dataset ../x", plugin("../x")),
    Fault("a plugin that registers '..'", "run nearest-centroid --dataset ..", plugin("..")),
    Fault("a plugin that registers a hidden name", "data show .ssh", plugin(".ssh")),
    Fault("a plugin that registers an escape sequence", "run nearest-centroid --dataset evil",
          plugin("\x1b[2J")),
    Fault("a plugin that registers a name of 1,000 letters", "run nearest-centroid --dataset evil",
          plugin("x" * 1000)),
)  # fmt: skip
