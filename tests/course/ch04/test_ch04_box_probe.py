"""The box probe of the course: made-up images in which one class is bright and one is striped."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny_detection import CORNERS, small_settings, vindr_data

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import box_probe
from cxr_helpers.course.ch04.box_probe import GEOMETRY, MACRO, PIXELS, Judged
from cxr_helpers.data.packed import PackedImages

NAMES = {"Cardiomegaly": 200, "Consolidation": 40, "Nodule/Mass": None}
N = 220


def made_up():
    """Images of 32 px with one box: a bright one, a dark one, or nothing to be seen."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(80, 140, (N, 32, 32), dtype=np.uint8)
    ids, rows = [f"i{k:03d}" for k in range(N)], []
    for k, image in enumerate(pixels):
        x, y = rng.integers(0, 20, 2)
        name = list(NAMES)[k % 3]
        if NAMES[name] is not None and rng.random() < 0.9:
            image[y : y + 12, x : x + 12] = NAMES[name]
        rows.append((ids[k], name, x, y, x + 12, y + 12, 2))
    fused = pd.DataFrame(rows, columns=["image_id", "label", *CORNERS, "readers"])
    images = PackedImages(pixels, ids, np.full((N, 2), 32), {})
    split = np.array(["train"] * 120 + ["val"] * 40 + ["test"] * 60)
    return replace(vindr_data(), images=images, fused=fused, split=split, patients=None)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return small_settings(tmp_path_factory.mktemp("probe"), resamples=50)


@pytest.fixture(scope="module")
def data():
    return made_up()


@pytest.fixture(scope="module")
def places(settings, data):
    return box_probe.draw_places(settings, data, fraction=1)


@pytest.fixture(scope="module")
def measured(settings, data, places):
    with pytest.MonkeyPatch.context() as patch:
        real = pretraining.arm_backbone

        def backbone(settings, arm, *, seed, data=None):
            if arm == "imagenet":
                return None, "Not in the cache."
            return real(settings, "random", seed=seed + (arm == "pretrained"))

        patch.setattr(pretraining, "arm_backbone", backbone)
        return box_probe.measure(
            settings, data, places, arms=("random", "pretrained", "imagenet"), seed=3
        )


def test_places_lie_in_their_part_and_are_of_its_images(data, places):
    for part, drawn in places.parts.items():
        assert set(data.split[drawn.images]) == {part} and drawn.left_out == 0
    assert places.class_names == tuple(sorted(NAMES)) and "readers" in places.truth
    assert places.counts().sum().to_dict() == {"train": 120, "val": 40, "test": 60}


def test_the_places_of_one_class_keep_their_pairs(places):
    (name, *_), counts = places.class_names, places.counts()
    own = places.of_class(name)
    assert list(own) == ["train", "val", "test"]
    for part, one in own.items():
        assert one.counts() == {places.labels[0]: counts.loc[name, part]}
        assert len(one.images) == 2 * counts.loc[name, part]
    with pytest.raises(ValueError, match="'mass' is not probed"):
        places.of_class("mass")


def test_exact_boxes_are_taken_where_they_are_known(settings, data):
    exact = data.fused.assign(x_max=data.fused["x_min"] + 3)
    places = box_probe.draw_places(settings, replace(data, exact=exact), fraction=1)
    boxes = places.parts["test"].boxes_xyxy
    assert (boxes[:, 2] - boxes[:, 0] == 3).all() and places.truth == "the exact boxes"


def test_a_share_of_the_training_images_leaves_the_other_parts_alone(settings, data, places):
    share = box_probe.draw_places(settings, data, fraction=0.6).parts
    assert 60 < len(share["train"].images) / 2 < 90
    for part in ("val", "test"):
        assert np.array_equal(share[part].images, places.parts[part].images)


def test_what_is_to_be_seen_is_found_and_what_is_not_is_chance(measured, places):
    judged, left_out = measured
    assert left_out == ["imagenet: Not in the cache."]
    found = box_probe.table(judged, places).set_index(["arm", "stage", "class"])["value"]
    assert found[PIXELS, "", "Cardiomegaly"] > 0.9 and found[PIXELS, "", "Consolidation"] > 0.9
    assert found["random", "layer1", "Cardiomegaly"] > 0.9
    for name in NAMES:
        assert found[GEOMETRY, "", name] == pytest.approx(0.5, abs=0.02)
    assert found[PIXELS, "", "Nodule/Mass"] < 0.7


