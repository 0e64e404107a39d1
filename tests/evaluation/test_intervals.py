"""Intervals: by hand, what they refuse, and how often they hold the truth."""

import numpy as np
import pytest
import torch

from cxr_helpers.evaluation import intervals
from cxr_helpers.evaluation.intervals import Interval


def test_without_bias_the_percentiles_are_plain():
    found = intervals.bias_corrected(50.0, np.arange(101.0))
    assert [found.low, found.high] == pytest.approx([2.5, 97.5])
    half = intervals.bias_corrected(50.0, np.arange(101.0), confidence=0.5)
    assert [half.low, half.high] == pytest.approx([25, 75])


def test_bias_shifts_both_ends_by_twice_its_size():
    # 15.87% of the resamples lie below the value, one standard deviation: the ends lie two below
    # the plain ones, at the normal distribution's shares for -3.96 and -0.04.
    drawn = np.linspace(0, 1, 100_001)
    found = intervals.bias_corrected(0.158655, drawn)
    assert found.low == pytest.approx(0.0000375, abs=1e-4)
    assert found.high == pytest.approx(0.48404, abs=1e-4)


@pytest.mark.parametrize("value", [-5.0, -1e-3, 0.0, 1.0, 7.0])
def test_a_value_at_the_edge_of_its_resamples_stays_inside(value):
    drawn = np.r_[np.zeros(30), np.ones(970)]
    found = intervals.bias_corrected(value, drawn)
    assert found.low <= value <= found.high


def test_lists_tensors_and_arrays_are_taken_alike_and_what_is_undefined_is_left_out():
    drawn = np.arange(20.0)
    expected = intervals.bias_corrected(9.5, drawn)
    for same in (drawn.tolist(), torch.tensor(drawn), np.r_[drawn, [np.nan] * 40]):
        assert intervals.bias_corrected(torch.tensor(9.5), same) == expected
    values, resamples = np.array([1.0, 2, 4]), np.random.default_rng(0).normal(size=(3, 30))
    expected = intervals.over_seeds_and_images(values, resamples, n_images=9)
    undefined = np.concatenate([[[0], [np.nan], [0]], resamples], axis=1)  # for one seed
    for same in (torch.tensor(resamples), undefined):
        found = intervals.over_seeds_and_images(values.tolist(), same, n_images=np.int64(9))
        assert found == expected


def test_an_interval_is_three_numbers_and_a_text():
    one = Interval(0.1, -0.05, 0.25)
    assert str(one) == "+0.100 (-0.050 to +0.250)"
    assert one.as_dict() == {"value": 0.1, "low": -0.05, "high": 0.25}


@pytest.mark.parametrize(
    ("value", "drawn", "message"),
    [
        (np.nan, [1.0, 2.0], "undefined"),
        (1.0, [np.nan, np.nan], "undefined"),
        (1.0, [], "undefined"),
        (1.0, [1.0, np.inf], "infinite"),
        (1.0, [[1.0, 2.0]], r"\(R,\), got \(\), \(1, 2\)"),
        ([1.0, 1.0], [1.0, 2.0], r"one value .* got \(2,\)"),
    ],
)
def test_resamples_that_make_no_interval_are_refused(value, drawn, message):
    with pytest.raises(ValueError, match=message):
        intervals.bias_corrected(value, np.array(drawn))


@pytest.mark.parametrize("confidence", [0, 1, 95, np.nan])
def test_a_confidence_is_a_share(confidence):
    drawn = np.ones((2, 5))
    for ask in (
        lambda: intervals.bias_corrected(1.0, drawn[0], confidence=confidence),
        lambda: intervals.over_seeds([1.0, 2.0], confidence=confidence),
        lambda: intervals.over_seeds_and_images(
            [1.0, 2.0], drawn, n_images=5, confidence=confidence
        ),
    ):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            ask()


def test_the_same_seed_draws_the_same_images_whatever_is_computed_at_once(monkeypatch):
    at_once = intervals.resampled(lambda w: w, 30, resamples=7, seed=3)
    monkeypatch.setattr(intervals, "CHUNK", 2)
    assert np.array_equal(at_once, intervals.resampled(lambda w: w, 30, resamples=7, seed=3))
    assert at_once.shape == (7, 30) and (at_once.sum(axis=1) == 30).all()


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(size=400)
    found = intervals.bootstrap(lambda w: w @ values / 400, 400, resamples=2000, seed=0)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


@pytest.mark.parametrize(
    ("statistic", "n_images", "resamples", "message"),
    [
        (lambda w: w.sum(axis=1), 0, 20, "cannot resample"),
        (lambda w: w.sum(axis=1), 5, 0, "cannot resample"),
        (lambda w: 0.5, 7, 20, "for 20 rows of counts.*expected one value a row"),
        (lambda w: w.sum(axis=0), 7, 20, "for 20 rows of counts.*expected one value a row"),
    ],
)
def test_what_cannot_be_resampled_is_refused(statistic, n_images, resamples, message):
    with pytest.raises(ValueError, match=message):
        intervals.bootstrap(statistic, n_images, resamples=resamples, seed=0)


# Over seeds.
def test_seeds_alone_by_hand():
    found = intervals.over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5  # Student's t at two degrees of freedom, standard deviation 1
    assert [found.low, found.high] == pytest.approx([2 - half, 2 + half], rel=1e-6)


