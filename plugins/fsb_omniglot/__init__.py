"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 2015): handwritten characters."""

from fewshot_bench import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {"omniglot": "fsb_omniglot.omniglot:Omniglot"}
