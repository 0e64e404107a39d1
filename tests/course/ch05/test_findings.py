"""The glue of notebook 05 on made-up data and a tiny detector."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny_detector import tiny_detector

from cxr_helpers.course.ch05 import findings, map_checks, random_labels, viewer
from cxr_helpers.course.core.data import BoxData
from cxr_helpers.course.plots import ch05, style
from cxr_helpers.data import vindr
from cxr_helpers.data.packed import PackedImages
from cxr_helpers.explanation import ablation_fast, heatmaps, sanity
from cxr_helpers.explanation.layers import LAYER_NAMES

matplotlib.use("Agg")
SIZE = 64
HEART, AORTA = (
    vindr.CLASSES.index("Cardiomegaly") + 1,
    vindr.CLASSES.index("Aortic enlargement") + 1,
)


@pytest.fixture(scope="module")
def data():
    """Eight images with one or two boxes each: four train, two val, two test."""
    rng = np.random.default_rng(0)
    ids = [f"image{i}" for i in range(8)]
    rows = []
    for i, name in enumerate(ids):
        for label in (HEART, AORTA)[: 1 + i % 2]:
            x, y = rng.uniform(2, 24, 2)
            rows.append((name, vindr.CLASSES[label - 1], x, y, x + 30, y + 20))
    columns = ["image_id", "label", "x_min", "y_min", "x_max", "y_max"]
    fused = pd.DataFrame(rows, columns=columns)
    pixels = rng.integers(0, 256, size=(8, SIZE, SIZE), dtype=np.uint8)
    images = PackedImages(pixels, ids, np.full((8, 2), SIZE), {})
    split = np.array(["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    return BoxData(SimpleNamespace(boxes=None), fused, images, split)


@pytest.fixture(scope="module")
def detector():
    return tiny_detector(class_names=vindr.CLASSES)


def detected(data, rows, *, score=0.6, shift=1.0):
    """A detection near each reader's box."""
    return [
        one
        | {"boxes": one["boxes"] + np.float32(shift), "scores": np.full(len(one["labels"]), score)}
        for one in data.truths(rows)
    ]


def found_in(data, part, **options):
    rows = data.rows(part)
    return findings.findings(
        data, rows, detected(data, rows, **options), threshold=0.5, max_images=100
    )


# Which boxes.
def test_findings_are_the_best_boxes_of_what_the_readers_saw(data):
    items = found_in(data, "test")
    assert [(f.row, f.label) for f in items] == [(6, HEART), (7, AORTA), (7, HEART)]
    assert all(f.placed and f.score == 0.6 and f.readers.shape == (1, 4) for f in items)
    assert items[0].name == "Cardiomegaly"
    assert found_in(data, "test", score=0.4) == []
    assert not any(f.placed for f in found_in(data, "test", shift=40))


def test_no_detection_gives_no_finding(data):
    empty = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "scores": np.zeros(0)}
    rows = data.rows("test")
    assert findings.findings(data, rows, [empty] * 2, threshold=0.1, max_images=9) == []


def test_shared_findings_pair_and_sort(data):
    first, second = found_in(data, "test"), found_in(data, "test", score=0.7)[1:]
    pairs = findings.shared_findings(first, second)
    assert [(a.row, a.label) for a, _ in pairs] == [(7, AORTA), (7, HEART)]
    assert all((a.row, a.label, b.score) == (b.row, b.label, 0.7) for a, b in pairs)
    assert findings.shared_findings(found_in(data, "test", shift=40), second) == []
    assert findings.shared_findings(first, []) == []


# Maps and scores.
def ablated(data, detector):
    """The ablation of the first test finding."""
    ((_, ablation),) = findings.ablations(
        detector, data, found_in(data, "test")[:1], layer="layer2"
    )
    return ablation


def test_maps_of_one_image_equal_maps_one_by_one(data, detector):
    items = found_in(data, "test")
    for item, ablation in findings.ablations(detector, data, items[::-1], layer="layer2"):
        alone = findings.heatmap_of(detector, data, item, layer="layer2")
        assert alone.shape == (SIZE, SIZE) and alone.max() in (0, pytest.approx(1))
        on_image = findings.on_image(ablation, data.images, item.row)
        np.testing.assert_allclose(on_image, alone, atol=1e-3)


