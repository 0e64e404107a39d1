"""The right answers themselves: against scikit-learn, torchvision, the helpers, and by hand."""

import numpy as np
import pytest
import torch
import torchvision
from sklearn.metrics import roc_auc_score
from tiny_detector import gray_image, tiny_detector

from cxr_helpers.course import exercises as ex
from cxr_helpers.course.core.settings import PRESETS
from cxr_helpers.course.exercises import ch02 as nb02
from cxr_helpers.course.exercises import ch03 as nb03
from cxr_helpers.course.exercises import ch04 as nb04
from cxr_helpers.course.exercises import ch04_scores as nb04_scores
from cxr_helpers.course.exercises import ch05 as nb05
from cxr_helpers.course.exercises import ch05_figure as nb05_figure
from cxr_helpers.course.exercises import ch06 as nb06
from cxr_helpers.course.exercises import engine
from cxr_helpers.detection import froc
from cxr_helpers.detection import metrics as dm
from cxr_helpers.explanation import ablation_fast, heatmaps, sanity
from cxr_helpers.pretraining import barlow


def test_scores_and_one_pair_of_boxes_agree_with_the_libraries():
    ill, scores = nb03.practice_scores()
    assert nb03.auroc(ill, scores) == pytest.approx(roc_auc_score(ill, scores))
    assert nb03.auroc(ill, scores.round()) == pytest.approx(roc_auc_score(ill, scores.round()))
    first, second = [0.0, 0, 10, 10], [3.0, 4, 12, 9]
    theirs = torchvision.ops.box_iou(torch.tensor([first]), torch.tensor([second])).item()
    assert ex.EXERCISES["1.4"].reference(first, second) == pytest.approx(theirs)
    assert nb03.at_other_prevalence(0.5, 0.5, 0.1) == pytest.approx(0.1)
    assert nb02.batch_for_floor(0.05) == 255


def test_the_loss_is_that_of_the_helpers():
    z_a, z_b = torch.randn(2, 32, 6, generator=torch.Generator().manual_seed(0))
    invariance, redundancy = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
    ours = nb02.barlow_twins_loss(z_a, z_b, 0.1)
    assert ours.item() == pytest.approx((invariance + 0.1 * redundancy).item(), rel=1e-4)


def test_mystery_runs_show_the_three_faults():
    runs = nb02.mystery_runs()
    floor = np.sqrt(2 / np.pi / runs["images in a batch"])
    assert runs["diagonal"].idxmin() == "run 2" and runs["diagonal"].drop("run 2").min() > 0.6
    assert (runs["off-diagonal"] / floor > 3).tolist() == [True, False, False, False]


def random_boxes(rng, n):
    corners = rng.uniform(0, 60, size=(n, 2))
    return np.hstack([corners, corners + rng.uniform(2, 40, size=(n, 2))])


def test_box_exercises_agree_with_torchvision():
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes, labels = random_boxes(rng, 30), rng.integers(1, 4, size=30)
        scores = rng.permutation(30) / 30
        theirs = torchvision.ops.box_iou(torch.tensor(boxes), torch.tensor(boxes[:7])).numpy()
        assert nb04.iou_of_all(boxes, boxes[:7]) == pytest.approx(theirs)
        kept = torchvision.ops.batched_nms(*map(torch.tensor, (boxes, scores, labels)), 0.4)
        assert nb04.suppress_per_class(boxes, labels, scores, 0.4) == kept.tolist()


def test_average_precision_by_hand_agrees_with_the_helper():
    place = np.array([[x, 0, x + 10, 10] for x in (0, 20, 40, 60, 80, 100)])
    truth = [{"boxes": place[:2], "labels": np.ones(2)}]
    timid = np.concatenate([place[[0, 4, 1]], np.repeat(place[[5]], 10, axis=0)])
    scores = np.linspace(0.9, 0.1, 13)
    found = [{"boxes": timid, "labels": np.ones(13), "scores": scores}]
    ap = dm.average_precision(dm.match_detections(found, truth, class_names=["mass"]))
    assert ex.EXERCISES["4.1"].reference == pytest.approx(ap[0])


def test_one_step_moves_every_part_of_a_detector():
    detector = tiny_detector()
    boxes = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in detector.named_parameters()}
    assert nb04.one_step(detector, optimizer, [gray_image()], [boxes]) > 0
    moved = {n for n, value in detector.named_parameters() if not torch.equal(value, before[n])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "rpn", "roi_heads"}
    assert set(detector.train()([gray_image()], [boxes])) == set(nb04.LOSSES)


