"""Options of the commands that show a comparison: ``fsb compare`` and ``fsb report``."""

from __future__ import annotations

from typing import Annotated

import typer

Baseline = Annotated[
    str | None, typer.Option(help="method or run that the others are compared with, paired")
]
Interval = Annotated[
    str | None,
    typer.Option(
        help="what the ± is: student, percentile, bca, classes, hierarchical or seeds; unless "
        "given, student with one training seed and hierarchical with several",
    ),
]
Level = Annotated[
    float | None, typer.Option(help="of all intervals; unless given, that of the records")
]
Target = Annotated[
    float | None, typer.Option(help="also show the time to this validation accuracy, like 0.95")
]
Equal = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="training settings in which all rows have to be the same, as way,steps or all "
        "(docs/compare.md); methods are trained so, runs that are not are refused",
    ),
]
