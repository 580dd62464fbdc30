"""A user's own images: a directory or a zip archive with one folder per class."""

from fewshot_bench import hookimpl


@hookimpl
def register_datasets() -> dict[str, str]:
    return {"folder": "fsb_folder.folder:Folder"}
