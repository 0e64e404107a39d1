"""The leakage lab of notebook 03: five ways to flatter a score, each switched on and off.

Each trap scores the same test images twice, once wrongly and once rightly. What it adds is the
difference, with an interval over resampled patients, and over draws where the trap has several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_helpers.course.ch03.end_to_end import EndToEnd
from cxr_helpers.course.ch03.linear import label_names, resampled
from cxr_helpers.course.core.data import NihData
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.data import nih, splits
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.evaluation.checks import EvaluationError
from cxr_helpers.evaluation.intervals import Interval, bias_corrected

PUBLISHED_DUPLICATES = 0.055  # 5 to 6% where the two parts of the paper's code are drawn again

LEAK = "split by image, not by patient"
DUPLICATES = "some test images in training too"
NO_FINDING = "'No Finding' in the macro mean"
BEST_EPOCH = "best epoch chosen on the test set"
FEW_PATIENTS = "as many labels from few patients"


@dataclass(frozen=True)
class Trap:
    """A trap's score when switched on and off.

    Attributes:
        name: of the trap.
        wrong: the score it reports.
        right: the score without it.
        flatters: the difference with its interval.
    """

    name: str
    wrong: float
    right: float
    flatters: Interval


def image_overlap(patients: Sequence, *, test_share: float, seed: int) -> float:
    """Share of a random image-wise test split whose patient is in training too.

    Args:
        patients: (N,) the patient of each image.
        test_share: share of the images that are tested on.
        seed: of the split.
    """
    parts = {"train": 1 - test_share, "test": test_share}
    split = splits.split_by_image(patients, parts=parts, seed=seed, leak=True)
    patients = np.asarray(patients)
    return splits.patient_overlap(patients[split == "train"], patients[split == "test"])


def official_overlap(settings: Settings, entries: pd.DataFrame) -> tuple[int, float] | None:
    """What the paper's code does: split the images of the official test list at random.

    Args:
        settings: name the NIH folder, in which the list lies.
        entries: the table, with image_id and patient_id.

    Returns:
        How many images of the list are in the table, and the share of a random fifth of them whose
        patient is in the other four fifths. None where there is no list.

    Raises:
        ValueError: the list names none of these images.
    """
    path = settings.nih / "test_list.txt"
    if not path.is_file():
        return None
    names = nih.read_image_list(path)
    listed = entries[entries["image_id"].isin(names)]
    if listed.empty:
        raise ValueError(
            f"{path} names none of the {len(entries)} images of the table: it has "
            f"{next(iter(names), 'no name')!r}, the table {next(iter(entries['image_id']), None)!r}"
        )
    overlap = image_overlap(listed["patient_id"], test_share=0.2, seed=settings.seed)
    return len(listed), overlap


def traps_table(traps: Sequence[Trap], notices: Mapping[str, str]) -> pd.DataFrame:
    """The lab's result: trap, what it reports, what is right, how much it flatters, how to notice.

    Args:
        traps: measured.
        notices: how to notice each, by its name.
    """
    rows = {
        trap.name: {
            "with the trap": round(trap.wrong, 3),
            "without": round(trap.right, 3),
            "flatters by (95% interval)": str(trap.flatters),
            "how to notice": notices[trap.name],
        }
        for trap in traps
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trap")


def out_of_fold(
    values: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    neighbors: int,
    by_patient: bool,
    seed: int,
    folds: int = 5,
) -> tuple[np.ndarray, float]:
    """Score every image with k-NN on the other folds.

    Args:
        values: (N, D) features.
        labels: (N, K) of 0 and 1.
        patients: (N,) the patient of each image.
        neighbors: of k-NN.
        by_patient: keep each patient's images in one fold (right), or deal images (the leak).
        seed: of the folds.
        folds: how many.

    Returns:
        (N, K) scores, and the share of images whose patient is in another fold.

    Raises:
        splits.SplitError: fewer patients than folds.
    """
    parts = {f"fold {i}": 1 / folds for i in range(folds)}
    if by_patient:
        fold = splits.split_by_patient(patients, parts=parts, seed=seed)
    else:
        fold = splits.split_by_image(patients, parts=parts, seed=seed, leak=True)
    scores, shared = np.empty(labels.shape), 0
    for part in parts:
        test, train = fold == part, fold != part
        scores[test] = probe.knn_scores(
            values[train], labels[train], values[test], neighbors=neighbors
        )
        shared += int(np.isin(patients[test], patients[train]).sum())
    return scores, shared / len(labels)


def leak(
    settings: Settings,
    data: NihData,
    values: np.ndarray,
    columns: Sequence[int],
    *,
    repeats: int = 5,
    max_images: int = 20_000,
) -> tuple[Trap, dict[str, float]]:
    """Trap 1: deal images to folds instead of patients.

    Every image is scored once by folds of either kind, with as many training images, and all
    patients are resampled for the interval.

    Args:
        settings: neighbors, resamples and seed.
        data: labels and patients.
        values: (N, D) features of all images.
        columns: label columns to score.
        repeats: how often folds of either kind are drawn.
        max_images: of larger data, patients are drawn until so many images are reached.

    Returns:
        The trap, and for each kind of folds the share of images whose patient is in training.
    """
    rows = _some_patients(data.patients, max_images, settings.seed)
    labels, patients = data.labels[rows][:, columns], data.patients[rows]
    scored: dict[str, list[np.ndarray]] = {"by patient": [], "by image": []}
    overlap = dict.fromkeys(scored, 0.0)
    for repeat in range(repeats):
        options = {"neighbors": settings.probe.neighbors, "seed": 1000 * settings.seed + repeat}
        for kind in scored:  # seeds share no draw
            by_patient = kind == "by patient"
            scores, share = out_of_fold(
                values[rows], labels, patients, by_patient=by_patient, **options
            )
            scored[kind].append(scores)
            overlap[kind] += share / repeats
    wrong, right = scored["by image"], scored["by patient"]
    return _compare(settings, LEAK, labels, patients, wrong=wrong, right=right), overlap


def _some_patients(patients: np.ndarray, max_images: int, seed: int) -> np.ndarray:
    """Rows of randomly drawn whole patients, at most `max_images`; all rows where they fit."""
    names, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = order[counts[order].cumsum() <= max_images]
    return np.flatnonzero(np.isin(inverse, taken))


def duplicates(
    settings: Settings,
    data: NihData,
    values: np.ndarray,
    columns: Sequence[int],
    *,
    share: float = PUBLISHED_DUPLICATES,
    repeats: int = 10,
) -> Trap:
    """Trap 2: a share of the test images is in the training part too, as two draws make it.

    The regularization stays as chosen without the copies.

    Raises:
        ValueError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of the test images lies above 0 and up to 1, not at {share}")
    labels, train, test = data.labels[:, columns], data.rows("train"), data.rows("test")
    copies = max(1, round(share * len(test)))
    right = _linear_probe(data, values, columns, train)
    wrong = []
    for seed in range(1000 * settings.seed, 1000 * settings.seed + repeats):
        both = np.r_[train, np.random.default_rng(seed).choice(test, copies, replace=False)]
        fitted = _linear_probe(data, values, columns, both, strengths=[right.strength])
        wrong.append(fitted.scores(values[test]))
    once = [right.scores(values[test])] * repeats
    return _compare(
        settings, DUPLICATES, labels[test], data.patients[test], wrong=wrong, right=once
    )


