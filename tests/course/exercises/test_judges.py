"""What was tried on each judge: wrong answers that look right, right ones of another style."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from lightly.loss import BarlowTwinsLoss
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tried_drawings import (
    bars_without_places,
    curve_backwards_and_best_down_to_zero,
    curve_from_zero_and_best_at_101_points,
    decades,
    draw_decades,
    draw_floor,
    draw_map,
    draw_precision,
    draw_roc,
    draw_scaling,
    map_enlarged_by_curves,
    mesh_and_box,
    one_bar_at_a_time,
    picture_under_a_rectangle,
    roc_under_which_the_area_is_filled,
    smooth_floor_and_points,
    speed_by_named_workers,
    the_courses_own_picture,
)

from cxr_helpers.course import exercises as ex
from cxr_helpers.course.exercises import ch01 as nb01
from cxr_helpers.course.exercises import ch02 as nb02
from cxr_helpers.course.exercises import ch03 as nb03
from cxr_helpers.course.exercises import ch05 as nb05
from cxr_helpers.course.exercises import engine

FOUR = nb05.FOUR_SCORES
RUNS = ex.EXERCISES["2.5"].reference


def loss_by_numpy(z_a, z_b, weight):
    width = z_a.shape[1]
    c = np.corrcoef(z_a, z_b, rowvar=False)[:width, width:]
    off = c[~np.eye(width, dtype=bool)]
    return ((1 - np.diag(c)) ** 2).sum() + weight * (off**2).sum()


def grown_crop(box, side, share, rng):
    """From the box outwards on all sides, by a share of the room that is the same everywhere."""
    for grown in np.linspace(0.3 * rng.random(), 1, 200):
        x_min, y_min = (1 - grown) * box[:2]
        x_max, y_max = box[2:] + grown * (side - box[2:])
        if (x_max - x_min) * (y_max - y_min) >= share * side**2:
            return x_min, y_min, x_max, y_max


def loop_iou(first, second, *, apart=lambda w, h: w <= 0 or h <= 0):
    w = min(first[2], second[2]) - max(first[0], second[0])
    h = min(first[3], second[3]) - max(first[1], second[1])
    if apart(w, h):
        return 0
    a, b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return w * h / (a + b - w * h)


def tensor_iou(first, second):
    boxes = (torch.tensor(box, dtype=torch.float32)[None] for box in (first, second))
    return torchvision.ops.box_iou(*boxes)[0, 0]


def pairs_auroc(ill, scores):
    wins = [(a > b) + (a == b) / 2 for a in scores[ill == 1] for b in scores[ill == 0]]
    return sum(wins) / len(wins)


def resample(patients, rng, *, names=np.unique, keep=slice(None)):
    drawn = rng.choice(names(patients), size=len(np.unique(patients)))
    return [int(row) for name in drawn for row in np.flatnonzero(patients == name)[keep]]


def suppress_by_library(boxes, labels, scores, threshold):
    return torchvision.ops.batched_nms(*map(torch.tensor, (boxes, scores, labels)), threshold)


def suppress_by_loop(boxes, labels, scores, threshold, *, within=lambda a, b, limit: a > limit):
    kept = []
    for row in sorted(range(len(scores)), key=lambda r: -scores[r]):
        rivals = (k for k in kept if labels[k] == labels[row])
        if not any(within(loop_iou(boxes[row], boxes[k]), 0, threshold) for k in rivals):
            kept.append(row)
    return np.array(kept)


def step_in_another_style(detector, optimizer, images, targets, *, times=1):
    detector.train()
    for _ in range(times):
        loss = torch.stack(list(detector(images, targets).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def found_by_loop(hit, boxes, images, allowed, *, strict=False):
    found = false = 0
    for right in hit:
        false += not right
        if false > allowed * images or (strict and false == allowed * images):
            break
        found += bool(right)
    return found / boxes


def shift_positions(rows, rank, world):
    return rows[0] + np.arange(rank, len(rows), world)


def changes_a_box(first, second):
    first[:2] = np.maximum(first[:2], second[:2])
    return 0.0


def suppress_also_at_the_threshold(boxes, labels, scores, threshold):
    return suppress_by_loop(boxes, labels, scores, threshold, within=lambda a, b, t: a >= t > b)


def pipeline_log_odds(x, y, features, C):
    steps = make_pipeline(StandardScaler(), LogisticRegression(C=C, solver="newton-cholesky"))
    return steps.fit(x, y).decision_function(features)


def descended_log_odds(x, y, features, C):
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, features = (torch.tensor((one - mean) / std) for one in (x, features))
    weights, target = torch.zeros(x.shape[1] + 1, dtype=x.dtype), torch.tensor(y)
    for _ in range(500):
        error = torch.sigmoid(x @ weights[1:] + weights[0]) - target
        slope = torch.cat([error.sum()[None], x.T @ error + weights[1:] / C])
        weights -= 2 * slope / (len(x) + 1 / C)
    return features @ weights[1:] + weights[0]


def split_by_loop(patients, share, rng):
    names = sorted(set(patients.tolist()))
    rng.shuffle(names)
    test = names[: int(share * len(names) + 0.5)]
    return [patient in test for patient in patients]


def hint_of_auroc(ill, scores):
    apart = scores[ill][:, None] - scores[~ill][None, :]
    return (apart > 0).mean() + (apart == 0).mean() / 2


def array_iou(first, second):
    sides = np.clip(np.minimum(first, second)[2:] - np.maximum(first, second)[:2], 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (first, second)]
    return sides.prod() / (sum(areas) - sides.prod())


WRONG = {  # beside the usual mistakes, which are written in the exercises
    "1.1": [0.495, "two thirds", np.nan],
    "1.2": [
        lambda ids: len(set(ids)) / len(ids),
        lambda ids: 1 / ids.nunique(),
        lambda ids: (ids.value_counts() == 1).mean().round(1),
    ],
    "1.3": [
        lambda a, b: (a & b).mean(),
        lambda a, b: ((a & b).sum() / a.sum(), (a & b).sum() / a.sum()),
        lambda a, b: ((a | b).sum() / a.sum(), (a | b).sum() / b.sum()),
    ],
    "1.4": [
        lambda a, b: loop_iou(a, b, apart=lambda w, h: w < 0 and h < 0),
        lambda a, b: loop_iou(a, b, apart=lambda w, h: w * h < 0),
    ],
    "1.5": [
        lambda s, c, w, m: nb01.to_gray(s, c - w // 2 + w / 2, w, m),
        lambda s, c, w, m: 255 * nb01.to_gray(s, c, w, m),
        lambda s, c, w, m: nb01.to_gray(s, c, 2 * w, m),
    ],
    "1.6": [
        lambda axis, t: draw_decades(axis, t, order=slice(None, None, 2)),
        lambda axis, t: axis.fill_between(decades(t).index, decades(t)),
    ],
    "2.1": [
        lambda a, b, w: nb02.barlow_twins_loss(a.T, b.T, w),
        lambda a, b, w: nb02.barlow_twins_loss(a, b, w) / len(a),
    ],
    "2.2": [lambda *known: nb02.crop_around(*known)[::-1]],
    "2.4": [lambda f, y, q, k: y[:k].mean()],
    "2.5": [RUNS | {"run 4": "copies"}, dict.fromkeys(RUNS, "healthy")],
    "2.6": [lambda axis: draw_floor(axis, off=1.1)],
    "3.2": [
        lambda x, y, f, C: nb03.fit_and_score(x, y, f, C).argsort(),
        lambda x, y, f, C: nb03.fit_and_score(x, 1 - y, f, C),
    ],
    "3.3": [lambda p, a, b: nb03.at_other_prevalence(p, a, b).__round__(1)],
    "3.4": [
        lambda p, share, rng: rng.permutation(p) == p[0],
        lambda p, share, rng: np.unique(p)[:3],
    ],
    "3.5": [lambda p, rng: resample(p, rng, keep=slice(1))],
    "4.1": [0.77, 83.5, None.__class__],
    "4.2": [
        lambda a, b: np.array([loop_iou(x, y) for x in a for y in b]),
        lambda a, b: np.array([[loop_iou(x, y) > 0.5 for y in b] for x in a]),
    ],
    "4.3": [
        lambda *a: suppress_by_loop(*a, within=lambda o, _, limit: o < limit),
        lambda b, y, s, t: np.isin(range(len(s)), suppress_by_loop(b, y, s, t)),
    ],
    "4.4": [
        lambda d, o, i, t: sum(d.train()(i, t).values()).item(),
        lambda *a: step_in_another_style(*a, times=2),
        lambda *a: {"loss": step_in_another_style(*a)},
    ],
    "4.6": [
        lambda *a: found_by_loop(*a, strict=True),
        lambda hit, boxes, images, allowed: hit.sum() / boxes,
        lambda hit, boxes, images, allowed: found_by_loop(hit, len(hit), images, allowed),
    ],
    "4.7": [
        lambda axis, r, s, n: draw_precision(axis, r, s, n, start=5),
        lambda axis, r, s, n: draw_precision(axis, r, s, len(r)),
    ],
    "5.1": [
        lambda head, maps, c: head(maps) / len(maps),
        lambda head, maps, c: head(maps * (np.arange(len(maps)) != c)[:, None, None]) < head(maps),
    ],
    "5.2": [
        lambda s, a, m: nb05.map_from_channels(s, a, m).T,
        lambda s, a, m: nb05.map_from_channels(s, a, m) / nb05.map_from_channels(s, a, m).max(),
    ],
    "5.3": [{"a": 0.3, "b": 0}, {"A": 1 / 3, "B": 0}, [1 / 3, 0]],
    "5.4": [
        lambda h, b: float(h[b[1] : b[3], b[0] : b[2]].max() == h.max()),
        lambda h, b: np.nan if h.max() <= 0 else nb05.points_into(h, b),
    ],
    "5.5": [
        lambda h, b: h * np.nan,
        lambda h, b: np.nan_to_num(nb05.energy_inside(np.abs(h), b)),
        lambda h, b: nb05.energy_inside(h, b[-1:]),
    ],
    "5.6": [FOUR | {"box: IoU": 0.3}, {**FOUR, "box: energy": 50}, list(FOUR.values())],
    "5.7": [
        lambda a, b: spearmanr(a.ravel(), b.ravel()),
        lambda a, b: abs(nb05.rank_correlation(a, b)) - 0.01,
    ],
    "5.8": [
        lambda axis, *a: draw_map(axis, *a, shift=8),
        lambda axis, s, a, m, b: draw_map(axis, s, a, m[::-1], b),
        lambda axis, s, a, m, b: draw_map(axis, s, a, m, b[[1, 0, 3, 2]]),
    ],
    "6.1": [
        lambda rows, rank, world: rows[rank : rank + len(rows) // world],
        lambda rows, rank, world: [i for i in range(len(rows)) if i % world == rank],
        lambda rows, rank, world: rows[rows % world == 0] if rank == 0 else rows[:0],
    ],
    "6.2": [
        lambda n, s, q: [(s / n).mean(), (q / n).mean() - (s / n).mean() ** 2],
        lambda n, s, q: [q.sum() / n.sum() - (s.sum() / n.sum()) ** 2, s.sum() / n.sum()],
    ],
    "6.3": [2, "0.2"],
    "6.4": [lambda n, e, b, s: int(e * (n // b) * s / 3600)],
    "6.5": [
        lambda axis, w, r: draw_scaling(axis, w, r, by=-1),
        lambda axis, w, r: draw_scaling(axis, w[:-1], r[:-1]),
    ],
}

RIGHT = {
    "1.1": [Fraction(1, 2), torch.tensor(0.5, requires_grad=True)],
    "1.2": [
        lambda ids: sum(n == 1 for n in Counter(ids).values()) / len(set(ids)),
        lambda ids: ids.groupby(ids).size().eq(1).mean(),
    ],
    "1.3": [
        lambda a, b: [np.sum(a * b) / np.sum(a), np.sum(a * b) / np.sum(b)],
        lambda a, b: pd.Series({"PPV": b[a].mean(), "sensitivity": a[b].mean()}),
    ],
    "1.4": [loop_iou, tensor_iou, array_iou],
    "1.5": [
        lambda s, c, w, m: torch.tensor(nb01.to_gray(s, c, w, m)),
        lambda s, c, w, m: np.interp(s, [c - w / 2, c + w / 2], [1, 0] if m else [0, 1]),
    ],
    "1.6": [
        one_bar_at_a_time,
        lambda axis, t: draw_decades(axis, t, kind="barh"),
        lambda axis, t: axis.set(xlabel="x", ylabel=str(axis.stairs(decades(t)))),
        lambda axis, t: axis.set(xlabel="x", ylabel=str(axis.stem(decades(t)))),
    ],
    "2.1": [
        lambda a, b, w: BarlowTwinsLoss(lambda_param=w)(a, b),
        loss_by_numpy,
    ],
    "2.2": [grown_crop, lambda *known: torch.tensor(nb02.crop_around(*known))],
    "2.3": [
        lambda floor: float(np.ceil(2 / np.pi / floor**2)),
        lambda floor: next(n for n in range(1, 9999) if (2 / np.pi / n) ** 0.5 <= floor),
    ],
    "2.4": [
        lambda f, y, q, k: (
            sum(y[sorted(range(len(f)), key=lambda i: -f[i] @ q / np.linalg.norm(f[i]))[:k]]) / k
        ),
        lambda f, y, q, k: torch.tensor(y)[
            torch.cosine_similarity(torch.tensor(f), torch.tensor(q)[None]).topk(k).indices
        ].mean(),
    ],
    "2.5": [pd.Series(RUNS), {k: f" {v.replace(' ', '-').upper()} " for k, v in RUNS.items()}],
    "2.6": [draw_floor, lambda axis: draw_floor(axis, scale="linear"), smooth_floor_and_points],
    "3.1": [pairs_auroc, roc_auc_score, hint_of_auroc],
    "3.2": [pipeline_log_odds, descended_log_odds],
    "3.3": [
        lambda p, a, b: p * b / a / (p * b / a + (1 - p) * (1 - b) / (1 - a)),
        lambda p, a, b: np.array(nb03.at_other_prevalence(p, a, b)),
    ],
    "3.4": [
        split_by_loop,
        lambda p, share, rng: pd.Series(p).isin(rng.permutation(pd.unique(p))[:3]),
    ],
    "3.5": [
        resample,
        lambda p, rng: torch.tensor(resample(p, rng, names=pd.unique)),
    ],
    "3.6": [
        draw_roc,
        lambda axis, y, s: draw_roc(axis, list(y), list(s)),
        lambda *a: roc_under_which_the_area_is_filled(*a, chance=True),
    ],
    "4.1": [0.83, round(ex.EXERCISES["4.1"].reference, 3)],
    "4.2": [
        lambda a, b: np.array([[loop_iou(x, y) for y in b] for x in a]),
        lambda a, b: torchvision.ops.box_iou(torch.tensor(a), torch.tensor(b)),
    ],
    "4.3": [
        suppress_by_library,
        suppress_by_loop,
        lambda *a: suppress_by_library(*a).tolist(),
    ],
    "4.4": [step_in_another_style, lambda *a: torch.tensor(step_in_another_style(*a))],
    "4.5": [
        lambda a, b, n, draws: [(b - a)[d].sum() / n[d].sum() for d in draws],
        lambda a, b, n, draws: pd.Series(
            b[draws].sum(1) / n[draws].sum(1) - a[draws].sum(1) / n[draws].sum(1)
        ),
    ],
    "4.6": [found_by_loop, lambda *a: Fraction(found_by_loop(*a)).limit_denominator(1000)],
    "4.7": [
        draw_precision,
        lambda axis, r, s, n: draw_precision(axis, r.astype(int), s, float(n)),
        curve_from_zero_and_best_at_101_points,
        curve_backwards_and_best_down_to_zero,
    ],
    "5.1": [
        lambda head, maps, c: head(maps) - head(maps * (np.arange(len(maps)) != c)[:, None, None]),
        lambda head, maps, c: torch.tensor(nb05.loss_without(head, maps, c)),
    ],
    "5.2": [
        lambda s, a, m: sum((s - w) / s * c for w, c in zip(a, m, strict=True)).clip(min=0),
        lambda s, a, m: torch.relu(
            torch.einsum("c,chw->hw", torch.tensor((s - a) / s), torch.tensor(m))
        ),
    ],
    "5.3": [
        *({"a": third, "b": 0} for third in (0.33, 0.333, 0.3333)),
        {"b": 0, "a": Fraction(1, 3)},
    ],
    "5.4": [
        lambda h, b: (
            (h == h.max())[b[1] : b[3], b[0] : b[2]].sum() / (h == h.max()).sum()
            if (h > 0).any()
            else 0
        ),
        lambda h, b: torch.tensor(nb05.points_into(h, b), dtype=torch.float32),
    ],
    "5.5": [
        lambda h, b: (
            sum(
                max(h[y, x], 0)
                for y in range(h.shape[0])
                for x in range(h.shape[1])
                if any(k[0] <= x < k[2] and k[1] <= y < k[3] for k in b)
            )
            / (np.clip(h, 0, None).sum() or 1)
        ),
        lambda h, b: np.float32(nb05.energy_inside(h, b)),
    ],
    "5.6": [FOUR | {"box: IoU": 0.33}, pd.Series(FOUR)[::-1]],
    "5.7": [
        lambda a, b: spearmanr(a.ravel(), b.ravel()).statistic,
        lambda a, b: pd.Series(a.ravel()).corr(pd.Series(b.ravel()), method="spearman"),
    ],
    "5.8": [
        draw_map,
        lambda axis, *a: draw_map(axis, *a, cells=False),
        mesh_and_box,
        map_enlarged_by_curves,
        picture_under_a_rectangle,
        the_courses_own_picture,
    ],
    "6.1": [
        lambda rows, rank, world: torch.tensor(rows[rank::world]),
        lambda rows, rank, world: tuple(np.array_split(rows, world)[world - 1 - rank]),
        lambda rows, rank, world: rows[::-1][rank::world],
        lambda rows, rank, world: [int(row) for row in rows][rank::world],
        lambda rows, rank, world: np.random.default_rng(0).permutation(rows)[rank::world],
    ],
    "6.2": [
        lambda n, s, q: (sum(s) / sum(n), sum(q) / sum(n) - (sum(s) / sum(n)) ** 2),
        lambda n, s, q: torch.tensor(
            [s.sum() / n.sum(), (q.sum() - s.sum() ** 2 / n.sum()) / n.sum()]
        ),
    ],
    "6.3": [0.4, Fraction(2, 5)],
    "6.4": [
        lambda n, e, b, s: Fraction(e * (n // b)) * Fraction(s) / 3600,
        lambda n, e, b, s: np.float64(e) * np.floor(n / b) * s / 3600,
    ],
    "6.5": [
        draw_scaling,
        lambda axis, w, r: draw_scaling(axis, w[::-1], r[::-1], by=-1),
        speed_by_named_workers,
    ],
}


TOLD = [  # number, a wrong answer, what is said to it
    ("1.4", lambda a, b: loop_iou(a, b, apart=lambda w, h: w < 0), "one above the other"),
    ("1.4", lambda a, b: loop_iou(a, b, apart=lambda w, h: h < 0), "side by side"),
    ("1.4", changes_a_box, "changes what it was given"),
    ("1.4", lambda a, b: round(float(loop_iou(a, b)), 3), "without rounding"),
    ("1.4", lambda a, b: [[1], [2, 3]], "it gives [[1], [2, 3]], not 0.3333"),
    (
        "1.4",
        lambda a, b: 1 / 0,
        "For [ 0  0 10 10], [ 5  0 15 10] it stops with ZeroDivisionError: ",
    ),
    ("1.5", lambda s, c, w, m: nb01.to_gray(s - (c - w // 2), w / 2, w, m), "it gives"),
    ("2.1", lambda a, b, w: a.sub_(a.mean(0)), "changes what it was given"),
    ("2.2", lambda box, side, share, rng: box, "less of the image"),
    ("2.2", lambda box, side, share, rng: (box[0], box[1], side), "four numbers"),
    ("2.4", lambda f, y, q, k: nb02.knn_vote(f, y, q, 2), "it gives"),
    ("2.4", lambda f, y, q, k: round(float(nb02.knn_vote(f, y, q, k))), "it gives"),
    ("2.6", lambda axis: axis.plot(nb02.FLOOR), "at the batch sizes"),
    ("3.4", lambda p, share, rng: p == 1024, "is three"),
    ("3.4", lambda p, s, rng: nb03.split_patients(p, s, np.random.default_rng()), "draw from rng"),
    ("3.5", lambda p, rng: [[1], [2, 3]], "one flat array"),
    ("3.5", lambda p, rng: [], "as many patients"),
    ("3.5", lambda p, rng: [-1], "numbers 0 to 77"),
    ("3.5", lambda p, rng: rng.choice(p, 12), "numbers 0 to 77"),
    ("3.5", lambda p, rng: resample(p, np.random.default_rng()), "draw from rng"),
    ("3.5", lambda p, rng: resample(p, rng, names=lambda p: np.unique(p)[1:]), "more often"),
    ("3.5", lambda p, rng: np.sort(p) if p.sort() else p, "changes what it was given"),
    ("3.6", roc_under_which_the_area_is_filled, "line of chance"),
    ("3.6", lambda axis, y, s: draw_roc(axis, y, s, names=(" ", "true")), "name both axes"),
    ("4.3", suppress_also_at_the_threshold, "just the threshold"),
    ("4.4", lambda d, o, i, t: sum(d(i, t).values()), "no attribute 'values'"),
    ("4.4", lambda d, o, i, t: d.train()(i)["loss_classifier"], "targets should not be None"),
    ("4.6", lambda h, b, n, a: found_by_loop(h, b, 1, round(a * n)), "it gives"),
    ("5.3", {"a": 0.333, "b": None}, "Not filled in yet: 'b'."),
    ("5.3", {"a": 0.333, "b": 0.1}, "Look again at 'b'."),
    ("5.2", lambda s, a, m: np.maximum((s - a)[:, None, None] / s * m, 0).sum(0), "it gives"),
    ("5.4", lambda h, b: nb05.points_into(h, b) if h.any() and h.sum() > 0 else 0.0, "it gives"),
    ("5.4", lambda h, b: nb05.points_into(h - h.min(), b) if h.any() else 0.0, "it gives"),
    ("5.8", lambda *a: mesh_and_box(*a, upside_down=True), "first row belongs at the top"),
    ("5.8", lambda *a: map_enlarged_by_curves(*a, cut=False), "not the Ablation-CAM map"),
    ("6.1", lambda rows, rank, world: rows[rows % world == rank], "not as equal"),
    ("6.1", shift_positions, "none of these rows"),
    ("6.1", lambda rows, rank, world: [[1], [2, 3]], "a list of rows"),
    ("6.1", lambda rows, rank, world: rows % world == rank, "a list of rows"),
    ("6.1", lambda rows, rank, world: [rank], "none of these rows"),
    ("6.5", bars_without_places, "at the numbers of workers"),
]


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(ex, "progress_path", lambda: tmp_path / "exercises.json")


def listed(answers):
    return [(number, answer) for number, tried in answers.items() for answer in tried]


def test_every_judge_was_tried():
    few = [number for number in ex.EXERCISES if len(RIGHT.get(number, ())) < 2]
    assert not few, f"give RIGHT two answers of another style for {few}"
    assert {*RIGHT, *WRONG} <= {*ex.EXERCISES}


@pytest.mark.parametrize(
    ("number", "answer", "said"), [*((*one, "") for one in listed(WRONG)), *TOLD]
)
def test_a_wrong_answer_is_told_what_is_wrong(number, answer, said):
    verdict = engine.judge(ex.EXERCISES[number], answer)
    assert verdict.kind == engine.WRONG and said in verdict.text, verdict.text
    assert "Traceback" not in verdict.text and 0 < len(verdict.text) < 500


@pytest.mark.parametrize(("number", "answer"), listed(RIGHT))
def test_a_right_answer_of_another_style_is_taken(number, answer):
    verdict = engine.judge(ex.EXERCISES[number], answer)
    assert verdict.kind == engine.RIGHT, verdict.text


def stops(*arguments):
    raise SystemExit(3)


ODD = [
    *("a string", np.nan, [], {}, object(), 1j, b"1", int, type, iter([1]), np.array(["a"])),
    *(pd.DataFrame({"a": [1]}), pd.Series(dtype=object), stops, lambda: 1, lambda *a: object()),
    *(lambda *a: "text", lambda *a, **b: iter(a)),
]


@pytest.mark.parametrize("number", list(ex.EXERCISES))
def test_no_answer_raises(number, capsys):
    for answer in ODD:
        ex.check(number, answer)
        assert "Right." not in capsys.readouterr().out


@pytest.mark.parametrize("number", [n for n, e in ex.EXERCISES.items() if callable(e.reference)])
def test_an_answer_that_changes_its_input_is_told_so_or_harmless(number):
    known = ex.EXERCISES[number].reference

    def spoils(*arguments):
        found = known(*arguments)
        for one in arguments:
            if isinstance(one, np.ndarray | pd.Series) and len(one):
                one[:] = one[::-1]
        return found

    engine.judge(ex.EXERCISES[number], spoils)
    assert engine.judge(ex.EXERCISES[number], known).kind == engine.RIGHT


def test_a_figure_that_cannot_be_shown_stops_no_check(monkeypatch, capsys):
    def half_a_formula(axis, *arguments):
        draw_roc(axis, *arguments, names=(r"$\frac$", "true"))

    monkeypatch.setattr(ex, "get_ipython", object)
    ex.check("3.6", half_a_formula)
    said = capsys.readouterr().out
    assert "Exercise 3.6: Right." in said and "cannot be shown" in said


def test_what_a_figure_changes_stays_its_own():
    def spoils(axis, entries):
        entries["age"] = 5

    engine.judge(ex.EXERCISES["1.6"], spoils)
    assert engine.judge(ex.EXERCISES["1.6"], nb01.ap_by_decade).kind == engine.RIGHT
