"""A phantom of the frontal chest radiograph: synthetic images in which the findings are known.

An image is made as a radiograph is. A patient's anatomy is drawn once (`draw_patient`); each image
draws its own acquisition (`draw_acquisition`); `render` computes thickness maps in centimeters
(soft tissue, lung, bone, metal), attenuates the beam through them (Beer-Lambert), adds scatter,
quantum noise and blur, and applies a site's processing. Findings (`draw_lesion`) change the
thickness maps, and their boxes are measured on the change that they make.

Coordinates: centimeters in the detector plane, x to the right of the image (the patient's left),
y down, origin at the midline and the height of the lung apices. `u` runs from the medial (0) to
the lateral (1) border of a lung and `f` from its apex (0) to its lateral base (1).
All boxes are `(x_min, y_min, x_max, y_max)` in pixels.

What it is not: the shapes are plausible, not measured, the physics is that of one effective photon
energy, and no clinical conclusion may be drawn from it.

Source: lung outlines follow a statistical shape model, the mean and six principal components of
362 lung outlines in the V7 Labs masks of the COVID-19 image data collection (Cohen et al., 2020,
arXiv 2006.11988; semantic_masks_v7labs_lungs.zip of the package torchxrayvision). Outlines were
sampled at the heights `_LATERAL_AT`, `_MEDIAL_AT` and the columns `_DOME_AT`, in units of the mean
lung height.

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, scipy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

SITES = ("nih", "vindr")

FINDINGS = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Hernia",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumonia",
    "Pneumothorax",
    "Pulmonary fibrosis",
)

# Effective attenuation per cm near 60 keV: water, aerated lung, cortical bone, steel.
# Source: NIST XCOM, rounded; lung is water of a quarter of the density.
MU_SOFT, MU_LUNG, MU_BONE, MU_METAL = 0.20, 0.055, 0.58, 6.0

_LATERAL_AT = (0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.93, 0.985)
_MEDIAL_AT = (0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
_DOME_AT = (0.06, 0.18, 0.30, 0.42, 0.54, 0.66, 0.78, 0.88, 0.96)

# Mean, then six components times their standard deviations, in thousandths of the lung height; in
# each row the right lung, then the left: apex, height, lateral x, medial x, dome (of own height).
_SHAPE = (
    np.array(
        """
1 978 301 371 441 505 544 569 587 602 616 630 627 600 118 90 83 84 90 96 103 108 116 720 892 890
874 868 875 899 939 980
-1 1022 321 397 464 524 558 582 599 612 627 639 626 557 131 100 90 89 91 94 98 100 104 801 926
917 902 895 898 915 944 973
-1 -9 47 53 58 66 74 79 84 87 88 90 77 63 21 16 13 12 12 12 13 15 15 24 16 15 9 4 -1 -4 -5 -1
1 9 46 53 59 68 77 81 86 89 92 92 93 59 20 16 15 13 12 12 12 12 12 26 11 10 7 4 2 -1 -3 -2
7 2 10 9 5 4 4 3 2 0 -5 -9 -11 6 12 12 11 7 2 -3 -8 -12 -16 171 13 -8 -5 -1 1 3 5 -1
-7 -2 -9 -6 -6 -3 0 4 9 14 17 16 -15 -85 -13 -12 -10 -6 -2 1 5 10 13 -94 13 16 8 -1 -8 -13 -17
-14
3 6 -5 -7 -6 -7 -8 -10 -13 -15 -16 -16 0 12 2 4 4 2 1 -2 -3 -5 -6 51 -7 -8 -3 1 4 5 5 3
-3 -6 -13 -11 -11 -12 -12 -11 -9 -7 -4 5 56 152 -6 -6 -5 -3 -1 1 2 3 5 -56 -14 -5 2 6 10 13 15
22
1 -3 5 2 2 2 2 2 0 1 -1 -3 -34 -64 0 1 0 -1 -2 -3 -4 -5 -7 72 34 23 18 14 9 4 -2 -7
-1 3 4 3 2 0 -1 -3 -3 -4 -5 -5 13 18 0 0 1 1 -1 -4 -6 -7 -10 110 10 4 5 7 9 9 9 8
0 -3 -14 -13 -10 -7 -5 -4 -4 -3 -2 1 54 114 -4 -3 -2 -2 -2 -2 -3 -3 -5 33 -3 -1 3 6 9 11 12 19
0 3 -13 -13 -10 -10 -10 -10 -10 -10 -10 -9 -15 -3 -4 -2 -2 -2 -2 -3 -4 -5 -6 60 8 3 6 6 5 3 2 1
-1 -12 -13 -16 -16 -11 -8 -5 -4 -5 -6 -8 9 0 1 0 0 -1 0 2 3 3 -3 -20 41 47 45 41 36 27 16 2
1 12 -6 -5 -3 2 5 6 8 9 9 9 14 -10 3 2 2 1 0 0 2 2 4 -25 12 15 14 13 12 10 7 1
""".split(),
        dtype=np.float64,
    ).reshape(7, 2, 32)
    / 1000
)

_DOME_MEAN = _SHAPE[0, :, 23:].mean(0)

# 5 x 7 letters for burnt-in marks, one number per row, most significant bit on the left.
_GLYPHS = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 25, 25, 21, 19, 19, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "^": (4, 14, 31, 4, 4, 4, 4),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


@dataclass(frozen=True)
class Patient:
    """Anatomy that persists across a patient's images; lengths in cm.

    `age` is in years; `depth` is the thickness of the chest from front to back, `fat` that of the
    fat around it. `outline` is (2, 32): for the right and the left lung the numbers of the shape
    model, in cm, but for the domes, which are in lung heights. `tree` is (points, 5): x, y, radius,
    length and side (-1 right lung, 1 left) of the vessels' pieces. `traits` are the other numbers
    that `draw_patient` draws, by name.
    """

    number: int
    sex: str
    age: float
    lung_height: float
    depth: float
    fat: float
    outline: np.ndarray
    tree: np.ndarray
    traits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesion:
    """One finding: where it is (`side` -1 right lung, 1 left; `u`, `f`), how large, how dense.

    `width` and `height` are in cm. `severity` runs from 0 (barely visible) to 1 (obvious). `seed`
    is that of the finding's own shape.
    """

    name: str
    side: int
    u: float
    f: float
    width: float
    height: float
    severity: float
    seed: int


@dataclass(frozen=True)
class Acquisition:
    """How one image is taken: `image_hw` pixels over `field_cm` cm, both (height, width).

    `seed` holds the number of the image among its patient's. `traits` are the other numbers that
    `draw_acquisition` draws, by name.
    """

    site: str
    view: str
    image_hw: tuple[int, int]
    field_cm: tuple[float, float]
    seed: int
    traits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """The box of a drawn finding: `xyxy` is x_min, y_min, x_max, y_max in pixels.

    `contrast` is the mean change that the finding makes where it exceeds 0.3 of its peak, in cm of
    soft tissue; these pixels do not fill the box, and some may lie outside it.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    contrast: float


@dataclass(frozen=True)
class Radiograph:
    """A finished image: `pixels` float32 (H, W) in [0, 1], bright is dense; `boxes` per lesion.

    `boxes[i]` belongs to the i-th lesion given to `render` and is None where it left no trace.
    `maps` holds the thickness maps in cm and the detector signal when asked for.
    """

    pixels: np.ndarray
    boxes: tuple[Box | None, ...]
    maps: dict[str, np.ndarray] = field(default_factory=dict)


