"""Boxes for the tests of detection metrics: truths, and detections of varied quality."""

import numpy as np

from cxr_helpers.detection import metrics as dm
from cxr_helpers.detection.coco_files import CocoTruth

NAMES = ("mass", "nodule", "heart", "hernia")


def truth(boxes=(), labels=()):
    return {"boxes": np.array(boxes, float).reshape(-1, 4), "labels": np.array(labels, int)}


def prediction(boxes=(), labels=(), scores=()):
    return {**truth(boxes, labels), "scores": np.array(scores, float)}


def random_case(n=60, seed=0, classes=3):
    """Truths, and detections of which some are near a truth box, some not, some mislabeled."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(n):
        m = rng.integers(0, 4)
        corner = rng.uniform(0, 100, (m, 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 50, (m, 2))])
        labels = rng.integers(1, classes + 1, m)
        near = rng.integers(0, m, rng.integers(0, 6)) if m else np.zeros(0, int)
        close = boxes[near] + rng.normal(0, 1.5, (len(near), 4))
        corner = rng.uniform(0, 100, (rng.integers(0, 4), 2))
        far = np.hstack([corner, corner + rng.uniform(8, 50, corner.shape)])
        named = np.where(rng.random(len(near)) < 0.8, labels[near], 1)
        all_labels = np.append(named, rng.integers(1, classes + 1, len(far)))
        scores = rng.random(len(near) + len(far))
        truths.append(truth(boxes, labels))
        predictions.append(prediction(np.vstack([close, far]), all_labels, scores))
    return predictions, truths


def matched(predictions, truths, **options):
    return dm.match_detections(predictions, truths, class_names=NAMES, **options)


def inside(boxes):
    """The same boxes with corners in whole hundredths, none outside an image of 400 pixels."""
    return [one | {"boxes": np.clip(one["boxes"], 0, 400).round(2)} for one in boxes]


def as_coco_truth(truths, size=400, names=NAMES, ids=None):
    ids = tuple(f"image{i:03d}" for i in range(len(truths))) if ids is None else ids
    return CocoTruth(ids, np.full((len(truths), 2), size), truths, names)
