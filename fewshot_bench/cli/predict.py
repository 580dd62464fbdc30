"""``fsb predict RUN SUPPORT IMAGE...``."""

import json as json_
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from fewshot_bench.cli._console import screen, table_of
from fewshot_bench.cli.evaluate import Run, Trust
from fewshot_bench.errors import ConfigError
from fewshot_bench.utils.text import printable

MODES = ("nearest", "bilinear", "antialias")
FOLDERS = "a folder per class, with images of it"


def predict(
    run: Run,
    support: Annotated[
        Path, typer.Argument(help=FOLDERS, metavar="SUPPORT_DIR", show_default=False)
    ],
    images: Annotated[
        list[Path], typer.Argument(help="PNG or JPEG files", metavar="IMAGE...", show_default=False)
    ],
    resize: Annotated[str, typer.Option(help=", ".join(MODES))] = "antialias",
    invert: Annotated[bool, typer.Option("--invert", help="exchange black and white")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
    trust_code: Trust = False,
) -> None:
    """Classify your own images with a trained run.

    The folders are the classes, their images the support set; each IMAGE gets a class and its
    probability, the softmax of the method's logits.
    """
    if resize not in MODES:
        raise ConfigError(f"--resize {resize}: it is one of {', '.join(MODES)}.")
    from fewshot_bench.runs.predict import classify

    logging.getLogger("fewshot_bench").setLevel(logging.WARNING)  # the answers are the output
    how: dict[str, Any] = {"mode": resize, "invert": invert, "device": device}
    with redirect_stdout(sys.stderr):  # standard output is for results
        found = classify(run, support, images, trust_code=trust_code, **how)
    answers, rows, notes = [], [], found.notes
    for image, row in zip(map(str, images), found.probabilities.tolist(), strict=True):
        shares = dict(zip(found.classes, row, strict=True))
        best = max(found.classes, key=shares.__getitem__)
        answer = {"image": image, "class": best, "probability": shares[best]}
        answers.append({**answer, "probabilities": shares})
        rows.append((printable(image), printable(best), f"{shares[best]:.3f}"))
    if json:
        typer.echo(json_.dumps({"shot": found.shot, "predictions": answers}, indent=1))
        return
    screen().print(table_of(("image", "class", "probability"), rows, "fold"))
    if found.left_out:
        used = f"{found.shot} images of each class were used; {found.left_out} were left out"
        notes.append(f"{used}, because a class has no more")
    if found.squashed:
        shape = f"{found.squashed} images have other proportions than the run's and were squashed"
        notes.append(f"{shape}; crop them yourself to keep theirs")
    if found.transductive:
        notes.append("the method is transductive: the images were seen together")
    for note in notes:
        typer.echo(f"Note: {note}.", err=True)
