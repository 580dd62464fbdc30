"""From nothing to a compared method, as somebody would who has only the wheel.

``uv run python tests/as_a_new_user.py`` builds the wheel, makes a fresh virtual environment with
it, and goes the whole way in an empty folder: ``fsb new``, install, ``fsb check``, the plugin's own
tests, ``fsb run`` on the built-in data set, ``fsb compare`` beside protonet. Then it types what the
tutorial says, with the tutorial's distribution.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIAL = "docs/tutorial/first-method"
SMALL = (
    "--way",
    "3",
    "--shot",
    "1",
    "--steps",
    "5",
    "--episodes",
    "10",
    "--validation-episodes",
    "4",
)


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command that has to succeed; what it printed."""
    print("$", *words, flush=True)
    # What the environment of this process has is none of the new user's.
    environ = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}
    said = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True
    )
    if said.returncode:
        sys.exit(f"{said.stdout}\n{words[0]} ended with code {said.returncode}")
    return said.stdout


def main(home: Path) -> None:
    """All of it, in an empty folder."""
    uv = ("uv",) if shutil.which("uv") else (sys.executable, "-m", "uv")
    run(*uv, "build", "--quiet", "--wheel", "--out-dir", home / "dist", ROOT, cwd=home)
    pins = run(*uv, "export", "--quiet", "--no-hashes", "--no-emit-project", cwd=ROOT)
    (home / "pins.txt").write_text(pins, "utf-8")
    run(*uv, "venv", "--quiet", "--python", sys.executable, "venv", cwd=home)
    bin_ = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = (*uv, "pip", "install", "--quiet", "--python", bin_ / "python")
    (wheel,) = (home / "dist").glob("*.whl")
    run(*install, "--constraint", "pins.txt", wheel, "pytest", cwd=home)

    fsb = bin_ / "fsb"
    where = run(bin_ / "python", "-c", "import fewshot_bench as f; print(f.__file__)", cwd=home)
    assert str(home) in where, f"the source tree is used: {where}"
    run(fsb, "new", "Nearest Mean", cwd=home)
    run(*install, "./nearest-mean", cwd=home)
    assert "nearest-mean" in run(fsb, "list", "methods", cwd=home)
    run(fsb, "check", "nearest-mean", cwd=home)
    run(bin_ / "python", "-m", "pytest", "-q", "nearest-mean", cwd=home)
    record = json.loads(run(fsb, "run", "nearest-mean", *SMALL, "--json", cwd=home))
    assert record["plugin"] == {"distribution": "nearest-mean", "version": "0.1.0"}, record[
        "plugin"
    ]
    assert record["test"]["accuracy"] > 0.4, record["test"]
    table = run(fsb, "compare", "nearest-mean", "protonet", *SMALL, cwd=home)
    print(table)
    assert "nearest-mean" in table
    assert "protonet" in table
    follow_the_tutorial(home, bin_, install)


def follow_the_tutorial(home: Path, bin_: Path, install: tuple[str | Path, ...]) -> None:
    """Type the commands of its page, in order; then the tests of its distribution."""
    shutil.copytree(ROOT / TUTORIAL, home / TUTORIAL)
    page = (ROOT / TUTORIAL).with_name("index.md").read_text("utf-8")
    typed = [shlex.split(line) for line in re.findall(r"^\$ (.*)$", page, re.MULTILINE)]
    assert ["fsb", "check", "first-method"] in typed, "the page shows no commands any more"
    said: dict[str, str] = {}
    for program, *words in typed:
        if program == "pip":
            assert words[0] == "install", words
            run(*install, *words[1:], cwd=home)
        else:
            said[words[0]] = said.get(words[0], "") + run(bin_ / program, *words, cwd=home)
    assert "first-method" in said["list"]
    assert "first-method" in said["run"]
    for row in ("first-method", "nearest-centroid", "protonet"):
        assert row in said["compare"], said["compare"]
    run(bin_ / "python", "-m", "pytest", "-q", TUTORIAL, cwd=home)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder).resolve())
