"""The leakage lab of notebook 03: five traps that may flatter a score, each switched on and off.

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


@dataclass(frozen=True)
class Lab:
    """What all traps are measured on.

    Attributes:
        settings: neighbors, resamples and seed.
        data: labels, patients and the split.
        values: (N, D) features of all images.
        columns: label columns that are scored.
    """

    settings: Settings
    data: NihData
    values: np.ndarray
    columns: Sequence[int]

    @property
    def labels(self) -> np.ndarray:
        """(N, K) of the labels that are scored."""
        return self.data.labels[:, self.columns]

    def seeds(self, repeats: int) -> range:
        """Seeds of so many draws; labs of other settings' seeds share none."""
        return range(1000 * self.settings.seed, 1000 * self.settings.seed + repeats)

    def fit(self, rows: np.ndarray, **options) -> probe.LinearProbe:
        """A linear probe of these training images, chosen on the validation part."""
        values, labels, val = self.values, self.labels, self.data.rows("val")
        options |= {"class_names": label_names(self.columns)}
        return probe.fit_probe(values[rows], labels[rows], values[val], labels[val], **options)

    def compare(
        self, name: str, rows: np.ndarray, *, wrong: list[np.ndarray], right: list[np.ndarray]
    ) -> Trap:
        """A trap from the scores of these images, one array a draw, on the same resamples."""
        labels, patients = self.labels[rows], self.data.patients[rows]
        pairs = [resampled(self.settings, labels, patients, side) for side in (wrong, right)]
        both_trained = np.isfinite(pairs[0]) & np.isfinite(pairs[1])
        macro = [scoring.nan_mean(np.where(both_trained, p, np.nan), axis=2) for p in pairs]
        # The same seed, so that both sides take the same draws.
        seed = self.settings.seed
        return _trap(name, np.stack([scoring.over_draws(m, seed=seed) for m in macro]))


def _trap(name: str, both: np.ndarray) -> Trap:
    """(2, 1 + R) of the wrong and the right score, the images as they are first."""
    difference = both[0] - both[1]
    flatters = bias_corrected(difference[0], difference[1:])
    return Trap(name, float(both[0, 0]), float(both[1, 0]), flatters)


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
    lab: Lab, rows: np.ndarray, *, by_patient: bool, seed: int, folds: int = 5
) -> tuple[np.ndarray, float]:
    """Score each of these images with k-NN on the other folds.

    Args:
        lab: features, labels, patients and neighbors.
        rows: the n images.
        by_patient: keep each patient's images in one fold (right), or deal images (the leak).
        seed: of the folds.
        folds: how many.

    Returns:
        (n, K) scores, and the share of images whose patient is in another fold.

    Raises:
        splits.SplitError: fewer patients than folds.
    """
    values, labels, patients = lab.values[rows], lab.labels[rows], lab.data.patients[rows]
    parts = {f"fold {i}": 1 / folds for i in range(folds)}
    if by_patient:
        fold = splits.split_by_patient(patients, parts=parts, seed=seed)
    else:
        fold = splits.split_by_image(patients, parts=parts, seed=seed, leak=True)
    scores, shared, neighbors = np.empty(labels.shape), 0, lab.settings.probe.neighbors
    for part in parts:
        test, train = fold == part, fold != part
        known = values[train], labels[train]
        scores[test] = probe.knn_scores(*known, values[test], neighbors=neighbors)
        shared += int(np.isin(patients[test], patients[train]).sum())
    return scores, shared / len(labels)


def leak(lab: Lab, *, repeats: int = 5, max_images: int = 20_000) -> tuple[Trap, dict[str, float]]:
    """Trap 1: deal images to folds instead of patients.

    Every image is scored once by folds of either kind, with as many training images, and all
    patients are resampled for the interval.

    Args:
        lab: what is measured on.
        repeats: how often folds of either kind are drawn.
        max_images: of larger data, patients are drawn until so many images are reached.

    Returns:
        The trap, and for each kind of folds the share of images whose patient is in training.
    """
    rows = _some_patients(lab.data.patients, max_images, lab.settings.seed)
    scored: dict[str, list[np.ndarray]] = {"by patient": [], "by image": []}
    overlap = dict.fromkeys(scored, 0.0)
    for seed in lab.seeds(repeats):
        for kind in scored:
            scores, share = out_of_fold(lab, rows, by_patient=kind == "by patient", seed=seed)
            scored[kind].append(scores)
            overlap[kind] += share / repeats
    trap = lab.compare(LEAK, rows, wrong=scored["by image"], right=scored["by patient"])
    return trap, overlap


