"""Findings: where each lies, what it changes in the beam, and the box of that change.

A new finding takes a row in `_TYPICAL` (place and size) and a function in `_DRAW`; one that lies
within 1.5 times its size also a line in `_LOCAL`. It comes into the demo by the tables at the head
of `data_scripts/demo_nih.py` and `demo_vindr.py`.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
Goes with: patient.py, scene.py, shapes.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .patient import LATERAL_AT, MEDIAL_AT, Patient
from .scene import Scene, Window
from .shapes import ball, fourth_power, fractal, seeded, smooth_step

# Mean width and height in cm, spread of their logarithm, place (u, f) and spread of f.
# Source: boxes of the VinBigData training table and NIH's BBox_List_2017.csv, taken as medians
# of images that are 36 cm wide.
_TYPICAL = {
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
FINDINGS = tuple(_TYPICAL)


@dataclass(frozen=True)
class Lesion:
    """One finding: where it is (`side` -1 right lung, 1 left; `u`, `f`), how large, how dense.

    `width` and `height` are in cm. `severity` runs from 0 (barely visible) to 1 (obvious). `seed`
    is that of the finding's own shape. `plain` times its contrast is drawn: 1 is as in radiographs.
    """

    name: str
    side: int
    u: float
    f: float
    width: float
    height: float
    severity: float
    seed: int
    plain: float = 1.0


@dataclass(frozen=True)
class Box:
    """The box of a drawn finding: `xyxy` is x_min, y_min, x_max, y_max in pixels.

    `contrast` is the mean change that the finding makes where it exceeds 0.3 of its peak, in cm of
    soft tissue; these pixels do not fill the box, and some may lie outside it.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    contrast: float


def draw_lesion(
    name: str,
    patient: Patient,
    rng: np.random.Generator,
    *,
    severity: float,
    size: float = 1.0,
    plain: float = 1.0,
) -> Lesion:
    """Draw place and size of a finding in a patient.

    Args:
        name: one of `FINDINGS`.
        patient: whose lungs it lies in.
        rng: where the draws come from.
        severity: 0 (barely visible) to 1 (obvious).
        size: times the usual width and height.
        plain: times the usual contrast.

    Raises:
        ValueError: for another name or severity, or a size or contrast that is not positive.

    >>> from .patient import draw_patient
    >>> patient = draw_patient(0, 7, sex="F", age=50)
    >>> draw_lesion("Nodule/Mass", patient, seeded(0), severity=1.0).name
    'Nodule/Mass'
    """
    if name not in FINDINGS:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(FINDINGS)}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity!r}; expected 0 to 1")
    if not (size > 0 and plain > 0):
        raise ValueError(f"size is {size!r} and plain is {plain!r}; expected more than 0")
    mean_w, mean_h, spread, u, f, spread_f = _TYPICAL[name]
    log = rng.normal(0, spread)
    stretch = rng.normal(0, 0.08 if name == "Nodule/Mass" else 0.25)
    grown = size * patient.traits["grown"]
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
    return Lesion(name, side, u_at, f_at, float(width), float(height), float(severity), seed, plain)


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


def _visible(scene: Scene, lesion: Lesion) -> tuple[float, float]:
    """Where a lesion is seen: in the lung, above the dome and beside the heart."""
    table = scene.domes[int(lesion.side > 0)]
    if lesion.name == "Pleural effusion":  # its lower end lies in the costophrenic angle
        row = scene.p.outline[int(lesion.side > 0)]
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


def _spot(scene: Scene, lesion: Lesion) -> _Spot:
    """Coordinates around a lesion."""
    row = scene.p.outline[int(lesion.side > 0)]
    f, u = _visible(scene, lesion)
    lateral = float(np.interp(f, LATERAL_AT, row[2:14]))
    medial = float(np.interp(f, MEDIAL_AT, row[14:23]))
    x = lesion.side * (medial + u * (lateral - medial)) + float(np.mean(scene.mid))
    y = float(row[0] + f * row[1]) * scene.insp
    half_w, half_h = lesion.width / 2, lesion.height / 2
    w = slice(None), slice(None)
    if lesion.name in _LOCAL:
        reach = 1.5 * max(half_w, half_h) + 0.5
        w = scene.window(x - reach, x + reach, y - reach, y + reach)
    dx, dy = scene.x[w] - x, scene.y[w] - y
    return _Spot(
        w=w,
        rng=seeded(lesion.seed),
        dx=dx,
        dy=dy,
        half=(half_w, half_h),
        shape=(dx / half_w) ** 2 + (dy / half_h) ** 2,
        own=scene.side[w] == lesion.side,
        seen=scene.field[w] * (scene.side[w] == lesion.side),
        lung_width=max(lateral - medial, 1.0),
        strength=_PLAIN[scene.a.site] * lesion.plain * (0.25 + 1.05 * lesion.severity),
    )