def no_finding(
    settings: Settings, data: NihData, values: np.ndarray, columns: Sequence[int]
) -> Trap:
    """Trap 3: 'No Finding' counts as one more class in the mean."""
    labels = np.c_[data.labels[:, columns], ~data.labels.any(axis=1)].astype(np.uint8)
    train, val, test = (data.rows(part) for part in ("train", "val", "test"))
    names = [*label_names(columns), nih.NO_FINDING]
    known = values[train], labels[train], values[val], labels[val]
    fitted = probe.fit_probe(*known, class_names=names)
    scores = [fitted.scores(values[test])]
    per_class = resampled(settings, labels[test], data.patients[test], scores)[0]
    both = [scoring.nan_mean(part, axis=1) for part in (per_class, per_class[:, :-1])]
    return _trap(NO_FINDING, np.stack(both))


def best_epoch(
    settings: Settings, data: NihData, columns: Sequence[int], runs: Sequence[EndToEnd]
) -> Trap:
    """Trap 4: of all checks of a training run, report the one that is best on the test set.

    The best is chosen anew on each resample of the patients, as whoever has other patients would.
    It cannot flatter by less than zero.

    Args:
        settings: resamples and seed.
        data: labels and patients of the test part.
        columns: label columns that were trained.
        runs: trained end to end, each with its checks.
    """
    test = data.rows("test")
    labels = data.labels[test][:, columns]
    both = np.zeros((2, settings.probe.resamples + 1))
    for run in runs:
        values = resampled(settings, labels, data.patients[test], list(run.test))
        macro = scoring.nan_mean(values, axis=2)  # (checks, 1 + R)
        both += np.stack([macro.max(axis=0), macro[run.chosen]]) / len(runs)
    return _trap(BEST_EPOCH, both)


