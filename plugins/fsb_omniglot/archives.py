"""The two official archives of Omniglot: their names, sums and content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewshot_bench.data import Resize, decode_image, image_members, open_zip, read_member, resize
from fewshot_bench.errors import DataError

SIDE = 105  # pixels
DRAWERS = 20  # images per character
BASE_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"


@dataclass(frozen=True)
class Part:
    """One of the two archives.

    Arguments:
        folder: its only top folder; the archive is ``folder.zip``.
        characters: how many it has.
        salt: its name in TensorFlow Datasets, see :func:`hashed_order`.
        md5: of the official archive; only a download is held against it.
        content: sha256 of paths and pixels; see :func:`read_part`.
    """

    folder: str
    characters: int
    salt: str
    md5: str
    content: str

    @property
    def file(self) -> str:
        return f"{self.folder}.zip"

    @property
    def expected(self) -> str:
        return f"the official Omniglot archive of {self.characters} characters"


BACKGROUND = Part(
    "images_background",
    964,
    "train",
    "68d2efa1b9178cc56df9314c21c6e718",
    "ae954f47c301cf0a998ff2a674d77bec131cc2d5875c23e4b05a71c3f83b0ee8",
)
EVALUATION = Part(
    "images_evaluation",
    659,
    "test",
    "6b91aef0f799c5bb55b94e3f2daec811",
    "ad219efc952d0e5baaf51522fe5d2ed61b58a315f9e4b3c17e48c1a8361abb14",
)
PARTS = (BACKGROUND, EVALUATION)
DIGEST = hashlib.sha256("\n".join(part.content for part in PARTS).encode()).hexdigest()


FileNumbers = dict[str, str]  # ``Alphabet/characterNN``: the number that its files begin with


def read_part(root: Path, part: Part) -> tuple[FileNumbers, npt.NDArray[np.uint8]]:
    """The characters, sorted, and their drawings [20 * characters, 1, 105, 105].

    Ink is 255 and paper 0. The content is checked: the sha256 over, for each image in sorted
    order, its path and its packed bits. So a re-packed archive passes and a changed pixel does not.

    Raises:
        DataError: the archive is missing, damaged, or has other content.
    """
    path = root / part.file
    sha = hashlib.sha256()
    names: list[str] = []
    paper = []
    with open_zip(path, part.expected) as archive:
        for info in image_members(archive, (".png",)):
            bits = decode_image(read_member(archive, info), f"{path}:{info.filename}", "1")
            if bits.shape != (1, SIDE, SIDE):
                _, height, width = bits.shape
                raise DataError(
                    f"'{path}': {info.filename} has {width} x {height} pixels; expected "
                    f"{SIDE} x {SIDE} as in {part.expected}."
                )
            sha.update(info.filename.encode())
            sha.update(np.packbits(bits).tobytes())
            names.append(info.filename.removeprefix(f"{part.folder}/"))
            paper.append(bits)
    characters: FileNumbers = {}
    for name in names:
        character, _, file = name.rpartition("/")
        characters[character] = file.partition("_")[0]
    if sha.hexdigest() != part.content:
        raise DataError(
            f"'{path}': content sha256 {sha.hexdigest()[:12]}.. of {len(names)} images of "
            f"{len(characters)} characters; expected {part.content[:12]}.. of "
            f"{part.characters * DRAWERS} images of {part.characters} characters. The file is "
            "damaged or another one; remove it and type: fsb data prepare omniglot"
        )
    return characters, (1 - np.stack(paper)) * np.uint8(255)


def read_all(root: Path, size: int, mode: Resize) -> tuple[FileNumbers, npt.NDArray[np.uint8]]:
    """All 1623 characters, background first, and their drawings [32460, 1, size, size]."""
    characters: FileNumbers = {}
    drawings = []
    for part in PARTS:
        own, images = read_part(root, part)
        characters |= own
        drawings.append(resize(images, size, mode))
    return characters, np.concatenate(drawings)


def hashed_order(characters: FileNumbers) -> npt.NDArray[np.int64]:
    """The place of each of the 32460 drawings in the order in which TensorFlow Datasets has them.

    It shuffles the examples of a split once, when it prepares them: by the md5 of the split's name
    and the example's key, which is the alphabet, the number of the character in it (from 0) and
    the name of the file. Of drawings of both archives, the lower hash comes first, too.

    Arguments:
        characters: all of them, as :func:`read_all` gives them.
    """
    hashes = []
    for i, (character, number) in enumerate(characters.items()):
        part = BACKGROUND if i < BACKGROUND.characters else EVALUATION
        alphabet, _, name = character.partition("/character")
        for drawer in range(1, DRAWERS + 1):
            key = f"{part.salt}{alphabet}_{int(name) - 1}_{number}_{drawer:02}.png"
            hashes.append(hashlib.md5(key.encode(), usedforsecurity=False).digest())
    place = np.empty(len(hashes), np.int64)
    place[sorted(range(len(hashes)), key=hashes.__getitem__)] = np.arange(len(hashes))
    return place
