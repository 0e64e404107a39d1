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

Needs: numpy, scipy.
"""

from __future__ import annotations

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

    `outline` is (2, 32): for the right and the left lung the numbers of the shape model, in cm.
    `tree` is (points, 5): x, y, radius, length and side of the vessels' pieces.
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

    `severity` runs from 0 (barely visible) to 1 (obvious).
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
    """How one image is taken: `image_hw` pixels over `field_cm` (height, width), and its traits."""

    site: str
    view: str
    image_hw: tuple[int, int]
    field_cm: tuple[float, float]
    seed: int
    traits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """The box of a drawn finding; `contrast` is its mean change of attenuation inside."""

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
    height = grown * (25.2 if sex == "M" else 22.6) * rng.normal(1, 0.07)
    modes = np.clip(rng.normal(size=6) * 1.15, -2.5, 2.5)
    shape = _SHAPE[0] + np.tensordot(modes, _SHAPE[1:], 1)
    wide = rng.normal(0.95, 0.05)
    outline = shape * height
    outline[:, 2:23] *= wide
    outline[:, 23:] = shape[:, 23:]  # domes stay fractions of the lung's height
    fat = grown * (0.6 + rng.gamma(2.0, 0.9 if sex == "M" else 1.1))
    depth = grown * (17.0 if sex == "M" else 15.5) * rng.normal(1, 0.08) + 1.6 * fat
    lateral = float(outline[:, 2:14].max())
    traits = {
        "heart": float(np.clip(rng.normal(0.45, 0.035) + 0.0008 * max(age - 40, 0), 0.36, 0.56)),
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
        "clavicle_slope": rng.normal(0.20, 0.09),
        "shoulder": lateral + grown * rng.normal(5.2 if sex == "M" else 4.2, 0.6),
        "neck": grown * rng.normal(6.2 if sex == "M" else 5.3, 0.5) + 0.25 * fat,
        "scoliosis": rng.normal(0, 0.35),
        "vertebra": height * rng.normal(0.098, 0.004),
        "spine": grown * rng.normal(1.75, 0.12),
        "breast": float(sex == "F" and age > 12) * rng.gamma(4.0, 0.9) * (0.7 + 0.2 * fat),
        "breast_f": rng.normal(0.80, 0.08),
        "breast_x": rng.normal(0.60, 0.05),
        "dome_right": min(rng.normal(-0.01, 0.022), 0.04),
        "dome_left": min(rng.normal(0.0, 0.022), 0.04),
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
            n = 24 - 3 * generation
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
            keep = (radius > 0.03) & (xy[:, 0] > 1.0) & (xy[:, 0] < reach)
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
        "zoom": (rng.normal(1.10, 0.075) if ap else rng.normal(1.03, 0.045)),
        "tilt": rng.normal(0, 0.055 if ap else 0.02),
        "shift_x": rng.normal(0, 2.0 if ap else 1.0),
        "shift_y": rng.normal(0.6, 2.2 if ap else 1.6),
        "rotation": rng.normal(0, 1.8 if ap else 0.7),
        "lordosis": rng.normal(0.035 if ap else 0.0, 0.02),
        "inspiration": float(np.clip(rng.normal(0.87 if ap else 0.97, 0.05), 0.68, 1.06)),
        "heart": 1.09 if ap else 1.0,
        "scapula": rng.uniform(0.0, 0.35) if not ap else rng.uniform(0.35, 1.0),
        "arms": rng.normal(2.2, 1.2) if ap else rng.normal(4.0, 1.8),
        "shrug": rng.uniform(0.0, 2.5) if ap else rng.uniform(-0.5, 1.2),
        "supine": float(ap and rng.uniform() < 0.6),
        "haze": rng.gamma(1.2, 1.0) if ap else rng.gamma(0.8, 0.3),
        "haze_side": rng.normal(0, 0.6),
        "gradient_x": rng.normal(0, 0.30 if ap else 0.08),
        "gradient_y": rng.normal(0, 0.30 if ap else 0.12),
        "dose": float(np.exp(np.clip(rng.normal(12.0 if ap else 12.8, 0.6), 11.0, 14.5))),
        "scatter": rng.uniform(0.5, 1.7) if ap else rng.uniform(0.2, 0.8),
        "grain": rng.uniform(0.4, 1.0),
        "local": rng.uniform(0.0, 0.45) if nih else rng.uniform(0.15, 0.6),
        "sharpen": rng.uniform(0.0, 0.8) if nih else rng.uniform(0.2, 1.2),
        "lung_gray": rng.uniform(0.24, 0.50) if nih else rng.uniform(0.12, 0.34),
        "bright_gray": rng.uniform(0.70, 0.93) if nih else rng.uniform(0.80, 0.99),
        "toe": rng.uniform(0.5, 1.4),
        "outer": rng.uniform(),
        "border": rng.uniform(),
        "chin": rng.uniform() * (1.0 if ap else 4.0),
    }
    if ap:
        traits["lung_gray"] = min(0.62, traits["lung_gray"] + rng.uniform(0.0, 0.12))
    return Acquisition(site, view, tuple(image_hw), tuple(field_cm), int(image), traits)


# --- geometry ------------------------------------------------------------------------------------


def _smooth(x: np.ndarray) -> np.ndarray:
    """A soft step: 0 below -1, 1 above 1."""
    t = 0.5 * x
    t += 0.5
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)


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
        at = np.linspace(0, out.shape[axis] - 1.001, n, dtype=np.float32)
        low = at.astype(np.int64)
        weight = at - low
        weight = weight * weight * (3 - 2 * weight)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        a, b = np.take(out, low, axis), np.take(out, low + 1, axis)
        out = a + (b - a) * weight
    return out


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


class _Scene:
    """Pixel coordinates of one image, and the thickness maps (cm) that are being filled."""

    def __init__(self, patient: Patient, acquisition: Acquisition):
        self.p, self.a = patient, acquisition
        self.t = {**patient.traits}
        self.q = acquisition.traits
        h, w = self.hw = acquisition.image_hw
        field_h, field_w = acquisition.field_cm
        zoom = self.q["zoom"]
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

    def look(self, table: np.ndarray, at: np.ndarray, low: float, high: float) -> np.ndarray:
        """Linear look-up in a table whose entries lie evenly from `low` to `high`."""
        pos = np.clip((at - low) * ((len(table) - 1) / (high - low)), 0, len(table) - 1.001)
        index = pos.astype(np.int32)
        frac = (pos - index).astype(np.float32)
        table = table.astype(np.float32)
        return table[index] + (table[index + 1] - table[index]) * frac

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
            knots = [0, *_DOME_AT, 1.0, 1.3]
            near = np.minimum(row[23:27], row[27] + 0.01)
            flat = [near[0], *near, *row[27:32], 1.0, 1.05]
            lift = self.t["dome_right" if len(dome) == 0 else "dome_left"]
            dome.append(_curve(knots, flat, np.linspace(0, 1.3, 100)) + lift)
            top.append(row[0])
            high.append(row[1])
        pick = lambda pair: np.where(right, np.float32(pair[0]), np.float32(pair[1]))  # noqa: E731
        self.high = pick(high) * self.insp
        self.f = (self.y - pick(top) * self.insp) / self.high
        widen = 1 + 0.25 * (1 - self.insp)
        scale = widen * (1 + 0.03 * self.q["rotation"] * self.side)

        def both(tables, at, low, hi):
            joined = np.concatenate(tables).astype(np.float32)
            n = len(tables[0])
            pos = np.clip((at - low) * ((n - 1) / (hi - low)), 0, n - 1.001)
            index = pos.astype(np.int32)
            frac = (pos - index).astype(np.float32)
            index = index + np.where(right, 0, n).astype(np.int32)
            return joined[index] * (1 - frac) + joined[index + 1] * frac

        self.lat = both(lat, self.f, -0.4, 1.5) * scale
        self.med = both(med, self.f, -0.4, 1.5)
        self.wall = np.maximum(self.lat, self.p.lung_height * 0.14)
        self.u = (self.ax - self.med) / np.maximum(self.lat - self.med, 0.2)
        widest = pick([o[2:14].max() for o in self.p.outline])
        column = (self.ax - pick([o[14:23].min() for o in self.p.outline])) / widest * 1.15
        flat_dome = self.t.get("flat_dome", 0.0)
        dome = self.domes = [1 - 1.25 * (1 - table) for table in dome]
        dome_f = both(dome, column, 0, 1.3)
        dome_f = dome_f + flat_dome * (0.97 - dome_f)
        self.below = (self.f - dome_f) * self.high  # cm below the diaphragm's dome
        edge = 1.5 * self.step
        inside = _smooth((self.lat - self.ax) / edge) * _smooth((self.ax - self.med) / edge)
        inside *= self.f > 0
        self.inside = inside * (self.f < 1.02)
        u = np.clip(self.u, 0, 1)
        depth = 0.66 * self.p.depth - 0.5 * self.p.fat
        round_off = _dome(np.clip((u - 0.25) / 0.75, 0, 1) ** 2) * (1 - 0.3 * (1 - u) ** 2)
        apex = _dome(np.clip(1 - self.f / 0.42, 0, 1) ** 2)
        above = np.maximum(-self.below, 0)
        front = _smooth(-self.below / 0.35) * (0.60 + 0.40 * (1 - np.exp(-above / 3.5)))
        recess = 0.15 * np.clip(4 * u - 0.8, 0, 1) * np.exp(-np.maximum(self.below, 0) / 2.4)
        self.field = self.inside * _smooth(-self.below / 0.5)  # what is seen as lung
        self.lung = depth * self.inside * round_off * apex * np.maximum(front, recess)

    # --- the parts of the body ---

    def body(self) -> None:
        """Torso, neck, shoulders and arms, breasts and skin folds."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        grown = t["grown"]
        chest = float(p.outline[:, 2:14].max()) + 2.6 * grown + 0.9 * p.fat
        shoulder = t["shoulder"] + 5.5 * grown + 0.5 * p.fat
        neck = t["neck"]
        ys = np.array([-14, -6.5, -4.5, -2.5, -0.5, 2.5, 6.0, 11.0, 16.0, 24.0, 34.0]) * grown
        rise = self.q["arms"] * 0.15 + self.q["shrug"]
        half = [neck, neck * 1.05, neck * 1.5, 0.74 * shoulder, 0.96 * shoulder, shoulder + 1.0]
        half += [0.97 * chest + 1.5]
        half += [chest, chest, chest * 0.98, chest * 0.97 + 0.3 * p.fat]
        deep = (
            np.array([0.66, 0.66, 0.68, 0.74, 0.84, 0.93, 0.97, 0.99, 1.05, 1.18, 1.25]) * p.depth
        )
        grid = np.linspace(-14, 34, 300)
        width = self.look(_curve(ys - rise, half, grid, 21), self.y, -14, 34)
        depth = self.look(_curve(ys, deep, grid, 21), self.y, -14, 34)
        xc = np.abs(self.x - 0.4 * self.mid)
        edge = np.minimum(xc / width, 1)
        torso = depth * _dome(_fourth(edge) * edge * edge)
        self.torso_width = width
        out = self.q["arms"]
        start_x, start_y = t["shoulder"] + 1.2 * grown, 2.4 * grown
        lean = float(np.clip(out / 16, -0.05, 0.7))
        self.arm_axis = xc - start_x - lean * np.maximum(self.y - start_y, 0)
        self.arm_from = start_y
        radius = (4.2 + 0.45 * p.fat) * grown
        arm = 1.8 * radius * _dome((self.arm_axis / radius) ** 2) * _smooth((self.y + 1.5) / 3.0)
        self.soft = np.maximum(torso, arm)
        self.soft = self.soft + 0.10 * (torso + arm - self.soft)
        if self.q["chin"] < 0.3:  # the jaw at the upper border
            up = (self.y + 13.5 + 9 * self.q["chin"]) / 4.5
            self.soft = self.soft + 9.0 * _dome((xc / 6.5) ** 2 + up * up)
            jaw = np.abs(np.sqrt((xc / 5.5) ** 2 + up * up) - 0.95)
            self.bone = self.bone + 0.8 * _smooth((0.13 - jaw) / 0.1)
        if t["breast"] > 0.3:
            size = t["breast"]
            reach = 5.0 + 0.9 * size
            bx = t["breast_x"] * float(p.outline[:, 2:14].max())
            droop = self.y - (t["breast_f"] * h - (0.25 * h if self.q["supine"] else 0.0))
            r2 = ((self.ax - bx) / reach) ** 2
            up = np.where(droop > 0, (droop / (0.35 * reach)) ** 2, (droop / (1.25 * reach)) ** 2)
            flat = 0.55 if self.a.view == "AP" else 1.0
            self.soft = self.soft + flat * 0.95 * size * np.maximum(1 - r2 - up, 0) * (
                xc < width + 1.5
            )
        elif t["grown"] > 0.9:
            r2 = ((self.ax - 0.55 * chest) / 8.5) ** 2 + ((self.y - 0.33 * h) / 7.5) ** 2
            self.soft = self.soft + 1.4 * _dome(r2)

    def mediastinum(self) -> None:
        """Heart, great vessels, hila and trachea, as soft tissue that takes the lung's place."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        thorax = float(sum(o[2:14].max() for o in p.outline)) * (1 + 0.25 * (1 - self.insp))
        width = t["heart"] * self.q["heart"] * t.get("cardiomegaly", 1.0) * thorax
        shift = -0.4 * self.q["rotation"]
        x, y = self.x - self.curve * 0.5 - shift, self.y
        depth = 0.62 * p.depth
        tip, spread = t["heart_tilt"], 0.64 * width
        rows = np.array([0.22, 0.30, 0.36, 0.43, 0.52, 0.62, 0.72, 0.81, 0.88, 0.95, 1.02]) * h
        waist = 2.2 * t["grown"] + 0.10 * width
        grow = np.array([0.0, 0.0, 0.06, 0.16, 0.36, 0.62, 0.85, 0.98, 0.97, 0.78, 0.30])
        left = waist + (spread - waist) * grow ** (0.6 + 0.8 * tip)
        bulge = np.array([0.0, 0.0, 0.1, 0.30, 0.62, 0.88, 1.0, 0.98, 0.85, 0.6, 0.2])
        right = 0.5 * waist + (0.36 * width - 0.5 * waist) * bulge
        deep = np.array([0.0, 0.25, 0.5, 0.65, 0.8, 0.95, 1.0, 1.0, 0.95, 0.7, 0.3])
        grid = np.linspace(0.2 * h, 1.05 * h, 160)
        left, right, deep = (
            self.look(_curve(rows, c, grid), y, 0.2 * h, 1.05 * h) for c in (left, right, deep)
        )
        middle, half = 0.5 * (left - right), 0.5 * (left + right)
        heart = depth * deep * _dome(((x - middle) / half) ** 2)
        heart *= _smooth((y - 0.28 * h) / (0.07 * h)) * _smooth((1.0 * h - y) / 1.5)
        self.heart = heart
        knob = t["knob"] * t.get("aorta", 1.0)
        self.knob_at = (0.7 + 0.78 * knob + 0.2 * t["unfold"], 0.255 * h)
        arch = ((x - self.knob_at[0]) / (1.12 * knob)) ** 2 + (
            (y - self.knob_at[1]) / (1.25 * knob)
        ) ** 2
        self.arch = 4.2 * knob * _dome(arch)
        down = _smooth((y - 0.22 * h) / 1.5) * _smooth((1.0 * h - y) / 2.0)
        axis = 0.55 * knob + 0.55 + t["unfold"] * np.sin(np.clip((y / h - 0.2) / 0.8, 0, 1) * 3.14)
        descending = 1.9 * knob * _dome(((x - axis) / (0.82 * knob)) ** 2) * down
        rise = _smooth((y - 0.17 * h) / 1.2) * _smooth((0.6 * h - y) / 2.0)
        ascending = 3.0 * _dome(((x + 1.15 + 0.3 * t["unfold"]) / (1.35 * knob)) ** 2) * rise
        half = t["mediastinum"] * (1 + 0.12 * (self.a.view == "AP")) * t["grown"] ** 0.7
        half = half + 0.35 - 0.5 * _smooth((0.12 * h - y) / 2.0)
        upper = 0.5 * p.depth * _dome((np.abs(x) / (half * (1 - 0.1 * np.cos(y * 0.3)))) ** 2)
        upper = upper * _smooth((y + 1.0) / 3.0) * _smooth((0.75 * h - y) / 3.0)
        fluid = np.maximum.reduce([heart, self.arch, ascending, upper]) + descending
        hilum = 0.0
        for side, at in ((-1, 0.43), (1, 0.39)):
            hx, hy = side * (3.7 + 0.1 * p.fat) * t["grown"], at * h
            dx, dy = self.x - hx, self.y - hy
            turn = dx * (0.878 * side) + dy * 0.479
            other = dy * 0.878 - dx * (0.479 * side)
            hilum = hilum + 2.0 * _dome((turn / 1.3) ** 2 + (other / 2.9) ** 2)
        fluid = fluid + 1.1 * hilum * t["markings"] * t.get("hila", 1.0)
        self.lung = self.lung - np.minimum(fluid, 0.93 * self.lung)
        self.fluid = np.zeros(self.hw, np.float32)
        # trachea and main bronchi
        carina = 0.27 * h
        pull = t.get("trachea", 0.0) + 0.15 * self.q["rotation"]
        air = 1.0 * _dome(((self.x - self.curve - pull) / (0.85 * t["grown"])) ** 2)
        air *= _smooth((carina - self.y) / 0.8) * (0.35 + 0.65 * _smooth((self.y + 4) / 5))
        for side in (-1, 1):
            slope = 1.3 if side < 0 else 0.75
            line = (self.y - carina + 0.6) - slope * side * (self.x - self.curve - pull)
            air = np.maximum(
                air,
                0.8
                * _dome((line / (1.1 * t["grown"])) ** 2)
                * _smooth((side * (self.x - pull) + 0.1) / 0.3)
                * _smooth((3.6 - side * self.x) / 0.8),
            )
        self.gas = self.gas + air * t["grown"]

    def abdomen(self) -> None:
        """Gastric bubble and bowel gas below the left dome."""
        t = self.t
        p = self.p
        lateral = float(p.outline[1, 2:14].max())
        if t["bubble"] < 0.42:
            size = 1.6 + 4.0 * t["bubble"]
            dx = (self.x - 0.50 * lateral) / (1.25 * size)
            top = self.below - 0.9
            dy = (top - size * 0.75) / (0.85 * size)
            level = (
                1.0 if self.q["supine"] or t["bowel"] > 0.5 else _smooth((0.75 * size - top) / 0.25)
            )
            bubble = 3.4 * np.maximum(1 - dx**2 - dy**2, 0) ** 0.5 * level
            self.gas = self.gas + bubble * (self.below > 0.2) * (self.side > 0)
        if t["bowel"] < 0.35:
            rng = self.rng
            blobs = np.zeros(self.hw, np.float32)
            for _ in range(5):
                cx, cy = rng.uniform(0.1, 0.9) * lateral, rng.uniform(4, 11)
                r = rng.uniform(0.8, 2.2)
                d = ((self.x - cx) / (1.3 * r)) ** 2 + ((self.below - cy) / r) ** 2
                blobs = np.maximum(blobs, 0.9 * r * np.maximum(1 - d, 0))
            self.gas = self.gas + blobs * (self.below > 0.5)

    def skeleton(self) -> None:
        """Ribs front and back, spine, clavicles, scapulae and humeri."""
        p, t = self.p, self.t
        h = p.lung_height
        lift = self.q["lordosis"] * h
        gap = t["rib_space"] * h * (0.72 + 0.28 * self.insp)
        s = np.clip(self.ax / (self.wall + 0.5), 0, 1.08)
        size = t["rib_size"]
        px = self.step
        wave = 0.12 * np.sin(3.1 * self.ax / 4 + self.p.number % 7)
        drop = t["rib_drop"] * h * (0.75 + 0.45 * np.clip(self.f, 0, 1))

        rng = _rng(p.number, 8)
        shifts = rng.normal(0, 0.05, 20).astype(np.float32)
        strength = rng.uniform(0.65, 1.25, 20).astype(np.float32)

        def ribs(y0, slope, r):
            phase = (self.y - y0) / gap
            index = np.round(phase)
            each = np.clip(index + 3, 0, 19).astype(np.int32)
            d = (phase - index + shifts[each]) * gap / np.sqrt(1 + slope**2)
            shell = np.abs(np.abs(d) - 0.82 * r)
            width = max(0.13, 0.8 * px)
            body = _smooth((r - np.abs(d)) / (0.9 * px))
            cortex = np.maximum(1 - shell / width, 0)
            low = np.where(d > 0, np.float32(1.5), np.float32(1))
            return index, (0.26 * body + 0.13 * cortex * low * body) * strength[each]

        s3 = s * s * s
        y0 = t["rib_first"] * h + drop * (1.3 * s * s - 0.42 * s) + wave
        slope = drop * (2.6 * s - 0.42) / self.wall
        index, back = ribs(y0, slope, size)
        tangent = 1 + 0.5 * s3 * s3
        back = back * tangent * ((index >= 0) & (index <= 11)) * (s < 1.06) * (self.ax > 1.6)
        front_drop = t["rib_front"] * h
        y1 = (
            t["rib_first"] * h
            + 0.82 * drop
            + front_drop * (1 - s) * (1.25 - 0.35 * s)
            - 2 * lift
            + wave
        )
        slope = front_drop * (1.6 - 0.7 * s) / self.wall
        index, front = ribs(y1, slope, 1.12 * size)
        ends = np.clip(0.30 + 0.035 * index, 0.3, 0.75)
        front = front * _smooth((s - ends) / 0.06) * ((index >= 0) & (index <= 8)) * (s < 1.05)
        hidden = 1 - 0.6 * _smooth((self.below - 2.0) / 2.5)
        self.bone = self.bone + t["bone"] * hidden * (back + 0.5 * front)
        # spine
        dx = self.x - self.mid
        half = t["spine"] * (0.72 + 0.014 * self.y)
        period = t["vertebra"]
        phase = self.y / period + 0.35
        disc = _smooth((np.abs(phase - np.round(phase)) * period - 0.17) / 0.14)
        column = 0.55 * _dome(_fourth(dx / half)) * (0.6 + 0.4 * disc)
        rim = np.exp(-(((np.abs(dx) - 0.92 * half) / 0.16) ** 2)) * disc
        mid_phase = phase + 0.5
        dy = (mid_phase - np.round(mid_phase)) * period
        pedicle = np.exp(
            -((((np.abs(dx) - 0.62 * half) / 0.33) ** 2 + (dy / 0.5) ** 2 - 1) ** 2) * 3
        )
        spinous = np.exp(
            -(((dx + 0.3 * self.q["rotation"]) / 0.28) ** 2) - ((dy - 0.5) / 0.55) ** 2
        )
        process = _dome(_fourth(dx / (half + 1.7))) * np.exp(-(((dy + 0.2) / 0.4) ** 2))
        fade = 0.35 + 0.4 * _smooth((self.y - 2) / 4)
        spine = column + 0.12 * rim + 0.18 * pedicle + 0.30 * spinous + 0.15 * process
        self.bone = self.bone + t["bone"] * spine * fade
        self._shoulders(h, px, lift)

    def _shoulders(self, h: float, px: float, lift: float) -> None:
        t = self.t
        grown = t["grown"]
        end = t["shoulder"] - 0.5
        v = np.clip((self.ax - 1.6) / (end - 1.6), 0, 1)
        tip = 0.6 * self.q["arms"] * 0.15 + t["clavicle_slope"] * end * 0.8
        y = t["clavicle_y"] * h + 1.2 - lift * 1.5 - tip * v + 0.75 * np.sin(v * 6.0) * grown
        y = y + 0.3 * self.q["rotation"] * self.side * (1 - v)
        r = grown * (0.68 + 0.35 * _fourth(1 - v) + 0.12 * v)
        d = np.abs(self.y - y)
        shell = np.maximum(1 - np.abs(d - 0.8 * r) / max(0.16, px), 0)
        along = _smooth((self.ax - 1.5) / 0.3) * _smooth((end - self.ax) / 0.4)
        clavicle = (0.46 * _smooth((r - d) / (0.9 * px)) + 0.24 * shell * (d < r)) * along
        # scapula: a thin plate with a thick lateral border, its spine and the glenoid
        into = self.q["scapula"]
        edge = t["shoulder"] + 0.3 - 2.2 * into
        lower = 0.62 * h
        tall = np.clip((self.y - 1.0) / (lower - 1.0), 0, 1)
        lateral = edge - (1.6 + 2.2 * into) * tall
        medial = lateral - (5.8 * grown) * (1 - tall) * (0.55 + 0.45 * into)
        within = _smooth((self.y - 1.0) / 0.5) * _smooth((lower - self.y) / 0.5)
        plate = _smooth((lateral - self.ax) / 0.3) * _smooth((self.ax - medial) / 0.3) * within
        border = np.exp(-(((self.ax - lateral) / 0.42) ** 2)) * within * (1 - 0.5 * tall)
        inner = np.exp(-(((self.ax - medial) / 0.16) ** 2)) * within
        spine_y = 1.6 + 0.28 * (edge - self.ax) * -0.6
        crest = np.exp(-(((self.y - spine_y) / 0.4) ** 2)) * _smooth((self.ax - medial) / 0.5)
        crest *= _smooth((t["shoulder"] + 1.2 - self.ax) / 0.5)
        scapula = 0.38 * plate + 1.1 * border + 0.4 * inner + 0.75 * crest
        # humerus
        r = 1.15 * grown
        d = np.abs(self.arm_axis)
        shaft = 0.6 * _smooth((r - d) / 0.3) + 0.35 * np.exp(-(((d - 0.75 * r) / 0.25) ** 2))
        shaft = shaft * _smooth((self.y - self.arm_from - 1.0) / 0.8)
        head2 = (self.ax - t["shoulder"] - 1.2) ** 2 + (self.y - self.arm_from) ** 2
        head = 0.85 * np.sqrt(_dome(head2 / (2.35 * grown) ** 2))
        self.bone = self.bone + t["bone"] * (clavicle + scapula + np.maximum(shaft, head))

    def vessels(self) -> None:
        """Pulmonary vessels, fine texture, and haze at the bases, mostly on AP images."""
        t = self.t
        x, y, r, length, side = self.p.tree.T
        y = y * self.insp
        col, row = self.to_pixels(x + 0.25 * self.q["rotation"], y)
        amount = np.pi * r * r * length / (self.px[0] * self.px[1])
        tree = np.zeros(self.hw, np.float32)
        blur = 0
        for low, high in ((0.0, 0.07), (0.07, 0.14), (0.14, 0.26), (0.26, 9.0)):
            pick = (r > low) & (r <= high)
            if pick.any():
                level = self.splat(col[pick], row[pick], amount[pick])
                blur = (0.65 if low > 0.2 else 0.5) * float(np.mean(r[pick])) / self.step
                level *= 0.7 if low > 0.2 else 1.0
                tree += ndimage.gaussian_filter(level, blur, truncate=2.5) if blur > 0.3 else level
        share = np.minimum(self.lung / 5.0, 1.0)
        tree = tree * share * t["markings"] * t.get("vessels", 1.0) * 1.25
        grain = _fractal(_rng(self.p.number, 5), self.hw, 28, 3, 0.9) * 0.17 * t["texture"] * share
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
        likely = (0.62 if ap else 0.05) * (1.0 if self.a.site == "nih" else 0.35)
        lines = []
        if rng.uniform() < likely * 0.5:  # central line from the neck, the subclavian or the arm
            kind, side = rng.integers(3), rng.choice((-1.0, 1.0, -1.0))
            tip = [-1.6 + rng.normal(0, 0.3), h * rng.uniform(0.32, 0.5)]
            start = (
                [[side * 4.0, -9.0], [side * 3.2, -3.0], [side * 2.0, 1.5]],
                [[side * 9.5, 3.2], [side * 6.5, 2.0], [side * 3.0, 2.6]],
                [[side * 20, 9.0], [side * 13.5, 2.5], [side * 7.0, 2.2], [side * 3.0, 2.7]],
            )[kind]
            lines.append((np.array([*start, [-1.5, 0.2 * h], tip]), 0.09, 0.6))
        if ap and rng.uniform() < likely * 0.25:  # endotracheal tube
            x = rng.normal(0, 0.25)
            end = h * rng.uniform(0.05, 0.22)
            for dx in (-0.35, 0.35):
                lines.append((np.array([[x + dx, -14], [x + dx, -5], [x + dx, end]]), 0.06, 0.5))
        if ap and rng.uniform() < likely * 0.3:  # gastric tube
            bend = rng.normal(0, 0.4, 3)
            end = [[1.0, 0.93 * h], [3.5, 1.05 * h], [6.0, 1.12 * h]]
            path = [[bend[0], -12], [bend[1], 0.1 * h], [0.6 + bend[2], 0.55 * h], *end]
            lines.append((np.array(path), 0.12, 0.4))
        if ap and rng.uniform() < likely * 0.1:  # chest tube
            side = rng.choice((-1.0, 1.0))
            w = float(np.max(self.p.outline[:, 2:14]))
            path = [
                [1.5 * w, 0.9 * h],
                [0.95 * w, 0.72 * h],
                [0.6 * w, 0.4 * h],
                [0.5 * w, 0.1 * h],
            ]
            lines.append((np.array(path) * [side, 1], 0.25, 0.3))
        if rng.uniform() < likely * 0.65:  # electrodes and their wires
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
        if lesion.name.startswith("Pleural") or lesion.name == "Pneumothorax":
            return float(np.clip(lesion.f, 0.03, 0.97)), lesion.u
        table = self.domes[int(lesion.side > 0)]
        f = lesion.f * float(np.interp(lesion.u * 1.15, np.linspace(0, 1.3, len(table)), table))
        if lesion.name == "Calcification" and lesion.u < 0.12:
            return f, lesion.u
        behind = 0.42 if lesion.side > 0 and f > 0.45 else 0.15
        return f, behind + (1 - behind) * lesion.u

    def find(self, lesion: Lesion) -> np.ndarray:
        """Draw one finding; return its map: the change in cm of soft tissue, for the box."""
        rng = _rng(lesion.seed)
        h = self.p.lung_height * self.insp
        i = int(lesion.side > 0)
        own = self.side == lesion.side
        row = self.p.outline[i]
        f_at, u_at = self._visible(lesion)
        lat = float(np.interp(f_at, _LATERAL_AT, row[2:14]))
        med = float(np.interp(f_at, _MEDIAL_AT, row[14:23]))
        cx = lesion.side * (med + u_at * (lat - med)) + float(np.mean(self.mid))
        cy = float(row[0] + f_at * row[1]) * self.insp
        dx, dy = self.x - cx, self.y - cy
        w, g = lesion.width / 2, lesion.height / 2
        s = 0.25 + 1.05 * lesion.severity
        shape = (dx / w) ** 2 + (dy / g) ** 2
        name = lesion.name
        seen = self.field * own
        zero = np.zeros(self.hw, np.float32)
        if name in ("Consolidation", "Pneumonia", "Infiltration", "Lung Opacity", "Atelectasis"):
            scale = max(3, int(1.6 * self.a.field_cm[0] / max(lesion.height, 2.0)))
            rough = _fractal(rng, self.hw, min(scale, 24), 3)
            amount = {"Consolidation": 4.8, "Pneumonia": 3.6, "Atelectasis": 3.8}.get(name, 2.6)
            fluff = {"Consolidation": 0.25, "Infiltration": 0.65}.get(name, 0.45)
            edge = 0.28 if name == "Consolidation" else 0.5
            if name == "Atelectasis":
                turn = rng.normal(0.1, 0.3) * lesion.side
                c, sn = float(np.cos(turn)), float(np.sin(turn))
                dy2, dx2 = dy * c + dx * sn, dx * c - dy * sn
                shape = _fourth(dx2 / w) + _fourth(dy2 / g)
                fluff, edge = 0.2, 0.22
            blob = _smooth((1 - shape + fluff * 0.6 * rough) / edge)
            if name in ("Infiltration", "Pneumonia", "Lung Opacity"):
                blob = blob * np.clip(0.75 + 0.45 * rough, 0.05, 1.6)
            change = amount * s * blob * np.exp(-0.5 * shape) * 1.2 * seen
            change = np.minimum(change, 0.85 * self.lung)
            self.fluid = self.fluid + change
            return change
        if name == "Edema":
            hilar = np.exp(-(((self.u - 0.25) / 0.38) ** 2) - ((self.f - 0.55) / 0.30) ** 2)
            rough = _fractal(rng, self.hw, 14, 3)
            lines = np.maximum(0, 1 - np.abs(_fractal(rng, self.hw, 40, 2)) / 0.35)
            change = (
                s * (3.6 * hilar * np.clip(0.9 + 0.3 * rough, 0.2, 2) + 0.35 * lines) * self.field
            )
            change = np.minimum(change, 0.8 * self.lung)
            self.fluid = self.fluid + change
            return change
        if name in ("ILD", "Pulmonary fibrosis"):
            fine = 34 if name == "ILD" else 24
            net = np.maximum(0, 1 - np.abs(_fractal(rng, self.hw, fine, 2)) / 0.45)
            rough = _fractal(rng, self.hw, 9, 2)
            window = _smooth((1 - shape + 0.25 * rough) / 0.4)
            haze = 0.25 if name == "ILD" else 0.5
            change = s * (1.0 * net + haze) * window * seen * (1.25 if name == "ILD" else 1.5)
            change = np.minimum(change, 0.8 * self.lung + 0.2)
            self.fluid = self.fluid + change
            return change
        if name == "Nodule/Mass":
            rough = _fractal(rng, self.hw, 14, 2) if lesion.width > 2 else zero
            body = 2 * w * _dome(shape * (1 + 0.18 * rough))
            thick = np.minimum(body * (0.45 + 0.75 * lesion.severity), 7.0)
            change = thick * seen
            self.fluid = self.fluid + change
            return change
        if name == "Calcification":
            if lesion.u < 0.12:  # the rim of the aortic arch
                ring = np.hypot(self.x - self.knob_at[0], self.y - self.knob_at[1])
                rim = np.exp(-(((ring - 0.9 * self.t["knob"]) / 0.12) ** 2))
                change = 0.5 * s * rim * (self.x > self.knob_at[0] - 0.3)
            else:
                grains = np.maximum(_fractal(rng, self.hw, 60, 1) - 0.3, 0)
                change = 0.8 * s * grains * _smooth((1 - shape) / 0.3) * self.inside
                change = change + 0.45 * s * _dome(shape * 1.5) * self.inside
            self.bone = self.bone + change
            return change * 2.0
        if name == "Pleural effusion":
            lateral = np.clip(self.u, 0, 1)
            if self.q["supine"] and lesion.height > 6:
                top = 1.0 - 1.25 * lesion.height / h
                veil = _smooth((self.f - top) / 0.35) * own * self.inside
                change = np.minimum((1.2 + 3.8 * s) * veil, 0.85 * self.lung)
            else:
                # the meniscus: highest at the wall, from which the level falls
                reach = float(np.clip(lesion.width / max(lat - med, 1), 0.12, 1.6))
                rise = np.clip((lateral - (1 - reach)) / reach, 0, 1) ** 2
                if lesion.height > 7:
                    rise = 0.55 + 0.45 * rise
                level = cy + g - lesion.height * rise
                inside = _smooth((self.y - level) / 0.55) * (rise > 0)
                change = inside * own * self.inside * np.minimum(self.lung, 2.0 + 7.0 * s)
            self.fluid = self.fluid + change
            return change * _smooth(-(self.below - 2.5) / 0.5)
        if name == "Pleural thickening":
            thick = float(np.clip(0.5 * min(lesion.width, lesion.height), 0.25, 1.6))
            rough = 1 + 0.3 * _fractal(rng, self.hw, 20, 1)
            near = np.minimum(self.lat - self.ax, self.f * self.high * 0.9)
            rim = _smooth((thick * rough - near) / 0.25) * self.inside * own
            window = _smooth((1 - np.abs(dx / w)) / 0.25) * _smooth((1 - np.abs(dy / g)) / 0.25)
            change = (0.6 + 2.4 * s) * rim * window
            self.fluid = self.fluid + change
            return change
        if name == "Pneumothorax":
            depth = float(np.clip(lesion.width / max(lat - med, 1), 0.06, 0.9))
            reach = lesion.f + lesion.height / h
            edge = 1 - depth * np.clip((reach - self.f) / max(reach, 0.1), 0, 1) ** 0.5
            top = 0.5 * depth
            fold = np.minimum(edge - self.u, (self.f - 0.5 * top) * 0.8)
            outside = _smooth(-fold / 0.02) * seen * (self.f < reach)
            self.fluid = self.fluid * (1 - outside)
            self.gas = self.gas + outside * self.lung * 0.22 * (0.4 + 0.6 * s)
            self.fluid = self.fluid + 0.5 * np.exp(-((fold / 0.012) ** 2)) * seen * (self.f < reach)
            collapse = 0.10 * (1 - outside) * seen * self.lung * depth
            self.fluid = self.fluid + collapse
            return outside * 2.0
        if name == "Hernia":
            cx, cy = 0.8 + rng.normal(0, 0.8), 0.80 * h
            r = 0.5 * lesion.width
            d = ((self.x - cx) / r) ** 2 + ((self.y - cy) / (0.85 * r)) ** 2
            change = 3.2 * s * _dome(d)
            air = 3.0 * _dome(1.8 * d) * (self.y < cy)
            self.soft = self.soft + change
            self.gas = self.gas + air
            return change
        if name == "Other lesion":
            kind = rng.integers(3)
            if kind == 0:  # bulla or cavity: a thin wall around air
                ring = np.exp(-(((np.sqrt(shape) - 0.92) / 0.10) ** 2)) * seen
                self.gas = self.gas + 1.6 * s * _dome(shape) * seen
                self.fluid = self.fluid + 1.0 * s * ring
                return _smooth((1 - shape) / 0.2) * seen
            if kind == 1:  # a band
                turn = rng.uniform(-1.2, 1.2)
                across = dx * float(np.sin(turn)) + dy * float(np.cos(turn))
                change = 1.6 * s * np.exp(-((across / (0.12 * g + 0.12)) ** 2)) * (shape < 1) * seen
                self.fluid = self.fluid + change
                return change
            change = 2.6 * s * np.sqrt(_dome(shape)) * np.ones_like(seen)
            self.soft = self.soft + change
            return change
        if name == "Aortic enlargement":
            return self.arch * (self.x > -0.4 * self.t["knob"])
        if name == "Cardiomegaly":
            reach = self.heart.max(1)
            return self.heart * (reach > 0)[:, None] * (self.below < 1.2)
        if name == "Emphysema":
            return self.field * 1.0
        raise ValueError(f"lesion is {name!r}; expected one of {', '.join(FINDINGS)}")


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
            f_at = float(np.clip(1.0 - 0.5 * height / patient.lung_height, 0.2, 0.97))
    if name == "Calcification" and rng.uniform() < 0.35:
        u_at, f_at = 0.05, 0.25
    seed = int(rng.integers(2**62))
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
    "Other lesion": (4.6, 5.4, 0.4, 0.5, 0.55, 0.25),
    "Pleural effusion": (4.4, 5.2, 0.65, 0.95, 0.9, 0.05),
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
    veil = _upsample(ndimage.gaussian_filter(small, 3.0 / 8 / scene.step), scene.hw)
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
    log = ndimage.gaussian_filter(log, 0.45, truncate=2.5)
    # an oblique grid and the anode's heel darken one side
    log += q["gradient_x"] / 20 * scene.x + q["gradient_y"] / 20 * (scene.y - scene.pivot_y)
    small = ndimage.zoom(log, 0.125, order=1)
    wide = _upsample(ndimage.gaussian_filter(small, 2.6 / 8 / scene.step, mode="nearest"), scene.hw)
    flat = log - q["local"] * (wide - wide.mean())
    if q["sharpen"] > 0.05:
        flat = flat + q["sharpen"] * (log - ndimage.gaussian_filter(log, 0.28 / scene.step))
    sample = (slice(None, None, 3), slice(None, None, 3))
    in_lung = scene.field[sample] > 0.8
    in_heart = (scene.heart[sample] > 2) | ((scene.below[sample] > 1) & (scene.ax[sample] < 9))
    low = float(np.quantile(flat[sample][in_lung], 0.4)) if in_lung.any() else 1.0
    high = float(np.quantile(flat[sample][in_heart], 0.6)) if in_heart.any() else low + 1.0
    x = (flat - low) / max(high - low, 0.25)
    gray = q["lung_gray"] + (q["bright_gray"] - q["lung_gray"]) * x
    toe = 0.09 * q["toe"]
    gray = toe * np.logaddexp(0, gray / toe)  # soft toe
    gray = 1 - 0.09 * np.logaddexp(0, (1 - gray) / 0.09)  # soft shoulder
    gray = _frame(scene, gray.astype(np.float32))
    return np.clip(gray, 0, 1)


def _frame(scene: _Scene, gray: np.ndarray) -> np.ndarray:
    """Collimation, shutters and borders, then side marks and words."""
    rng = _rng(scene.a.seed, 7, scene.p.number, int(scene.q["border"] * 1e9))
    h, w = scene.hw
    border = scene.q["border"]
    share = 0.38 if scene.a.site == "nih" else 0.18
    if border < share:
        rows = np.arange(h, dtype=np.float32)[:, None] / h
        cols = np.arange(w, dtype=np.float32)[None, :] / w
        lean = rng.normal(0, 0.012)
        left, right, top, bottom = map(float, np.maximum(rng.normal(0.0, 0.06, 4), 0))
        a, b = cols + lean * rows, rows - lean * cols
        inside = np.minimum.reduce(
            [
                np.broadcast_to(m, gray.shape)
                for m in (a - left, 1 - right - a, b - top, 1 - bottom - b)
            ]
        )
        soft = float(rng.choice((0.002, 0.006, 0.03)))
        window = _smooth(inside / soft)
        value = float(rng.choice((0.0, 0.02, 0.92, 1.0), p=(0.45, 0.15, 0.2, 0.2)))
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
