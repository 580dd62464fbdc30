"""Every part of ``measure.py`` but the tests; how they are called: ``bench.py``."""

from __future__ import annotations

import correctness
import grown
import rows
import speed
from bench import main

PARTS = {
    function.__name__: function
    for function in (
        *speed.PARTS, correctness.precision, correctness.repeat, correctness.agree, rows.rows,
        grown.growth,
    )
}  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(main(PARTS))