def test_where_images_do_not_matter_the_joint_interval_is_that_of_the_seeds():
    values = np.array([0.1, 0.4, 0.7])
    drawn = np.repeat(values[:, None], 50, axis=1)
    both = intervals.over_seeds_and_images(values, drawn, n_images=40)
    assert both.as_dict() == pytest.approx(intervals.over_seeds(values).as_dict())


def test_where_seeds_do_not_matter_the_joint_interval_is_that_of_the_images():
    shift = np.random.default_rng(0).normal(size=4000)
    drawn = np.stack([0.5 + shift] * 3)
    both = intervals.over_seeds_and_images([0.5] * 3, drawn, n_images=1000)
    assert both.high - 0.5 == pytest.approx(1.962 * shift.std(), rel=1e-3)
    same = intervals.over_seeds_and_images([0.5] * 3, np.full((3, 9), 0.5), n_images=9)
    assert same == Interval(0.5, 0.5, 0.5)


def test_a_part_that_seeds_and_images_share_is_counted_once():
    # Each seed has image noise of its own, variance 1, and nothing else: the mean of three has
    # variance 1/3. Both parts show it, the seeds by their spread and the images by resampling.
    rng = np.random.default_rng(0)
    widths = []
    for _ in range(300):
        values, drawn = rng.normal(size=3), rng.normal(size=(3, 200))
        found = intervals.over_seeds_and_images(values, drawn, n_images=1000)
        alone = intervals.over_seeds(values)
        widths.append((found.high - found.low) / (alone.high - alone.low))
    assert 0.9 < np.median(widths) < 1.1


def test_draws_that_all_seeds_share_are_covered_too():
    draws = np.array([0.0, 1.0, 2.0, 3.0])
    values = np.tile(draws, (3, 1))  # no difference between seeds
    found = intervals.over_seeds_and_images(values, values[..., None] + np.zeros(20), n_images=9)
    alone = intervals.over_seeds(draws)
    assert found.as_dict() == pytest.approx(alone.as_dict())


@pytest.mark.parametrize(
    ("values", "drawn", "n_images", "message"),
    [
        ([0.5], np.zeros((1, 9)), 9, "1 value along axis 0 shows no spread"),
        ([[0.5], [0.4]], np.zeros((2, 1, 9)), 9, "1 value along axis 1 shows no spread"),
        ([0.5, 0.4], np.zeros((3, 9)), 9, r"values \(2,\) and resamples \(3, 9\)"),
        ([0.5, 0.4], np.zeros((2, 9)), 1, "of 1 images"),
        ([0.5, np.nan], np.zeros((2, 9)), 9, "finite"),
        ([], np.zeros((0, 9)), 9, "finite"),
        ([0.5, 0.4], np.zeros((2, 1)), 9, "fewer than two resamples"),
        ([0.5, 0.4], [[0.1, np.inf], [0.2, 0.3]], 9, "infinite"),
    ],
)
def test_what_shows_no_spread_or_does_not_fit_is_refused(values, drawn, n_images, message):
    with pytest.raises(ValueError, match=message):
        intervals.over_seeds_and_images(values, drawn, n_images=n_images)


# How often an interval holds the truth, which is zero here.
def made_up_runs(rng, n_seeds, *, seeds, images, both, n=60, resamples=150):
    """Runs of some seeds on the same images: (S,) values and (S, R) resamples."""
    runs = rng.normal(0, seeds, (n_seeds, 1)) + rng.normal(0, images * n**0.5, (1, n))
    runs = runs + rng.normal(0, both * n**0.5, (n_seeds, n))
    counts = rng.multinomial(n, np.full(n, 1 / n), resamples)
    return runs.mean(axis=1), runs @ counts.T / n


def drawn_among_seeds(values, drawn, rng):
    """Seeds drawn with replacement in each resample of the images: too narrow."""
    chosen = rng.integers(0, len(drawn), drawn.shape)
    return np.quantile(np.take_along_axis(drawn, chosen, axis=0).mean(axis=0), [0.025, 0.975])


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize(
    "spread",
    [
        {"seeds": 1, "images": 0.3, "both": 0.3},
        {"seeds": 1, "images": 1, "both": 0},
        {"seeds": 0.5, "images": 1, "both": 0.5},
        {"seeds": 0, "images": 0, "both": 1},
    ],
)
def test_the_joint_interval_holds_the_truth_as_often_as_it_says(n_seeds, spread):
    rng, n = np.random.default_rng(1), 1500
    held = 0
    for _ in range(n):
        found = intervals.over_seeds_and_images(*made_up_runs(rng, n_seeds, **spread), n_images=60)
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / n <= 0.98


def test_seeds_drawn_with_replacement_would_hold_it_far_less_often():
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        low, high = drawn_among_seeds(*made_up_runs(rng, 3, seeds=1, images=0.3, both=0.3), rng)
        held += low <= 0 <= high
    assert held / 400 < 0.9


def test_the_interval_of_one_run_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.exponential(size=80)
        found = intervals.bootstrap(lambda w, v=values: w @ v / 80, 80, resamples=300, seed=0)
        held += found.low <= 1 <= found.high
    assert 0.89 <= held / 400 <= 0.98
