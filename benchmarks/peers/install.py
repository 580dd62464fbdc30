"""Makes the peers' environment: the other few-shot libraries, each at a pinned release.

    uv run python benchmarks/peers/install.py [--into benchmarks/peers/.venv]

The environment gets the torch and torchvision of the one that runs this script, so that a
comparison compares libraries. Each peer is tried by itself, first as its authors mean it to be
installed, then by the ways that its entry in ``PEERS`` names. What came of it is written to
``installed.json`` beside this file: ``{peer: {version, how, error}}``. ``how`` is null where
nothing worked; ``error`` keeps what went wrong on the way, also where a later way worked.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
CYTHON = "cython==3.3.1"


class Failed(Exception):
    """A command failed; the message is its most telling line."""


@dataclass(frozen=True)
class Environment:
    """The folder of the environment, its Python, and a folder for what is built on the way."""

    folder: Path
    build: Path

    @property
    def python(self) -> str:
        windows = self.folder / "Scripts" / "python.exe"
        return str(windows if windows.exists() else self.folder / "bin" / "python")

    @property
    def constraints(self) -> Path:
        return self.build / "constraints.txt"

    def install(self, *arguments: str) -> None:
        """``uv pip install`` that may not touch torch."""
        uv("pip", "install", "--python", self.python, "-c", str(self.constraints), *arguments)


Way = Callable[[Environment, "Peer"], None]


@dataclass(frozen=True)
class Peer:
    """A pinned peer, and how else it may be installed.

    ``check`` is Python that runs where the peer is of use; ``needs`` are the dependencies without
    which it does not.
    """

    name: str
    release: str | None
    check: str
    needs: tuple[str, ...] = ()
    other_ways: dict[str, Way] = field(default_factory=dict)

    @property
    def requirement(self) -> str:
        return self.name if self.release is None else f"{self.name}=={self.release}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the peers into their own environment.")
    parser.add_argument("--into", type=Path, default=HERE / ".venv")
    environment = _create(parser.parse_args().into.resolve())
    outcome = {}
    for peer in PEERS:
        print(f"{peer.name}: ...", file=sys.stderr)
        outcome[peer.name] = _try(environment, peer)
        print(f"{peer.name}: {outcome[peer.name]}", file=sys.stderr)
    shutil.rmtree(environment.build)
    (HERE / "installed.json").write_text(json.dumps(outcome, indent=2) + "\n")
    return 0 if any(found["how"] for found in outcome.values()) else 1


def _create(folder: Path) -> Environment:
    """An empty environment with the torch of this one."""
    if folder.exists() and not (folder / "pyvenv.cfg").exists():
        raise SystemExit(f"{folder} is there and is no environment; name another folder")
    uv("venv", "--clear", "--python", sys.executable, str(folder))
    environment = Environment(folder, HERE / ".build")
    shutil.rmtree(environment.build, ignore_errors=True)
    environment.build.mkdir()
    # The part after "+" names a build that the registry may not have under that name.
    pins = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    environment.constraints.write_text("\n".join(pins) + "\n")
    environment.install(*pins, "numpy")
    return environment


def _try(environment: Environment, peer: Peer) -> dict[str, str | None]:
    """Install a peer by the first way that leaves something which can be imported."""
    errors = []
    for how, way in {"plain": _plain, **peer.other_ways}.items():
        try:
            way(environment, peer)
            without_shims = _check(environment, peer)
        except Failed as error:
            errors.append(f"{how}: {error}")
            continue
        if without_shims:
            errors.append(f"{how}, without shims: {without_shims}")
            how += ", with shims"
        return {"version": peer.release, "how": how, "error": "; ".join(errors) or None}
    return {"version": peer.release, "how": None, "error": "; ".join(errors)}


def _plain(environment: Environment, peer: Peer) -> None:
    environment.install(peer.requirement)


def _without_dependencies(environment: Environment, peer: Peer) -> None:
    environment.install("--no-deps", peer.requirement)
    environment.install(*peer.needs)


def _with_new_c(environment: Environment, peer: Peer) -> None:
    """Build the source release after writing its C files anew.

    The C in learn2learn's release was written by a Cython that knew nothing of Python 3.11.
    """
    environment.install(CYTHON, "setuptools", "wheel", "pip")
    download = [environment.python, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    run([*download, "--no-binary", peer.name, "--dest", str(environment.build), peer.requirement])
    [archive] = environment.build.glob(f"{peer.name}-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(environment.build, filter="data")
    folder = environment.build / archive.name.removesuffix(".tar.gz")
    for module in sorted((folder / peer.name).rglob("*.pyx")):
        run([environment.python, "-m", "cython", "-3", str(module)])
    environment.install("--no-deps", "--no-build-isolation", str(folder))
    environment.install(*peer.needs)


def _check(environment: Environment, peer: Peer) -> str | None:
    """Try the peer: None where it runs, what went wrong where it runs with the shims only."""
    try:
        run([environment.python, "-c", peer.check])
    except Failed as error:
        shims = f"import sys; sys.path.insert(0, {str(HERE)!r}); import shims; shims.apply()\n"
        run([environment.python, "-c", shims + peer.check])
        return str(error)
    return None


def uv(*arguments: str) -> None:
    """Run uv, from the path or as a module of this Python."""
    program = shutil.which("uv")
    run([*([program] if program else [sys.executable, "-m", "uv"]), *arguments])


def run(command: Sequence[str]) -> None:
    """Run a command quietly; raises Failed with the line that says why it failed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(telling_line(ended.stderr or ended.stdout))


def telling_line(output: str) -> str:
    """The line of a tool's output that names the cause: the first cause, or else the last error."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    causes = [line for line in lines if re.search(r"fatal error|error in|we can conclude", line)]
    raised = [line for line in lines if re.match(r"\w+(Error|Exception)\b", line)]
    line = causes[0] if causes else (raised or lines or ["no output"])[-1]
    line = re.sub(r" \(/\S+\)", "", line.removeprefix("cause: "))  # where on this machine
    return re.sub(r"\w+://\S+", "[address]", line)[:300]


# easyfsl's networks run on any torch; its sampler is what breaks.
TASK_SAMPLER = """
import torch
from easyfsl.datasets import FeaturesDataset
from easyfsl.samplers import TaskSampler
TaskSampler(FeaturesDataset([0, 0], torch.zeros(2, 1), ["a"]), 1, 1, 1, 1)
"""
PEERS = (
    Peer(
        "learn2learn",
        "0.2.0",
        "import learn2learn",
        needs=("numpy", "scipy", "requests", "tqdm", "gym==0.26.2"),
        other_ways={
            "without dependencies": _without_dependencies,
            "source with new C": _with_new_c,
        },
    ),
    Peer("torchopt", "0.7.3", "import torchopt"),
    Peer("higher", "0.2.1", "import higher"),
    Peer(
        "torchmeta",
        "1.8.0",
        "import torchmeta",
        needs=("numpy", "pillow", "h5py", "tqdm", "requests", "ordered-set"),
        other_ways={"without dependencies": _without_dependencies},
    ),
    Peer("easyfsl", "1.5.0", TASK_SAMPLER),
    Peer("libfewshot", None, "import core"),
)


if __name__ == "__main__":
    raise SystemExit(main())
