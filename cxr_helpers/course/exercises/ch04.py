"""Exercises of notebook 04 about boxes: average precision, IoU, suppression, a training step.

How to add one: the head of engine.py says it.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cxr_helpers.course.exercises.engine import Exercise, arrays, judge_function, numbers
from cxr_helpers.detection.boxes import box_iou

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


def iou_of_all(first, second):
    """IoU of each of N boxes with each of M, all (x_min, y_min, x_max, y_max): (N, M)."""
    a, b = first[:, None], second[None]  # (N, 1, 4), (1, M, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b))
    return shared / (area_a + area_b - shared)


def _iou_of_all(first, second, *, clip=0, wider=0, twice=False):
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + wider
    shared = np.clip(sides, clip, None).prod(axis=-1)
    areas = sum((box[..., 2:] - box[..., :2] + wider).prod(axis=-1) for box in (a, b))
    return shared / (areas if twice else areas - shared)


def suppress_per_class(boxes, labels, scores, threshold):
    """Rows that non-maximum suppression keeps, by falling score; classes do not meet."""
    order, kept = np.argsort(-scores), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        overlap = box_iou(boxes[[best]], boxes[rest])[0]
        order = rest[(overlap <= threshold) | (labels[rest] != labels[best])]
    return kept


def _dropped_boxes_drop_others(boxes, labels, scores, threshold):
    order = np.argsort(-scores)
    overlap = box_iou(boxes, boxes) > threshold
    overlap &= labels[:, None] == labels
    return [int(r) for i, r in enumerate(order) if not overlap[r, order[:i]].any()]


class TinyDetector(nn.Module):
    """Stands in for a detector in an exercise: four losses while training, else boxes."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))

    def forward(self, images, targets=None):
        """A loss for each weight, which depends on images and boxes; or no box for any image."""
        if not self.training:
            return [{"boxes": torch.zeros(0, 4)} for _ in images]
        if targets is None:
            raise ValueError("targets should not be None when in training mode")
        wanted = torch.stack(list(images)).mean() + sum(len(one["boxes"]) for one in targets)
        return dict(zip(LOSSES, 0.5 * (self.weights - wanted) ** 2, strict=True))


