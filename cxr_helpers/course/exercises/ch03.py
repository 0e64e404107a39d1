"""Exercises of notebook 03: scores, a probe, probabilities, a split, resampling.

How to add one: the head of engine.py says it.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from scipy.integrate import trapezoid
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from cxr_helpers.course.exercises.engine import (
    Exercise,
    judge_function,
    judge_property,
    numbers,
    outputs,
)
from cxr_helpers.course.exercises.figures import drawn_series, drawn_then, judge_figure, no_names


def auroc(ill, scores):
    """Share of the pairs of one ill and one healthy image in the right order; a tie is half."""
    ill, scores = np.asarray(ill, bool), np.asarray(scores, float)
    apart = scores[ill][:, None] - scores[~ill][None, :]  # (ill, healthy)
    return (apart > 0).mean() + (apart == 0).mean() / 2


def _auroc(ill, scores, *, tie=0.5, sign=1):
    ill, scores = np.asarray(ill, bool), sign * np.asarray(scores, float)
    apart = scores[ill][:, None] - scores[~ill][None, :]
    return (apart > 0).mean() + tie * (apart == 0).mean()


def at_other_prevalence(p, trained, real):
    """Probability where a share `real` is ill, of a model trained where `trained` was."""
    odds = p / (1 - p) * (real / (1 - real)) / (trained / (1 - trained))
    return odds / (1 + odds)


def fit_and_score(train_features, train_labels, features, C):
    """Log-odds (M,) of `features`, by a logistic regression on standardized training features."""
    mean, std = train_features.mean(axis=0), train_features.std(axis=0)
    fitted = LogisticRegression(C=C, max_iter=1000).fit((train_features - mean) / std, train_labels)
    return fitted.decision_function((features - mean) / std)


def _by_themselves(x, y, features, C):
    """The same with `features` standardized by their own mean and spread: a usual mistake."""
    own = (features - features.mean(axis=0)) / features.std(axis=0)
    return fit_and_score(x, y, own * x.std(axis=0) + x.mean(axis=0), C)


def _unscaled(x, y, features, C):
    return LogisticRegression(C=C, max_iter=5000).fit(x, y).decision_function(features)


def _within(first, second):
    """Log-odds agree as far as different solvers do."""
    return np.abs(first - second) <= 0.03


def _probe_cases() -> list[tuple]:
    """Training images, their labels, other images, C: few and many with the finding."""
    rng, cases = np.random.default_rng(3), []
    for shift, C in ((0.5, 0.05), (-1.0, 2.0)):
        x = rng.normal([1, -2, 3], [3, 0.5, 1], size=(60, 3))
        y = (x[:, 0] / 3 + 2 * x[:, 1] + 4 + shift + rng.normal(size=60) > 0).astype(int)
        cases.append((x, y, rng.normal([2, -2.5, 3], [4, 1, 1], size=(9, 3)), C))
    return cases


def split_patients(patients, share, rng):
    """True for each test image: a share of the patients is drawn, each with all of its images."""
    names = np.unique(patients)
    drawn = rng.choice(names, size=round(share * len(names)), replace=False)
    return np.isin(patients, drawn)


def resample_patients(patients, rng):
    """Rows of a resample: patients drawn with replacement, each bringing all of its images."""
    names = np.unique(patients)
    drawn = rng.choice(names, size=len(names), replace=True)
    return np.concatenate([np.flatnonzero(patients == name) for name in drawn])


def _all_rows_of(drawn, patients):
    return np.concatenate([np.flatnonzero(patients == name) for name in drawn])


BY_IMAGE = "A patient comes with some of its images only. Draw patients, and take all their images."
ONCE = "A patient that is drawn twice must bring its images twice; isin and sets lose that."
ALL_ONCE = "Every patient comes exactly once: draw with replacement, or nothing varies."
FIXED = "Two calls draw the same patients. Use the generator rng that you were given."
BY_SIZE = (
    "Some patients are drawn more often than others, such as those with many images. Draw from "
    "all names, each named once: np.unique(patients)."
)
SIZE = "Draw as many patients as there are, so that the resample is as uncertain as the sample."
NOT_RNG = "The same generator gave two resamples: draw from rng, and from nothing else."
NO_ROWS = "Return the numbers of the rows, as one flat array of integers."

NAMES = np.array([907, 113, 540, 288, 616, 799, 354, 861, 475, 192, 733, 1024])
PATIENTS = np.random.default_rng(7).permutation(np.repeat(NAMES, np.arange(1, 13)))
DRAWS = 200


def _problem_of_draws(answer: Callable) -> str | None:
    """What is wrong with a function that draws; by properties, since many ways are right."""
    draws, last = [numbers(rows) for rows in _resamples(answer)], len(PATIENTS) - 1
    if any(rows is None or rows.ndim != 1 or (rows % 1).any() for rows in draws):
        return NO_ROWS
    if any((rows < 0).any() or (rows > last).any() for rows in draws):
        return f"There are {last + 1} rows: numbers 0 to {last}."
    counts = np.stack([np.bincount(rows.astype(int), minlength=last + 1) for rows in draws])
    times = np.stack([counts[:, name == PATIENTS].max(axis=1) for name in NAMES], axis=1)
    if found := _problem_of_counts(counts, times):
        return found
    same_again = np.array_equal(draws[0], numbers(_resamples(answer, 1)[0]))
    return None if same_again else NOT_RNG


def _resamples(answer: Callable, draws: int = DRAWS) -> list:
    rng = np.random.default_rng(0)
    return outputs(lambda patients: answer(patients, rng), [(PATIENTS,)] * draws)


def _problem_of_counts(counts, times) -> str | None:
    """`counts` (draws, images) and `times` (draws, patients): how often each was drawn."""
    of_patient = np.argmax(PATIENTS[:, None] == NAMES, axis=1)
    if (counts != times[:, of_patient]).any():
        return BY_IMAGE
    if not times.any():
        return SIZE
    if (times == 1).all():
        return ALL_ONCE
    if (times <= 1).all():
        return ONCE
    if (times == times[0]).all():
        return FIXED
    if (times.sum(axis=1) != len(NAMES)).any():
        return SIZE
    # Each patient comes once a draw on average, give or take 0.07 over 200 draws.
    return BY_SIZE if np.abs(times.mean(axis=0) - 1).max() > 0.4 else None


LEAKS = "Some patients have images on both sides. Draw patients, then take all of their images."
NO_MASK = "Return one True or False for each image, as one flat array; True is the test part."
TURNED_ROUND = "Nine of twelve patients are in the test part; True should mark the test images."
COUNT = (
    "A quarter of these twelve patients is three, in every draw. Draw from np.unique(patients), "
    "without replacement."
)
ALWAYS_SAME = "Each call gives the same patients. Draw them with the generator rng."


def _problem_of_split(answer: Callable) -> str | None:
    """What is wrong with a split of `PATIENTS`; by properties, since many are right."""
    rng = np.random.default_rng(0)
    masks = [numbers(m) for m in outputs(lambda p: answer(p, 0.25, rng), [(PATIENTS,)] * 20)]
    if any(m is None or m.shape != PATIENTS.shape or not np.isin(m, (0, 1)).all() for m in masks):
        return NO_MASK
    shares = np.stack([[m[name == PATIENTS].mean() for name in NAMES] for m in masks])
    if not np.isin(shares, (0, 1)).all():
        return LEAKS
    if (shares.sum(axis=1) == 9).all():
        return TURNED_ROUND
    if (shares.sum(axis=1) != 3).any():
        return COUNT
    if (shares == shares[0]).all():
        return ALWAYS_SAME
    again = numbers(answer(PATIENTS.copy(), 0.25, np.random.default_rng(0)))
    return None if np.array_equal(again, masks[0]) else NOT_RNG


def practice_scores() -> tuple[np.ndarray, np.ndarray]:
    """Labels (True if ill) and scores of 200 invented images, a quarter of them ill; no ties."""
    rng = np.random.default_rng(0)
    ill = np.arange(200) % 4 == 0
    return ill, rng.normal(size=200) + 1.2 * ill


def roc_figure(axis, ill, scores):
    """The ROC curve, from the highest score down, and the line of chance."""
    ranked = ill[np.argsort(-scores)]
    found = np.concatenate([[0], np.cumsum(ranked) / ranked.sum()])
    false = np.concatenate([[0], np.cumsum(1 - ranked) / (1 - ranked).sum()])
    axis.plot(false, found)
    axis.plot([0, 1], [0, 1], "--", color="gray")
    axis.set(xlabel="healthy called ill (share)", ylabel="ill called ill (share)")


def _without_its_begin(axis):
    line = axis.lines[0]
    line.set_data(line.get_xdata()[20:], line.get_ydata()[20:])


TURNED = "The curve runs below chance: begin with the highest score, and put the ill on the y axis."
CORNERS = "The curve should go from (0, 0), where nobody is called ill, to (1, 1), where all are."
NO_CURVE = "The area under no curve of this figure is the AUROC of these scores."
NO_CHANCE = (
    "Add the line of chance, from (0, 0) to (1, 1): without it nobody sees how good this is."
)


def _problem(axis: Axes) -> str | None:
    ill, scores = practice_scores()
    curves = [s[::-1] if s[0, 0] > s[-1, 0] else s for s in drawn_series(axis) if len(s) > 2]
    if not curves:
        return NO_CURVE
    areas = [trapezoid(s[:, 1], s[:, 0]) for s in curves]
    truth = auroc(ill, scores)
    best = int(np.argmin(np.abs(np.array(areas) - truth)))
    if not np.allclose(curves[best][[0, -1]], [[0, 0], [1, 1]], atol=1e-6):
        return CORNERS
    if abs(areas[best] - truth) > 1e-3:
        return TURNED if abs(areas[best] - (1 - truth)) < 1e-3 else NO_CURVE
    return None if any(map(_is_chance, drawn_series(axis))) else NO_CHANCE


def _is_chance(series: np.ndarray) -> bool:
    return np.allclose(series[:, 0], series[:, 1]) and series.min() <= 0 and series.max() >= 1


EXERCISES = (
    Exercise(
        number="3.1",
        title="AUROC with ties",
        minutes=10,
        reference=auroc,
        mistakes=(
            (
                lambda y, s: _auroc(y, s, tie=0),
                "Right without ties. Two equal scores count as half a pair.",
            ),
            (
                lambda y, s: _auroc(y, s, tie=1),
                "A tie is no success: with >=, a constant score would reach 1. Count half.",
            ),
            (
                lambda y, s: _auroc(y, s, sign=-1),
                "You count the pairs in the wrong order: the ill image should score higher.",
            ),
            (
                lambda y, s: ((np.asarray(s) > 0.5) == np.asarray(y, bool)).mean(),
                "That is the accuracy at 0.5. AUROC needs no threshold.",
            ),
        ),
        hints=(
            "Compare each ill image with each healthy one.",
            "scores[ill][:, None] - scores[~ill][None, :] has one entry for each pair.",
            "The mean of (apart > 0), plus half of the mean of (apart == 0).",
        ),
        why="A constant score gives 0.5, as it should: it knows nothing.",
        judge=judge_function(
            [
                (np.array([0, 0, 1, 0, 1], bool), np.array([0.1, 0.4, 0.35, 0.2, 0.8])),
                (np.array([0, 1, 1, 0], bool), np.array([0.3, 0.3, 0.3, 0.3])),
                (np.array([1, 0, 0, 1, 0], bool), np.array([2.0, 2.0, 1.0, 5.0, 7.0])),
                (
                    np.array([1, 1, 0, 1, 0, 1], bool),
                    np.array([-3.0, 0.5, -3.0, -1.0, -1.0, 0.5]),
                ),
            ]
        ),
    ),
    Exercise(
        number="3.2",
        title="fit the probe",
        minutes=15,
        reference=fit_and_score,
        mistakes=(
            (_unscaled, "The features were not standardized: C then weighs them unequally."),
            (
                _by_themselves,
                "`features` are standardized by themselves. Take mean and spread of the training "
                "images: one image alone must get the same score.",
            ),
            (
                lambda x, y, f, C: expit(fit_and_score(x, y, f, C)),
                "These are probabilities. Asked are log-odds: decision_function gives them.",
            ),
            (
                lambda x, y, f, C: fit_and_score(x, y, f, C) > 0,
                "These are decisions. Asked are log-odds: decision_function gives them.",
            ),
            (lambda x, y, f, C: fit_and_score(x, y, f, 1.0), "C is given; pass it on."),
            (
                lambda x, y, f, C: fit_and_score(x, y, f, 1 / C),
                "A large C is weak regularization: take C itself, not 1 / C.",
            ),
        ),
        hints=(
            "mean and std of train_features along axis 0, used for both sets of images.",
            "LogisticRegression(C=C).fit(standardized, train_labels) fits.",
            "Its decision_function(other_standardized) gives the log-odds.",
        ),
        why="That is the whole linear probe; what is left is to choose C on validation patients.",
        judge=judge_function(_probe_cases(), close=_within),
    ),
    Exercise(
        number="3.3",
        title="another share of ill patients",
        minutes=10,
        reference=at_other_prevalence,
        mistakes=(
            (
                lambda p, t, r: p * r / t,
                "Probabilities scaled like this can exceed 1. Scale the odds, p / (1 - p).",
            ),
            (
                lambda p, t, r: at_other_prevalence(p, r, t),
                "The two shares are swapped: fewer ill patients must lower the probability.",
            ),
            (
                lambda p, t, r: p / (1 - p) * (r / (1 - r)) / (t / (1 - t)),
                "These are the odds. Turn them back into a probability: odds / (1 + odds).",
            ),
        ),
        hints=(
            "Write the probability as odds, p / (1 - p).",
            "Divide by the odds of being ill in training, multiply by those of the real patients.",
            "Turn the odds back: odds / (1 + odds).",
        ),
        why="Bayes' rule: the evidence stays, the odds before it change. Platt scaling learns "
        "that.",
        judge=judge_function([(0.5, 0.5, 0.1), (0.8, 0.3, 0.05), (0.2, 0.2, 0.2), (0.9, 0.1, 0.6)]),
    ),
    Exercise(
        number="3.4",
        title="a split that does not leak",
        minutes=15,
        reference=split_patients,
        mistakes=(
            (lambda p, share, rng: rng.random(len(p)) < share, LEAKS),
            (lambda p, share, rng: np.isin(p, rng.choice(np.unique(p), 3)), COUNT),
            (lambda p, share, rng: np.isin(p, rng.choice(p, 3, replace=False)), COUNT),
            (lambda p, share, rng: ~split_patients(p, share, rng), TURNED_ROUND),
            (lambda p, share, rng: np.isin(p, np.unique(p)[:3]), ALWAYS_SAME),
            (lambda p, share, rng: np.flatnonzero(split_patients(p, share, rng)), NO_MASK),
        ),
        hints=(
            "np.unique(patients) names each patient once.",
            "rng.choice(names, size=round(share * len(names)), replace=False) draws some of them.",
            "np.isin(patients, drawn) is True for every image of a drawn patient.",
        ),
        why="The share of the images is not exactly that of the patients, and that is the price.",
        judge=judge_property(_problem_of_split),
    ),
    Exercise(
        number="3.5",
        title="draw patients, not images",
        minutes=20,
        reference=resample_patients,
        mistakes=(
            (lambda p, rng: rng.integers(len(p), size=len(p)), BY_IMAGE),
            (lambda p, rng: _all_rows_of(rng.choice(p, len(np.unique(p))), p), BY_SIZE),
            (
                lambda p, rng: np.flatnonzero(np.isin(p, rng.choice(np.unique(p), len(NAMES)))),
                ONCE,
            ),
            (lambda p, rng: _all_rows_of(rng.permutation(np.unique(p)), p), ALL_ONCE),
            (lambda p, rng: resample_patients(p, np.random.default_rng(0)), FIXED),
            (lambda p, rng: _all_rows_of(rng.choice(np.unique(p), 6), p), SIZE),
        ),
        hints=(
            "First draw names: rng.choice(names, size=len(names), replace=True).",
            "np.flatnonzero(patients == name) are the rows of one patient.",
            "np.concatenate the rows of all drawn names, twice for a name that was drawn twice.",
        ),
        why="Images of a patient are alike. To draw them singly claims more evidence than there "
        "is.",
        judge=judge_property(_problem_of_draws),
    ),
    Exercise(
        number="3.6",
        title="your figure: an ROC curve",
        minutes=30,
        reference=roc_figure,
        mistakes=(
            (lambda axis, y, s: roc_figure(axis, y, -s), TURNED),
            (drawn_then(roc_figure, _without_its_begin), CORNERS),
            (lambda axis, y, s: axis.plot([0, 0.5, 1], [0, 0.5, 1]), NO_CURVE),
            (drawn_then(roc_figure, lambda axis: axis.lines[1].remove()), NO_CHANCE),
            (drawn_then(roc_figure, no_names), "name both axes"),
        ),
        hints=(
            "Sort the labels by falling score: ill[np.argsort(-scores)].",
            "np.cumsum of the sorted labels, divided by their sum, is the share of the ill found.",
            "The same with 1 - labels is the share of the healthy called ill. Put a 0 before both.",
        ),
        why="Each step up is an ill image, each step right a healthy one; the area is the AUROC.",
        judge=judge_figure(_problem, practice_scores),
    ),
)
