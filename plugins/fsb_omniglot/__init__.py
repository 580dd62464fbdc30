"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): handwritten characters."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_datasets() -> Names:
    return {"omniglot": "fsb_omniglot.omniglot:Omniglot"}