def matches_of(hit, image, truths):
    ones = np.ones(len(hit), dtype=int)
    return dm.Matches(image, ones, -np.arange(len(hit), dtype=float), hit, truths, ("mass",), 0.5)


def test_score_exercises_agree_with_the_helpers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, boxes = np.sort(rng.integers(0, 8, size=40)), rng.integers(5, 9, size=8)
        hits = [rng.random(40) < share for share in (0.3, 0.5)]
        arms = [matches_of(hit, image, boxes[:, None]) for hit in hits]
        for allowed in (0.125, 0.5, 1.0, 8.0):
            ours = nb04_scores.share_found(hits[0], boxes.sum(), 8, allowed)
            assert ours == pytest.approx(froc.sensitivity_at(arms[0], [allowed])[0])
        draws = rng.integers(0, 8, size=(5, 8))
        counts = np.stack([np.bincount(row, minlength=8) for row in draws])
        a, b = (froc.sensitivity_at(m, [99.0], counts)[:, 0] for m in arms)
        found = [np.bincount(image[hit], minlength=8) for hit in hits]
        ours = nb04_scores.paired_differences(*found, boxes, draws)
        assert ours == pytest.approx(b - a)


def test_map_exercises_agree_with_the_helpers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        maps, ablated = rng.normal(size=(5, 6, 7)), rng.random(5)
        ours = nb05.map_from_channels(0.7, ablated, maps)
        # The exercise takes the share of the score that is lost, the helper the loss.
        assert 0.7 * ours == pytest.approx(ablation_fast.BoxAblation(0.7, ablated, maps).heatmap)
        tied = maps[0].round()
        boxes = [[1, 0, 4, 3], [2, 2, 7, 6]]
        assert nb05.energy_inside(tied, boxes) == pytest.approx(heatmaps.energy_in_box(tied, boxes))
        assert nb05.points_into(tied, boxes[0]) == heatmaps.pointing_game(tied, boxes[:1])
        ranks = sanity.rank_correlation(tied, maps[1].round())
        assert nb05.rank_correlation(tied, maps[1].round()) == pytest.approx(ranks)


def test_exercises_of_scale_agree_with_the_course():
    rate = PRESETS["paper"]["pretrain"].learning_rate
    assert ex.EXERCISES["6.3"].reference == pytest.approx(rate * 512 / 256)
    assert nb06.hours(112_120, 800, 768, 42.1 * 3600 / (800 * 145)) == pytest.approx(42.1, rel=0.01)
    shares = [nb06.share(np.arange(11), rank, 3).tolist() for rank in range(3)]
    assert sorted(sum(shares, [])) == list(range(11))
    values = np.random.default_rng(0).normal(size=30)
    parts = np.split(values, [4, 15])
    sums = [np.array([f(part) for part in parts]) for f in (len, np.sum, lambda x: (x**2).sum())]
    assert nb06.whole_batch(*sums) == pytest.approx([values.mean(), values.var()])
    workers, rates = nb06.practice_scaling()
    assert rates[-1] / rates[0] == pytest.approx(1 / (0.05 + 0.95 / workers[-1]), rel=0.01)


def test_maps_that_explain_nothing_score_as_said():
    shape, readers, found = (10, 20), [[4, 2, 12, 7]], [[8, 2, 16, 7]]
    constant, filled = np.ones(shape), heatmaps.box_mask(found, shape).astype(float)
    said = {
        "constant: energy": heatmaps.energy_in_box(constant, readers),
        "constant: pointing": heatmaps.pointing_game(constant, readers),
        "box: energy": heatmaps.energy_in_box(filled, readers),
        "box: IoU": heatmaps.iou_at(filled, readers),
    }
    assert engine.same(said, ex.EXERCISES["5.6"].reference)


def test_practice_data_are_what_the_text_says():
    right, scores, boxes = nb04_scores.practice_detections()
    assert len(np.unique(scores)) == 60 and 0 < right.sum() < boxes
    heatmap = nb05.map_from_channels(*nb05_figure.practice_box()[:3])
    assert 0.5 < heatmaps.energy_in_box(heatmap, [[4, 2, 7, 5]]) < 0.8