def test_maps_end_where_the_radiograph_does(data, detector):
    narrow = replace(data.images, original_hw=np.full((8, 2), (320, 240)))
    item, ablation = found_in(data, "test")[0], ablated(data, detector)
    cut = findings.on_image(ablation, narrow, item.row)
    whole = heatmaps.resize_map(ablation.heatmap, (SIZE, SIZE), covered=ablation.covered)
    assert narrow.picture(item.row).shape == cut.shape == (64, 48)
    np.testing.assert_allclose(cut, heatmaps.normalize_map(whole[:, :48]), atol=1e-6)


def test_a_map_is_cut_as_the_radiograph_lies_in_what_the_network_padded(data, detector):
    images = PackedImages(np.zeros((1, 80, 80), np.uint8), ["a"], np.array([[640, 800]]), {})
    padded = replace(ablated(data, detector), covered=(80 / 96, 80 / 96))
    cut = findings.on_image(padded, images, 0)
    whole = heatmaps.resize_map(padded.heatmap, (96, 96))
    np.testing.assert_allclose(cut, heatmaps.normalize_map(whole[:64, :80]), atol=1e-9)


def test_deletion_begins_with_the_radiograph(data, detector, monkeypatch):
    met, curve = [], sanity.Curve(np.zeros(2), np.zeros(2))
    for name in ("deletion_curve", "insertion_curve"):
        record = lambda score, image, heatmap, **_: met.append(heatmap) or curve  # noqa: E731
        monkeypatch.setattr(sanity, name, record)
    narrow = replace(data, images=replace(data.images, original_hw=np.full((8, 2), (320, 240))))
    map_checks.pixel_curves(detector, narrow, found_in(data, "test")[:1], layer="layer3", seed=0)
    assert len(met) == 6
    assert all(heatmap[:, 48:].max() < heatmap[:, :48].min() for heatmap in met)


def test_a_box_beyond_the_picture_does_not_widen_the_panel():
    figure, axis = plt.subplots()
    box = np.array([[20, 20, 70, 64]])
    ch05.show_heatmap(axis, np.zeros((64, 48)), np.ones((64, 48)), found_boxes=box)
    figure.canvas.draw()
    assert axis.get_xlim() == (-0.5, 47.5) and axis.get_ylim() == (63.5, -0.5)
    plt.close(figure)


def test_a_cross_marks_the_highest_place():
    heatmap = np.zeros((8, 6))
    heatmap[5, 2] = 1
    figure, (marked, empty) = plt.subplots(1, 2)
    ch05.show_heatmap(marked, np.zeros((8, 6)), heatmap)
    ch05.show_heatmap(empty, np.zeros((8, 6)), np.zeros((8, 6)))
    assert {tuple(line.get_xydata()[0]) for line in marked.lines} == {(2, 5)}
    assert not empty.lines
    plt.close(figure)


def test_scores_look_at_the_radiograph_alone(data, detector):
    test, val = found_in(data, "test")[:1], found_in(data, "val")[:1]
    square = findings.score_maps(detector, data, val, test, layer="layer3")
    narrow = replace(data, images=replace(data.images, original_hw=np.full((8, 2), (64, 56))))
    cut = findings.score_maps(detector, narrow, val, test, layer="layer3")
    tables = [table.set_index("map")[findings.ENERGY] for table in (square, cut)]
    bell, prior = ([table[name] for table in tables] for name in ("centered bell", "class prior"))
    assert 1 > bell[1] > bell[0]  # the box lies in the picture, and so does all of the bell
    assert prior[1] >= prior[0]


def test_the_prior_knows_training_boxes_only(data):
    priors = findings.class_priors(data)
    hearts = [t["boxes"][t["labels"] == HEART] for t in data.truths(data.rows("train"))]
    np.testing.assert_allclose(priors[HEART], heatmaps.box_prior(hearts, (SIZE, SIZE)))
    assert priors[3].max() == 0 and set(priors) == set(range(1, 15))


