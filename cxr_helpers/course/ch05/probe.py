"""The linear probe of notebook 05: from labels of whole images, on a backbone that saw no box."""

import numpy as np
from torch import nn

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.detection import detector as det
from cxr_helpers.evaluation.probe import fit_probe
from cxr_helpers.explanation.probe_map import ProbeMaps, pooled_features


def main_arm(settings: Settings) -> str:
    """The arm that is explained: pretrained for an evening where those weights fit, else here."""
    state, _ = pretraining.arm_state(settings, "evening", seed=settings.seed)
    return "pretrained" if state is None else "evening"


def frozen_detector(settings: Settings, data: BoxData, arm: str, *, seed: int) -> det.Detector:
    """A detector before its first step: the arm's backbone, and random weights above it.

    Raises:
        ValueError: the arm's weights are not to be had.
    """
    state, sentence = pretraining.arm_state(settings, arm, seed=seed)
    if state is None:
        raise ValueError(f"no backbone for the arm {arm!r}: {sentence}")
    built = experiment.detector_settings(settings, data, arm)
    return det.build_detector(built, state, seed=seed).eval()


def image_labels(data: BoxData, rows: np.ndarray) -> np.ndarray:
    """(N, K) of 0 and 1: whether the readers drew any box of the class on the image."""
    found = np.zeros((len(rows), len(data.class_names)), dtype=int)
    for line, truth in zip(found, data.truths(rows), strict=True):
        line[np.asarray(truth["labels"], dtype=int) - 1] = 1
    return found


def train_probe(
    detector: nn.Module, data: BoxData, *, layer: str, most: int | None = None
) -> ProbeMaps:
    """Fit a probe of every class on training images; its strength is chosen on validation images.

    Normal images are among them. No box is used but to say that its class is on the image.

    Args:
        detector: gives the frozen ResNet, in eval mode.
        data: images and readers' boxes.
        layer: of `layers.STAGES`.
        most: training images, evenly spaced, and half as many validation images; None takes all.
    """
    train, val = _spaced(data.rows("train"), most), _spaced(data.rows("val"), most and most // 2)
    features, center = pooled_features(detector, data.images.pixels[train], layer=layer)
    val_features, _ = pooled_features(detector, data.images.pixels[val], layer=layer)
    fitted = fit_probe(
        features,
        image_labels(data, train),
        val_features,
        image_labels(data, val),
        class_names=data.class_names,
    )
    return ProbeMaps(detector, layer, fitted.weights, center)


def _spaced(rows: np.ndarray, most: int | None) -> np.ndarray:
    if most is None or most >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)]
