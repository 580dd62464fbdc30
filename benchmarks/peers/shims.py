"""What torch and torchvision have dropped, or ask for, since the peers were written.

A shim is met while a peer is imported or set up; nothing that is timed passes through one.
"""

from __future__ import annotations

from typing import Any

import torch.utils.data
import torchvision.datasets.utils


def apply() -> None:
    """Put the dropped names back. Has to run before a peer is imported."""
    _accept_data_source()
    _add_download_helpers()


def _accept_data_source() -> None:
    """``Sampler(data_source)``: easyfsl's TaskSampler still hands its base class this argument."""

    def accept(self: Any, data_source: Any = None) -> None:
        del self, data_source

    torch.utils.data.Sampler.__init__ = accept  # type: ignore[method-assign]


def _add_download_helpers() -> None:
    """Two private functions that torchmeta imports for its downloads, which are never run here."""

    def gone(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("this helper is gone from torchvision")

    for name in ("_get_confirm_token", "_save_response_content"):
        if not hasattr(torchvision.datasets.utils, name):
            setattr(torchvision.datasets.utils, name, gone)


def complete_torchmeta() -> None:
    """Give torchmeta's ``SubsetTask`` the ``__getitems__`` that torch now asks of such a class.

    Has to run after torchmeta is imported. Its loader indexes one image at a time and never calls
    it; torch only looks for it when the task is made.
    """
    from torchmeta.utils.data import SubsetTask

    def getitems(self: Any, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]

    SubsetTask.__getitems__ = getitems
