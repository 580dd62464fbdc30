"""A user's own images: a directory or a zip archive with one folder per class."""

from fewshot_bench.hooks import hookimpl
from fewshot_bench.hooks.specs import Names


@hookimpl
def register_datasets() -> Names:
    return {"folder": "fsb_folder.folder:Folder"}
