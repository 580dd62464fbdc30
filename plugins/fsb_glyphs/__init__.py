"""Glyphs: procedurally drawn characters; the built-in data set that needs no file."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_datasets() -> Names:
    return {"glyphs": "fsb_glyphs.glyphs:Glyphs"}
