"""What an installer leaves beside the modules of a distribution."""

from __future__ import annotations

from pathlib import Path


def write_dist_info(site: Path, distribution: str, version: str, entry_points: str) -> None:
    """The metadata of a distribution in a folder of modules.

    Arguments:
        site: the folder; made if need be.
        distribution: its name.
        version: of it.
        entry_points: the text of ``entry_points.txt``.
    """
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, "utf-8")
    (info / "entry_points.txt").write_text(entry_points, "utf-8")