def one_step(detector, optimizer, images, targets):
    """One training step on a batch; returns the sum of its losses."""
    detector.train()
    loss = sum(detector(images, targets).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _one_step(
    detector, optimizer, images, targets, *, forget=False, parts=LOSSES, share=1.0, move=True
):
    detector.train()
    losses = detector(images, targets)
    loss = share * sum(losses[name] for name in parts)
    if not forget:
        optimizer.zero_grad()
    loss.backward()
    if move:
        optimizer.step()
    return loss.item()


def _left_by(step):
    """A function that says what two steps leave: the losses that are returned, and the weights."""

    def left(_name):
        detector, images = TinyDetector(), [torch.full((3, 2, 2), gray) for gray in (0.2, 0.4)]
        targets = [{"boxes": torch.zeros(n, 4), "labels": torch.ones(n)} for n in (1, 0)]
        optimizer = torch.optim.SGD(detector.parameters(), lr=0.1)
        before, losses = detector.weights.tolist(), []
        for _ in range(2):
            returned = numbers(step(detector.eval(), optimizer, images, targets))
            losses.append(np.nan if returned is None or returned.ndim else float(returned))
        after = detector.weights.tolist()
        return None if np.isnan(losses).all() and after == before else [*losses, *after]

    return left


def _judge_step(exercise, answer):
    mistakes = tuple((_left_by(step), text) for step, text in exercise.mistakes)
    tried = replace(exercise, reference=_left_by(exercise.reference), mistakes=mistakes)
    return judge_function([("a tiny detector in eval mode",)])(tried, _left_by(answer))


def _boxes(*rows) -> np.ndarray:
    return np.array(rows, dtype=float)


EXERCISES = (
    Exercise(
        number="4.1",
        title="ten timid boxes",
        minutes=2,
        reference=(51 + 50 * 2 / 3) / 101,
        mistakes=(
            (
                (51 + 50 * 2 / 13) / 101,
                "That is the precision after all of them. At each recall the best one counts.",
            ),
            (
                2 / 13,
                "That is the share of right detections. Average precision goes down the list, and "
                "asks at each recall for the best precision from there on.",
            ),
            (0, "Three detections are as right as they were before."),
        ),
        hints=(
            "After which detection has all of the truth been found?",
            "All ten come after that. Which recall point could they change?",
            "None: it stays at (51 + 50 * 2 / 3) / 101.",
        ),
        why="What comes after the last hit costs nothing: a detector may add false alarms there "
        "without end and lose no mAP.",
    ),
    Exercise(
        number="4.2",
        title="IoU of all pairs",
        minutes=15,
        reference=iou_of_all,
        mistakes=(
            (
                lambda a, b: iou_of_all(b, a),
                "Turned: rows are the first boxes, columns the second ones.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, clip=-np.inf),
                "Boxes that lie apart both ways have two negative sides, and their product is an "
                "overlap that is none: cut each side at 0 first.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, wider=1),
                "You add 1 to each side, as for numbers of pixels. Here x_max is an edge.",
            ),
            (
                lambda a, b: _iou_of_all(a, b, twice=True),
                "The shared area counts twice in the sum of both areas: take it off once.",
            ),
        ),
        hints=(
            "first[:, None] is (N, 1, 4), second[None] is (1, M, 4): numpy pairs them all.",
            "Sides: np.minimum of the two ends, minus np.maximum of the two beginnings.",
            "np.clip(sides, 0, None).prod(axis=-1) is the shared area, (N, M).",
        ),
        why="These are the course's box_iou and torchvision's values. Without a loop numpy pairs "
        "all boxes at once, which is what makes thousands of proposals affordable.",
        judge=judge_function(
            [
                (
                    _boxes([0, 0, 10, 10], [20, 20, 30, 40]),
                    _boxes([5, 0, 15, 10], [2, 2, 6, 6], [40, 50, 60, 70], [22, 2, 28, 9]),
                ),
                (_boxes([0, 0, 4, 2]), _boxes([0, 0, 4, 2], [4, 0, 8, 2])),
                (_boxes([0, 0, 5, 5], [9, 9, 12, 10], [1, 1, 4, 3]), _boxes([3, 2, 10, 10])),
            ]
        ),
    ),
    Exercise(
        number="4.3",
        title="suppression, class by class",
        minutes=20,
        reference=suppress_per_class,
        mistakes=(
            (
                lambda b, y, s, t: suppress_per_class(b, np.zeros_like(y), s, t),
                "A box of another class was dropped. An effusion may lie on a mass: compare "
                "labels before you drop.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, -s, t),
                "You begin with the lowest score. The surest box comes first.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, -np.arange(len(s)), t),
                "You take the boxes as they are listed. Sort by falling score first.",
            ),
            (
                lambda b, y, s, t: sorted(
                    suppress_per_class(b, y, s, t), key=lambda row: (y[row], -s[row])
                ),
                "The right rows, class after class. Return them by falling score.",
            ),
            (
                lambda b, y, s, t: sorted(suppress_per_class(b, y, s, t)),
                "The right rows, by their number. Return them by falling score.",
            ),
            (
                _dropped_boxes_drop_others,
                "A box that was itself dropped drops another one. Only kept boxes may do that.",
            ),
            (
                lambda b, y, s, t: suppress_per_class(b, y, s, t - 1e-6),
                "At an IoU of just the threshold a box stays: only one above it is dropped.",
            ),
        ),
        hints=(
            "Start from the notebook's suppress. What has to change where boxes are dropped?",
            "Of the rest, keep what overlaps little or has another label than the best box.",
            "order = rest[(overlap <= threshold) | (labels[rest] != labels[best])]",
        ),
        why="So does torchvision's batched_nms, and so a place may have two names, each once.",
        judge=judge_function(
            [
                (
                    _boxes([0, 0, 10, 10], [1, 1, 11, 11], [1, 0, 11, 10], [40, 40, 50, 50]),
                    *arrays([1, 1, 2, 1], [0.6, 0.9, 0.7, 0.95]),
                    0.5,
                ),
                (
                    _boxes([0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [0, 0, 10, 9]),
                    *arrays([3, 3, 3, 1], [0.9, 0.8, 0.7, 0.75]),
                    0.5,
                ),
                (
                    _boxes([0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 28, 28], [0, 0, 8, 6]),
                    *arrays([2, 2, 1, 2], [0.2, 0.4, 0.3, 0.9]),
                    0.8,
                ),
                (
                    _boxes([0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]),
                    *arrays([1, 1, 1], [0.9, 0.8, 0.7]),
                    0.5,
                ),
                (np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0), 0.5),
            ]
        ),
    ),
    Exercise(
        number="4.4",
        title="one training step",
        minutes=15,
        reference=one_step,
        mistakes=(
            (
                lambda *a: _one_step(*a, forget=True),
                "Gradients add up: what the first step left is still there in the second. Call "
                "optimizer.zero_grad() before backward().",
            ),
            (
                lambda *a: _one_step(*a, parts=LOSSES[:1]),
                "That is one of the four losses. Add them all: sum(losses.values()).",
            ),
            (
                lambda *a: _one_step(*a, share=1 / len(LOSSES)),
                "The mean of the losses is a quarter of what is wanted: add them up.",
            ),
            (
                lambda *a: _one_step(*a, move=False),
                "The loss is right, but no weight has moved: optimizer.step() belongs after "
                "backward().",
            ),
            (
                lambda *a: _one_step(*a) and None,
                "The step is right. Return the loss, as a number.",
            ),
        ),
        hints=(
            "The detector may have been left in eval mode, where it returns boxes: train() first.",
            "losses = detector(images, targets) is a dict; its values have to be added up.",
            "optimizer.zero_grad(), then backward() of the sum, then optimizer.step().",
        ),
        why="Every training loop of this course does these five lines for each batch; the rest is "
        "rates, logs and checkpoints.",
        judge=_judge_step,
    ),
)
