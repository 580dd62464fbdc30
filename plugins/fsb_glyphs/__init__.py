"""Glyphs: procedurally drawn characters; the built-in data set that needs no file."""

from fewshot_bench import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {"glyphs": "fsb_glyphs.glyphs:Glyphs"}
