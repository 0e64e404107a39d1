"""From anatomy and findings to a radiograph: beam, noise, a site's processing, marks.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
Goes with: findings.py, patient.py, scene.py, shapes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from .findings import Box, Lesion, find, measure_box
from .patient import Acquisition, Patient
from .scene import Scene
from .shapes import seeded, smooth_step, softplus, upsample

# Effective attenuation per cm near 60 keV: water, aerated lung, cortical bone, steel.
# Source: NIST XCOM, rounded; lung is water of a quarter of the density.
MU_SOFT, MU_LUNG, MU_BONE, MU_METAL = 0.20, 0.055, 0.58, 6.0

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
class Radiograph:
    """A finished image: `pixels` float32 (H, W) in [0, 1], bright is dense; `boxes` per lesion.

    `boxes[i]` belongs to the i-th lesion given to `render` and is None where it left no trace.
    `maps` holds the thickness maps in cm and the detector signal when asked for.
    """

    pixels: np.ndarray
    boxes: tuple[Box | None, ...]
    maps: dict[str, np.ndarray] = field(default_factory=dict)


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

    >>> from .patient import draw_acquisition, draw_patient
    >>> patient = draw_patient(0, 7, sex="F", age=50)
    >>> given = {"site": "nih", "view": "PA", "image_hw": (64, 64), "field_cm": (36.0, 36.0)}
    >>> render(patient, draw_acquisition(0, 7, 0, **given)).pixels.shape
    (64, 64)
    """
    patient = _changed(patient, lesions)
    scene = Scene(patient, acquisition)
    scene.body()
    scene.mediastinum()
    scene.abdomen()
    scene.skeleton()
    scene.vessels()
    order = sorted(range(len(lesions)), key=lambda i: lesions[i].name == "Pneumothorax")
    boxes: list[Box | None] = [None] * len(lesions)
    for i in order:
        change = find(scene, lesions[i])
        boxes[i] = measure_box(lesions[i].name, change, acquisition.site)
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


def _expose(scene: Scene) -> np.ndarray:
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
    veil = upsample(ndimage.gaussian_filter(small, 4.0 / 8 / scene.step), scene.hw)
    signal = primary + scene.q["scatter"] * veil
    rng = seeded(scene.a.seed, 4, scene.p.number, int(scene.q["dose"] * 1e3))
    noise = rng.standard_normal(scene.hw, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, scene.q["grain"], truncate=2.5) * 1.6 * scene.q["grain"]
    quanta = scene.q["dose"] * scene.step**2 * 45
    return np.maximum(signal + np.sqrt(signal / quanta) * noise, 1e-5).astype(np.float32)


def _process(scene: Scene, signal: np.ndarray) -> np.ndarray:
    """A site's processing: logarithm, local contrast, sharpening, window, borders and marks."""
    q = scene.q
    log = -np.log(signal)
    log = ndimage.gaussian_filter(log, q["blur"] * scene.hw[0] / 256, truncate=2.5)
    # an oblique grid and the anode's heel darken one side
    log += q["gradient_x"] / 20 * scene.x + q["gradient_y"] / 20 * (scene.y - scene.pivot_y)
    small = ndimage.zoom(log, 0.125, order=1)
    wide = upsample(ndimage.gaussian_filter(small, 2.6 / 8 / scene.step, mode="nearest"), scene.hw)
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
    gray = toe * softplus(gray / toe)  # soft toe
    top = q["top_gray"]
    gray = top - 0.12 * softplus((top - gray) / 0.12)  # soft shoulder
    rng = seeded(scene.a.seed, 10, scene.p.number, int(q["readout"] * 1e9))
    gray = gray + np.float32(q["readout"]) * rng.standard_normal(scene.hw, dtype=np.float32)
    gray = _frame(scene, gray.astype(np.float32))
    return np.clip(gray, 0, 1)


def _frame(scene: Scene, gray: np.ndarray) -> np.ndarray:
    """Collimation, shutters and borders, then side marks and words."""
    rng = seeded(scene.a.seed, 7, scene.p.number, int(scene.q["border"] * 1e9))
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
        window = smooth_step(inside / soft)
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
        np.maximum(gray, level * smooth_step((0.55 * size - r) / 0.8), out=gray)
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