def test_the_table_has_each_stage_and_class_and_chooses_by_validation(measured, places):
    judged, _ = measured
    table = box_probe.table(judged, places)
    assert len(table) == len(judged) * (1 + len(NAMES)) and len(judged) == 2 + 2 * 5
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    macro = table[table["class"] == MACRO]
    assert macro.groupby("arm")["chosen"].sum().to_dict() == dict.fromkeys(
        [PIXELS, GEOMETRY, "random", "pretrained"], 1
    )
    of_random = {one.stage: one.validation for one in judged if one.arm == "random"}
    stage = macro[macro["chosen"] & (macro["arm"] == "random")]["stage"].item()
    assert of_random[stage] == max(of_random.values())


def test_macro_is_the_mean_over_classes(measured, places):
    judged, _ = measured
    table = box_probe.table(judged[:1], places).set_index("class")["value"]
    assert table[MACRO] == pytest.approx(table[list(places.class_names)].mean())


def test_differences_are_paired_on_the_same_resamples(measured):
    judged, _ = measured
    found = box_probe.differences(judged).set_index(["arm", "stage"])
    assert set(found.loc["pretrained"].index) == {
        "chosen", "layer1", "layer2", "layer3", "layer4", "all"
    }  # fmt: skip
    one, other = (
        next(j for j in judged if (j.arm, j.stage) == (arm, "layer2"))
        for arm in ("pretrained", "random")
    )
    assert found.loc[("pretrained", "layer2"), "value"] == pytest.approx(one.macro - other.macro)
    itself = box_probe.difference(one, one)
    assert itself.value == itself.low == itself.high == 0
    assert list(box_probe.differences(judged, minus=PIXELS)["stage"]) == ["chosen"] * 3
    with pytest.raises(ValueError, match="arm 'k-NN' was not judged; there are pixels alone"):
        box_probe.differences(judged, minus="k-NN")


def test_a_resample_weights_every_place_on_an_image(settings, places, monkeypatch):
    scores = np.random.default_rng(0).normal(size=len(places.parts["test"].images))
    kept = np.zeros((1, len(places.test_rows)))
    kept[0, ::2] = 1

    def half(statistic, n, **options):
        return statistic(kept)

    monkeypatch.setattr(box_probe, "resampled", half)
    _, drawn = box_probe._test_auroc(settings, places, scores)
    test = places.parts["test"]
    here = np.isin(test.images, places.test_rows[::2])
    for k, label in enumerate(places.labels):
        asked = (test.labels == label) & here
        with_it, without = scores[asked & test.present], scores[asked & ~test.present]
        expected = (with_it[:, None] > without[None]).mean()
        assert drawn[0, k] == pytest.approx(expected)


def test_imagenet_weights_see_their_own_normalization(settings, data, places, monkeypatch):
    seen = []
    real = box_probe.box_probe.stage_features

    def watched(backbone, pixels, one, **norm):
        seen.append(norm)
        return real(backbone, pixels, one, **norm)

    backbone, _ = pretraining.arm_backbone(settings, "random", seed=0)
    monkeypatch.setattr(pretraining, "arm_backbone", lambda *args, **options: (backbone, "here"))
    monkeypatch.setattr(box_probe.box_probe, "stage_features", watched)
    for arm in ("imagenet", "evening"):
        box_probe.judge_network(settings, data, places, arm)
    mean = {"mean": pretraining.IMAGENET_MEAN, "std": pretraining.IMAGENET_STD}
    assert seen == [mean] * 3 + [{}] * 3


def test_the_first_of_equals_is_chosen():
    def judged(stage, validation):
        return Judged("random", stage, validation, 1.0, np.ones(1), np.ones((2, 1)))

    found = box_probe.chosen([judged("layer1", 0.6), judged("layer2", 0.7), judged("all", 0.7)])
    assert found["random"].stage == "layer2"
