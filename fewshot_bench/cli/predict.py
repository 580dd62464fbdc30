"""``fsb predict RUN SUPPORT IMAGE...``."""

from __future__ import annotations

import json as json_
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from fewshot_bench.cli.evaluate import Run, Trust
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.text import printable

MODES = ("nearest", "bilinear", "antialias")


def predict(
    run: Run,
    support: Annotated[
        Path,
        typer.Argument(
            help="a folder per class, with images of it", metavar="SUPPORT_DIR", show_default=False
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(help="PNG or JPEG files", metavar="IMAGE...", show_default=False),
    ],
    resize: Annotated[str, typer.Option(help=", ".join(MODES))] = "antialias",
    invert: Annotated[bool, typer.Option("--invert", help="exchange black and white")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
    trust_code: Trust = False,
) -> None:
    """Classify your own pictures with a trained run.

    The folders are the classes, their pictures the support set; each IMAGE gets a class and its
    probability, the softmax of the method's logits.
    """
    if resize not in MODES:
        raise ConfigError(f"--resize {resize}: it is one of {', '.join(MODES)}.")
    from fewshot_bench.runs.predict import classify

    logging.getLogger("fewshot_bench").setLevel(logging.WARNING)  # the answers are the output

    with redirect_stdout(sys.stderr):  # standard output is for results
        found = classify(
            run,
            support,
            images,
            mode=resize,  # type: ignore[arg-type]
            invert=invert,
            device=device,
            trust_code=trust_code,
        )
    best = found.probabilities.max(-1)
    answers = [
        {
            "image": str(image),
            "class": found.classes[int(place)],
            "probability": float(value),
            "probabilities": dict(zip(found.classes, row.tolist(), strict=True)),
        }
        for image, place, value, row in zip(
            images, best.indices, best.values, found.probabilities, strict=True
        )
    ]
    if json:
        typer.echo(json_.dumps({"shot": found.shot, "predictions": answers}, indent=1))
        return
    _show(answers)
    for note in found.notes:
        typer.echo(f"Note: {note}.", err=True)
    if found.left_out:
        note = f"{found.shot} images of each class were used; {found.left_out} were left out"
        typer.echo(f"Note: {note}, because a class has no more.", err=True)
    if found.squashed:
        note = f"{found.squashed} images have other proportions than the run's and were squashed"
        typer.echo(f"Note: {note}; crop them yourself to keep theirs.", err=True)
    if found.transductive:
        typer.echo("Note: the method is transductive: the images were seen together.", err=True)


def _show(answers: list[dict[str, object]]) -> None:
    from rich.table import Table

    from fewshot_bench.cli._console import screen

    table = Table(box=None, pad_edge=False)
    for column in ("image", "class", "probability"):
        table.add_column(column, overflow="fold")
    for answer in answers:
        cells = (str(answer["image"]), str(answer["class"]))
        table.add_row(*map(printable, cells), f"{answer['probability']:.3f}")
    screen().print(table)
