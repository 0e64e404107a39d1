"""Which boxes are explained, and maps that lie where the radiograph does."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_helpers.course.ch05 import explained
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.explanation import heatmaps

HEART, AORTA = (vindr.CLASSES.index(n) + 1 for n in ("Cardiomegaly", "Aortic enlargement"))


def test_findings_are_the_best_boxes_of_what_the_readers_saw(data, found_in):
    items = found_in("test")
    assert [(f.row, f.label) for f in items] == [(6, HEART), (7, AORTA), (7, HEART)]
    assert all(f.placed and f.score == 0.6 and f.readers.shape == (1, 4) for f in items)
    assert items[0].name == "Cardiomegaly"
    assert not any(f.placed for f in found_in("test", shift=40))
    empty = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    nothing = explained.choose(data, data.rows("test"), [empty] * 2, threshold=0.1, max_images=9)
    assert found_in("test", score=0.4) == nothing == []


def test_shared_findings_pair_and_sort(found_in):
    first, second = found_in("test"), found_in("test", score=0.7)[1:]
    pairs = explained.shared(first, second)
    assert [(a.row, a.label) for a, _ in pairs] == [(7, AORTA), (7, HEART)]
    assert all((a.row, a.label, b.score) == (b.row, b.label, 0.7) for a, b in pairs)
    assert explained.shared(found_in("test", shift=40), second) == explained.shared(first, []) == []


def test_maps_of_one_image_equal_maps_one_by_one(data, detector, found_in):
    items = found_in("test")
    for item, ablation in explained.ablations(detector, data, items[::-1], layer="layer2"):
        alone = explained.heatmap_of(detector, data, item, layer="layer2")
        assert alone.shape == (64, 64) and alone.max() in (0, pytest.approx(1))
        on_image = explained.on_image(ablation, data.images, item.row)
        np.testing.assert_allclose(on_image, alone, atol=1e-3)


def test_a_map_is_cut_as_the_radiograph_lies_in_what_was_packed_and_padded(
    data, detector, found_in, narrow
):
    item = found_in("test")[0]
    ((_, ablation),) = explained.ablations(detector, data, [item], layer="layer2")
    cut = explained.on_image(ablation, narrow.images, item.row)
    whole = heatmaps.resize_map(ablation.heatmap, (64, 64), covered=ablation.covered)
    assert narrow.images.picture(item.row).shape == cut.shape == (64, 48)
    np.testing.assert_allclose(cut, heatmaps.normalize_map(whole[:, :48]), atol=1e-6)

    images = PackedImages(np.zeros((1, 80, 80), np.uint8), ["a"], np.array([[640, 800]]), {})
    padded = replace(ablation, covered=(80 / 96, 80 / 96))
    whole = heatmaps.resize_map(padded.heatmap, (96, 96))
    expected = heatmaps.normalize_map(whole[:64, :80])
    np.testing.assert_allclose(explained.on_image(padded, images, 0), expected, atol=1e-9)