def test_scores_have_a_row_for_each_finding_and_map(data, detector):
    test, val = found_in(data, "test"), found_in(data, "val")
    scores = findings.score_maps(detector, data, val, test, layer="layer3")
    assert len(scores) == 4 * len(test)
    assert set(scores["map"]) == {"ablation", "class prior", "centered bell", "detected box"}
    values = scores[list(findings.MEASURES)]
    assert values.notna().all(axis=None) and values.min(axis=None) >= 0 <= 1
    assert (scores[findings.BEST_IOU] >= scores[findings.IOU]).all()
    box = scores[scores["map"] == "detected box"]
    assert (box[findings.IOU] > 0.8).all() and (box[findings.POINTING] > 0.8).all()


def test_the_threshold_comes_from_validation(data, detector):
    test, val = found_in(data, "test"), found_in(data, "val")
    priors = findings.class_priors(data)
    scores = findings.score_maps(detector, data, val, test, layer="layer3")
    one = scores[scores["map"] == "class prior"]
    level = one["level"].iloc[0]
    ious = [heatmaps.iou_at_levels(priors[f.label], f.readers) for f in val]
    assert level == heatmaps.LEVELS[int(np.argmax(np.mean(ious, axis=0)))]
    expected = [heatmaps.iou_at(priors[f.label], f.readers, level=level) for f in test]
    np.testing.assert_allclose(one[findings.IOU], expected)


@pytest.mark.parametrize("part", ["val", "test"])
def test_nothing_to_score_is_said(data, detector, part):
    parts = {"val": found_in(data, "val"), "test": found_in(data, "test"), part: []}
    with pytest.raises(ValueError, match="0 findings|, 0 to score"):
        findings.score_maps(detector, data, parts["val"], parts["test"], layer="layer3")


def made_up_scores(values, *, label=HEART):
    columns = {measure: values for measure in findings.MEASURES}
    at = {"row": range(len(values)), "label": label, "class": vindr.CLASSES[label - 1]}
    return pd.DataFrame({**at, "map": "ablation", **columns})