def _rng(*key: int) -> np.random.Generator:
    """The generator of one place in the tree of seeds."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(k) for k in key])))


# --- patients ------------------------------------------------------------------------------------


def draw_patient(seed: int, number: int, *, sex: str, age: float) -> Patient:
    """Draw the anatomy of patient `number`.

    Args:
        seed: of the whole data set.
        number: of the patient; the same seed and number give the same patient.
        sex: 'M' or 'F'.
        age: in years; below 16 the thorax is smaller.

    Raises:
        ValueError: for another sex or an age outside 0 to 120.

    >>> draw_patient(0, 7, sex="F", age=50).lung_height == draw_patient(0, 7, sex="F",
    ...     age=50).lung_height
    True
    """
    if sex not in ("M", "F"):
        raise ValueError(f"sex is {sex!r}; expected 'M' or 'F'")
    if not 0 <= age <= 120:
        raise ValueError(f"age is {age!r}; expected years from 0 to 120")
    rng = _rng(seed, 1, number)
    grown = min(1.0, 0.42 + 0.58 * age / 16)
    height = grown * (28.9 if sex == "M" else 26.1) * rng.normal(1, 0.07)
    modes = np.clip(rng.normal(size=6) * 1.6, -2.8, 2.8)
    shape = _SHAPE[0] + np.tensordot(modes, _SHAPE[1:], 1)
    wide = rng.normal(0.82, 0.05)
    outline = shape * height
    outline[:, 2:23] *= wide
    outline[:, 23:] = shape[:, 23:]  # domes stay fractions of the lung's height
    fat = grown * min(0.4 + rng.gamma(1.4, 1.35 if sex == "M" else 1.65), 7.0)
    depth = grown * (17.0 if sex == "M" else 15.5) * rng.normal(1, 0.08) + 1.6 * fat
    lateral = float(outline[:, 2:14].max())
    traits = {
        "heart": float(np.clip(rng.normal(0.45, 0.05) + 0.0008 * max(age - 40, 0), 0.36, 0.56)),
        "heart_tilt": rng.uniform(0.45, 0.85),
        "knob": rng.normal(1.45, 0.15) + 0.008 * max(age - 40, 0),
        "unfold": rng.normal(0.0, 0.25) + 0.015 * max(age - 50, 0),
        "mediastinum": rng.normal(2.5, 0.25) + 0.12 * fat,
        "rib_space": rng.normal(0.106, 0.006),
        "rib_drop": rng.normal(0.21, 0.045),
        "rib_front": rng.normal(0.30, 0.06),
        "rib_size": grown * rng.normal(0.62, 0.06),
        "rib_first": rng.normal(-0.03, 0.012),
        "bone": (1.0 if sex == "M" else 0.85)
        * rng.normal(1, 0.12)
        * (1 - 0.004 * max(age - 55, 0)),
        "clavicle_y": rng.normal(0.075, 0.03),
        "clavicle_slope": rng.normal(0.12, 0.07),
        "shoulder": lateral + grown * rng.normal(5.2 if sex == "M" else 4.2, 0.6),
        "neck": grown * rng.normal(6.2 if sex == "M" else 5.3, 0.5) + 0.25 * fat,
        "scoliosis": rng.normal(0, 0.35),
        "vertebra": height * rng.normal(0.098, 0.004),
        "spine": grown * rng.normal(1.75, 0.12),
        "breast": min(
            float(sex == "F" and age > 12) * rng.gamma(4.0, 0.9) * (0.7 + 0.2 * fat), 7.0
        ),
        "breast_f": rng.normal(0.66, 0.08),
        "breast_x": rng.normal(0.60, 0.05),
        "dome": float(np.clip(rng.normal(0.20, 0.045), 0.09, 0.32)),
        "dome_peak": rng.uniform(0.30, 0.52),
        "dome_round": rng.uniform(1.8, 2.8),
        "dome_right": rng.normal(-0.005, 0.015),
        "dome_left": rng.normal(0.02, 0.02),
        "texture": rng.gamma(6.0, 1 / 6),
        "bubble": rng.uniform(),
        "bowel": rng.uniform(),
        "markings": rng.normal(1.0, 0.18) + 0.004 * max(age - 40, 0),
        "pacemaker": rng.uniform(),
        "wires": rng.uniform(),
        "grown": grown,
    }
    tree = _draw_tree(rng, outline, height)
    return Patient(number, sex, age, height, depth, fat, outline, tree, traits)


def _draw_tree(rng: np.random.Generator, outline: np.ndarray, height: float) -> np.ndarray:
    """Branching, tapering vessels from both hila, all branches of a generation at once."""
    parts = []
    for index, side in enumerate((-1, 1)):
        reach = outline[index, 2:14].max()
        n = 9
        angle = np.linspace(-1.15, 1.5, n) + rng.normal(0, 0.12, n)  # up to down; 0 is lateral
        start = np.array([3.0, (0.40 if side < 0 else 0.36) * height])
        xy = np.repeat(start[None], n, 0) + rng.normal(0, 0.35, (n, 2)) * (0.6, 1.6)
        radius = rng.uniform(0.26, 0.44, n) * height / 24
        length = (0.30 * reach + 0.09 * height * np.abs(np.sin(angle))) * rng.uniform(0.7, 1.2, n)
        for generation in range(6):
            n = max(5, round(36 * 0.68**generation))  # points along a branch; twigs are short
            t = np.linspace(0, 1, n)[None, :]
            bend = rng.normal(0, 0.6, len(angle))
            heading = angle[:, None] + bend[:, None] * (t - 0.5)
            step = length[:, None] / (n - 1)
            x = xy[:, :1] + np.cumsum(np.cos(heading) * step, 1)
            y = xy[:, 1:] + np.cumsum(np.sin(heading) * step, 1)
            r = radius[:, None] * (1 - 0.22 * t)
            flat = [side * x, y, r, np.broadcast_to(step, x.shape), np.full(x.shape, side)]
            parts.append(np.stack([a.ravel() for a in flat], 1))
            ends = np.stack([x[:, -1], y[:, -1]], 1)
            mids = np.stack([x[:, n // 2], y[:, n // 2]], 1)
            spread = rng.uniform(0.25, 0.6, (3, len(angle)))
            angle = np.concatenate(
                [angle + spread[0], angle - spread[1], angle + np.sign(bend) * (0.4 + spread[2])]
            )
            xy = np.concatenate([ends, ends, mids])
            shrink = rng.uniform(0.62, 0.82, len(angle))
            shrink[2 * len(ends) :] *= 0.72
            radius = np.tile(radius, 3) * shrink
            length = np.tile(length, 3) * rng.uniform(0.55, 0.85, len(angle))
            keep = (radius > 0.045) & (xy[:, 0] > 1.0) & (xy[:, 0] < reach)
            keep &= (xy[:, 1] > 0) & (xy[:, 1] < height)
            angle, xy, radius, length = angle[keep], xy[keep], radius[keep], length[keep]
            if not len(angle):
                break
    return np.concatenate(parts).astype(np.float32)


# --- acquisition ---------------------------------------------------------------------------------


def draw_acquisition(
    seed: int,
    number: int,
    image: int,
    *,
    site: str,
    view: str,
    image_hw: tuple[int, int],
    field_cm: tuple[float, float],
) -> Acquisition:
    """Draw how image `image` of patient `number` is taken.

    Args:
        seed: of the whole data set.
        number: of the patient.
        image: counts the patient's images.
        site: 'nih' or 'vindr'; the processing differs.
        view: 'PA' or 'AP'; AP stands for a portable, often supine image.
        image_hw: pixels, height and width.
        field_cm: what the detector covers in cm, height and width.

    Raises:
        ValueError: for an unknown site or view, or a size that is not positive.
    """
    if site not in SITES:
        raise ValueError(f"site is {site!r}; expected one of {', '.join(SITES)}")
    if view not in ("PA", "AP"):
        raise ValueError(f"view is {view!r}; expected 'PA' or 'AP'")
    if min(*image_hw, *field_cm) <= 0:
        raise ValueError(f"image_hw {image_hw} and field_cm {field_cm} must be positive")
    rng = _rng(seed, 2, number, image)
    ap, nih = view == "AP", site == "nih"
    traits = {
        "zoom": (rng.normal(0.97, 0.10) if ap else rng.normal(1.02, 0.05)),
        "tilt": rng.normal(0, 0.055 if ap else 0.02),
        "shift_x": rng.normal(0, 2.0 if ap else 1.0),
        "shift_y": rng.normal(2.0, 2.0 if ap else 1.4),
        "rotation": rng.normal(0, 1.8 if ap else 0.7),
        "lordosis": rng.normal(0.035 if ap else 0.0, 0.02),
        "inspiration": float(
            np.clip(rng.normal(0.86 if ap else 0.98, 0.07 if ap else 0.04), 0.66, 1.06)
        ),
        "heart": 1.09 if ap else 1.0,
        "scapula": rng.uniform(0.0, 0.35) if not ap else rng.uniform(0.35, 1.0),
        "arms": rng.normal(2.2, 1.2) if ap else rng.normal(4.0, 1.8),
        "shrug": rng.uniform(-2.2, 0.6) if ap else rng.uniform(-0.5, 1.2),
        "supine": float(ap and rng.uniform() < 0.6),
        "haze": rng.gamma(1.3, 2.2) if ap else rng.gamma(0.8, 0.6),
        "haze_side": rng.normal(0, 0.6),
        "gradient_x": rng.normal(0, 0.20 if ap else 0.08),
        "gradient_y": rng.normal(0, 0.30 if ap else 0.12),
        "dose": float(np.exp(np.clip(rng.normal(12.0 if ap else 12.6, 0.5), 10.8, 14.0))),
        "scatter": rng.uniform(0.8, 2.2) if ap else rng.uniform(0.4, 1.2),
        "grain": rng.uniform(0.4, 1.0),
        "local": rng.uniform(0.1, 0.4) if nih else rng.uniform(0.2, 0.5),
        "sharpen": rng.uniform(0.0, 0.4) if ap else rng.uniform(0.1, 0.9),
        "lung_gray": float(np.clip(rng.normal(0.44 if ap else 0.40, 0.13), 0.12, 0.70)),
        "contrast": float(np.clip(rng.normal(0.29 if ap else 0.43, 0.09), 0.12, 0.62)),
        "blur": rng.uniform(0.5, 0.85) if ap else rng.uniform(0.4, 0.65),
        "readout": rng.uniform(0.0, 0.002),
        "top_gray": rng.uniform(0.80, 0.96) if ap else rng.uniform(0.86, 1.02),
        "toe": rng.uniform(0.5, 1.4),
        "outer": rng.uniform(),
        "border": rng.uniform(),
        "chin": rng.uniform() * (1.0 if ap else 4.0),
    }
    if not nih:
        traits["lung_gray"] -= 0.12
        traits["contrast"] += 0.12
    return Acquisition(site, view, tuple(image_hw), tuple(field_cm), int(image), traits)


# --- geometry ------------------------------------------------------------------------------------


def _smooth(x: np.ndarray) -> np.ndarray:
    """A soft step: 0 below -1, 1 above 1."""
    t = 0.5 * x
    t += 0.5
    np.clip(t, 0, 1, out=t)
    step = -2 * t
    step += 3
    np.square(t, out=t)
    step *= t
    return step


def _softplus(x: np.ndarray) -> np.ndarray:
    """Logarithm of 1 + exp(x); several times faster in float32 than `np.logaddexp`."""
    return np.maximum(x, 0) + np.log(1 + np.exp(-np.abs(x)))


def _fourth(x: np.ndarray) -> np.ndarray:
    """Fourth power of x, faster than `**`."""
    return np.square(np.square(x))


def _dome(x2: np.ndarray) -> np.ndarray:
    """Square root of 1 - x2, zero outside."""
    return np.sqrt(np.maximum(1 - x2, 0))


def _upsample(grid: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Smooth interpolation of a coarse grid (h, w) to (H, W)."""
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


