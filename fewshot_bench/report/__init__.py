"""A static HTML page of finished runs: ``fsb report``, and the exporter ``html``.

Others import from here; the page is made in ``page.py`` from ``templates/``.
"""

from fewshot_bench.report.page import PAGE, write_report

__all__ = ["PAGE", "write_report"]