def test_a_difference_is_taken_on_the_same_findings():
    first, second = made_up_scores([0.2, 0.4, 0.0]), made_up_scores([0.3, 0.5])
    table = findings.paired_difference(first, second, resamples=50, seed=0)
    assert table["n"].tolist() == [2] * 4
    np.testing.assert_allclose(table[["value", "low", "high"]], 0.1, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_measure_without_spread_has_a_finite_interval(value):
    interval = findings.mean_over_findings(
        made_up_scores([value] * 12), findings.POINTING, resamples=50, seed=0
    )
    assert interval.as_dict() == {"value": value, "low": value, "high": value}


def test_rare_classes_are_left_out():
    scores = {
        "random": pd.concat([made_up_scores([0.1] * 5), made_up_scores([1.0], label=AORTA)]),
        "pretrained": made_up_scores([0.2] * 4),
    }
    asked, drawn = [findings.ENERGY, findings.IOU], {"resamples": 20, "seed": 0}
    table = findings.class_table(scores, asked, at_least=4, **drawn)
    assert table["class"].tolist() == ["Cardiomegaly"] * 4 and table["n"].tolist() == [5, 4, 5, 4]
    assert table["measure"].tolist() == [asked[0]] * 2 + [asked[1]] * 2
    empty = findings.class_table(scores, asked, at_least=9, **drawn)
    assert empty.empty and "value" in empty


def test_pointing_is_asked_of_every_layer(data, detector):
    shares = findings.pointing_by_layer(detector, data, found_in(data, "test"))
    assert list(shares.index) == list(ablation_fast.LAYERS) and shares.between(0, 1).all()


# Sanity checks.
def test_randomization_starts_at_one_and_moves(data, detector):
    table = map_checks.randomization_check(
        detector, data, found_in(data, "test"), layer="layer3", seed=0
    )
    assert table.shape == (3, 1 + len(sanity.DETECTOR_PARTS))
    assert (table["as trained"] > 0.999).all() and table["+ stem"].mean() < 0.9


def test_curves_start_at_the_score_and_at_the_blurred_image(data, detector):
    items = found_in(data, "test")
    means, areas = map_checks.pixel_curves(detector, data, items, layer="layer3", steps=4, seed=0)
    assert areas.shape == (3, 6) and areas.min(axis=None) >= 0 and areas.max(axis=None) <= 1
    scores = [a.score for _, a in findings.ablations(detector, data, items, layer="layer3")]
    for name, (share, score) in means["deletion"].items():
        assert share.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert score[0] == pytest.approx(np.mean(scores), abs=1e-5)
        assert means["insertion"][name][1][-1] == pytest.approx(score[0], abs=1e-5)
        assert means["insertion"][name][1][0] == pytest.approx(score[-1], abs=1e-5)


def test_background_boxes_overlap_no_finding_much():
    rng = np.random.default_rng(0)
    boxes = np.array([[10, 10, 30, 40], [5, 5, 12, 9.0]])
    for _ in range(20):
        others = random_labels.background_boxes(boxes, SIZE, rng)
        assert others.shape[1] == 4 and others.min(initial=0) >= 0 and others.max(initial=0) <= SIZE
        assert len(others) <= 2
    assert random_labels.background_boxes(np.zeros((0, 4)), SIZE, rng).shape == (0, 4)


def test_new_heads_learn_labels_and_leave_the_rest(data, detector):
    heads, table = random_labels.random_label_heads(detector, data, steps=60, seed=0)
    assert list(table.index) == ["true labels", "true labels again", "shuffled"]
    assert table.loc["true labels", "accuracy on its training labels"] > 0.8
    for one in heads.values():
        moved = {
            k
            for k, v in one.state_dict().items()
            if not np.array_equal(v.detach(), detector.state_dict()[k].detach())
        }
        assert moved and all(k.startswith("roi_heads.box") for k in moved)
    alike = map_checks.agreement(heads.items(), data, found_in(data, "test"), layer="layer3")
    assert alike.shape == (3, 3) and alike.abs().max(axis=None) <= 1


# The viewer.
@pytest.fixture
def arms(data, detector):
    return {
        "random": (detector, found_in(data, "test")),
        "pretrained": (detector, found_in(data, "test")[:1]),
    }


def test_the_viewer_draws_anew_and_lists_what_there_is(data, arms):
    view = viewer.viewer(arms, data)
    (arm, image, box, layer, threshold), picture = view.children[0].children, view.children[1]
    assert [label for label, _ in image.options] == ["image6", "image7"]
    assert bytes(picture.value).startswith(b"\x89PNG")
    for control, value in ((layer, "layer2"), (threshold, 0.9), (image, 7), (box, AORTA)):
        before, control.value = bytes(picture.value), value
        assert bytes(picture.value) != before
    assert len(box.options) == 2
    arm.value = "pretrained"
    assert [label for label, _ in image.options] == ["image6"] and box.value == HEART
    assert plt.get_fignums() == []


def test_a_viewer_without_findings_says_so(data, detector):
    with pytest.raises(ValueError, match="no arm"):
        viewer.viewer({"random": (detector, [])}, data)


def test_the_static_view_shows_every_layer_and_arm(data, arms):
    figure = viewer.static_view(arms, data, (6, HEART), level=0.5)
    assert len(figure.axes) == 2 * len(LAYER_NAMES)
    assert set(LAYER_NAMES) == set(ablation_fast.LAYERS)
    with pytest.raises(KeyError):
        viewer.static_view(arms, data, (7, AORTA), level=0.5)
    plt.close("all")


# Figures.
def test_figures_are_drawn_from_tables(data, detector):
    test, val = found_in(data, "test"), found_in(data, "val")
    scores = {"pretrained": findings.score_maps(detector, data, val, test, layer="layer3")}
    table = findings.score_table(scores, reference="pretrained", resamples=20, seed=0)
    assert len(table) == 4 * 4
    measures = findings.MEASURES[:2]
    classes = findings.class_table(scores, measures, at_least=1, resamples=20, seed=0)
    share = np.linspace(0, 1, 3)
    figures = [
        style.plot_estimates(table, rows="map", groups="map", panels="measure"),
        ch05.plot_class_scores(classes),
        ch05.plot_predicted(share, share),
        ch05.plot_randomization(pd.DataFrame({"a": share, "b": share}), ylabel="alike"),
        ch05.plot_curves({"deletion": {"ablation": (share, share)}}),
    ]
    for figure in figures:
        figure.canvas.draw()
    plt.close("all")
