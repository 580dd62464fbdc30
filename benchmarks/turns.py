"""Workers: processes that time a piece of work when they are asked to, one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PEERS = Path(__file__).parent / "peers"


def peers_python() -> str | None:
    """The Python of the peers' environment, if it has been made."""
    for candidate in (".venv/bin/python", ".venv/Scripts/python.exe"):
        if (PEERS / candidate).exists():
            return str(PEERS / candidate)
    return None


class Worker:
    """A process of ``peers/worker.py``; see there for what it says.

    Arguments:
        python: that runs it; None: there is no environment for it.
        peer: whose work it does.
        item: which.
        data: file of images.
        device: where.
        small: turns of a fraction of a second.
        seconds: of a turn, in place of the worker's own.

    Attributes:
        error: why it cannot take a turn, or None.
        offered: whether the peer has this item at all.
    """

    def __init__(
        self,
        python: str | None,
        peer: str,
        item: str,
        data: Path,
        device: torch.device,
        small: bool,
        seconds: float | None = None,
    ) -> None:
        self.error: str | None = None
        self.offered = True
        if python is None:
            self.error = "not installed: run benchmarks/peers/install.py"
            return
        command = [python, str(PEERS / "worker.py"), peer, item, "--data", str(data)]
        command += ["--device", str(device), *(["--small"] if small else [])]
        command += [] if seconds is None else ["--seconds", str(seconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PEERS
        )
        answer = self._answer()
        self.error, self.offered = answer.get("error"), answer.get("offered", True)

    def turn(self) -> float:
        """Let it do its work once; units a second.

        Raises:
            RuntimeError: it failed.
        """
        assert self.process.stdin is not None
        self.process.stdin.write("turn\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return float(answer["rate"])

    def close(self) -> None:
        """End the process."""
        if hasattr(self, "process"):
            self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the worker ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            print(f"  {' '.join(self.process.args[2:4])}: {answer['error']}", file=sys.stderr)
        return answer