def few_patients(
    settings: Settings,
    data: NihData,
    values: np.ndarray,
    columns: Sequence[int],
    *,
    n_images: int,
    repeats: int = 20,
) -> tuple[Trap, pd.DataFrame]:
    """Trap 5: as many labeled images, from as few patients as hold them.

    Args:
        settings: resamples and seed.
        data: labels, patients and the split.
        values: (N, D) features of all images.
        columns: label columns to probe.
        n_images: how many labels are paid for.
        repeats: draws of either kind.

    Returns:
        The trap (wrong: few patients; right: an image of each of many), and for both kinds the
        mean number of patients and of positive labels, the mean score and its standard deviation
        over the draws.

    Raises:
        EvaluationError: fewer training patients than images asked for, or none with two images.
    """
    labels, test = data.labels[:, columns], data.rows("test")
    scores: dict[str, list[np.ndarray]] = {"few patients": [], "many patients": []}
    figures = []
    for seed in range(1000 * settings.seed, 1000 * settings.seed + repeats):
        for kind in scores:
            rows = _images_of(data, n_images, few=kind == "few patients", seed=seed)
            said = _linear_probe(data, values, columns, rows).scores(values[test])
            scores[kind].append(said)
            macro = scoring.macro_auroc(labels[test], said, label_names(columns)).value
            figures.append((kind, len(set(data.patients[rows])), labels[rows].sum(), macro))
    trap = _compare(
        settings,
        FEW_PATIENTS,
        labels[test],
        data.patients[test],
        wrong=scores["few patients"],
        right=scores["many patients"],
    )
    names = ["kind", "patients", "positive labels", "mean macro AUROC"]
    drawn = pd.DataFrame(figures, columns=names).groupby("kind")
    spread = drawn["mean macro AUROC"].std()
    return trap, drawn.mean().assign(**{"spread over draws": spread}).rename_axis(None)


def _images_of(data: NihData, n_images: int, *, few: bool, seed: int) -> np.ndarray:
    """`n_images` training rows: patients with most images first, or one image a patient."""
    train = np.random.default_rng(seed).permutation(data.rows("train"))
    patients, first, inverse, counts = np.unique(
        data.patients[train], return_index=True, return_inverse=True, return_counts=True
    )
    if len(patients) < n_images:
        raise EvaluationError(
            f"{n_images} images of as many patients were asked for, and training has "
            f"{len(patients)} patients; ask for fewer images"
        )
    if (counts == 1).all():
        raise EvaluationError(
            "each training patient has one image, so that few patients cannot hold many; this "
            "trap needs follow-up images"
        )
    if not few:
        return train[np.sort(first)[:n_images]]
    # Only of the larger half, so that the draws differ.
    large = np.flatnonzero(counts >= np.median(counts[counts > 1]))
    order = np.random.default_rng(seed).permutation(large)
    order = np.r_[order, np.setdiff1d(np.arange(len(patients)), large)]
    rank = np.argsort(order)[inverse]
    return train[np.argsort(rank, kind="stable")[:n_images]]


def _linear_probe(
    data: NihData, values: np.ndarray, columns: Sequence[int], rows: np.ndarray, **options
) -> probe.LinearProbe:
    labels, val = data.labels[:, columns], data.rows("val")
    options |= {"class_names": label_names(columns)}
    return probe.fit_probe(values[rows], labels[rows], values[val], labels[val], **options)


def _compare(settings, name, labels, patients, *, wrong, right) -> Trap:
    pairs = [resampled(settings, labels, patients, scores) for scores in (wrong, right)]
    both_trained = np.isfinite(pairs[0]) & np.isfinite(pairs[1])
    macro = [scoring.nan_mean(np.where(both_trained, p, np.nan), axis=2) for p in pairs]
    # The same seed, so that both sides take the same draws.
    return _trap(name, np.stack([scoring.over_draws(m, seed=settings.seed) for m in macro]))


def _trap(name: str, both: np.ndarray) -> Trap:
    """(2, 1 + R) of the wrong and the right score, the images as they are first."""
    difference = both[0] - both[1]
    flatters = bias_corrected(difference[0], difference[1:])
    return Trap(name, float(both[0, 0]), float(both[1, 0]), flatters)
