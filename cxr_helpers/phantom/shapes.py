"""Seeds, soft steps, smooth curves and noise that anatomy and findings are drawn with.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
"""

from __future__ import annotations

import functools

import numpy as np

FINE = 4096  # entries of a table without interpolation between them


def seeded(*key: int) -> np.random.Generator:
    """The generator of one place in the tree of seeds.

    >>> bool(seeded(0, 1, 2).uniform() == seeded(0, 1, 2).uniform())
    True
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(k) for k in key])))


def smooth_step(x: np.ndarray) -> np.ndarray:
    """A soft step: 0 below -1, 1 above 1.

    >>> smooth_step(np.array([-2.0, 0.0, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    t = 0.5 * x
    t += 0.5
    np.clip(t, 0, 1, out=t)
    step = -2 * t
    step += 3
    np.square(t, out=t)
    step *= t
    return step


def softplus(x: np.ndarray) -> np.ndarray:
    """Logarithm of 1 + exp(x); several times faster in float32 than `np.logaddexp`.

    >>> softplus(np.array([-50.0, 50.0])).round(3).tolist()
    [0.0, 50.0]
    """
    return np.maximum(x, 0) + np.log(1 + np.exp(-np.abs(x)))


def fourth_power(x: np.ndarray) -> np.ndarray:
    """Fourth power of x, faster than `**`.

    >>> int(fourth_power(3))
    81
    """
    return np.square(np.square(x))


def ball(x2: np.ndarray) -> np.ndarray:
    """Square root of 1 - x2, zero outside: the thickness of a ball from the squared distance.

    >>> ball(np.array([0.0, 1.0, 4.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    return np.sqrt(np.maximum(1 - x2, 0))


def upsample(grid: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Smooth interpolation of a coarse grid (h, w) to (H, W).

    >>> upsample(np.array([[0.0, 1.0]]).repeat(2, axis=0), (2, 3)).round(2)[0].tolist()
    [0.0, 0.5, 1.0]
    """
    out = grid.astype(np.float32)
    for axis, n in enumerate(hw):
        low, weight = _between(out.shape[axis], n)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        a, b = np.take(out, low, axis, mode="clip"), np.take(out, low + 1, axis, mode="clip")
        b -= a
        b *= weight
        a += b
        out = a
    return out


@functools.lru_cache(maxsize=256)
def _between(nodes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `n` places along `nodes` nodes: the node before, and the next one's weight."""
    at = np.linspace(0, nodes - 1.001, n, dtype=np.float32)
    low = at.astype(np.intp)
    weight = at - low
    return low, (weight * weight * (3 - 2 * weight)).astype(np.float32)


def smooth_curve(knots, values, grid: np.ndarray, smooth: int = 9) -> np.ndarray:
    """A smooth curve near the knots, on an even grid; constant beyond the first and the last.

    >>> smooth_curve([0, 1], [5, 5], np.linspace(-1, 2, 20)).max().round(3).item()
    5.0
    """
    window = np.hanning(smooth + 2)[1:-1]
    line = np.pad(np.interp(grid, knots, values), smooth // 2, mode="reflect", reflect_type="odd")
    return np.convolve(line, window / window.sum(), mode="valid")


def fractal(rng: np.random.Generator, hw: tuple[int, int], first: int, octaves: int, fall=0.6):
    """Smooth noise of several scales, mean 0 and standard deviation about 1.

    >>> fractal(seeded(0), (8, 8), 3, 2).shape
    (8, 8)
    """
    out = np.zeros(hw, np.float32)
    total = 0.0
    for octave in range(octaves):
        n = first * 2**octave + 1
        gain = fall**octave
        out += gain * upsample(rng.standard_normal((n, n), dtype=np.float32), hw)
        total += gain**2
    return out / np.float32(np.sqrt(total) * 0.75)


def fine_table(table: np.ndarray) -> np.ndarray:
    """The table at so many entries that its values can be looked up without interpolation.

    >>> fine_table(np.array([0.0, 1.0])).shape
    (4096,)
    """
    at = np.linspace(0, len(table) - 1, FINE)
    return np.interp(at, np.arange(len(table)), table).astype(np.float32)


def table_places(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Entries of a fine table that runs evenly from `low` to `high`.

    >>> table_places(np.array([-9.0, 0.0, 1.0]), 0.0, 1.0).tolist()
    [0, 0, 4095]
    """
    places = at * ((FINE - 1) / (high - low))
    places += 0.5 - low * ((FINE - 1) / (high - low))
    np.clip(places, 0, FINE - 1, out=places)
    return places.astype(np.intp)


def look_up(table: np.ndarray, at: np.ndarray, low: float, high: float) -> np.ndarray:
    """The table's value at `at`; its entries lie evenly from `low` to `high`.

    >>> look_up(np.array([0.0, 2.0]), np.array([0.5]), 0.0, 1.0).round(2).tolist()
    [1.0]
    """
    return np.take(fine_table(table), table_places(at, low, high), mode="clip")