def _noise(scene: Scene, spot: _Spot, first: int, octaves: int) -> np.ndarray:
    """Smooth noise over the spot's window, with `first` nodes across the whole image."""
    h, w = spot.dx.shape
    share = max(h / scene.hw[0], w / scene.hw[1])
    return fractal(spot.rng, (h, w), max(2, round(first * share)), octaves)


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


def _opacity(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Airspace filled with fluid: patchy, or a band where a lobe has collapsed."""
    rough = _noise(scene, spot, min(24, max(3, int(70 / max(lesion.height, 2.0)))), 3)
    amount, fluff, edge = _OPACITIES[lesion.name]
    shape = spot.shape
    if lesion.name == "Atelectasis":
        turn = spot.rng.normal(0.1, 0.3) * lesion.side
        c, s = float(np.cos(turn)), float(np.sin(turn))
        shape = fourth_power((spot.dx * c - spot.dy * s) / spot.half[0])
        shape += fourth_power((spot.dy * c + spot.dx * s) / spot.half[1])
    blob = smooth_step((1 - shape + fluff * 0.6 * rough) / edge)
    if lesion.name in ("Infiltration", "Pneumonia", "Lung Opacity"):
        blob *= np.clip(0.75 + 0.45 * rough, 0.05, 1.6)
    change = 1.2 * amount * spot.strength * blob * np.exp(-0.5 * shape) * spot.seen
    change = np.minimum(change, 0.85 * scene.lung[spot.w])
    scene.fluid[spot.w] += change
    return change


def _edema(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Fluid around the hila of both lungs, and septal lines."""
    hilar = np.exp(-(((scene.u - 0.25) / 0.38) ** 2) - ((scene.f - 0.55) / 0.30) ** 2)
    rough = _noise(scene, spot, 14, 3)
    lines = np.maximum(0, 1 - np.abs(_noise(scene, spot, 40, 2)) / 0.35)
    change = 3.6 * hilar * np.clip(0.9 + 0.3 * rough, 0.2, 2) + 0.35 * lines
    change = np.minimum(spot.strength * change * scene.field, 0.8 * scene.lung)
    scene.fluid += change
    return change


def _reticular(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A net of thickened tissue; coarser, with more haze, in fibrosis."""
    ild = lesion.name == "ILD"
    net = np.maximum(0, 1 - np.abs(_noise(scene, spot, 34 if ild else 24, 2)) / 0.45)
    window = smooth_step((1 - spot.shape + 0.25 * _noise(scene, spot, 9, 2)) / 0.4)
    change = spot.strength * (net + (0.25 if ild else 0.5)) * (2.3 if ild else 3.0)
    change = np.minimum(change * window * spot.seen, 0.8 * scene.lung[spot.w] + 0.2)
    scene.fluid[spot.w] += change
    return change


def _nodule(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A ball of soft tissue, uneven where it is large."""
    rough = _noise(scene, spot, 14, 2) if lesion.width > 2 else 0
    body = lesion.width * ball(spot.shape * (1 + 0.18 * rough))
    change = np.minimum(body * (0.8 + 1.4 * lesion.severity), 8.0) * spot.seen
    scene.fluid[spot.w] += change
    return change


def _calcification(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Grains in the lung, or the rim of the aortic arch."""
    if lesion.u < 0.12:
        ring = np.hypot(scene.x - scene.knob_at[0], scene.y - scene.knob_at[1])
        rim = np.exp(-(((ring - 0.9 * scene.t["knob"]) / 0.12) ** 2))
        change = 0.5 * spot.strength * rim * (scene.x > scene.knob_at[0] - 0.3)
    else:
        grains = np.maximum(_noise(scene, spot, 60, 1) - 0.3, 0)
        change = 1.1 * grains * smooth_step((1 - spot.shape) / 0.3) + 0.6 * ball(spot.shape * 1.5)
        change *= spot.strength * scene.inside[spot.w]
    scene.bone[spot.w] += change
    return change * 2.0


def _effusion(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Fluid at the base: a meniscus that rises to the wall, a veil where the patient leans back.

    The level has no sharp edge: fluid lies in front of and behind the lung, in a layer that thins
    out upward. On portable images some of it runs behind the lung and veils the base.
    """
    h = scene.p.lung_height * scene.insp
    s = spot.strength
    leaning = scene.a.view == "AP"
    top = 1.0 - 1.25 * lesion.height / h
    veil = smooth_step((scene.f - top) / 0.35) * spot.own * scene.inside
    if scene.q["supine"] and lesion.height > 6:
        change = (1.2 + 3.8 * s) * veil
    else:
        reach = float(np.clip(lesion.width / spot.lung_width, 0.12, 1.6))
        rise = np.clip((np.clip(scene.u, 0, 1) - (1 - reach)) / reach, 0, 1) ** 2
        if lesion.height > 7:
            rise = 0.55 + 0.45 * rise
        # from the wall, where it is highest, the level falls
        under = spot.dy - spot.half[1] + lesion.height * rise
        inside = smooth_step(under / (0.5 + 0.1 * lesion.height)) * (rise > 0)
        layer = 0.4 + 0.6 * np.clip(under / (0.5 * lesion.height), 0, 1)
        change = inside * layer * spot.own * scene.inside * (2.0 + 7.0 * s)
        change += 0.3 * leaning * s * veil
    change = np.minimum(change, 0.9 * scene.lung)
    scene.fluid += change
    return change * smooth_step((2.5 - scene.below) / 0.5)


def _thickening(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A rim of soft tissue along the chest wall or over the apex."""
    thick = float(np.clip(0.5 * min(lesion.width, lesion.height), 0.25, 1.6))
    rough = 1 + 0.3 * _noise(scene, spot, 20, 1)
    w = spot.w
    near = np.minimum(scene.lat[w] - scene.ax[w], scene.f[w] * scene.high[w] * 0.9)
    rim = smooth_step((thick * rough - near) / 0.25) * scene.inside[w] * spot.own
    rim *= smooth_step((1 - np.abs(spot.dx / spot.half[0])) / 0.25)
    rim *= smooth_step((1 - np.abs(spot.dy / spot.half[1])) / 0.25)
    change = (0.8 + 3.6 * spot.strength) * rim
    scene.fluid[w] += change
    return change


def _pneumothorax(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """Air between wall and lung: no vessels outside a thin line, a denser lung inside."""
    depth = float(np.clip(lesion.width / spot.lung_width, 0.06, 0.9))
    reach = lesion.f + lesion.height / (scene.p.lung_height * scene.insp)
    fall = np.clip((reach - scene.f) / max(reach, 0.1), 0, 1)
    bulge = 1 + 0.25 * _noise(scene, spot, 5, 1)
    edge = 1 - depth * bulge * np.sqrt(fall * (2 - fall))
    fold = np.minimum(edge - scene.u, (scene.f - 0.4 * depth) * 0.8)
    high = spot.seen * (scene.f < reach)
    outside = smooth_step(-fold / 0.02) * high
    scene.fluid *= 1 - outside
    scene.gas += outside * scene.lung * 0.14 * (0.4 + 0.6 * spot.strength)
    scene.fluid += 0.5 * np.exp(-((fold / 0.012) ** 2)) * high
    scene.fluid += 0.10 * (1 - outside) * spot.seen * scene.lung * depth
    return outside * 2.0


def _hernia(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A stomach with air in it, behind the heart."""
    h = scene.p.lung_height * scene.insp
    x, y = 0.8 + spot.rng.normal(0, 0.8), 0.80 * h
    r = spot.half[0]
    d2 = ((scene.x - x) / r) ** 2 + ((scene.y - y) / (0.85 * r)) ** 2
    change = 3.2 * spot.strength * ball(d2)
    scene.soft = scene.soft + change
    scene.gas += 3.0 * ball(1.8 * d2) * (scene.y < y)
    return change


def _other(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """A bulla or cavity, a band, or a shadow of the chest wall."""
    w, s = spot.w, spot.strength
    kind = spot.rng.integers(3)
    if kind == 0:
        ring = np.exp(-(((np.sqrt(spot.shape) - 0.92) / 0.10) ** 2))
        scene.gas[w] += 2.4 * s * ball(spot.shape) * spot.seen
        scene.fluid[w] += 2.2 * s * ring * spot.seen
        return smooth_step((1 - spot.shape) / 0.2) * spot.seen
    if kind == 1:
        turn = spot.rng.uniform(-1.2, 1.2)
        across = spot.dx * float(np.sin(turn)) + spot.dy * float(np.cos(turn))
        band = np.exp(-((across / (0.12 * spot.half[1] + 0.12)) ** 2)) * (spot.shape < 1)
        change = 3.0 * s * band * spot.seen
        scene.fluid[w] += change
        return change
    change = 3.6 * s * np.sqrt(ball(spot.shape))
    scene.soft[w] += change
    return change


def _aorta(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """The enlarged arch, drawn with the anatomy."""
    return scene.arch * (scene.x > -0.4 * scene.t["knob"])


def _large_heart(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
    """The enlarged heart, drawn with the anatomy."""
    return scene.heart * (scene.below < 1.2)


def _emphysema(scene: Scene, lesion: Lesion, spot: _Spot) -> np.ndarray:
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


def find(scene: Scene, lesion: Lesion) -> np.ndarray:
    """Draw one finding; return its map: the change in cm of soft tissue, for the box."""
    if lesion.name not in _DRAW:
        raise ValueError(f"lesion is {lesion.name!r}; expected one of {', '.join(FINDINGS)}")
    spot = _spot(scene, lesion)
    change = np.zeros(scene.hw, np.float32)
    if spot.dx.size:
        change[spot.w] = _DRAW[lesion.name](scene, lesion, spot)
    return change


def measure_box(name: str, change: np.ndarray, site: str) -> Box | None:
    """The box of what was drawn: where the change exceeds a third of its peak.

    >>> change = np.zeros((9, 9), np.float32)
    >>> change[2:5, 3:7] = 1.0
    >>> measure_box("Nodule/Mass", change, "nih").xyxy
    (3.0, 2.0, 7.0, 5.0)
    """
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
