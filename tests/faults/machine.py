"""Faults of the machine: disks, folders, memory, the environment, numbers."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.faults.fault import Fault, World

MAML = (
    "run maml SMALL --steps=3 --task-batch=4 --train-way=3 --train-shot=1 --train-query=2 "
    "--backbone-channels=2"
)


@cache
def cannot_mount() -> str | None:
    """Why no file system can be mounted here; None if one can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(World(Path(folder)), "disk", "size=16k"):
                return None
        except (OSError, subprocess.CalledProcessError):
            return "this machine does not let root mount a file system"


@contextlib.contextmanager
def mounted(world: World, name: str, options: str) -> Iterator[None]:
    """A file system of its own at a folder of the world."""
    place = world.at / name
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


@contextlib.contextmanager
def _filled(world: World, name: str, room: int) -> Iterator[None]:
    with mounted(world, name, "size=64k"):
        world.write(f"{name}/.filler", bytes(64 * 1024 - room))
        yield


def full(name: str, room: int = 0) -> Any:
    """A disk for a folder that has so many bytes left."""
    return lambda world: _filled(world, name, room)


def read_only(name: str) -> Any:
    """A folder on a disk that cannot be written to."""
    return lambda world: mounted(world, name, "ro")


@contextlib.contextmanager
def _file_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def short_files(size: int) -> Any:
    """Files that may not grow beyond this size, as with a quota."""
    return lambda world: _file_limit(size)


def memory(most: int, method: str = "fsb_maml.maml:MAML") -> Callable[[World], Any]:
    """A device that holds so many tasks of a method at a time."""
    module, _, name = method.partition(":")

    def spoil(world: World) -> Any:
        kind = getattr(__import__(module, fromlist=[name]), name)
        losses = kind.losses

        def limited(self: Any, episode: Any) -> Any:
            if len(episode) * episode.query.shape[1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return losses(self, episode)

        return mock.patch.object(kind, "losses", limited)

    return spoil


def nobody(world: World) -> Any:
    """A user that the system does not know."""
    return mock.patch("pwd.getpwuid", side_effect=KeyError("no such user"))


def file_there(path: str) -> Any:
    """A file in place of a folder."""
    return lambda world: world.write(path, "") and None


CASES = (
    Fault("a file for the runs folder", "run nearest-centroid --runs-dir file/runs SMALL",
          file_there("file")),
    Fault("a full disk under the runs folder", "run protonet TRAINS", full("runs"),
          why_not=cannot_mount),
    Fault("a disk that fills up with the record", "run nearest-centroid SMALL", full("runs", 8192),
          why_not=cannot_mount),
    Fault("a disk that fills up with checkpoints", "run protonet TRAINS --checkpoint-every=1",
          full("runs", 24_000), why_not=cannot_mount),
    Fault("a full disk under the cache (the run goes on)",
          "run nearest-centroid SMALL", full("cache"), code=0, told="", why_not=cannot_mount),
    Fault("a full disk under the page", "report runs -o page --no-pictures", full("page"),
          runs="ab", why_not=cannot_mount),
    Fault("a full disk under a picture", "figure forest runs --baseline protonet -o out/x.png",
          full("out"), runs="ab", why_not=cannot_mount),
    Fault("a full disk under a table", "compare runs --format json -o out/x.json",
          full("out"), runs="ab", why_not=cannot_mount),
    Fault("a quota of 4 KiB a file", "run protonet TRAINS", short_files(4096)),
    Fault("a quota while a page is written", "report runs -o page --no-pictures",
          short_files(1024), runs="ab"),
    Fault("a read-only runs folder", "run nearest-centroid SMALL", read_only("runs"),
          why_not=cannot_mount),
    Fault("a read-only cache (the run goes on)", "run nearest-centroid SMALL",
          read_only("cache"), code=0, told="", why_not=cannot_mount),
    Fault("a read-only folder for the page", "report runs -o page --no-pictures",
          read_only("page"), runs="ab", why_not=cannot_mount),
    Fault("a read-only folder for a new plugin", "new mine --kind method --into out",
          read_only("out"), why_not=cannot_mount),
    Fault("a file in place of the cache (the run goes on)", "run nearest-centroid SMALL",
          file_there("cache"), code=0, told=""),
    Fault("a cache that was deleted (made again)", "run nearest-centroid SMALL", code=0, told=""),
    Fault("a home that is nowhere", "data list", code=0, told="",
          environment={"HOME": "/nonexistent/home", "XDG_CACHE_HOME": None}),
    Fault("no home", "run nearest-centroid SMALL", code=0, told="",
          environment={"HOME": None, "XDG_CACHE_HOME": None}),
    Fault("no home, and none that the system knows", "run nearest-centroid", nobody,
          environment={"HOME": None, "XDG_CACHE_HOME": None}),
    Fault("the home of a user who is not there",
          "run nearest-centroid --cache-dir ~nobody-is-called-so/x"),
    Fault("a terminal without UTF-8 (± becomes ?)",
          "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 fsb compare runs", code=0, told="",
          runs="ab"),
    Fault("a reader that goes away", "fsb list methods | true", code=141, told=""),
    Fault("no standard output", "fsb list methods >&-", code=0, told=""),
    Fault("a full disk behind standard output", "fsb list methods > /dev/full"),
    Fault("neither standard output nor standard error", "fsb list nothing >&- 2>&-", told=""),
    Fault("blanks and letters of other scripts in a path",
          "run nearest-centroid SMALL --runs-dir läufe␣и␣走る", code=0, told=""),
    Fault("a path of 300 letters", f"run nearest-centroid SMALL --runs-dir {'x' * 300}"),
    Fault("a folder named with an escape sequence", "compare \x1b[2J"),
    Fault("a step that is out of memory (run in chunks)", MAML + " --engine=eager",
          memory(2 * 6), code=0, told="warning: out of memory"),
    Fault("a task that is larger than the memory", MAML, memory(3)),
    Fault("not even the smallest task fits", MAML, memory(0)),
    Fault("a loss that becomes NaN", "run protonet TRAINS --lr=1e30 --steps=6", code=1),
    Fault("a loss that becomes NaN, looked into",
          "run protonet TRAINS --lr=1e30 --steps=6 --detect-anomaly", code=1),
    Fault("an inner loop that diverges", MAML + " --inner-lr=1e30", code=1),
)  # fmt: skip
