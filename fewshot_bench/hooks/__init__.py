"""Plugins: hook specifications, the registry of installed names, the hooks of a run, scaffolds.

Plugins import ``hookimpl`` (also from ``fewshot_bench``). The core imports ``Registry`` from
``registry``, ``RunHooks`` from ``lifecycle`` and the rules for plugin files from ``single_file``.
"""

from fewshot_bench.hooks.specs import Names, hookimpl

__all__ = ["Names", "hookimpl"]
