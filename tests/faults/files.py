"""Archives, images, split files and grids that are damaged, hostile, or not what they claim."""

from __future__ import annotations

import io
import random
import stat
import struct
import warnings
import zipfile
import zlib
from typing import Any

from PIL import Image

from tests.faults.fault import Fault, World

NEAREST = "run nearest-centroid IMAGES"
ZIP = f"{NEAREST} --dataset folder:a.zip"
DIRECTORY = f"{NEAREST} --dataset folder:pictures"
SPLIT = f"{DIRECTORY} --split-file"
PREDICT = "predict runs/a pictures"


def png(color: int = 0, mode: str = "L", size: tuple[int, int] = (8, 8)) -> bytes:
    """A picture of one color."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "PNG")
    return file.getvalue()


def noise() -> bytes:
    """A picture that does not pack."""
    file = io.BytesIO()
    Image.frombytes("L", (32, 32), random.Random(0).randbytes(1024)).save(file, "PNG")
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """A PNG that says that it has so many pixels a side, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def zipped(members: dict[str | zipfile.ZipInfo, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def twice() -> bytes:
    """An archive with one name twice."""
    info = zipfile.ZipInfo("a/1.png")
    return zipped({"a/1.png": png(), info: png(9)})


def link() -> bytes:
    """An archive with a symbolic link."""
    info = zipfile.ZipInfo("a/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped({info: b"/etc/passwd"})


def flipped(data: bytes, at: int, mask: int = 0xFF) -> bytes:
    """The bytes with one of them changed."""
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def encrypted() -> bytes:
    """An archive whose member says that it is encrypted."""
    data = zipped({"a/1.png": png()})
    return flipped(data, data.index(b"PK\x01\x02") + 8, 1)


def archive(data: bytes) -> Any:
    """Put it where a run reads it."""
    return lambda world: world.write("a.zip", data) and None


def pictures(extra: dict[str, str | bytes] | None = None) -> Any:
    """A folder of six classes, and further files."""

    def spoil(world: World) -> None:
        for label in "abcdef":
            for i in range(3):
                world.write(f"pictures/{label}/{i}.png", png(20 * i))
        for path, data in (extra or {}).items():
            world.write(path, data)

    return spoil


def split(name: str, text: str | bytes) -> Any:
    """The folder of pictures, and a split file."""
    return pictures({name: text})


def grid(text: str | bytes) -> Any:
    """A file of a grid."""
    return lambda world: world.write("grid.toml", text) and None


def loop(world: World) -> None:
    """A link to its own folder."""
    pictures()(world)
    (world.at / "pictures/a/again").symlink_to(world.at / "pictures")
    (world.at / "pictures/a/9.png").symlink_to(world.at / "nowhere.png")


WHOLE = {f"{label}/{i}.png": png(20 * i) for label in "abcdef" for i in range(3)}

CASES = (
    Fault("no archive", ZIP),
    Fault("an empty archive file", ZIP, archive(b"")),
    Fault("an archive that is none", ZIP, archive(b"GIF89a" * 100)),
    Fault("half an archive", ZIP, archive(zipped({**WHOLE})[:600])),
    Fault("an archive without images", ZIP, archive(zipped({"readme.txt": b"hello"}))),
    Fault("an archive member with ..", ZIP, archive(zipped({"a/../../evil.png": png()}))),
    Fault("an archive member with an absolute path", ZIP, archive(zipped({"/etc/x.png": png()}))),
    Fault("an archive member with a drive", ZIP, archive(zipped({"C:/x.png": png()}))),
    Fault("an archive member that is a link", ZIP, archive(link())),
    Fault("an archive member that is there twice", ZIP, archive(twice())),
    Fault("an encrypted archive", ZIP, archive(encrypted())),
    Fault("a zip bomb", ZIP,
          archive(zipped({"a/1.png": bytes(60 * 2**20)}, zipfile.ZIP_DEFLATED))),
    Fault("an archive member of 65 MiB", ZIP,
          archive(zipped({"a/1.png": bytes(65 * 2**20)}, zipfile.ZIP_DEFLATED))),
    Fault("an archive member whose content was changed", ZIP,
          archive(flipped(zipped({**WHOLE}), 60))),
    Fault("escape sequences in an archive member", ZIP,
          archive(zipped({"a/\x1b[2J.png": b"no image"}))),
    Fault("an image that is none", DIRECTORY, pictures({"pictures/a/0.png": "hello"})),
    Fault("half an image", DIRECTORY, pictures({"pictures/a/0.png": noise()[:400]})),
    Fault("an image of 60,000 x 60,000 pixels", DIRECTORY,
          pictures({"pictures/a/0.png": huge_png(60_000)})),
    Fault("an image that lies deeper than the others", DIRECTORY,
          pictures({"pictures/a/b/0.png": png()})),
    Fault("links that lead in a circle and nowhere (left alone)", DIRECTORY, loop, code=0, told=""),
    Fault("an empty folder of classes", DIRECTORY, lambda w: (w.at / "pictures").mkdir()),
    Fault("a split file that is not there", f"{SPLIT} no.toml", pictures()),
    Fault("a split file of bytes", f"{SPLIT} s.toml", split("s.toml", b"\xff\xfe")),
    Fault("a split file that is no TOML", f"{SPLIT} s.toml", split("s.toml", "train = [")),
    Fault("a split file with a number for a class", f"{SPLIT} s.json",
          split("s.json", '{"train": [1], "test": ["b"]}')),
    Fault("a split file nested 100,000 deep", f"{SPLIT} s.json", split("s.json", "[" * 100_000)),
    Fault("a class in two splits", f"{SPLIT} s.json",
          split("s.json", '{"train": ["a"], "test": ["a"]}')),
    Fault("a class that the data do not have", f"{SPLIT} s.csv",
          split("s.csv", "class,split\na,train\n../b,test\n")),
    Fault("a split file of a third split", f"{SPLIT} s.csv", 
          split("s.csv", "class,split\na,dev\n")),
    Fault("a grid that is no TOML", "compare grid.toml", grid("[[[")),
    Fault("a grid of bytes", "compare grid.toml", grid(b"\xff\xfe\0")),
    Fault("a grid without methods", "compare grid.toml", grid("way = 5")),
    Fault("a grid with a number for a method", "compare grid.toml",
          grid("[methods.a]\nmethod = 3")),
    Fault("a grid with a date for a way", "compare grid.toml",
          grid("way = 2020-01-01\n[methods.maml]")),
    Fault("a grid with a table for a setting", "compare grid.toml",
          grid("[methods.maml]\nsteps = {a = 1}")),
    Fault("a grid with words for seeds", "compare grid.toml", grid("seeds = 'x'\n[methods.maml]")),
    Fault("a grid nested 100,000 deep", "compare grid.toml", grid("a = " + "[" * 100_000)),
    Fault("a picture to classify that is none", f"{PREDICT} x.png",
          pictures({"x.png": "hello"}), runs="a"),
    Fault("a picture to classify that is absurdly large", f"{PREDICT} x.png",
          pictures({"x.png": huge_png(60_000)}), runs="a"),
    Fault("a picture to classify that is a folder", f"{PREDICT} pictures", pictures(), runs="a"),
)  # fmt: skip
