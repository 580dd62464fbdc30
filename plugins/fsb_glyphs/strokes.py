"""Stroke programs: what the characters of an alphabet look like.

After the generative model of Lake, Salakhutdinov and Tenenbaum (Science 350, 2015), much
simplified: an alphabet has an inventory of pen movements (cubic Bezier curves); a character is a
few strokes, each of one or two movements, attached to the stroke before it or placed freely.

Only additions, multiplications and comparisons of keyed numbers are used, no library function
whose last digit depends on the platform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot_bench.rng import below, fold, key_of, uniform

STROKES = 4  # at most, per character
POINTS = 7  # control points of a stroke: two cubic curves that share one
MOVEMENTS = 6  # in the inventory of an alphabet


@dataclass(frozen=True)
class Programs:
    """Characters as control points in the unit square.

    Arguments:
        control: float64 [characters, STROKES, POINTS, 2], x to the right and y down.
        strokes: int64 [characters], how many of the strokes are drawn.
    """

    control: Tensor
    strokes: Tensor


def centered(key: Tensor, tag: str, shape: tuple[int, ...]) -> Tensor:
    """Nearly normal numbers of mean 0 and variance 1 (a sum of 4 uniform ones), at most 3.5."""
    return (uniform(key, tag, (*shape, 4), torch.float64).sum(-1) - 2.0) * 3.0**0.5


def alphabet(seed: int, name: str, size: int) -> Programs:
    """The characters of one alphabet.

    Arguments:
        seed: another seed, another script.
        name: of the alphabet; its style depends on nothing else.
        size: how many characters; the first n do not depend on it.
    """
    style = torch.tensor(key_of("glyphs alphabet", seed, name))
    own = fold(style, torch.arange(size))
    chosen = below(own, "movement", MOVEMENTS, (STROKES, 2))
    flip = _sign(own, "flip", (STROKES, 2, 1, 2), 0.2)
    scale = 0.6 + 0.6 * uniform(own, "scale", (STROKES, 2, 1, 1), torch.float64)
    curves = _inventory(style)[chosen] * flip * scale  # [size, STROKES, 2, 4, 2]
    strokes = torch.where(
        uniform(own, "double", (STROKES, 1, 1), torch.float64) < _share(style, "double", 0.1, 0.6),
        _joined(curves, _share(style, "flow", 0.0, 1.0)),
        _halved(curves[:, :, 0]),
    )
    further = uniform(own, "strokes", (STROKES - 1,), torch.float64)
    # A single straight or bent line says little: most characters have two or three strokes.
    likely = torch.stack([torch.tensor(0.9), _share(style, "busy", 0.3, 0.8), torch.tensor(0.3)])
    counts = 1 + (further < likely).cumprod(-1).sum(-1)
    return Programs(_framed(_placed(strokes, own), counts), counts)


def _inventory(style: Tensor) -> Tensor:
    """Movements of an alphabet from its style: [MOVEMENTS, 4, 2], beginning at the origin."""
    end = 2 * uniform(style, "direction", (MOVEMENTS, 2), torch.float64) - 1
    # Much handwriting goes down or to the right: many movements follow an axis.
    axis = torch.tensor([[0.08, 1.0], [1.0, 0.08]], dtype=torch.float64).repeat(MOVEMENTS // 2, 1)
    upright = uniform(style, "upright", (MOVEMENTS, 1), torch.float64) < 0.6
    end = torch.where(upright, end.sign() * axis, end)
    normal = torch.stack([-end[:, 1], end[:, 0]], dim=-1)
    bulge = _share(style, "roundness", 0.02, 0.8) * centered(style, "bulge", (MOVEMENTS, 1))
    swing = _sign(style, "swing", (MOVEMENTS, 1), 0.2)  # one in five is an S, not an arc
    inner_1 = end / 3 + normal * bulge
    inner_2 = 2 * end / 3 + normal * bulge * swing
    moves = torch.stack([torch.zeros_like(end), inner_1, inner_2, end], dim=1)
    loop = torch.tensor([[0, 0], [-1.0, 0.6], [0.9, 1.0], [0.05, 0.05]], dtype=torch.float64)
    loops = uniform(style, "loop", (2,), torch.float64) < 0.5
    moves[:2] = torch.where(loops[:, None, None], loop, moves[:2])
    return moves


def _joined(curves: Tensor, flow: Tensor) -> Tensor:
    """Two curves [..., 2, 4, 2] as one stroke; ``flow`` 1: the pen does not turn between them."""
    first, second = curves.unbind(-3)
    bend = flow * (first[..., 3, :] - first[..., 2, :]) + (1 - flow) * second[..., 1, :]
    rest = torch.stack([bend, second[..., 2, :], second[..., 3, :]], dim=-2)
    return torch.cat([first, rest + first[..., 3:, :]], dim=-2)


def _halved(curve: Tensor) -> Tensor:
    """One curve [..., 4, 2] as a stroke of two (de Casteljau's subdivision at its middle)."""
    a, b, c, d = curve.unbind(-2)
    ab, bc, cd = (a + b) / 2, (b + c) / 2, (c + d) / 2
    abc, bcd = (ab + bc) / 2, (bc + cd) / 2
    return torch.stack([a, ab, abc, (abc + bcd) / 2, bcd, cd, d], dim=-2)


def _placed(strokes: Tensor, own: Tensor) -> Tensor:
    """Move each stroke to where it begins: freely, or on the one before it."""
    anchor = below(own, "anchor", 4, (STROKES,))
    free = 2 * uniform(own, "free", (STROKES, 2), torch.float64) - 1
    placed = [strokes[:, 0]]
    for s in range(1, STROKES):
        before = placed[-1]
        candidates = torch.stack([free[:, s], before[:, 0], before[:, 3], before[:, 6]], dim=1)
        begin = candidates[torch.arange(len(own)), anchor[:, s]]
        placed.append(strokes[:, s] + begin.unsqueeze(1))
    return torch.stack(placed, dim=1)


def _framed(control: Tensor, counts: Tensor) -> Tensor:
    """Scale each character into the unit square, keeping most of its proportions."""
    drawn = torch.arange(STROKES) < counts.unsqueeze(1)
    curve = on_curve(control, 8)
    far = torch.tensor(1e9, dtype=torch.float64)
    mask = drawn[:, :, None, None]
    low = torch.where(mask, curve, far).amin((1, 2), keepdim=True)
    high = torch.where(mask, curve, -far).amax((1, 2), keepdim=True)
    extent = high - low
    # Half way between the larger extent (proportions kept) and the own one (frame filled).
    scale = torch.maximum(0.5 * (extent + extent.amax(-1, keepdim=True)), torch.tensor(0.3))
    return (control - (low + high) / 2) / scale + 0.5


def on_curve(control: Tensor, points: int) -> Tensor:
    """Points of the two curves of each stroke: [..., POINTS, 2] -> [..., 2 * points, 2]."""
    t = torch.linspace(0, 1, points, dtype=torch.float64).unsqueeze(1)
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    halves = []
    for start in (0, 3):
        own = control[..., start : start + 4, :].unsqueeze(-3)
        halves.append(sum(weights[i] * own[..., i, :] for i in range(4)))
    return torch.cat(halves, dim=-2)  # type: ignore[arg-type]


def _sign(key: Tensor, tag: str, shape: tuple[int, ...], negative: float) -> Tensor:
    """-1 with probability ``negative``, else 1."""
    return 1.0 - 2.0 * (uniform(key, tag, shape, torch.float64) < negative)


def _share(style: Tensor, tag: str, low: float, high: float) -> Tensor:
    """A number of the alphabet's style between two bounds."""
    return low + (high - low) * uniform(style, tag, (), torch.float64)