def _some_patients(patients: np.ndarray, max_images: int, seed: int) -> np.ndarray:
    """Rows of randomly drawn whole patients, at most `max_images`; all rows where they fit."""
    names, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = order[counts[order].cumsum() <= max_images]
    return np.flatnonzero(np.isin(inverse, taken))


def duplicates(lab: Lab, *, share: float = PUBLISHED_DUPLICATES, repeats: int = 10) -> Trap:
    """Trap 2: a share of the test images is in the training part too, as two draws make it.

    The regularization stays as chosen without the copies.

    Raises:
        ValueError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of the test images lies above 0 and up to 1, not at {share}")
    train, test = lab.data.rows("train"), lab.data.rows("test")
    copies = max(1, round(share * len(test)))
    right, wrong = lab.fit(train), []
    for seed in lab.seeds(repeats):
        both = np.r_[train, np.random.default_rng(seed).choice(test, copies, replace=False)]
        wrong.append(lab.fit(both, strengths=[right.strength]).scores(lab.values[test]))
    once = right.scores(lab.values[test])
    return lab.compare(DUPLICATES, test, wrong=wrong, right=[once] * repeats)


def no_finding(lab: Lab) -> Trap:
    """Trap 3: 'No Finding' counts as one more class in the mean."""
    values, labels = lab.values, np.c_[lab.labels, ~lab.data.labels.any(axis=1)].astype(np.uint8)
    train, val, test = (lab.data.rows(part) for part in ("train", "val", "test"))
    names = [*label_names(lab.columns), nih.NO_FINDING]
    known = values[train], labels[train], values[val], labels[val]
    scores = [probe.fit_probe(*known, class_names=names).scores(values[test])]
    per_class = resampled(lab.settings, labels[test], lab.data.patients[test], scores)[0]
    both = [scoring.nan_mean(part, axis=1) for part in (per_class, per_class[:, :-1])]
    return _trap(NO_FINDING, np.stack(both))


def best_epoch(lab: Lab, runs: Sequence[EndToEnd]) -> Trap:
    """Trap 4: of all checks of a training run, report the one that is best on the test set.

    The best is chosen anew on each resample of the patients, as whoever has other patients would.
    It cannot flatter by less than zero.

    Args:
        lab: what is measured on.
        runs: trained end to end on the lab's labels, each with its checks.
    """
    test = lab.data.rows("test")
    labels, patients = lab.labels[test], lab.data.patients[test]
    both = np.zeros((2, lab.settings.probe.resamples + 1))
    for run in runs:
        values = resampled(lab.settings, labels, patients, list(run.test))
        macro = scoring.nan_mean(values, axis=2)  # (checks, 1 + R)
        both += np.stack([macro.max(axis=0), macro[run.chosen]]) / len(runs)
    return _trap(BEST_EPOCH, both)


def few_patients(lab: Lab, *, n_images: int, repeats: int = 20) -> tuple[Trap, pd.DataFrame]:
    """Trap 5: as many labeled images, from as few patients as hold them.

    Args:
        lab: what is measured on.
        n_images: how many labels are paid for.
        repeats: draws of either kind.

    Returns:
        The trap (wrong: few patients; right: an image of each of many), and for both kinds the
        mean number of patients and of positive labels, the mean score and its standard deviation
        over the draws.

    Raises:
        EvaluationError: fewer training patients than images asked for, or none with two images.
    """
    labels, test = lab.labels, lab.data.rows("test")
    scores: dict[str, list[np.ndarray]] = {"few patients": [], "many patients": []}
    figures = []
    for seed in lab.seeds(repeats):
        for kind in scores:
            rows = _images_of(lab.data, n_images, few=kind == "few patients", seed=seed)
            said = lab.fit(rows).scores(lab.values[test])
            scores[kind].append(said)
            macro = scoring.macro_auroc(labels[test], said, label_names(lab.columns)).value
            figures.append((kind, len(set(lab.data.patients[rows])), labels[rows].sum(), macro))
    few, many = scores.values()
    names = ["kind", "patients", "positive labels", "mean macro AUROC"]
    drawn = pd.DataFrame(figures, columns=names).groupby("kind")
    spread = drawn["mean macro AUROC"].std()
    table = drawn.mean().assign(**{"spread over draws": spread}).rename_axis(None)
    return lab.compare(FEW_PATIENTS, test, wrong=few, right=many), table


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
