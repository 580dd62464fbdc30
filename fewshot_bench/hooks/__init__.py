"""Hook specifications and the registry of what plugins offer."""

from fewshot_bench.hooks.specs import hookimpl

__all__ = ["hookimpl"]
