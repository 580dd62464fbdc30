"""A static page of finished runs. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fewshot_bench.errors import ConfigError

if TYPE_CHECKING:
    from fewshot_bench.results.comparison import Comparison

PAGE = "index.html"
__all__ = ["PAGE", "write_report"]


def write_report(comparison: Comparison, folder: Path, *, pictures: bool = True) -> list[str]:
    """Write ``folder/index.html``, which holds everything that it shows.

    Arguments:
        comparison: see :func:`fewshot_bench.results.compare`.
        folder: made if need be; a page that is there already is replaced, nothing else is touched.
        pictures: whether to draw them.

    Returns:
        A line for each picture that could not be drawn, though its runs have what it needs.

    Raises:
        ConfigError: the folder cannot be made or written, or there is no matplotlib.
    """
    from fewshot_bench.report.gallery import gallery
    from fewshot_bench.report.page import html, page
    from fewshot_bench.results.tables import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make '{folder}' ({error.strerror}); give another folder with -o."
        ) from error
    galleries, told = gallery(comparison) if pictures else ([], [])
    text = page(comparison, galleries) if pictures else html(comparison)
    write_atomically(folder / PAGE, text, "give another folder with -o")
    return told
