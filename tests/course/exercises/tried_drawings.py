"""Drawings that were tried on the judges, in several styles; `test_judges` says which are right."""

import numpy as np
import torch
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_curve

from cxr_helpers.course.exercises import ch02 as nb02
from cxr_helpers.course.exercises import ch05 as nb05
from cxr_helpers.course.plots import ch05
from cxr_helpers.detection.metrics import RECALL_POINTS
from cxr_helpers.explanation import heatmaps


def decades(entries):
    known = entries[entries["age"] < 90]
    return 100 * (known["view"] == "AP").groupby((known["age"] // 10).astype(int)).mean()


def draw_decades(axis, entries, *, kind="plot", order=slice(None)):
    percent = decades(entries).iloc[order]
    labels = [f"{10 * d}-{10 * d + 9}" for d in percent.index]
    getattr(axis, kind)(labels if kind == "barh" else 10 * percent.index, percent)
    axis.set(xlabel="AP (%)", ylabel="age (years)")


def one_bar_at_a_time(axis, entries):
    for decade, percent in decades(entries).items():
        axis.bar(decade, percent)
    axis.set(xlabel="decade", ylabel="AP (%)")


def draw_roc(axis, ill, scores, *, names=("false", "true")):
    false, true, _ = roc_curve(ill, scores, drop_intermediate=False)
    axis.plot(false, true)
    axis.axline((0, 0), slope=1)
    axis.set(xlabel=names[0], ylabel=names[1])


def draw_floor(axis, *, off=1.0, scale="log"):
    n = np.array(nb02.BATCHES)
    rng = np.random.default_rng(1)
    axis.plot(n, off * np.sqrt(2 / np.pi / n))
    c = [np.corrcoef(*rng.normal(size=(2, 48, k)))[:48, 48:] for k in n]
    axis.scatter(n, [np.abs(one[~np.eye(48, dtype=bool)]).mean() for one in c])
    axis.set(xlabel="N", ylabel="floor", xscale=scale, yscale=scale)


def curve_of(right, scores, boxes):
    found = np.cumsum(right[np.argsort(scores)[::-1]])
    recall, precision = found / boxes, found / np.arange(1, len(found) + 1)
    return recall, precision, [precision[i:].max() for i in range(len(precision))]


def draw_precision(axis, right, scores, boxes, *, start=0):
    recall, precision, best = curve_of(right, scores, boxes)
    axis.plot(recall[start:], precision[start:], ".")
    axis.plot(recall[start:], best[start:])
    axis.set(xlabel="recall", ylabel="precision")


def curve_from_zero_and_best_at_101_points(axis, *given):
    recall, precision, _ = curve_of(*given)
    axis.plot([0, *recall], [1, *precision])
    best = [max(precision[recall >= point], default=0) for point in RECALL_POINTS]
    axis.scatter(RECALL_POINTS, best)
    axis.set(xlabel="recall", ylabel="precision")


def curve_backwards_and_best_down_to_zero(axis, *given):
    recall, precision, best = curve_of(*given)
    axis.plot(recall[::-1], precision[::-1])
    axis.step([*recall, recall[-1], 1], [*best, 0, 0], where="pre")
    axis.set(xlabel="recall", ylabel="precision")


def outline(axis, box):
    axis.plot(box[[0, 2, 2, 0, 0]], box[[1, 1, 3, 3, 1]])
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


def draw_map(axis, score, ablated, maps, box, *, cells=True, shift=0):
    heatmap = nb05.map_from_channels(score, ablated, maps)
    heatmap = heatmap if cells else np.kron(heatmap, np.ones((8, 8)))
    axis.imshow(heatmap, extent=(0, 64, 64, 0), cmap="gray")
    outline(axis, box + [shift, 0, shift, 0])


def mesh_and_box(axis, score, ablated, maps, box, *, upside_down=False):
    heatmap, edges = nb05.map_from_channels(score, ablated, maps), np.arange(0, 65, 8)
    axis.pcolormesh(edges, edges, np.ma.masked_equal(heatmap, 0))
    outline(axis, box)
    if not upside_down:
        axis.invert_yaxis()


def map_enlarged_by_curves(axis, score, ablated, maps, box, *, cut=True):
    signed = nb05.signed(score, ablated, maps)
    heatmap = torch.tensor(signed.clip(min=0) if cut else signed)[None, None]
    axis.imshow(torch.nn.functional.interpolate(heatmap, (64, 64), mode="bicubic")[0, 0].numpy())
    outline(axis, box)


def picture_under_a_rectangle(axis, score, ablated, maps, box):
    heatmap = nb05.map_from_channels(score, ablated, maps)
    axis.imshow(np.zeros((64, 64)), cmap="gray")
    axis.imshow(heatmaps.normalize_map(heatmaps.resize_map(heatmap, (64, 64))), alpha=0.5)
    axis.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), fill=False))
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


def the_courses_own_picture(axis, score, ablated, maps, box):
    heatmap = nb05.map_from_channels(score, ablated, maps)
    large = heatmaps.normalize_map(np.kron(heatmap, np.ones((8, 8))))
    ch05.show_heatmap(axis, np.zeros((64, 64)), large, found_boxes=[box])
    axis.set(xlabel="x (pixels)", ylabel="y (pixels)")


def draw_scaling(axis, workers, rates, *, by=0):
    axis.semilogx(workers, rates / rates[by])
    axis.plot([1, 16], [1, 16])
    axis.set(xlabel="workers", ylabel="speed-up")


def bars_without_places(axis, workers, rates):
    axis.bar(range(len(workers)), rates / rates[0])
    axis.plot(workers, workers)
    axis.set(xlabel="workers", ylabel="speed-up")


def roc_under_which_the_area_is_filled(axis, ill, scores, *, chance=False):
    false, true, _ = roc_curve(ill, scores)
    axis.fill_between(false, true, alpha=0.2)
    axis.plot(false[::-1], true[::-1])
    if chance:
        axis.scatter([0, 0.5, 1], [0, 0.5, 1])
    axis.set(xlabel="false", ylabel="true")


def smooth_floor_and_points(axis):
    n = np.arange(4, 513)
    axis.plot(n, np.sqrt(2 / np.pi / n))
    draw_floor(axis, off=3)


def speed_by_named_workers(axis, workers, rates):
    names = [str(n) for n in workers]
    axis.bar(names, rates / rates[0])
    axis.plot(names, workers)
    axis.set(xlabel="workers", ylabel="speed-up")
