"""The chest in the beam: thickness maps of a patient's anatomy, in cm.

`u` runs from the medial (0) to the lateral (1) border of a lung and `f` from its apex (0) to its
lateral base (1).

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy.
Goes with: patient.py, shapes.py.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .patient import DOME_AT, DOME_MEAN, LATERAL_AT, MEDIAL_AT, Acquisition, Patient
from .shapes import (
    FINE,
    ball,
    fine_table,
    fourth_power,
    fractal,
    look_up,
    seeded,
    smooth_curve,
    smooth_step,
    table_places,
)

Window = tuple[slice, slice]


def _fit(patient: Patient, field_cm: tuple[float, float]) -> float:
    """How far collimation brings the lungs of this patient to the usual share of the image."""
    width = float(sum(o[2:14].max() for o in patient.outline))
    share = max(patient.lung_height / field_cm[0], width / field_cm[1]) / 0.78
    return share**-0.75


class Scene:
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
        self.rng = seeded(acquisition.seed, 3, patient.number, int(patient.lung_height * 1e6))
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
            knots = [-0.4, 0.0, *LATERAL_AT, 1.05, 1.5]
            tail = 1.01 * row[13]
            lat.append(smooth_curve(knots, [apex, apex, *row[2:14], tail, tail], grid))
            knots = [-0.4, 0.0, *MEDIAL_AT, 1.5]
            med.append(smooth_curve(knots, [apex, apex, *row[14:23], row[22] + 0.2], grid))
            lift = self.t["dome_right" if len(dome) == 0 else "dome_left"]
            dome.append(self._dome_line(row[23:]) + lift)
            top.append(row[0])
            high.append(row[1])
        pick = lambda pair: np.where(right, np.float32(pair[0]), np.float32(pair[1]))  # noqa: E731
        self.high = pick(high) * self.insp
        self.f = (self.y - pick(top) * self.insp) / self.high
        widen = 1 + 0.25 * (1 - self.insp)
        scale = widen * (1 + 0.03 * self.q["rotation"] * self.side)

        offset = np.where(right, np.intp(0), np.intp(FINE))

        def both(tables, at, low, high):
            """Each pixel's value in the table of its side."""
            fine = np.concatenate([fine_table(table) for table in tables])
            return np.take(fine, table_places(at, low, high) + offset, mode="clip")

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
        inside = smooth_step((self.lat - self.ax) / edge) * smooth_step((self.ax - self.med) / edge)
        inside *= self.f > 0
        self.inside = inside * (self.f < 1.02)
        u = np.clip(self.u, 0, 1)
        depth = 0.66 * self.p.depth - 0.5 * self.p.fat
        round_off = ball(np.clip((u - 0.25) / 0.75, 0, 1) ** 2) * (1 - 0.3 * (1 - u) ** 2)
        apex = ball(np.clip(1 - self.f / 0.42, 0, 1) ** 2)
        above = np.maximum(-self.below, 0)
        front = smooth_step(-self.below / 0.8) * (0.60 + 0.40 * (1 - np.exp(-above / 3.5)))
        recess = 0.15 * np.clip(4 * u - 0.8, 0, 1) * np.exp(-np.maximum(self.below, 0) / 2.4)
        self.field = self.inside * smooth_step(-self.below / 0.5)  # what is seen as lung
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
        shift = smooth_curve([0, *DOME_AT, 1.3], [0, 0, *(own - DOME_MEAN)[1:], 0], c)
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
        width = look_up(smooth_curve(ys - rise, half, grid, 21), self.y, -14, 34)
        depth = look_up(smooth_curve(ys, deep, grid, 21), self.y, -14, 34)
        off = np.abs(self.x - 0.4 * self.mid)
        edge = np.minimum(off / width, 1)
        self.soft = depth * ball(fourth_power(edge) * edge * edge)
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
            self.soft[w] += 1.4 * ball(r2)

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
            arm = 1.8 * radius * ball((axis / radius) ** 2) * smooth_step((y + 1.5) / 3.0)
            self.soft[w] = np.maximum(self.soft[w], arm) + 0.10 * np.minimum(self.soft[w], arm)
            d = np.abs(axis)
            shaft = 0.6 * smooth_step((thick - d) / 0.3)
            shaft += 0.35 * np.exp(-(((d - 0.75 * thick) / 0.25) ** 2))
            shaft *= smooth_step((y - start_y - 1.0) / 0.8)
            head = (x - start_x) ** 2 + (y - start_y) ** 2
            head = 0.55 * np.sqrt(ball(head / (2.35 * grown) ** 2))
            self.bone[w] += t["bone"] * np.maximum(shaft, head)

    def _jaw(self) -> None:
        """The jaw at the upper border."""
        w = self.window(-8, 8, -24, -6)
        off = self.x[w] - 0.4 * self.mid[w]
        up = (self.y[w] + 13.5 + 9 * self.q["chin"]) / 4.5
        self.soft[w] += 9.0 * ball((off / 6.5) ** 2 + up * up)
        rim = np.abs(np.sqrt((off / 5.5) ** 2 + up * up) - 0.95)
        self.bone[w] += 0.8 * smooth_step((0.13 - rim) / 0.1)

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
            look_up(smooth_curve(rows, c, grid), y, low, high) for c in (left, right, deep)
        )
        middle, half = 0.5 * (left - right), 0.5 * (left + right)
        heart = 0.62 * self.p.depth * deep * ball(((x - middle) / half) ** 2)
        heart *= smooth_step((y - 0.28 * h) / (0.07 * h))
        heart *= smooth_step((h - y) / 1.5)
        return heart

    def _great_vessels(self, x: np.ndarray, y: np.ndarray, w: Window) -> np.ndarray:
        """Thickness of the aorta and of the upper mediastinum; keeps the arch for its box."""
        p, t = self.p, self.t
        h = p.lung_height * self.insp
        knob = t["knob"] * t.get("aorta", 1.0)
        self.knob_at = (0.7 + 0.78 * knob + 0.2 * t["unfold"], 0.255 * h)
        arch = ((x - self.knob_at[0]) / (1.12 * knob)) ** 2
        arch += ((y - self.knob_at[1]) / (1.25 * knob)) ** 2
        self.arch[w] = 4.2 * knob * ball(arch)
        down = smooth_step((y - 0.22 * h) / 1.5) * smooth_step((h - y) / 2.0)
        axis = t["unfold"] * np.sin(np.clip((y / h - 0.2) / 0.8, 0, 1) * np.float32(np.pi))
        axis += 0.55 * knob + 0.55
        descending = 1.9 * knob * ball(((x - axis) / (0.82 * knob)) ** 2) * down
        rise = smooth_step((y - 0.17 * h) / 1.2) * smooth_step((0.6 * h - y) / 2.0)
        ascending = 3.0 * ball(((x + 1.15 + 0.3 * t["unfold"]) / (1.35 * knob)) ** 2) * rise
        half = t["mediastinum"] * (1 + 0.12 * (self.a.view == "AP")) * t["grown"] ** 0.7
        half = half + 0.35 - 0.5 * smooth_step((0.12 * h - y) / 2.0)
        upper = 0.60 * p.depth * ball((x / (half * (1 - 0.1 * np.cos(y * 0.3)))) ** 2)
        upper *= smooth_step((y + 1.0) / 3.0)
        upper *= smooth_step((0.75 * h - y) / 3.0)
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
            hilum += 2.2 * ball((turn / 1.3) ** 2 + (other / 2.9) ** 2)
        return hilum * t["markings"] * t.get("hila", 1.0)

    def _airways(self) -> None:
        """Trachea and main bronchi."""
        t, grown = self.t, self.t["grown"]
        carina = 0.27 * self.p.lung_height * self.insp
        pull = t.get("trachea", 0.0) + 0.15 * self.q["rotation"]
        w = self.window(-5, 5, -16, carina + 5)
        x, y = self.x[w] - self.curve[w] - pull, self.y[w]
        air = ball((x / (0.85 * grown)) ** 2)
        air *= smooth_step((carina - y) / 0.8) * (0.35 + 0.65 * smooth_step((y + 4) / 5))
        for side in (-1, 1):
            line = (y - carina + 0.6) - (1.3 if side < 0 else 0.75) * side * x
            bronchus = 0.8 * ball((line / (1.1 * grown)) ** 2)
            bronchus *= smooth_step((side * x + 0.1) / 0.3)
            bronchus *= smooth_step((3.6 - side * x) / 0.8)
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
            bubble = 2.4 * ball(d2) * (below > 0.2) * left
            if not self.q["supine"] and t["bowel"] <= 0.5:  # a fluid level
                bubble *= smooth_step((0.75 * size - top) / 0.25)
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
        rng = seeded(p.number, 8)
        shifts = rng.normal(0, 0.05, 20).astype(np.float32)
        strength = rng.uniform(0.65, 1.25, 20).astype(np.float32)

        def band(center, slope, r):
            """Index of the nearest rib, and its thickness: a body with a denser cortex."""
            phase = (y - center) / gap
            index = np.round(phase)
            each = (index + 3).astype(np.intp)  # beyond the ends the last one is taken
            d = (phase - index + np.take(shifts, each, mode="clip")) * gap / np.sqrt(1 + slope**2)
            off = np.abs(d)
            body = smooth_step((r - off) / (0.9 * self.step))
            cortex = np.maximum(1 - np.abs(off - 0.82 * r) / max(0.13, 0.8 * self.step), 0)
            low = np.where(d > 0, np.float32(1.5), np.float32(1))
            return index, (0.36 + 0.12 * cortex * low) * body * np.take(strength, each, mode="clip")

        first = t["rib_first"] * h + wave
        slope = drop * (2.6 * s - 0.42) / self.wall[w]
        index, back = band(first + drop * (1.3 * s * s - 0.42 * s), slope, t["rib_size"])
        back *= (1 + 0.5 * fourth_power(s) * s * s) * ((index >= 0) & (index <= 11))
        back *= (s < 1.06) & (ax > 1.6)
        fall = t["rib_front"] * h
        lift = self.q["lordosis"] * h
        center = first + 0.82 * drop + fall * (1 - s) * (1.25 - 0.35 * s) - 2 * lift
        slope = fall * (1.6 - 0.7 * s) / wall
        index, front = band(center, slope, 1.12 * t["rib_size"])
        ends = np.clip(0.30 + 0.035 * index, 0.3, 0.75)
        front *= smooth_step((s - ends) / 0.06) * ((index >= 0) & (index <= 8) & (s < 1.05))
        # scatter from thick parts hides them below the diaphragm and behind the heart
        hidden = 1 - 0.85 * smooth_step((self.below[w] - 2.0) / 2.5)
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
        disc = smooth_step((np.abs(phase - np.round(phase)) * period - 0.17) / 0.14)
        spine = 0.55 * ball(fourth_power(x / half)) * (0.6 + 0.4 * disc)
        spine += 0.12 * np.exp(-(((off - 0.92 * half) / 0.16) ** 2)) * disc
        dy = (phase + 0.5 - np.round(phase + 0.5)) * period
        ring = ((off - 0.62 * half) / 0.33) ** 2 + (dy / 0.5) ** 2 - 1
        spine += 0.13 * np.exp(-3 * ring**2)  # pedicles
        turn = 0.3 * self.q["rotation"]
        spine += 0.30 * np.exp(-(((x + turn) / 0.28) ** 2) - ((dy - 0.5) / 0.55) ** 2)
        spine += 0.15 * ball(fourth_power(x / (half + 1.7))) * np.exp(-(((dy + 0.2) / 0.4) ** 2))
        self.bone[w] += t["bone"] * spine * (0.72 + 0.26 * smooth_step((y - 2) / 4))

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
        r = grown * (0.44 + 0.35 * fourth_power(1 - v) + 0.15 * v)
        d = np.abs(self.y[w] - y)
        shell = np.maximum(1 - np.abs(d - 0.8 * r) / max(0.16, self.step), 0)
        clavicle = 0.40 * smooth_step((r - d) / (0.9 * self.step)) + 0.26 * shell * (d < r)
        clavicle *= smooth_step((ax - 1.5) / 0.3) * smooth_step((end - ax) / 0.4)
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
            within = smooth_step((y - 1.0) / 0.5) * smooth_step((lower - y) / 0.5)
            past = smooth_step((ax - medial) / 0.4)
            scapula = 0.36 * smooth_step((lateral - ax) / 0.3) * past * within
            border = np.exp(-(((ax - lateral) / 0.42) ** 2)) * (1 - 0.5 * tall)
            scapula += (0.60 * border + 0.16 * np.exp(-(((ax - medial) / 0.16) ** 2))) * within
            crest = np.exp(-(((y - 1.6 + 0.17 * (edge - ax)) / 0.4) ** 2)) * past
            scapula += 0.60 * crest * smooth_step((t["shoulder"] + 1.2 - ax) / 0.5)
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
        grain = fractal(seeded(self.p.number, 5), self.hw, 28, 3, 0.9) * 0.22 * t["texture"] * share
        rough = fractal(seeded(self.p.number, 9, self.a.seed), self.hw, 4, 3)
        basal = smooth_step((self.f - 0.6) / 0.5) * np.clip(1 + 0.5 * rough, 0, 2)
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
        x = smooth_curve(t, points[:, 0], fine, 61)
        y = smooth_curve(t, points[:, 1], fine, 61)
        length = np.hypot(np.gradient(x), np.gradient(y))
        col, row = self.to_pixels(x, y)
        amount = np.pi * radius**2 * length / (self.px[0] * self.px[1])
        out = self.splat(col, row, amount)
        return ndimage.gaussian_filter(out, max(0.45, 0.5 * radius / self.step), truncate=2.5)

    def devices(self) -> None:
        """Tubes, lines, electrodes, pacemaker, sternal wires and port, mostly on AP images."""
        rng = seeded(self.p.number, 6, self.a.seed)
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
                self.soft = self.soft + 0.5 * smooth_step((1.5 - np.sqrt(d2)) / 0.12)
                self.metal = self.metal + 0.12 * smooth_step((0.45 - np.sqrt(d2)) / 0.15)
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
                + 0.10 * smooth_step((1.25 - r) / 0.15)
                + 0.15 * np.exp(-(((r - 0.85) / 0.18) ** 2))
            )
            path = np.array(
                [[cx, cy], [side * 5, 0.02 * h], [side * 2.2, 0.06 * h], [-1.5, 0.3 * h]]
            )
            self.metal = self.metal + 0.5 * self.line(path, 0.1)

    def _pacemaker(self, h: float) -> None:
        cx, cy = 8.5, 0.22 * h
        dx, dy = (self.x - cx) / 2.6, (self.y - cy) / 2.2
        can = smooth_step((1 - fourth_power(dx) - fourth_power(dy)) / 0.12)
        self.metal = self.metal + 0.5 * can
        path = [[cx, cy - 1], [6.0, 0.1 * h], [2.5, 0.06 * h], [-1.6, 0.25 * h], [-2.2, 0.62 * h]]
        lead = np.array([*path, [1.0, 0.80 * h], [4.5, 0.82 * h]])
        self.metal = self.metal + 0.8 * self.line(lead, 0.08)
        self.metal = self.metal + 0.8 * self.line(np.array([*path, [-2.6, 0.5 * h]]), 0.08)
