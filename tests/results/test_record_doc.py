"""docs/record.md tells of the keys that records have."""

from __future__ import annotations

import re
from pathlib import Path

from fewshot_bench.results.record.schema import SCHEMA_VERSION, markdown

PAGE = Path(__file__).parents[2] / "docs" / "record.md"


def test_the_page_holds_the_table_of_the_schema() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", PAGE.read_text("utf-8"), re.MULTILINE)
    assert tables[0] == markdown()
    assert f"schema version {SCHEMA_VERSION}" in PAGE.read_text("utf-8")