def _curve(knots, values, grid: np.ndarray, smooth: int = 9) -> np.ndarray:
    """A smooth curve near the knots, on an even grid; constant beyond the first and the last."""
    window = np.hanning(smooth + 2)[1:-1]
    line = np.pad(np.interp(grid, knots, values), smooth // 2, mode="reflect", reflect_type="odd")
    return np.convolve(line, window / window.sum(), mode="valid")


def _fractal(rng: np.random.Generator, hw: tuple[int, int], first: int, octaves: int, fall=0.6):
    """Smooth noise of several scales, mean 0 and standard deviation about 1."""
    out = np.zeros(hw, np.float32)
    total = 0.0
    for octave in range(octaves):
        n = first * 2**octave + 1
        gain = fall**octave
        out += gain * _upsample(rng.standard_normal((n, n), dtype=np.float32), hw)
        total += gain**2
    return out / np.float32(np.sqrt(total) * 0.75)


def _fine(table: np.ndarray) -> np.ndarray:
    """The table at so many entries that its values can be looked up without interpolation."""
    at = np.linspace(0, len(table) - 1, _FINE)
    return np.interp(at, np.arange(len(table)), table).astype(np.float32)


def _places(at: np.ndarray, low: float, high: float) -> np.ndarray:
    """Entries of a fine table that runs evenly from `low` to `high`."""
    places = at * ((_FINE - 1) / (high - low))
    places += 0.5 - low * ((_FINE - 1) / (high - low))
    np.clip(places, 0, _FINE - 1, out=places)
    return places.astype(np.intp)


def _look(table: np.ndarray, at: np.ndarray, low: float, high: float) -> np.ndarray:
    """The table's value at `at`; its entries lie evenly from `low` to `high`."""
    return np.take(_fine(table), _places(at, low, high), mode="clip")


_FINE = 4096  # entries of a table without interpolation between them
Window = tuple[slice, slice]


def _fit(patient: Patient, field_cm: tuple[float, float]) -> float:
    """How far collimation brings the lungs of this patient to the usual share of the image."""
    width = float(sum(o[2:14].max() for o in patient.outline))
    share = max(patient.lung_height / field_cm[0], width / field_cm[1]) / 0.78
    return share**-0.75


class _Scene:
    """Pixel coordinates of one image, and the thickness maps (cm) that are being filled."""

    def __init__(self, patient: Patient, acquisition: Acquisition):
        self.p, self.a = patient, acquisition
        self.t = {**patient.traits}
        self.q = acquisition.traits
        h, w = self.hw = acquisition.image_hw
        field_h, field_w = acquisition.field_cm
        zoom = self.q["zoom"] * _fit(patient, acquisition.field_cm)
        self.px = (field_w / w / zoom, field_h / h / zoom)
        self.step = float(np.sqrt(self.px[0] * self.px[1]))
        self.insp = self.q["inspiration"]
        center_y = 0.5 * patient.lung_height * self.insp + self.q["shift_y"]
        x = ((np.arange(w) + 0.5) * self.px[0] - field_w / zoom / 2 + self.q["shift_x"])[None, :]
        y = ((np.arange(h) + 0.5) * self.px[1] - field_h / zoom / 2 + center_y)[:, None]
        self.center = (field_w / zoom / 2 - self.q["shift_x"], field_h / zoom / 2 - center_y)
        c, s = float(np.cos(self.q["tilt"])), float(np.sin(self.q["tilt"]))
        yc = y - center_y
        self.x = (c * x + s * yc).astype(np.float32)
        self.y = (c * yc - s * x + center_y).astype(np.float32)
        self.pivot_y = center_y
        self.rng = _rng(acquisition.seed, 3, patient.number, int(patient.lung_height * 1e6))
        self._lungs()
        zero = np.zeros(self.hw, np.float32)
        self.soft, self.bone, self.metal, self.gas = zero, zero.copy(), zero.copy(), zero.copy()

    def to_pixels(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel column and row (float) of points given in cm."""
        c, s = float(np.cos(self.q["tilt"])), float(np.sin(self.q["tilt"]))
        yc = y - self.pivot_y
        x0, y0 = c * x - s * yc, c * yc + s * x + self.pivot_y
        return (x0 + self.center[0]) / self.px[0] - 0.5, (y0 + self.center[1]) / self.px[1] - 0.5

    def window(self, x0: float, x1: float, y0: float, y1: float) -> Window:
        """Rows and columns that hold a rectangle given in cm, whatever the tilt."""
        col, row = self.to_pixels(np.array([x0, x1, x0, x1]), np.array([y0, y0, y1, y1]))
        rows, cols = (
            slice(int(np.clip(np.floor(at.min()), 0, n)), int(np.clip(np.ceil(at.max()) + 1, 0, n)))
            for at, n in zip((row, col), self.hw, strict=True)
        )
        return rows, cols

    def _lungs(self) -> None:
        """Coordinates (u, f) of the lung on the pixel's side, and the lungs' thickness."""
        self.curve = self.t["scoliosis"] * np.sin(self.y / self.p.lung_height * 2.5)
        self.mid = (self.curve + 0.25 * self.q["rotation"]).astype(np.float32)
        right = self.x < self.mid
        self.side = np.where(right, np.float32(-1), np.float32(1))
        self.ax = np.abs(self.x - self.mid)
        grid = np.linspace(-0.4, 1.5, 400)
        lat, med, dome, top, high = [], [], [], [], []
        for row in self.p.outline:
            apex = 0.45 * row[2] + 0.55 * row[14]
            knots = [-0.4, 0.0, *_LATERAL_AT, 1.05, 1.5]
            tail = 1.01 * row[13]
            lat.append(_curve(knots, [apex, apex, *row[2:14], tail, tail], grid))
            knots = [-0.4, 0.0, *_MEDIAL_AT, 1.5]
            med.append(_curve(knots, [apex, apex, *row[14:23], row[22] + 0.2], grid))
            lift = self.t["dome_right" if len(dome) == 0 else "dome_left"]
            dome.append(self._dome_line(row[23:]) + lift)
            top.append(row[0])
            high.append(row[1])
        pick = lambda pair: np.where(right, np.float32(pair[0]), np.float32(pair[1]))  # noqa: E731
        self.high = pick(high) * self.insp
        self.f = (self.y - pick(top) * self.insp) / self.high
        widen = 1 + 0.25 * (1 - self.insp)
        scale = widen * (1 + 0.03 * self.q["rotation"] * self.side)

        offset = np.where(right, np.intp(0), np.intp(_FINE))

        def both(tables, at, low, high):
            """Each pixel's value in the table of its side."""
            fine = np.concatenate([_fine(table) for table in tables])
            return np.take(fine, _places(at, low, high) + offset, mode="clip")

        self.lat = both(lat, self.f, -0.4, 1.5) * scale
        self.med = both(med, self.f, -0.4, 1.5)
        self.wall = np.maximum(self.lat, self.p.lung_height * 0.14)
        self.u = (self.ax - self.med) / np.maximum(self.lat - self.med, 0.2)
        widest = pick([o[2:14].max() for o in self.p.outline])
        column = (self.ax - pick([o[14:23].min() for o in self.p.outline])) / widest * 1.15
        flat_dome = self.t.get("flat_dome", 0.0)
        self.domes = dome
        dome_f = both(dome, column, 0, 1.3)
        dome_f = dome_f + flat_dome * (0.97 - dome_f)
        self.below = (self.f - dome_f) * self.high  # cm below the diaphragm's dome
        edge = 1.5 * self.step + 0.35
        inside = _smooth((self.lat - self.ax) / edge) * _smooth((self.ax - self.med) / edge)
        inside *= self.f > 0
        self.inside = inside * (self.f < 1.02)
        u = np.clip(self.u, 0, 1)
        depth = 0.66 * self.p.depth - 0.5 * self.p.fat
        round_off = _dome(np.clip((u - 0.25) / 0.75, 0, 1) ** 2) * (1 - 0.3 * (1 - u) ** 2)
        apex = _dome(np.clip(1 - self.f / 0.42, 0, 1) ** 2)
        above = np.maximum(-self.below, 0)
        front = _smooth(-self.below / 0.8) * (0.60 + 0.40 * (1 - np.exp(-above / 3.5)))
        recess = 0.15 * np.clip(4 * u - 0.8, 0, 1) * np.exp(-np.maximum(self.below, 0) / 2.4)
        self.field = self.inside * _smooth(-self.below / 0.5)  # what is seen as lung
        self.lung = depth * self.inside * round_off * apex * np.maximum(front, recess)

    def _dome_line(self, own: np.ndarray) -> np.ndarray:
        """Height (in f) of the diaphragm from the medial (0) to beyond the lateral border (1.3).

        A dome that falls steeply to the costophrenic angle and gently to the heart, plus what
        sets the patient's outline `own` (9,) apart from the mean outline.
        """
        t = self.t
        c = np.linspace(0, 1.3, 100)
        peak, drop = t["dome_peak"], t["dome"]
        lateral = np.clip((c - peak) / (1.04 - peak), 0, 1) ** t["dome_round"]
        medial = np.clip((peak - c) / peak, 0, 1) ** 2
        line = 1.0 - drop * np.sqrt(1 - lateral) + 0.3 * drop * medial
        shift = _curve([0, *_DOME_AT, 1.3], [0, 0, *(own - _DOME_MEAN)[1:], 0], c)
        return line + 0.6 * shift

    # --- the parts of the body ---

    def body(self) -> None:
        """Torso, neck, shoulders and arms, breasts and skin folds."""
        p, t = self.p, self.t
        grown = t["grown"]
        chest = float(p.outline[:, 2:14].max()) + 2.6 * grown + 0.9 * p.fat
        shoulder = t["shoulder"] + 5.5 * grown + 0.5 * p.fat
        neck = t["neck"]
        ys = np.array([-14, -6.5, -4.5, -2.5, -0.5, 2.5, 6.0, 11.0, 16.0, 24.0, 34.0]) * grown
        rise = self.q["arms"] * 0.15 + self.q["shrug"] - 2.0
        half = [neck, neck * 1.05, neck * 1.5, 0.74 * shoulder, 0.96 * shoulder, shoulder + 1.0]
        half += [max(chest + 2.0, 0.94 * shoulder), chest + 3.0, chest + 0.8]
        half += [chest * 0.95, chest * 0.91 + 0.3 * p.fat]
        deep = (
            np.array([0.95, 0.95, 0.92, 0.88, 0.90, 0.92, 0.94, 0.96, 1.05, 1.15, 1.20]) * p.depth
        )
        grid = np.linspace(-14, 34, 300)
        width = _look(_curve(ys - rise, half, grid, 21), self.y, -14, 34)
        depth = _look(_curve(ys, deep, grid, 21), self.y, -14, 34)
        off = np.abs(self.x - 0.4 * self.mid)
        edge = np.minimum(off / width, 1)
        self.soft = depth * _dome(_fourth(edge) * edge * edge)
        self._arms()
        if self.q["chin"] < 0.3:
            self._jaw()
        if t["breast"] > 0.3:
            self._breasts(width)
        elif grown > 0.9:  # pectoral muscles
            h = p.lung_height * self.insp
            side = 0.55 * chest + 9
            w = self.window(-side, side, 0.33 * h - 8, 0.33 * h + 8)
            r2 = ((self.ax[w] - 0.55 * chest) / 8.5) ** 2 + ((self.y[w] - 0.33 * h) / 7.5) ** 2
            self.soft[w] += 1.4 * _dome(r2)

    def _arms(self) -> None:
        """Upper arms beside the chest, with their bones."""
        t, grown = self.t, self.t["grown"]
        start_x, start_y = t["shoulder"] + 1.2 * grown, 2.4 * grown
        lean = float(np.clip(self.q["arms"] / 16, -0.05, 0.7))
        radius = (4.2 + 0.45 * self.p.fat) * grown
        thick = 1.15 * grown
        for side in (-1, 1):
            w = self.window(side * (start_x - radius - 2), side * 60, -5, 60)
            x, y = side * (self.x[w] - 0.4 * self.mid[w]), self.y[w]
            axis = x - start_x - lean * np.maximum(y - start_y, 0)
            arm = 1.8 * radius * _dome((axis / radius) ** 2) * _smooth((y + 1.5) / 3.0)
            self.soft[w] = np.maximum(self.soft[w], arm) + 0.10 * np.minimum(self.soft[w], arm)
            d = np.abs(axis)
            shaft = 0.6 * _smooth((thick - d) / 0.3)
            shaft += 0.35 * np.exp(-(((d - 0.75 * thick) / 0.25) ** 2))
            shaft *= _smooth((y - start_y - 1.0) / 0.8)
            head = (x - start_x) ** 2 + (y - start_y) ** 2
            head = 0.55 * np.sqrt(_dome(head / (2.35 * grown) ** 2))
            self.bone[w] += t["bone"] * np.maximum(shaft, head)

    def _jaw(self) -> None:
        """The jaw at the upper border."""
        w = self.window(-8, 8, -24, -6)
        off = self.x[w] - 0.4 * self.mid[w]
        up = (self.y[w] + 13.5 + 9 * self.q["chin"]) / 4.5
        self.soft[w] += 9.0 * _dome((off / 6.5) ** 2 + up * up)
        rim = np.abs(np.sqrt((off / 5.5) ** 2 + up * up) - 0.95)
        self.bone[w] += 0.8 * _smooth((0.13 - rim) / 0.1)

    def _breasts(self, width: np.ndarray) -> None:
        """Breasts, whose lower folds show; `width` is the torso's half width."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        reach = 5.0 + 0.9 * t["breast"]
        at_x = t["breast_x"] * float(p.outline[:, 2:14].max())
        at_y = (t["breast_f"] - (0.25 if self.q["supine"] else 0.0)) * h
        side = at_x + reach + 1
        w = self.window(-side, side, at_y - 1.3 * reach, at_y + 0.6 * reach)
        droop = (self.y[w] - at_y) / reach
        r2 = ((self.ax[w] - at_x) / reach) ** 2
        up = np.where(droop > 0, droop / 0.55, droop / 1.25) ** 2
        thick = (0.6 if self.a.view == "AP" else 1.0) * t["breast"]
        inside = np.abs(self.x[w] - 0.4 * self.mid[w]) < width[w] + 1.5
        self.soft[w] += thick * np.maximum(1 - r2 - up, 0) * inside

    def mediastinum(self) -> None:
        """Heart, great vessels and hila take the lung's place; trachea and bronchi hold air."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        thorax = float(sum(o[2:14].max() for o in p.outline)) * (1 + 0.25 * (1 - self.insp))
        width = t["heart"] * self.q["heart"] * t.get("cardiomegaly", 1.0) * thorax
        w = self.window(-0.45 * width - 5, 0.72 * width + 5, -5, 1.1 * h)
        x = self.x[w] - self.curve[w] * 0.5 + 0.4 * self.q["rotation"]
        y = self.y[w]
        self.heart, self.arch = np.zeros(self.hw, np.float32), np.zeros(self.hw, np.float32)
        self.heart[w] = self._heart(x, y, width)
        fluid = np.maximum(self.heart[w], self._great_vessels(x, y, w))
        fluid += self._hila(w)
        self.lung[w] -= np.minimum(fluid, 0.93 * self.lung[w])
        self.fluid = np.zeros(self.hw, np.float32)
        self._airways()

    def _heart(self, x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
        """Thickness of the heart (cm), which is `width` cm wide."""
        h = self.p.lung_height * self.insp
        tip, spread = self.t["heart_tilt"], 0.64 * width
        rows = np.array([0.22, 0.30, 0.36, 0.43, 0.52, 0.62, 0.72, 0.81, 0.88, 0.95, 1.02]) * h
        waist = 2.2 * self.t["grown"] + 0.10 * width
        grow = np.array([0.0, 0.0, 0.06, 0.16, 0.36, 0.62, 0.85, 0.98, 0.97, 0.78, 0.30])
        left = waist + (spread - waist) * grow ** (0.6 + 0.8 * tip)
        bulge = np.array([0.0, 0.0, 0.1, 0.30, 0.62, 0.88, 1.0, 0.98, 0.85, 0.6, 0.2])
        right = 0.5 * waist + (0.36 * width - 0.5 * waist) * bulge
        deep = np.array([0.0, 0.25, 0.5, 0.65, 0.8, 0.95, 1.0, 1.0, 0.95, 0.7, 0.3])
        low, high = 0.2 * h, 1.05 * h
        grid = np.linspace(low, high, 160)
        left, right, deep = (
            _look(_curve(rows, c, grid), y, low, high) for c in (left, right, deep)
        )
        middle, half = 0.5 * (left - right), 0.5 * (left + right)
        heart = 0.62 * self.p.depth * deep * _dome(((x - middle) / half) ** 2)
        heart *= _smooth((y - 0.28 * h) / (0.07 * h))
        heart *= _smooth((h - y) / 1.5)
        return heart

    def _great_vessels(self, x: np.ndarray, y: np.ndarray, w: Window) -> np.ndarray:
        """Thickness of the aorta and of the upper mediastinum; keeps the arch for its box."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        knob = t["knob"] * t.get("aorta", 1.0)
        self.knob_at = (0.7 + 0.78 * knob + 0.2 * t["unfold"], 0.255 * h)
        arch = ((x - self.knob_at[0]) / (1.12 * knob)) ** 2
        arch += ((y - self.knob_at[1]) / (1.25 * knob)) ** 2
        self.arch[w] = 4.2 * knob * _dome(arch)
        down = _smooth((y - 0.22 * h) / 1.5) * _smooth((h - y) / 2.0)
        axis = t["unfold"] * np.sin(np.clip((y / h - 0.2) / 0.8, 0, 1) * np.float32(np.pi))
        axis += 0.55 * knob + 0.55
        descending = 1.9 * knob * _dome(((x - axis) / (0.82 * knob)) ** 2) * down
        rise = _smooth((y - 0.17 * h) / 1.2) * _smooth((0.6 * h - y) / 2.0)
        ascending = 3.0 * _dome(((x + 1.15 + 0.3 * t["unfold"]) / (1.35 * knob)) ** 2) * rise
        half = t["mediastinum"] * (1 + 0.12 * (self.a.view == "AP")) * t["grown"] ** 0.7
        half = half + 0.35 - 0.5 * _smooth((0.12 * h - y) / 2.0)
        upper = 0.60 * p.depth * _dome((x / (half * (1 - 0.1 * np.cos(y * 0.3)))) ** 2)
        upper *= _smooth((y + 1.0) / 3.0)
        upper *= _smooth((0.75 * h - y) / 3.0)
        return np.maximum.reduce([self.arch[w], ascending, upper]) + descending

    def _hila(self, w: Window) -> np.ndarray:
        """Thickness of the roots of both lungs, the left one higher."""
        t, h = self.t, self.p.lung_height * self.insp
        hilum = np.zeros_like(self.x[w])
        for side, at in ((-1, 0.43), (1, 0.39)):
            dx = self.x[w] - side * (3.7 + 0.1 * self.p.fat) * t["grown"]
            dy = self.y[w] - at * h
            turn = dx * (0.878 * side) + dy * 0.479
            other = dy * 0.878 - dx * (0.479 * side)
            hilum += 2.2 * _dome((turn / 1.3) ** 2 + (other / 2.9) ** 2)
        return hilum * t["markings"] * t.get("hila", 1.0)

    def _airways(self) -> None:
        """Trachea and main bronchi."""
        t, grown = self.t, self.t["grown"]
        carina = 0.27 * self.p.lung_height * self.insp
        pull = t.get("trachea", 0.0) + 0.15 * self.q["rotation"]
        w = self.window(-5, 5, -16, carina + 5)
        x, y = self.x[w] - self.curve[w] - pull, self.y[w]
        air = _dome((x / (0.85 * grown)) ** 2)
        air *= _smooth((carina - y) / 0.8) * (0.35 + 0.65 * _smooth((y + 4) / 5))
        for side in (-1, 1):
            line = (y - carina + 0.6) - (1.3 if side < 0 else 0.75) * side * x
            bronchus = 0.8 * _dome((line / (1.1 * grown)) ** 2)
            bronchus *= _smooth((side * x + 0.1) / 0.3)
            bronchus *= _smooth((3.6 - side * x) / 0.8)
            air = np.maximum(air, bronchus)
        self.gas[w] += air * grown

    def abdomen(self) -> None:
        """Gastric bubble and bowel gas below the left dome."""
        t = self.t
        lateral = float(self.p.outline[1, 2:14].max())
        w = self.window(-1, 1.3 * lateral + 2, 0.6 * self.p.lung_height, 60)
        x, below = self.x[w], self.below[w]
        left = self.side[w] > 0
        if t["bubble"] < 0.36:
            size = 1.6 + 4.0 * t["bubble"]
            top = below - 0.9
            d2 = ((x - 0.50 * lateral) / (1.25 * size)) ** 2
            d2 += ((top - 0.75 * size) / (0.85 * size)) ** 2
            bubble = 2.4 * _dome(d2) * (below > 0.2) * left
            if not self.q["supine"] and t["bowel"] <= 0.5:  # a fluid level
                bubble *= _smooth((0.75 * size - top) / 0.25)
            self.gas[w] += bubble
        if t["bowel"] < 0.35:
            blobs = np.zeros_like(x)
            for _ in range(5):
                at_x, at_y = self.rng.uniform(0.1, 0.9) * lateral, self.rng.uniform(4, 11)
                r = self.rng.uniform(0.8, 2.2)
                d2 = ((x - at_x) / (1.3 * r)) ** 2 + ((below - at_y) / r) ** 2
                blobs = np.maximum(blobs, 0.9 * r * np.maximum(1 - d2, 0))
            self.gas[w] += blobs * (below > 0.5)

    def skeleton(self) -> None:
        """Ribs front and back, spine, clavicles and scapulae."""
        self._ribs()
        self._spine()
        self._clavicles()
        self._scapulae()

    def _ribs(self) -> None:
        """Twelve ribs behind, arching down to the side, and the front ends of nine."""
        p, t = self.p, self.t
        h = p.lung_height
        reach = float(p.outline[:, 2:14].max()) * 1.3 + 2
        w = self.window(-reach, reach, -4, 1.5 * h)
        y, ax, f = self.y[w], self.ax[w], np.clip(self.f[w], 0, 1)
        wall = self.wall[w]
        s = np.clip(ax / (wall + 0.5), 0, 1.08)
        gap = t["rib_space"] * h * (0.72 + 0.28 * self.insp)
        wave = 0.12 * np.sin(3.1 * ax / 4 + p.number % 7)
        drop = t["rib_drop"] * h * (0.75 + 0.45 * f)
        rng = _rng(p.number, 8)
        shifts = rng.normal(0, 0.05, 20).astype(np.float32)
        strength = rng.uniform(0.65, 1.25, 20).astype(np.float32)

        def band(center, slope, r):
            """Index of the nearest rib, and its thickness: a body with a denser cortex."""
            phase = (y - center) / gap
            index = np.round(phase)
            each = (index + 3).astype(np.intp)  # beyond the ends the last one is taken
            d = (phase - index + np.take(shifts, each, mode="clip")) * gap / np.sqrt(1 + slope**2)
            off = np.abs(d)
            body = _smooth((r - off) / (0.9 * self.step))
            cortex = np.maximum(1 - np.abs(off - 0.82 * r) / max(0.13, 0.8 * self.step), 0)
            low = np.where(d > 0, np.float32(1.5), np.float32(1))
            return index, (0.36 + 0.12 * cortex * low) * body * np.take(strength, each, mode="clip")

        first = t["rib_first"] * h + wave
        slope = drop * (2.6 * s - 0.42) / self.wall[w]
        index, back = band(first + drop * (1.3 * s * s - 0.42 * s), slope, t["rib_size"])
        back *= (1 + 0.5 * _fourth(s) * s * s) * ((index >= 0) & (index <= 11))
        back *= (s < 1.06) & (ax > 1.6)
        fall = t["rib_front"] * h
        lift = self.q["lordosis"] * h
        center = first + 0.82 * drop + fall * (1 - s) * (1.25 - 0.35 * s) - 2 * lift
        slope = fall * (1.6 - 0.7 * s) / wall
        index, front = band(center, slope, 1.12 * t["rib_size"])
        ends = np.clip(0.30 + 0.035 * index, 0.3, 0.75)
        front *= _smooth((s - ends) / 0.06) * ((index >= 0) & (index <= 8) & (s < 1.05))
        # scatter from thick parts hides them below the diaphragm and behind the heart
        hidden = 1 - 0.85 * _smooth((self.below[w] - 2.0) / 2.5)
        hidden *= 0.4 + 0.6 * self.lung[w] / (self.lung[w] + 2.0)
        self.bone[w] += t["bone"] * hidden * (1.45 * back + 0.73 * front)

    def _spine(self) -> None:
        """Vertebrae with rims, pedicles and processes, and the discs between them."""
        t = self.t
        w = self.window(-7, 7, -60, 60)
        x, y = self.x[w] - self.mid[w], self.y[w]
        off = np.abs(x)
        half = t["spine"] * (0.72 + 0.014 * y)
        period = t["vertebra"]
        phase = y / period + 0.35
        disc = _smooth((np.abs(phase - np.round(phase)) * period - 0.17) / 0.14)
        spine = 0.55 * _dome(_fourth(x / half)) * (0.6 + 0.4 * disc)
        spine += 0.12 * np.exp(-(((off - 0.92 * half) / 0.16) ** 2)) * disc
        dy = (phase + 0.5 - np.round(phase + 0.5)) * period
        ring = ((off - 0.62 * half) / 0.33) ** 2 + (dy / 0.5) ** 2 - 1
        spine += 0.13 * np.exp(-3 * ring**2)  # pedicles
        turn = 0.3 * self.q["rotation"]
        spine += 0.30 * np.exp(-(((x + turn) / 0.28) ** 2) - ((dy - 0.5) / 0.55) ** 2)
        spine += 0.15 * _dome(_fourth(x / (half + 1.7))) * np.exp(-(((dy + 0.2) / 0.4) ** 2))
        self.bone[w] += t["bone"] * spine * (0.72 + 0.26 * _smooth((y - 2) / 4))

    def _clavicles(self) -> None:
        """From the sternum to the shoulder, rising; a slender S."""
        t, grown = self.t, self.t["grown"]
        h, lift = self.p.lung_height, self.q["lordosis"] * self.p.lung_height
        end = t["shoulder"] - 0.5
        tip = 0.09 * self.q["arms"] + t["clavicle_slope"] * end * 0.8
        low = t["clavicle_y"] * h + 1.2 - lift * 1.5
        w = self.window(-end - 1, end + 1, low - max(tip, 0) - 3, low + max(-tip, 0) + 3)
        ax = self.ax[w]
        v = np.clip((ax - 1.6) / (end - 1.6), 0, 1)
        y = low - tip * v + 0.75 * np.sin(v * 6.0) * grown
        y += 0.3 * self.q["rotation"] * self.side[w] * (1 - v)
        r = grown * (0.44 + 0.35 * _fourth(1 - v) + 0.15 * v)
        d = np.abs(self.y[w] - y)
        shell = np.maximum(1 - np.abs(d - 0.8 * r) / max(0.16, self.step), 0)
        clavicle = 0.40 * _smooth((r - d) / (0.9 * self.step)) + 0.26 * shell * (d < r)
        clavicle *= _smooth((ax - 1.5) / 0.3) * _smooth((end - ax) / 0.4)
        self.bone[w] += t["bone"] * clavicle

    def _scapulae(self) -> None:
        """A thin plate with a thicker lateral border, and its spine."""
        t, grown = self.t, self.t["grown"]
        into = self.q["scapula"]
        edge = t["shoulder"] + 0.3 - 2.2 * into
        lower = 0.62 * self.p.lung_height
        inner = edge - 3.8 - 5.8 * grown
        for side in (-1, 1):
            w = self.window(side * inner, side * (t["shoulder"] + 2.5), -2, lower + 1)
            ax, y = side * (self.x[w] - self.mid[w]), self.y[w]
            tall = np.clip((y - 1.0) / (lower - 1.0), 0, 1)
            lateral = edge - (1.6 + 2.2 * into) * tall
            medial = lateral - (5.8 * grown) * (1 - tall) * (0.55 + 0.45 * into)
            within = _smooth((y - 1.0) / 0.5) * _smooth((lower - y) / 0.5)
            past = _smooth((ax - medial) / 0.4)
            scapula = 0.36 * _smooth((lateral - ax) / 0.3) * past * within
            border = np.exp(-(((ax - lateral) / 0.42) ** 2)) * (1 - 0.5 * tall)
            scapula += (0.60 * border + 0.16 * np.exp(-(((ax - medial) / 0.16) ** 2))) * within
            crest = np.exp(-(((y - 1.6 + 0.17 * (edge - ax)) / 0.4) ** 2)) * past
            scapula += 0.60 * crest * _smooth((t["shoulder"] + 1.2 - ax) / 0.5)
            self.bone[w] += t["bone"] * scapula

    def vessels(self) -> None:
        """Pulmonary vessels, fine texture, and haze at the bases, mostly on AP images."""
        t = self.t
        x, y, r, length, side = self.p.tree.T
        y = y * self.insp
        col, row = self.to_pixels(x + 0.25 * self.q["rotation"], y)
        amount = np.pi * r * r * length / (self.px[0] * self.px[1])
        tree = np.zeros(self.hw, np.float32)
        for low, high, soft, gain in (
            (0.0, 0.14, 0.0, 1.0),
            (0.14, 0.26, 0.5, 1.0),
            (0.26, 9, 0.65, 0.7),
        ):
            pick = (r > low) & (r <= high)
            if pick.any():
                level = self.splat(col[pick], row[pick], gain * amount[pick])
                blur = soft * float(np.mean(r[pick])) / self.step
                tree += ndimage.gaussian_filter(level, blur, truncate=2.5) if blur > 0.3 else level
        share = np.minimum(self.lung / 5.0, 1.0)
        tree = tree * share * t["markings"] * t.get("vessels", 1.0) * 1.6
        grain = _fractal(_rng(self.p.number, 5), self.hw, 28, 3, 0.9) * 0.22 * t["texture"] * share
        rough = _fractal(_rng(self.p.number, 9, self.a.seed), self.hw, 4, 3)
        basal = _smooth((self.f - 0.6) / 0.5) * np.clip(1 + 0.5 * rough, 0, 2)
        haze = self.q["haze"] * basal * np.maximum(1 + self.q["haze_side"] * self.side, 0)
        haze = np.minimum(haze, 0.7 * self.lung)
        self.fluid = self.fluid + tree + grain + haze

    def splat(self, col: np.ndarray, row: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Spread point amounts over the four pixels around each point."""
        h, w = self.hw
        c0, r0 = np.floor(col).astype(np.int64), np.floor(row).astype(np.int64)
        fc, fr = col - c0, row - r0
        ok = (c0 >= 0) & (r0 >= 0) & (c0 < w - 1) & (r0 < h - 1)
        c0, r0, fc, fr, amount = c0[ok], r0[ok], fc[ok], fr[ok], amount[ok]
        at = r0 * w + c0
        index = np.concatenate([at, at + 1, at + w, at + w + 1])
        weight = [(1 - fc) * (1 - fr), fc * (1 - fr), (1 - fc) * fr, fc * fr]
        weight = np.concatenate(weight) * np.tile(amount, 4)
        return np.bincount(index, weight, h * w).reshape(h, w).astype(np.float32)

    def line(self, points: np.ndarray, radius: float) -> np.ndarray:
        """Thickness (cm) of a tube of `radius` cm along control points (n, 2) in cm."""
        t = np.linspace(0, 1, len(points))
        fine = np.linspace(0, 1, 400)
        x = _curve(t, points[:, 0], fine, 61)
        y = _curve(t, points[:, 1], fine, 61)
        length = np.hypot(np.gradient(x), np.gradient(y))
        col, row = self.to_pixels(x, y)
        amount = np.pi * radius**2 * length / (self.px[0] * self.px[1])
        out = self.splat(col, row, amount)
        return ndimage.gaussian_filter(out, max(0.45, 0.5 * radius / self.step), truncate=2.5)

    def devices(self) -> None:
        """Tubes, lines, electrodes, pacemaker, sternal wires and port, mostly on AP images."""
        rng = _rng(self.p.number, 6, self.a.seed)
        ap = self.a.view == "AP"
        h = self.p.lung_height * self.insp
        t = self.t
        usual = (1.0 if ap else 0.08) * (1.0 if self.a.site == "nih" else 0.35)
        lines = []
        if rng.uniform() < 0.65 * usual:  # central line from the neck, the subclavian or the arm
            kind, side = rng.integers(3), rng.choice((-1.0, 1.0, -1.0))
            tip = [-1.6 + rng.normal(0, 0.3), h * rng.uniform(0.32, 0.5)]
            start = (
                [[side * 4.0, -9.0], [side * 3.2, -3.0], [side * 2.0, 1.5]],
                [[side * 9.5, 3.2], [side * 6.5, 2.0], [side * 3.0, 2.6]],
                [[side * 20, 9.0], [side * 13.5, 2.5], [side * 7.0, 2.2], [side * 3.0, 2.7]],
            )[kind]
            lines.append((np.array([*start, [-1.5, 0.2 * h], tip]), 0.09, 0.6))
        if ap and rng.uniform() < 0.32 * usual:  # endotracheal tube
            x = rng.normal(0, 0.25)
            end = h * rng.uniform(0.05, 0.22)
            for dx in (-0.35, 0.35):
                lines.append((np.array([[x + dx, -14], [x + dx, -5], [x + dx, end]]), 0.06, 0.5))
        if ap and rng.uniform() < 0.39 * usual:  # gastric tube
            bend = rng.normal(0, 0.4, 3)
            end = [[1.0, 0.93 * h], [3.5, 1.05 * h], [6.0, 1.12 * h]]
            path = [[bend[0], -12], [bend[1], 0.1 * h], [0.6 + bend[2], 0.55 * h], *end]
            lines.append((np.array(path), 0.12, 0.4))
        if ap and rng.uniform() < 0.13 * usual:  # chest tube
            side = rng.choice((-1.0, 1.0))
            w = float(np.max(self.p.outline[:, 2:14]))
            path = [
                [1.5 * w, 0.9 * h],
                [0.95 * w, 0.72 * h],
                [0.6 * w, 0.4 * h],
                [0.5 * w, 0.1 * h],
            ]
            lines.append((np.array(path) * [side, 1], 0.25, 0.3))
        if rng.uniform() < 0.85 * usual:  # electrodes and their wires
            for _ in range(rng.integers(2, 6)):
                x, y = rng.uniform(-14, 14), rng.uniform(0.05, 1.0) * h
                away = np.array(
                    [x + rng.normal(0, 6), y + rng.uniform(5, 14) * rng.choice((-1, 1))]
                )
                mid = (np.array([x, y]) + away) / 2 + rng.normal(0, 2.5, 2)
                lines.append((np.array([[x, y], mid, away, away + rng.normal(0, 8, 2)]), 0.05, 0.7))
                d2 = (self.x - x) ** 2 + (self.y - y) ** 2
                self.soft = self.soft + 0.5 * _smooth((1.5 - np.sqrt(d2)) / 0.12)
                self.metal = self.metal + 0.12 * _smooth((0.45 - np.sqrt(d2)) / 0.15)
        for path, radius, density in lines:
            self.metal = self.metal + density * self.line(path, radius)
        if t["pacemaker"] < 0.035 + 0.0005 * max(self.p.age - 60, 0):
            self._pacemaker(h)
        if t["wires"] < 0.06:  # closed sternum
            for k in range(6):
                y = (0.16 + 0.11 * k) * h
                a = np.linspace(0, 2 * np.pi, 12)
                loop = np.stack([0.8 * np.cos(a), y + 0.45 * np.sin(a)], 1)
                self.metal = self.metal + 0.8 * self.line(loop, 0.05)
        if rng.uniform() < (0.04 if self.a.site == "nih" else 0.01):  # port
            side = float(rng.choice((-1.0, 1.0)))
            cx, cy = side * 7.5, 0.24 * h
            r = np.hypot(self.x - cx, self.y - cy)
            self.metal = (
                self.metal
                + 0.10 * _smooth((1.25 - r) / 0.15)
                + 0.15 * np.exp(-(((r - 0.85) / 0.18) ** 2))
            )
            path = np.array(
                [[cx, cy], [side * 5, 0.02 * h], [side * 2.2, 0.06 * h], [-1.5, 0.3 * h]]
            )
            self.metal = self.metal + 0.5 * self.line(path, 0.1)

    def _pacemaker(self, h: float) -> None:
        cx, cy = 8.5, 0.22 * h
        dx, dy = (self.x - cx) / 2.6, (self.y - cy) / 2.2
        can = _smooth((1 - _fourth(dx) - _fourth(dy)) / 0.12)
        self.metal = self.metal + 0.5 * can
        path = [[cx, cy - 1], [6.0, 0.1 * h], [2.5, 0.06 * h], [-1.6, 0.25 * h], [-2.2, 0.62 * h]]
        lead = np.array([*path, [1.0, 0.80 * h], [4.5, 0.82 * h]])
        self.metal = self.metal + 0.8 * self.line(lead, 0.08)
        self.metal = self.metal + 0.8 * self.line(np.array([*path, [-2.6, 0.5 * h]]), 0.08)

    # --- findings ---

    def _visible(self, lesion: Lesion) -> tuple[float, float]:
        """Where a lesion is seen: in the lung, above the dome and beside the heart."""
        table = self.domes[int(lesion.side > 0)]
        if lesion.name == "Pleural effusion":  # its lower end lies in the costophrenic angle
            row = self.p.outline[int(lesion.side > 0)]
            column = (row[11] - row[14:23].min()) / row[2:14].max() * 1.15
            angle = float(np.interp(column, np.linspace(0, 1.3, len(table)), table))
            return max(lesion.f - 1.0 + angle, 0.1), lesion.u
        if lesion.name in ("Pleural thickening", "Pneumothorax"):
            return float(np.clip(lesion.f, 0.03, 0.97)), lesion.u
        f = lesion.f * float(np.interp(lesion.u * 1.15, np.linspace(0, 1.3, len(table)), table))
        if lesion.name == "Calcification" and lesion.u < 0.12:
            return f, lesion.u
        behind = 0.42 if lesion.side > 0 and f > 0.45 else 0.15
        return f, behind + (1 - behind) * lesion.u

    def _spot(self, lesion: Lesion) -> _Spot:
        """Coordinates around a lesion."""
        row = self.p.outline[int(lesion.side > 0)]
        f, u = self._visible(lesion)
        lateral = float(np.interp(f, _LATERAL_AT, row[2:14]))
        medial = float(np.interp(f, _MEDIAL_AT, row[14:23]))
        x = lesion.side * (medial + u * (lateral - medial)) + float(np.mean(self.mid))
        y = float(row[0] + f * row[1]) * self.insp
        half_w, half_h = lesion.width / 2, lesion.height / 2
        w = slice(None), slice(None)
        if lesion.name in _LOCAL:
            reach = 1.5 * max(half_w, half_h) + 0.5
            w = self.window(x - reach, x + reach, y - reach, y + reach)
        dx, dy = self.x[w] - x, self.y[w] - y
        return _Spot(
            w=w,
            rng=_rng(lesion.seed),
            dx=dx,
            dy=dy,
            half=(half_w, half_h),
            shape=(dx / half_w) ** 2 + (dy / half_h) ** 2,
            own=self.side[w] == lesion.side,
            seen=self.field[w] * (self.side[w] == lesion.side),
            lung_width=max(lateral - medial, 1.0),
            strength=_PLAIN[self.a.site] * (0.25 + 1.05 * lesion.severity),
        )

    def noise(self, spot: _Spot, first: int, octaves: int) -> np.ndarray:
        """Smooth noise over the spot's window, with `first` nodes across the whole image."""
        h, w = spot.dx.shape
        share = max(h / self.hw[0], w / self.hw[1])
        return _fractal(spot.rng, (h, w), max(2, round(first * share)), octaves)

    def find(self, lesion: Lesion) -> np.ndarray:
        """Draw one finding; return its map: the change in cm of soft tissue, for the box."""
        if lesion.name not in _DRAW:
            raise ValueError(f"lesion is {lesion.name!r}; expected one of {', '.join(FINDINGS)}")
        spot = self._spot(lesion)
        change = np.zeros(self.hw, np.float32)
        if spot.dx.size:
            change[spot.w] = _DRAW[lesion.name](self, lesion, spot)
        return change


@dataclass(frozen=True)
class _Spot:
    """Where a lesion lies: a window of the image and coordinates (cm) from the lesion's center."""

    w: Window
    rng: np.random.Generator
    dx: np.ndarray
    dy: np.ndarray
    half: tuple[float, float]
    shape: np.ndarray  # 1 on the ellipse of the lesion's size
    own: np.ndarray  # the lesion's side
    seen: np.ndarray  # its lung, as far as it is seen
    lung_width: float
    strength: float


# How plainly findings of one severity show. Boxes were drawn around what readers could see; labels
# taken from reports also know what other images and the ward knew.
_PLAIN = {"nih": 1.0, "vindr": 1.5}

# cm of fluid, unevenness of the edge, softness of the edge
_OPACITIES = {
    "Atelectasis": (7.0, 0.2, 0.22),
    "Consolidation": (10.0, 0.25, 0.28),
    "Infiltration": (5.5, 0.65, 0.5),
    "Lung Opacity": (6.0, 0.45, 0.5),
    "Pneumonia": (7.5, 0.45, 0.5),
}


def _opacity(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Airspace filled with fluid: patchy, or a band where a lobe has collapsed."""
    rough = scene.noise(spot, min(24, max(3, int(70 / max(lesion.height, 2.0)))), 3)
    amount, fluff, edge = _OPACITIES[lesion.name]
    shape = spot.shape
    if lesion.name == "Atelectasis":
        turn = spot.rng.normal(0.1, 0.3) * lesion.side
        c, s = float(np.cos(turn)), float(np.sin(turn))
        shape = _fourth((spot.dx * c - spot.dy * s) / spot.half[0])
        shape += _fourth((spot.dy * c + spot.dx * s) / spot.half[1])
    blob = _smooth((1 - shape + fluff * 0.6 * rough) / edge)
    if lesion.name in ("Infiltration", "Pneumonia", "Lung Opacity"):
        blob *= np.clip(0.75 + 0.45 * rough, 0.05, 1.6)
    change = 1.2 * amount * spot.strength * blob * np.exp(-0.5 * shape) * spot.seen
    change = np.minimum(change, 0.85 * scene.lung[spot.w])
    scene.fluid[spot.w] += change
    return change


def _edema(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Fluid around the hila of both lungs, and septal lines."""
    hilar = np.exp(-(((scene.u - 0.25) / 0.38) ** 2) - ((scene.f - 0.55) / 0.30) ** 2)
    rough = scene.noise(spot, 14, 3)
    lines = np.maximum(0, 1 - np.abs(scene.noise(spot, 40, 2)) / 0.35)
    change = 3.6 * hilar * np.clip(0.9 + 0.3 * rough, 0.2, 2) + 0.35 * lines
    change = np.minimum(spot.strength * change * scene.field, 0.8 * scene.lung)
    scene.fluid += change
    return change


def _reticular(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A net of thickened tissue; coarser, with more haze, in fibrosis."""
    ild = lesion.name == "ILD"
    net = np.maximum(0, 1 - np.abs(scene.noise(spot, 34 if ild else 24, 2)) / 0.45)
    window = _smooth((1 - spot.shape + 0.25 * scene.noise(spot, 9, 2)) / 0.4)
    change = spot.strength * (net + (0.25 if ild else 0.5)) * (2.3 if ild else 3.0)
    change = np.minimum(change * window * spot.seen, 0.8 * scene.lung[spot.w] + 0.2)
    scene.fluid[spot.w] += change
    return change


def _nodule(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A ball of soft tissue, uneven where it is large."""
    rough = scene.noise(spot, 14, 2) if lesion.width > 2 else 0
    body = lesion.width * _dome(spot.shape * (1 + 0.18 * rough))
    change = np.minimum(body * (0.8 + 1.4 * lesion.severity), 8.0) * spot.seen
    scene.fluid[spot.w] += change
    return change


def _calcification(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Grains in the lung, or the rim of the aortic arch."""
    if lesion.u < 0.12:
        ring = np.hypot(scene.x - scene.knob_at[0], scene.y - scene.knob_at[1])
        rim = np.exp(-(((ring - 0.9 * scene.t["knob"]) / 0.12) ** 2))
        change = 0.5 * spot.strength * rim * (scene.x > scene.knob_at[0] - 0.3)
    else:
        grains = np.maximum(scene.noise(spot, 60, 1) - 0.3, 0)
        change = 1.1 * grains * _smooth((1 - spot.shape) / 0.3) + 0.6 * _dome(spot.shape * 1.5)
        change *= spot.strength * scene.inside[spot.w]
    scene.bone[spot.w] += change
    return change * 2.0


def _effusion(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Fluid at the base with a meniscus; a veil where the patient lies."""
    h = scene.p.lung_height * scene.insp
    s = spot.strength
    if scene.q["supine"] and lesion.height > 6:
        top = 1.0 - 1.25 * lesion.height / h
        veil = _smooth((scene.f - top) / 0.35) * spot.own * scene.inside
        change = np.minimum((1.2 + 3.8 * s) * veil, 0.85 * scene.lung)
    else:
        reach = float(np.clip(lesion.width / spot.lung_width, 0.12, 1.6))
        rise = np.clip((np.clip(scene.u, 0, 1) - (1 - reach)) / reach, 0, 1) ** 2
        if lesion.height > 7:
            rise = 0.55 + 0.45 * rise
        # from the wall, where it is highest, the level falls
        under = spot.dy - spot.half[1] + lesion.height * rise
        inside = _smooth(under / 0.55) * (rise > 0)
        change = inside * spot.own * scene.inside * np.minimum(scene.lung, 2.0 + 7.0 * s)
    scene.fluid += change
    return change * _smooth((2.5 - scene.below) / 0.5)


def _thickening(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A rim of soft tissue along the chest wall or over the apex."""
    thick = float(np.clip(0.5 * min(lesion.width, lesion.height), 0.25, 1.6))
    rough = 1 + 0.3 * scene.noise(spot, 20, 1)
    w = spot.w
    near = np.minimum(scene.lat[w] - scene.ax[w], scene.f[w] * scene.high[w] * 0.9)
    rim = _smooth((thick * rough - near) / 0.25) * scene.inside[w] * spot.own
    rim *= _smooth((1 - np.abs(spot.dx / spot.half[0])) / 0.25)
    rim *= _smooth((1 - np.abs(spot.dy / spot.half[1])) / 0.25)
    change = (0.8 + 3.6 * spot.strength) * rim
    scene.fluid[w] += change
    return change


def _pneumothorax(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Air between wall and lung: no vessels outside a thin line, a denser lung inside."""
    depth = float(np.clip(lesion.width / spot.lung_width, 0.06, 0.9))
    reach = lesion.f + lesion.height / (scene.p.lung_height * scene.insp)
    fall = np.clip((reach - scene.f) / max(reach, 0.1), 0, 1)
    bulge = 1 + 0.25 * scene.noise(spot, 5, 1)
    edge = 1 - depth * bulge * np.sqrt(fall * (2 - fall))
    fold = np.minimum(edge - scene.u, (scene.f - 0.4 * depth) * 0.8)
    high = spot.seen * (scene.f < reach)
    outside = _smooth(-fold / 0.02) * high
    scene.fluid *= 1 - outside
    scene.gas += outside * scene.lung * 0.14 * (0.4 + 0.6 * spot.strength)
    scene.fluid += 0.5 * np.exp(-((fold / 0.012) ** 2)) * high
    scene.fluid += 0.10 * (1 - outside) * spot.seen * scene.lung * depth
    return outside * 2.0


def _hernia(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A stomach with air in it, behind the heart."""
    h = scene.p.lung_height * scene.insp
    x, y = 0.8 + spot.rng.normal(0, 0.8), 0.80 * h
    r = spot.half[0]
    d2 = ((scene.x - x) / r) ** 2 + ((scene.y - y) / (0.85 * r)) ** 2
    change = 3.2 * spot.strength * _dome(d2)
    scene.soft = scene.soft + change
    scene.gas += 3.0 * _dome(1.8 * d2) * (scene.y < y)
    return change


def _other(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A bulla or cavity, a band, or a shadow of the chest wall."""
    w, s = spot.w, spot.strength
    kind = spot.rng.integers(3)
    if kind == 0:
        ring = np.exp(-(((np.sqrt(spot.shape) - 0.92) / 0.10) ** 2))
        scene.gas[w] += 2.4 * s * _dome(spot.shape) * spot.seen
        scene.fluid[w] += 2.2 * s * ring * spot.seen
        return _smooth((1 - spot.shape) / 0.2) * spot.seen
    if kind == 1:
        turn = spot.rng.uniform(-1.2, 1.2)
        across = spot.dx * float(np.sin(turn)) + spot.dy * float(np.cos(turn))
        band = np.exp(-((across / (0.12 * spot.half[1] + 0.12)) ** 2)) * (spot.shape < 1)
        change = 3.0 * s * band * spot.seen
        scene.fluid[w] += change
        return change
    change = 3.6 * s * np.sqrt(_dome(spot.shape))
    scene.soft[w] += change
    return change


def _aorta(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """The enlarged arch, drawn with the anatomy."""
    return scene.arch * (scene.x > -0.4 * scene.t["knob"])


def _large_heart(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """The enlarged heart, drawn with the anatomy."""
    return scene.heart * (scene.below < 1.2)


def _emphysema(scene: _Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Both lungs, drawn with the anatomy."""
    return scene.field


_DRAW = {
    "Aortic enlargement": _aorta,
    "Atelectasis": _opacity,
    "Calcification": _calcification,
    "Cardiomegaly": _large_heart,
    "Consolidation": _opacity,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Hernia": _hernia,
    "ILD": _reticular,
    "Infiltration": _opacity,
    "Lung Opacity": _opacity,
    "Nodule/Mass": _nodule,
    "Other lesion": _other,
    "Pleural effusion": _effusion,
    "Pleural thickening": _thickening,
    "Pneumonia": _opacity,
    "Pneumothorax": _pneumothorax,
    "Pulmonary fibrosis": _reticular,
}
# Findings that lie within a window of 1.5 times their size.
_LOCAL = frozenset(_OPACITIES) | {
    "ILD",
    "Nodule/Mass",
    "Other lesion",
    "Pleural thickening",
    "Pulmonary fibrosis",
}


def _box(name: str, change: np.ndarray, site: str) -> Box | None:
    """The box of what was drawn: where the change exceeds a third of its peak."""
    peak = float(change.max())
    if peak < 0.05:
        return None
    seen = change > 0.3 * peak
    rows, cols = seen.sum(1), seen.sum(0)
    if name == "Cardiomegaly" and site == "vindr":  # the readers' box: the heart's wide part
        widths = rows
        rows = np.where(widths > 0.85 * widths.max(), widths, 0)
    floor = 1 if min((rows > 0).sum(), (cols > 0).sum()) < 12 else 2
    ys, xs = np.flatnonzero(rows >= floor), np.flatnonzero(cols >= floor)
    if len(ys) < 2 or len(xs) < 2:
        return None
    xyxy = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
    return Box(name, xyxy, float(change[seen].mean()))


def draw_lesion(
    name: str, patient: Patient, rng: np.random.Generator, *, severity: float
) -> Lesion:
    """Draw place and size of a finding in a patient.

    Args:
        name: one of `FINDINGS`.
        patient: whose lungs it lies in.
        rng: where the draws come from.
        severity: 0 (barely visible) to 1 (obvious).

    Raises:
        ValueError: for another name or severity.
    """
    if name not in FINDINGS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(FINDINGS)}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity!r}; expected 0 to 1")
    mean_w, mean_h, spread, u, f, spread_f = _PLACES[name]
    log = rng.normal(0, spread)
    stretch = rng.normal(0, 0.08 if name == "Nodule/Mass" else 0.25)
    grown = patient.traits["grown"]
    width = grown * mean_w * np.exp(log + 0.35 * severity - 0.15 + stretch)
    height = grown * mean_h * np.exp(log + 0.35 * severity - 0.15 - stretch)
    side = -1 if rng.uniform() < 0.54 else 1
    u_at = float(np.clip(rng.normal(u, 0.22), 0.15, 0.9))
    f_at = float(np.clip(rng.normal(f, spread_f), 0.06, 0.82))
    if name in ("Pleural thickening", "Pleural effusion"):
        apical = name == "Pleural thickening" and rng.uniform() < 0.68
        f_at = 0.05 if apical else f_at
        u_at = 0.6 if apical else 0.97
        if name == "Pleural effusion":
            width, height = max(width, 2.0), max(height, 2.4)  # less does not blunt the angle
            f_at = float(np.clip(1.0 - 0.5 * height / patient.lung_height, 0.2, 0.97))
    if name == "Calcification" and rng.uniform() < 0.35:
        u_at, f_at = 0.05, 0.25
    seed = int(rng.integers(2**62))
    if name == "Nodule/Mass":  # a smaller one does not show between the vessels
        width, height = max(width, 0.7), max(height, 0.7)
    height = min(height, 0.9 * patient.lung_height)
    return Lesion(name, side, u_at, f_at, float(width), float(height), float(severity), seed)


# Mean width and height in cm, spread of their logarithm, place (u, f) and spread of f.
# Source: boxes of the VinBigData training table and NIH's BBox_List_2017.csv, taken as medians
# of images that are 36 cm wide.
_PLACES = {
    "Aortic enlargement": (4.2, 4.8, 0.1, 0.1, 0.25, 0.02),
    "Atelectasis": (11.0, 7.0, 0.35, 0.5, 0.62, 0.18),
    "Calcification": (2.7, 3.1, 0.45, 0.5, 0.4, 0.25),
    "Cardiomegaly": (15.0, 12.0, 0.1, 0.1, 0.75, 0.02),
    "Consolidation": (6.8, 7.4, 0.35, 0.55, 0.52, 0.2),
    "Edema": (12.0, 14.0, 0.1, 0.3, 0.55, 0.05),
    "Emphysema": (12.0, 20.0, 0.1, 0.5, 0.5, 0.05),
    "Hernia": (7.0, 6.0, 0.2, 0.1, 0.8, 0.02),
    "ILD": (8.0, 13.5, 0.3, 0.55, 0.6, 0.12),
    "Infiltration": (6.8, 8.0, 0.35, 0.5, 0.5, 0.22),
    "Lung Opacity": (5.6, 6.0, 0.4, 0.5, 0.55, 0.22),
    "Nodule/Mass": (1.4, 1.4, 0.5, 0.55, 0.5, 0.25),
    "Other lesion": (5.0, 5.9, 0.4, 0.5, 0.55, 0.25),
    "Pleural effusion": (4.4, 5.2, 0.6, 0.95, 0.9, 0.05),
    "Pleural thickening": (4.0, 2.6, 0.35, 0.9, 0.6, 0.3),
    "Pneumonia": (9.0, 9.5, 0.25, 0.5, 0.58, 0.15),
    "Pneumothorax": (4.6, 8.2, 0.35, 0.9, 0.2, 0.08),
    "Pulmonary fibrosis": (4.4, 4.2, 0.4, 0.5, 0.33, 0.25),
}


# --- the image -----------------------------------------------------------------------------------


def render(
    patient: Patient,
    acquisition: Acquisition,
    lesions: tuple[Lesion, ...] = (),
    *,
    keep_maps: bool = False,
) -> Radiograph:
    """Make the radiograph of a patient with these findings.

    Args:
        patient: from `draw_patient`.
        acquisition: from `draw_acquisition`.
        lesions: from `draw_lesion`.
        keep_maps: also return the thickness maps (cm) and the signal, for figures.

    Returns:
        A `Radiograph`: float32 pixels (H, W) in [0, 1] and one box (or None) per lesion.
    """
    patient = _changed(patient, lesions)
    scene = _Scene(patient, acquisition)
    scene.body()
    scene.mediastinum()
    scene.abdomen()
    scene.skeleton()
    scene.vessels()
    order = sorted(range(len(lesions)), key=lambda i: lesions[i].name == "Pneumothorax")
    boxes: list[Box | None] = [None] * len(lesions)
    for i in order:
        change = scene.find(lesions[i])
        boxes[i] = _box(lesions[i].name, change, acquisition.site)
    scene.devices()
    signal = _expose(scene)
    pixels = _process(scene, signal)
    maps = {}
    if keep_maps:
        lung = np.maximum(scene.lung - scene.fluid, 0)
        maps = {"soft tissue": scene.soft - scene.lung + scene.fluid, "lung": lung}
        maps |= {"bone": scene.bone, "metal": scene.metal, "gas": scene.gas, "signal": signal}
    return Radiograph(pixels, tuple(boxes), maps)


def _changed(patient: Patient, lesions: tuple[Lesion, ...]) -> Patient:
    """The patient with those findings that change the anatomy itself."""
    traits = dict(patient.traits)
    for lesion in lesions:
        s = lesion.severity
        if lesion.name == "Cardiomegaly":
            traits["cardiomegaly"] = max(0.54 / traits["heart"], 1.0) * (1.02 + 0.22 * s)
        elif lesion.name == "Aortic enlargement":
            traits["aorta"] = max(1.6 / traits["knob"], 1.0) * (1.02 + 0.28 * s)
            traits["unfold"] = traits["unfold"] + 0.9 * s
        elif lesion.name == "Emphysema":
            traits |= {"flat_dome": 0.3 + 0.5 * s, "markings": traits["markings"] * (1 - 0.5 * s)}
            traits |= {"thin": 0.2 + 0.4 * s, "heart": traits["heart"] * (0.95 - 0.15 * s)}
        elif lesion.name == "Edema":
            traits |= {"vessels": 1.2 + 1.0 * s, "hila": 1.2 + 1.0 * s}
            traits["heart"] = min(traits["heart"] * (1 + 0.12 * s), 0.62)
        elif lesion.name in ("ILD", "Pulmonary fibrosis"):
            traits["trachea"] = traits.get("trachea", 0) + 0.5 * s * lesion.side
    outline = patient.outline
    if "thin" in traits:  # the lungs of emphysema are long
        outline = outline.copy()
        outline[:, 1] *= 1 + 0.3 * traits["thin"]
    return replace(patient, traits=traits, outline=outline)


def _expose(scene: _Scene) -> np.ndarray:
    """The detector's signal (H, W), 1 where nothing is in the beam: transmission, scatter, noise.

    Source: Beer-Lambert law; scatter as a veil proportional to the blurred primary.
    """
    lung = np.maximum(scene.lung - scene.fluid, 0)
    thin = 1 - scene.t.get("thin", 0.0)
    soft = np.maximum(scene.soft - lung - scene.gas, 0)
    path = MU_SOFT * soft + MU_LUNG * thin * lung
    path += (MU_BONE - 0.5 * MU_SOFT) * scene.bone + MU_METAL * scene.metal
    path = path / (1 + 0.02 * path)  # the beam hardens on its way
    primary = np.exp(-path)
    small = ndimage.zoom(primary * np.minimum(scene.soft / 20, 1), 0.125, order=1)
    veil = _upsample(ndimage.gaussian_filter(small, 4.0 / 8 / scene.step), scene.hw)
    signal = primary + scene.q["scatter"] * veil
    rng = _rng(scene.a.seed, 4, scene.p.number, int(scene.q["dose"] * 1e3))
    noise = rng.standard_normal(scene.hw, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, scene.q["grain"], truncate=2.5) * 1.6 * scene.q["grain"]
    quanta = scene.q["dose"] * scene.step**2 * 45
    return np.maximum(signal + np.sqrt(signal / quanta) * noise, 1e-5).astype(np.float32)


def _process(scene: _Scene, signal: np.ndarray) -> np.ndarray:
    """A site's processing: logarithm, local contrast, sharpening, window, borders and marks."""
    q = scene.q
    log = -np.log(signal)
    log = ndimage.gaussian_filter(log, q["blur"] * scene.hw[0] / 256, truncate=2.5)
    # an oblique grid and the anode's heel darken one side
    log += q["gradient_x"] / 20 * scene.x + q["gradient_y"] / 20 * (scene.y - scene.pivot_y)
    small = ndimage.zoom(log, 0.125, order=1)
    wide = _upsample(ndimage.gaussian_filter(small, 2.6 / 8 / scene.step, mode="nearest"), scene.hw)
    flat = log - q["local"] * (wide - wide.mean())
    if q["sharpen"] > 0.05:
        flat = flat + q["sharpen"] * (log - ndimage.gaussian_filter(log, 0.28 / scene.step))
    sample = (slice(None, None, 3), slice(None, None, 3))
    in_lung = scene.field[sample] > 0.8
    in_heart = scene.heart[sample] > 3
    low = float(np.quantile(flat[sample][in_lung], 0.3)) if in_lung.any() else 1.0
    high = float(np.quantile(flat[sample][in_heart], 0.6)) if in_heart.any() else low + 1.0
    x = (flat - low) / max(high - low, 0.5)
    gray = q["lung_gray"] + q["contrast"] * x
    toe = 0.09 * q["toe"]
    gray = toe * _softplus(gray / toe)  # soft toe
    top = q["top_gray"]
    gray = top - 0.12 * _softplus((top - gray) / 0.12)  # soft shoulder
    rng = _rng(scene.a.seed, 10, scene.p.number, int(q["readout"] * 1e9))
    gray = gray + np.float32(q["readout"]) * rng.standard_normal(scene.hw, dtype=np.float32)
    gray = _frame(scene, gray.astype(np.float32))
    return np.clip(gray, 0, 1)


def _frame(scene: _Scene, gray: np.ndarray) -> np.ndarray:
    """Collimation, shutters and borders, then side marks and words."""
    rng = _rng(scene.a.seed, 7, scene.p.number, int(scene.q["border"] * 1e9))
    h, w = scene.hw
    border = scene.q["border"]
    share = 0.20 if scene.a.site == "nih" else 0.12
    if border < share:
        rows = np.arange(h, dtype=np.float32)[:, None] / h
        cols = np.arange(w, dtype=np.float32)[None, :] / w
        lean = rng.normal(0, 0.012)
        left, right, top, bottom = map(float, np.maximum(rng.normal(0.0, 0.05, 4), 0))
        a, b = cols + lean * rows, rows - lean * cols
        inside = np.minimum.reduce(
            [
                np.broadcast_to(m, gray.shape)
                for m in (a - left, 1 - right - a, b - top, 1 - bottom - b)
            ]
        )
        soft = float(rng.choice((0.002, 0.006, 0.03)))
        window = _smooth(inside / soft)
        value = float(rng.choice((0.0, 0.04, 0.92, 1.0), p=(0.6, 0.3, 0.05, 0.05)))
        gray = gray * window + np.float32(value) * (1 - window)
    if rng.uniform() < 0.85:
        _mark(gray, rng, scene.a)
    return gray


def _mark(gray: np.ndarray, rng: np.random.Generator, acquisition: Acquisition) -> None:
    """Burn a side mark, and on portable images more words, into `gray`."""
    h, w = gray.shape
    ap = acquisition.view == "AP"
    size = h * rng.uniform(0.018, 0.035)
    left_side = rng.uniform() < 0.75
    x = rng.uniform(0.84, 0.95) if left_side else rng.uniform(0.04, 0.14)
    y = rng.uniform(0.02, 0.14) if rng.uniform() < 0.8 else rng.uniform(0.2, 0.6)
    level = rng.uniform(0.75, 1.0)
    _write(gray, "L" if left_side else "R", (x * w, y * h), size, rng.normal(0, 0.15), level)
    if rng.uniform() < 0.25:
        rows, cols = np.ogrid[:h, :w]
        r = np.hypot(rows - (y * h - size), cols - x * w)
        np.maximum(gray, level * _smooth((0.55 * size - r) / 0.8), out=gray)
    if ap and rng.uniform() < 0.5:
        word = ("PORTABLE", "AP", "SUPINE", "AP SUPINE", "ERECT")[int(rng.integers(5))]
        at = (rng.uniform(0.05, 0.75) * w, rng.uniform(0.01, 0.12) * h)
        _write(gray, word, at, 0.6 * size, 0.0, level)
        if rng.uniform() < 0.5:
            _write(gray, "^", (x * w, (y + 0.06) * h), size, 0.0, level)


def _write(
    gray: np.ndarray,
    text: str,
    at: tuple[float, float],
    size: float,
    tilt: float,
    level: float,
) -> None:
    """Draw letters of height `size` px with their upper left corner at `at` (x, y)."""
    letters = [np.array([[n >> (4 - b) & 1 for b in range(5)] for n in _GLYPHS[c]]) for c in text]
    bits = np.pad(np.concatenate([np.pad(g, ((0, 0), (0, 1))) for g in letters], 1), 1)
    scale = size / 7
    reach = int(np.ceil(np.hypot(*bits.shape) * scale)) + 2
    x0, y0 = int(at[0]), int(at[1])
    rows = np.arange(max(y0 - reach, 0), min(y0 + reach, gray.shape[0]))
    cols = np.arange(max(x0 - reach, 0), min(x0 + reach, gray.shape[1]))
    if not len(rows) or not len(cols):
        return
    dy, dx = (rows - at[1])[:, None] / scale, (cols - at[0])[None, :] / scale
    c, s = np.cos(tilt), np.sin(tilt)
    ink = ndimage.map_coordinates(
        bits.astype(np.float32), [c * dy - s * dx + 0.5, c * dx + s * dy + 0.5], order=1, cval=0.0
    )
    part = gray[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    np.maximum(part, np.float32(level) * np.clip(1.4 * ink, 0, 1), out=part)
