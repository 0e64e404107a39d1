"""Augmentation: each worker and each epoch draws anew, and the place of an image decides alone."""

import re
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from cxr_helpers.data.datasets import DetectionDataset
from cxr_helpers.detection import augmentation
from cxr_helpers.detection.augmentation import (
    PIPELINES,
    CountedPipeline,
    EpochImages,
    EpochOrder,
    detection_pipeline,
)
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.detection.training import collate_detection

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
IMAGE = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
LARGE = np.zeros((100, 100), np.uint8)
A = augmentation.A  # albumentations, imported without a look for a newer one


def same_image(n=16, *, counted=False, seed=0):
    """A data set that shows one image n times, so that pictures differ by their draws alone."""
    truth = {"boxes": np.array([[16, 16, 48, 48]], np.float32), "labels": np.array([1])}
    pipeline = detection_pipeline("demo", seed=seed)
    called = CountedPipeline(pipeline) if counted else pipeline
    return DetectionDataset([IMAGE] * n, [truth] * n, called), pipeline


def loaded(dataset, workers, **options):
    return DataLoader(dataset, 4, num_workers=workers, collate_fn=collate_detection, **options)


def pictures(loader):
    """Bytes of each picture of one epoch, by the index of its image."""
    return {
        int(target["image_id"]): image[0].numpy().tobytes()
        for images, targets in loader
        for image, target in zip(images, targets, strict=True)
    }


def by_place(workers, **options):
    dataset, pipeline = same_image(counted=True)
    images = EpochImages(dataset, pipeline)
    return loaded(images, workers, sampler=EpochOrder(images, seed=5), **options)


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_every_draw_of_two_epochs_of_a_plain_loader_is_another_picture(workers):
    """Two draws are one picture where nothing is changed: one in ten."""
    loader = loaded(same_image()[0], workers, shuffle=True)
    first, second = pictures(loader), pictures(loader)
    unchanged = (IMAGE.astype(np.float32) / 255).tobytes()
    for epoch in (first, second):
        changed = [p for p in epoch.values() if p != unchanged]
        assert len(changed) > 8 and len(set(changed)) == len(changed)
    assert set(first.values()) & set(second.values()) <= {unchanged}


def test_workers_that_stay_draw_anew_in_the_second_epoch():
    loader = loaded(same_image()[0], 2, persistent_workers=True)
    first, second = pictures(loader), pictures(loader)
    assert len(set(first.values()) & set(second.values())) <= 1


def test_a_plain_loader_repeats_from_its_seeds():
    def run():
        torch.manual_seed(3)
        return pictures(loaded(same_image()[0], 2))

    assert run() == run()


@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}])
@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_pictures(workers, options):
    alone, shared = by_place(0), by_place(workers, **options)
    for _ in range(2):
        assert pictures(shared) == pictures(alone)


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_loader_that_starts_later_goes_on_as_an_unbroken_one(workers):
    unbroken = by_place(0)
    epochs = [pictures(unbroken) for _ in range(3)]
    assert len({picture for epoch in epochs for picture in epoch.values()}) > 36
    resumed = by_place(workers)
    resumed.sampler.set_epoch(2)
    later = pictures(resumed)
    assert later == epochs[2] and list(later) == list(epochs[2])
    assert list(epochs[1]) != list(epochs[2])


def test_two_processes_see_together_what_one_sees():
    one = EpochOrder(range(10), seed=1)
    shares = [EpochOrder(range(10), seed=1, num_replicas=2, rank=r) for r in range(2)]
    for _ in range(2):
        assert sorted(one) == sorted([*shares[0], *shares[1]])


def test_a_place_decides_whatever_was_called_before():
    def draw(pipeline):
        with pipeline.at(1, 7):
            return pipeline(image=IMAGE, bboxes=[[9, 9, 30, 30]], labels=[1])["image"]

    first, other = detection_pipeline("demo", seed=0), detection_pipeline("demo", seed=1)
    expected = draw(first)
    later = first(image=IMAGE, bboxes=[], labels=[])["image"]
    assert not np.array_equal(expected, later)
    assert np.array_equal(draw(first), expected) and not np.array_equal(draw(other), expected)


