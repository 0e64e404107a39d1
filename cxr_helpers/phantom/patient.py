"""Who is X-rayed and how: anatomy that stays, and the settings of one image.

Source: lung outlines follow a statistical shape model, the mean and six principal components of
362 lung outlines in the V7 Labs masks of the COVID-19 image data collection (Cohen et al., 2020,
arXiv 2006.11988; semantic_masks_v7labs_lungs.zip of the package torchxrayvision). Outlines were
sampled at the heights `LATERAL_AT`, `MEDIAL_AT` and the columns `DOME_AT`, in units of the mean
lung height.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
Goes with: shapes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .shapes import seeded

SITES = ("nih", "vindr")

LATERAL_AT = (0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.93, 0.985)
MEDIAL_AT = (0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75)
DOME_AT = (0.06, 0.18, 0.30, 0.42, 0.54, 0.66, 0.78, 0.88, 0.96)

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

DOME_MEAN = _SHAPE[0, :, 23:].mean(0)


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
    rng = seeded(seed, 1, number)
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
    variety: float = 1.0,
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
        variety: times the usual spread of gray values and the usual haze; 1 is as in radiographs.

    Raises:
        ValueError: for an unknown site or view, a size that is not positive, or a negative variety.

    >>> given = {"site": "nih", "view": "PA", "image_hw": (64, 64), "field_cm": (36.0, 36.0)}
    >>> draw_acquisition(0, 7, 0, **given).view
    'PA'
    """
    if site not in SITES:
        raise ValueError(f"site is {site!r}; expected one of {', '.join(SITES)}")
    if view not in ("PA", "AP"):
        raise ValueError(f"view is {view!r}; expected 'PA' or 'AP'")
    if min(*image_hw, *field_cm) <= 0:
        raise ValueError(f"image_hw {image_hw} and field_cm {field_cm} must be positive")
    if not variety >= 0:
        raise ValueError(f"variety is {variety!r}; expected 0 or more")
    rng = seeded(seed, 2, number, image)
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
        "haze": variety * (rng.gamma(1.3, 2.2) if ap else rng.gamma(0.8, 0.6)),
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
    for name, usual in (("lung_gray", 0.41), ("contrast", 0.38)):
        traits[name] = usual + variety * (traits[name] - usual)
    if not nih:
        traits["lung_gray"] -= 0.12
        traits["contrast"] += 0.12
    return Acquisition(site, view, tuple(image_hw), tuple(field_cm), int(image), traits)
