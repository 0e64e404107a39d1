"""Which boxes are explained, and maps that lie where the radiograph does."""

from dataclasses import replace
from types import SimpleNamespace

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


def test_findings_of_both_parts_follow_the_preset(data, monkeypatch):
    def predictions(detector, path, data, rows):
        return [
            truth | {"scores": np.full(len(truth["labels"]), 0.4)} for truth in data.truths(rows)
        ]

    monkeypatch.setattr(explained.experiment, "predictions", predictions)
    for threshold, rows in ((0.3, {"val": [4], "test": [6]}), (0.5, {"val": [], "test": []})):
        preset = SimpleNamespace(score_threshold=threshold, max_images=1)
        found = explained.findings(SimpleNamespace(explain=preset), data, None, "detector.pt")
        assert {part: [f.row for f in items] for part, items in found.items()} == rows


def test_shared_findings_pair_and_sort(found_in):
    first, second = found_in("test"), found_in("test", score=0.7)[1:]
    pairs = explained.shared(first, second)
    assert [(a.row, a.label) for a, _ in pairs] == [(7, AORTA), (7, HEART)]
    assert all((a.row, a.label, b.score) == (b.row, b.label, 0.7) for a, b in pairs)
    assert explained.shared(found_in("test", shift=40), second) == explained.shared(first, []) == []


def test_maps_of_one_image_equal_maps_one_by_one(data, detector, found_in):
    items = found_in("test")
    for explain in explained.ways(detector, layer="layer2").values():
        for item, made in explained.maps_of(explain, data, items[::-1]):
            alone = explained.heatmap_of(explain, data, item)
            assert alone.shape == (64, 64) and alone.max() in (0, pytest.approx(1))
            on_image = explained.on_image(made, data.images, item.row)
            np.testing.assert_allclose(on_image, alone, atol=1e-3)


def test_each_way_has_its_layer_and_the_probe_its_own(data, detector, probe, found_in):
    items = found_in("test")
    layers = {explained.CHANNELS: "layer4", explained.CELLS: "layer2"}
    made = explained.ways(detector, probe, layer=layers)
    assert tuple(made) == explained.WAYS
    shapes = [next(explained.maps_of(one, data, items))[1].heatmap.shape for one in made.values()]
    assert shapes == [(2, 2), (8, 8), (4, 4)]
    of_probe = [m.signed_map for _, m in explained.maps_of(made[explained.PROBE], data, items)]
    moved = [replace(item, box=item.box + 9) for item in items]
    again = [m.signed_map for _, m in explained.maps_of(made[explained.PROBE], data, moved)]
    np.testing.assert_array_equal(of_probe, again)  # it knows no box


def test_exact_boxes_come_with_a_finding_where_they_are_known(data, found_in):
    first, second, third = found_in("test")
    np.testing.assert_allclose(first.exact - first.readers, [[2, 0, 0, 0]], atol=1e-4)
    known = {f.label: len(f.exact) for f in (second, third)}
    assert known == {AORTA: 0, HEART: 1}
    unknown = explained.choose(
        replace(data, exact=None), data.rows("test"),
        [{"boxes": f.box[None], "labels": [f.label], "scores": np.ones(1)} for f in (first, third)],
        threshold=0.5, max_images=9,
    )  # fmt: skip
    assert len(unknown) == 2 and all(f.exact is None for f in unknown)


def test_cells_are_drawn_as_blocks_over_their_pixels(data, detector, found_in, narrow):
    item = found_in("test")[0]
    cells = explained.ways(detector, layer="layer3")[explained.CELLS]
    ((_, made),) = explained.maps_of(cells, data, [item])
    blocks = explained.as_cells(np.arange(16).reshape(4, 4), made, data.images, item.row)
    np.testing.assert_array_equal(blocks, np.kron(np.arange(16).reshape(4, 4), np.ones((16, 16))))
    cut = explained.as_cells(np.arange(16).reshape(4, 4), made, narrow.images, item.row)
    np.testing.assert_array_equal(cut, blocks[:, :48])


def test_what_matters_is_a_share_of_the_cells(data, detector, found_in):
    items = found_in("test")
    table = explained.shares_that_matter(detector, data, items, layer="layer2")
    assert len(table) == len(items)
    assert table["cells that change the score"].between(0.01, 0.99).all()
    assert table["channel map on other cells"].dropna().between(0, 1).all()


def test_a_map_is_cut_as_the_radiograph_lies_in_what_was_packed_and_padded(
    data, detector, found_in, narrow
):
    item = found_in("test")[0]
    channels = explained.ways(detector, layer="layer2")[explained.CHANNELS]
    ((_, ablation),) = explained.maps_of(channels, data, [item])
    cut = explained.on_image(ablation, narrow.images, item.row)
    whole = heatmaps.resize_map(ablation.heatmap, (64, 64), covered=ablation.covered)
    assert narrow.images.picture(item.row).shape == cut.shape == (64, 48)
    np.testing.assert_allclose(cut, heatmaps.normalize_map(whole[:, :48]), atol=1e-6)

    images = PackedImages(np.zeros((1, 80, 80), np.uint8), ["a"], np.array([[640, 800]]), {})
    padded = replace(ablation, covered=(80 / 96, 80 / 96))
    whole = heatmaps.resize_map(padded.heatmap, (96, 96))
    expected = heatmaps.normalize_map(whole[:64, :80])
    np.testing.assert_allclose(explained.on_image(padded, images, 0), expected, atol=1e-9)