def test_an_image_without_its_epoch_is_refused():
    dataset, pipeline = same_image()
    with pytest.raises(TypeError, match="EpochOrder"):
        EpochImages(dataset, pipeline)[0]


def test_brightness_does_not_depend_on_whether_the_image_was_moved():
    """One stream for all steps: with one seed for each, they would fall together."""
    pipeline = detection_pipeline("demo", seed=0)
    flat = np.full((64, 64), 100, np.uint8)
    moved, brighter = [], []
    for _ in range(200):
        changed = pipeline(image=flat, bboxes=[], labels=[])["image"]
        brighter.append(changed[32, 32] != 100)
        moved.append((changed == 0).any())
    moved, brighter = np.array(moved), np.array(brighter)
    assert (brighter & ~moved).sum() > 5 and (moved & ~brighter).sum() > 20


# What a pipeline takes.
NONE = detection_pipeline("none", seed=0)


def test_boxes_and_labels_may_be_lists_tensors_or_empty():
    for kind in (list, np.array, lambda x: torch.tensor(x, requires_grad=True)):
        out = NONE(image=IMAGE, bboxes=kind([[1.0, 2, 9, 9]]), labels=[3])
        assert out["bboxes"].tolist() == [[1, 2, 9, 9]] and list(out["labels"]) == [3]
    for none in ([], np.zeros(0), np.zeros((0, 4)), torch.zeros(0), torch.zeros((0, 4))):
        assert len(NONE(image=torch.tensor(IMAGE), bboxes=none, labels=[])["bboxes"]) == 0


@pytest.mark.parametrize(
    "box", [[100, 100, 120, 120], [-20, 3, -5, 9], [5, 5, 5, 20], [64, 0, 70, 9]]
)
@pytest.mark.parametrize("name", ["none", "demo"])
def test_a_box_without_area_in_the_image_is_dropped_with_its_label(name, box):
    counted = CountedPipeline(detection_pipeline(name, seed=0))
    out = counted(image=IMAGE, bboxes=[box, [8, 8, 50, 50]], labels=[1, 2])
    assert [int(k) for k in out["labels"]] == [2] and counted.lost == {1: 1}


@pytest.mark.parametrize(
    ("boxes", "labels", "words"),
    [
        ([[0, 5, np.inf, 20]], [1], "inf"),
        ([[0, np.nan, 9, 20]], [1], "nan"),
        ([[9, 0, 4, 20]], [1], r"9.0, 0.0, 4.0, 20.0"),
        ([[0, 5, 9]], [1], r"shape \(1, 3\)"),
        ([0, 5, 9, 9], [1], r"shape \(4,\)"),
        ([[0, 5, 9, 9]], [1, 2], "1 boxes with 2 labels"),
    ],
)
def test_boxes_that_are_none_are_refused_by_value(boxes, labels, words):
    with pytest.raises(ValueError, match=words):
        NONE(image=IMAGE, bboxes=boxes, labels=labels)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE.astype(np.int64), "int64"),
        (IMAGE > 3, "bool"),
        (IMAGE.astype(float), "from 0 to 126"),
        (np.full((8, 8), np.nan), "nan"),
        (IMAGE[None], r"\(1, 64, 64\)"),
        (IMAGE[:0], r"\(0, 64\)"),
    ],
)
def test_an_image_of_another_type_range_or_shape_is_refused(image, words):
    with pytest.raises(ValueError, match=words):
        NONE(image=image, bboxes=[], labels=[])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("none", {"seed": -1}, "-1"),
        ("none", {"min_visibility": 1.5}, "1.5"),
        ("none", {"min_side": -1}, "-1"),
        ("mosaic", {}, "mosaic"),
    ],
)
def test_pipelines_that_are_none_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        detection_pipeline(name, **{"seed": 0, **options})
    assert detection_pipeline("none", seed=np.int64(3)).seed == 3


