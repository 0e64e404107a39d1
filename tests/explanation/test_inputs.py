"""What the room takes for images, maps, boxes and labels: every kind alike, the rest by name."""

import numpy as np
import pytest
import torch
from tiny_detector import gray_image, tiny_detector

from cxr_helpers.explanation import (
    ablation_fast,
    cam,
    cells,
    fixed_box,
    heatmaps,
    inputs,
    probe_map,
    sanity,
)

BOX = [3.5, 10, 20, 31]
# Every function that takes an image, with its first argument left open.
ASKERS = {
    "ablate_box": lambda d, image, box, label: ablation_fast.ablate_box(d, image, box, label),
    "brute_force": lambda d, image, box, label: ablation_fast.brute_force_ablation(
        d, image, box, label, layer="layer1"
    ),
    "box_gradient": lambda d, image, box, label: ablation_fast.box_gradient(d, image, box, label),
    "ablate_cells": lambda d, image, box, label: cells.ablate_cells(d, image, [box], [label]),
    "ablation_cam": lambda d, image, box, label: cam.ablation_cam(d, image, [box], [label]),
    "grad_cam": lambda d, image, box, label: cam.grad_cam(d, image, [box], [label]),
}
every_asker = pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS)


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


BAD_IMAGES = [
    (torch.rand(2, 64, 64), r"\(2, 64, 64\); expected \(H, W\)"),
    (torch.rand(1, 3, 64, 64), "shape"),
    (np.zeros((0, 64)), "shape"),
    ([[0.0], [0.0, 1.0]], "image is no one array"),
    (torch.rand(3, 64, 64, device="meta"), "image is on meta, the detector on cpu"),
    (torch.zeros(64, 64, dtype=torch.int64), "image is int64; give uint8, uint16"),
    (np.zeros((64, 64), bool), "image is bool"),
    (np.full((64, 64), 4095, np.uint16), "uint16 up to 4095, so it holds 12 bits only"),
    (torch.full((3, 64, 64), 255.0), r"from 255 to 255; expected \[0, 1\]"),
    (torch.full((3, 64, 64), torch.nan), "from nan to nan"),
]
BAD_BOXES = [
    ([5, 5, 5, 20], "no .x_min.*area"),
    ([20, 5, 5, 20], "area"),
    ([5, 5, np.inf, 20], "area"),
    ([5, 5, np.nan, 20], "area"),
    ([5, 5, 20], r"shape \(1, 3\)"),
    ([64, 5, 70, 20], "outside the image of 64 x 64"),
    (list("abcd"), "table of boxes holds no plain numbers.*a"),
    (np.array([5, 5, "20", 20], object), "table of boxes holds no plain numbers.*20"),
]
BAD_LABELS = [
    (0, "label 0 is no class.*the last is 2"),
    (3, "label 3"),
    (1.5, "label 1.5"),
    (np.nan, "label nan"),
    ("mass", "list of labels holds no plain numbers.*mass"),
    ([1, 2], r"labels of shape \(1, 2\)"),
]
BAD = [
    *({"image": value, "words": words} for value, words in BAD_IMAGES),
    *({"box": value, "words": words} for value, words in BAD_BOXES),
    *({"label": value, "words": words} for value, words in BAD_LABELS),
]


@every_asker
def test_bad_input_is_refused(detector, ask):
    for case in BAD:
        asked = {"image": gray_image(), "box": BOX, "label": 1, **case}
        with pytest.raises(inputs.ExplanationError, match=asked.pop("words")):
            ask(detector, **asked)


def test_a_probe_refuses_the_same_images(detector):
    center = probe_map.pooled_features(detector, gray_image()[:1])[1]
    probe = probe_map.ProbeMaps(detector, "layer3", np.ones((2, 256)), center)
    for image, words in BAD_IMAGES:
        with pytest.raises(inputs.ExplanationError, match=words):
            probe.explain(image, [1])


def test_boxes_and_labels_are_as_many(detector):
    for count in (0, 2):
        for ask in (ablation_fast.ablate_boxes, cells.ablate_cells, cam.grad_cam):
            with pytest.raises(inputs.ExplanationError, match=rf"labels of shape \({count},\)"):
                ask(detector, gray_image(), [BOX], [1] * count)


KINDS = {
    "uint8 tensor": lambda g: g.byte(),
    "uint8": lambda g: g.byte().numpy(),
    "uint16": lambda g: g.numpy().astype(np.uint16) * 257,
    "uint16 tensor": lambda g: torch.from_numpy(g.numpy().astype(np.uint16) * 257),
    "float64": lambda g: (g / 255).numpy().astype(np.float64),
    "with gradient": lambda g: (g / 255).requires_grad_(),
    "list": lambda g: (g / 255).tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_says_the_same(detector, kind):
    gray = (gray_image()[0] * 255).round()
    image, made = (gray / 255).expand(3, -1, -1), KINDS[kind](gray)
    with torch.no_grad():
        (one,) = detector([image])
    boxes, labels = one["boxes"][:1], one["labels"][:1]  # tensors, as torchvision returns them
    box, label = boxes[0].clone().requires_grad_(), labels[0]
    expected = ablation_fast.ablate_box(detector, image, boxes[0].tolist(), int(label))
    for ask in (ablation_fast.ablate_box, ablation_fast.box_gradient):
        assert ask(detector, made, box, label).score == pytest.approx(expected.score, abs=1e-6)
    batch = made[None, None] if torch.is_tensor(made) else np.asarray(made)[None, None]
    score = fixed_box.score_box(detector, batch, box, label)
    assert score == pytest.approx(expected.score, abs=1e-6)
    (alone,) = cells.ablate_cells(detector, made, boxes, labels)
    assert alone.score == pytest.approx(expected.score, abs=1e-6)
    maps = [cam.grad_cam(detector, one, boxes, labels).heatmap for one in (image, made)]
    np.testing.assert_allclose(*maps, atol=1e-3)
    curves = [
        sanity.deletion_curve(lambda images: images[:, 0, 0], one, gray, steps=3).score
        for one in (gray / 255, made)
    ]
    np.testing.assert_allclose(*curves, atol=1e-5)


def test_numbers_are_read_from_what_holds_them():
    values = np.arange(6.0).reshape(2, 3)
    tensor = torch.from_numpy(values).requires_grad_()
    scalars = [list(row) for row in tensor]
    for one in (values, values.tolist(), tensor, tensor.bfloat16(), list(tensor), scalars):
        assert inputs.numbers(one, "table").tolist() == values.tolist()


NO_MAPS = {
    "one axis": np.zeros(4),
    "empty": np.zeros((0, 4)),
    "nan": np.full((2, 2), np.nan),
    "text": [["a"]],
    "several lengths": [[1], [1, 2]],
    "numbers as text": [["0.5"]],
    "complex": np.ones((2, 2)) * 1j,
    "masked": np.ma.masked_array(np.ones((2, 2)), mask=np.eye(2)),
}


@pytest.mark.parametrize("kind", NO_MAPS)
def test_what_is_no_map_is_refused(kind):
    with pytest.raises(inputs.ExplanationError, match="map"):
        heatmaps.energy_in_box(NO_MAPS[kind], [])
    for ask in (
        lambda bad: sanity.rank_correlation(np.eye(2), bad),
        lambda bad: sanity.deletion_curve(np.mean, np.eye(2), bad),
    ):
        with pytest.raises(inputs.ExplanationError):
            ask(NO_MAPS[kind])
