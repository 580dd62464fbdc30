"""The examples of methods pass ``mypy --strict`` as they stand, without any configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.documentation.blocks import ROOT, blocks

TEMPLATE = ROOT / "fewshot_bench/hooks/templates/method/module/method.py.in"


def examples() -> dict[str, str]:
    """{file: code} of what an author copies."""
    found = {}
    for page, names in (("README.md", "readme"), ("docs/plugins.md", "plugins")):
        code = [b for b in blocks(ROOT / page) if b.language == "python"]
        for i, block in enumerate(code):
            if "(Method)" in block.code or "def register_methods" in block.code:
                found[f"{names}_{i}.py"] = block.code
    for path in (ROOT / "docs/tutorial/first-method/first_method").glob("*.py"):
        found[f"tutorial_{path.stem}.py"] = path.read_text("utf-8")
    template = TEMPLATE.read_text("utf-8").replace("$attribute", "Mine").replace("$title", "Mine")
    return found | {"template.py": template}


def test_examples_are_typed(tmp_path: Path) -> None:
    files = examples()
    assert len(files) >= 7
    for name, code in files.items():
        (tmp_path / name).write_text(code, "utf-8")
    cache = ROOT / ".mypy_cache" / "examples"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}",
         "--follow-imports=silent", *sorted(files)],
        cwd=tmp_path, env={"PYTHONPATH": "", "MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