# What a pipeline does.
@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_take_images_without_boxes_and_repeat_from_their_seed(name):
    empty = {"bboxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0)}
    one, two = (detection_pipeline(name, seed=1)(image=IMAGE, **empty) for _ in range(2))
    assert one["image"].shape == (64, 64) and len(one["bboxes"]) == 0
    assert np.array_equal(one["image"], two["image"])


def test_boxes_follow_the_pixels():
    image = np.zeros((64, 64), np.uint8)
    image[20:40, 10:30] = 255
    pipeline = detection_pipeline("demo", seed=3)
    for _ in range(20):
        out = pipeline(image=image, bboxes=[[10, 20, 30, 40]], labels=[1])
        rows, columns = np.nonzero(out["image"] > 100)
        bright = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
        assert box_iou(out["bboxes"], bright)[0, 0] > 0.8


def of_torchvision():
    """The pipeline that the module's docstring shows."""
    block = re.search(r"::\n\n((?:    .*\n)+)", augmentation.__doc__)[1]
    return eval(textwrap.dedent(block), {"v2": v2})


def as_boxes(boxes):
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=LARGE.shape)


@pytest.mark.parametrize(
    ("angle", "shift", "zoom"),
    [(0, (5, -3), 1.0), (0, (0, 0), 1.1), (5, (0, 0), 1.0), (-4, (2, 6), 0.9)],
)
def test_torchvisions_transforms_move_boxes_alike(monkeypatch, angle, shift, zoom):
    boxes = np.array([[10, 20, 50, 60], [40, 12, 90, 30]], np.float32)
    given = {"angle": angle, "translate": shift, "scale": zoom, "shear": (0.0, 0.0)}
    monkeypatch.setattr(v2.RandomAffine, "make_params", lambda *_: given)
    theirs = of_torchvision().transforms[0].transforms[0](as_boxes(boxes))
    moves = {name: (by, by) for name, by in zip("xy", shift, strict=True)}
    affine = A.Affine(scale=(zoom, zoom), translate_px=moves, rotate=(-angle, -angle), p=1)
    pipeline = A.Compose([affine], bbox_params=A.BboxParams("pascal_voc", label_fields=[]))
    np.testing.assert_allclose(theirs, pipeline(image=LARGE, bboxes=boxes)["bboxes"], atol=1)


def test_torchvisions_pipeline_spreads_boxes_as_far_and_drops_what_is_too_small():
    box, small = [20.0, 30, 60, 70], [30.0, 30, 31, 31]
    pipeline = detection_pipeline("demo", seed=0)
    torch.manual_seed(0)
    ours, theirs = [], []
    for _ in range(400):
        ours += list(pipeline(image=LARGE, bboxes=[box, small], labels=[1, 2])["bboxes"])
        item = {"image": torch.zeros(1, *LARGE.shape), "labels": torch.tensor([1, 2])}
        theirs += list(of_torchvision()(item | {"boxes": as_boxes([box, small])})["boxes"].numpy())
    assert len(ours) == len(theirs) == 400
    centers = [np.array(boxes).reshape(-1, 2, 2).mean(axis=1) for boxes in (ours, theirs)]
    np.testing.assert_allclose(*(c.std(axis=0) for c in centers), rtol=0.15)
    np.testing.assert_allclose(*(c.mean(axis=0) for c in centers), atol=0.6)


def test_a_box_that_leaves_the_image_takes_its_label_along():
    pipeline = detection_pipeline("demo", seed=0, min_visibility=0.8)
    kept = set()
    for _ in range(60):
        out = pipeline(image=IMAGE, bboxes=[[0, 28, 4, 36], [24, 24, 40, 40]], labels=[7, 9])
        assert len(out["bboxes"]) == len(out["labels"])
        kept.add(tuple(int(label) for label in out["labels"]))
    assert kept == {(7, 9), (9,)}


def test_a_box_too_small_to_learn_from_is_dropped_and_counted_by_label():
    counted = CountedPipeline(detection_pipeline("none", seed=0, min_side=3))
    boxes = [[4, 4, 6, 20], [5, 5, 20, 20], [1, 1, 9, 9]]
    for _ in range(2):
        out = counted(image=IMAGE, bboxes=boxes, labels=[7, 7, 9])
        assert [int(label) for label in out["labels"]] == [7, 9]
    counted(image=IMAGE, bboxes=np.zeros((0, 4)), labels=np.zeros(0, int))
    assert counted.seen == {7: 4, 9: 2} and counted.lost == {7: 2}
