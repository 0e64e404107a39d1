"""Splits by patient, nested label fractions, and a check for patients on both sides.

Several radiographs of one patient look alike. A split by image puts some of them in training and
others in the test set, and the score then measures memory of the patient as well. Everything here
moves whole patients; what would not raises, unless `leak=True` asks for it by name.

Patient ids are all text or all numbers, none is missing, and each patient is written in one way:
the number 1 and the text "1" or "001", or "p1" and "P1 ", would count as different patients.

The course's own parts, and where an official list is taken instead, stand in `course/core/data.py`.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy.
"""

import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Number
from os import PathLike

import numpy as np

DEFAULT_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


class SplitError(ValueError):
    """A split cannot be made as asked, or leaks patients."""


def split_by_patient(
    patient_ids: Sequence, *, parts: Mapping[str, float] = DEFAULT_PARTS, seed: int
) -> np.ndarray:
    """Assign every image to a part so that no patient is in two parts.

    Of few patients a part can stay empty: 10 % of 4 patients are none.

    Args:
        patient_ids: (N,) the patient of each image.
        parts: share of the patients in each part, in order; they sum to 1, none is below 0.
        seed: of the permutation of patients.

    Returns:
        (N,) array of part names.

    Raises:
        SplitError: the shares are negative or do not sum to 1, there are fewer patients than parts,
            or the ids are not as the module says.

    >>> split_by_patient([7, 7, 8, 9], parts={"train": 0.5, "test": 0.5}, seed=0).tolist()
    ['train', 'train', 'test', 'train']
    """
    if not hasattr(parts, "values"):
        raise SplitError(f"parts must map names to shares, not be {parts!r}")
    shares, rng = np.array([*parts.values()], dtype=float), _generator(seed)
    if not len(parts) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise SplitError(f"the shares {dict(parts)} must sum to 1, none below 0")
    patients, inverse = np.unique(*_comparable(patient_ids), return_inverse=True)
    if len(patients) < len(parts):
        raise SplitError(
            f"{len(patients)} patients cannot fill {len(parts)} parts; give more patients or "
            "fewer parts"
        )
    rank = np.empty(len(patients), dtype=int)
    rank[rng.permutation(len(patients))] = np.arange(len(patients))
    ends = np.round(shares.cumsum() * len(patients)).astype(int)
    names = np.array(list(parts))
    return names[np.searchsorted(ends, rank, side="right")][inverse]


def split_by_image(
    patient_ids: Sequence,
    *,
    parts: Mapping[str, float] = DEFAULT_PARTS,
    seed: int,
    leak: bool = False,
) -> np.ndarray:
    """Assign every image to a part, whoever's it is: right only for one image a patient.

    Args:
        patient_ids: (N,) the patient of each image.
        parts: share of the images in each part, in order; they sum to 1.
        seed: of the permutation of images.
        leak: let patients be in several parts, to measure what that does to a score.

    Returns:
        (N,) array of part names.

    Raises:
        SplitError: a patient is in two parts and `leak` is not set; or as `split_by_patient`.

    >>> split_by_image([7, 7, 7, 7], parts={"train": 0.5, "test": 0.5}, seed=0, leak=True).tolist()
    ['train', 'test', 'train', 'test']
    """
    split = split_by_patient(np.arange(len(patient_ids)), parts=parts, seed=seed)
    if not leak:
        check_split(split, patient_ids)
    return split


def split_by_lists(
    image_ids: Sequence[str],
    patient_ids: Sequence,
    lists: Mapping[str, Sequence[str]],
    *,
    leak: bool = False,
) -> np.ndarray:
    """Assign every image to the part whose list names it, such as NIH's official lists.

    Args:
        image_ids: (N,) the images at hand.
        patient_ids: (N,) the patient of each.
        lists: part to the ids of its images; they may name images that are not at hand.
        leak: let patients be in several parts.

    Returns:
        (N,) array of part names.

    Raises:
        SplitError: an image is in no list or in two, images and patients differ in number, or a
            patient is in two parts and `leak` is not set.

    >>> split_by_lists(["a", "b"], [1, 2], {"train": ["b", "c"], "test": ["a"]}).tolist()
    ['test', 'train']
    """
    if len(image_ids) != len(patient_ids):
        raise SplitError(f"{len(image_ids)} images but {len(patient_ids)} patient ids")
    if not hasattr(lists, "items"):
        raise SplitError(f"lists must map parts to ids, not be a {type(lists).__name__}")
    part_of: dict[str, str] = {}
    for part, names in lists.items():
        if isinstance(names, str | PathLike):
            raise SplitError(f"list {part!r} is {names!r}; give the ids, not a file's name")
        both = next((name for name in names if part_of.get(name, part) != part), None)
        if both is not None:
            raise SplitError(f"{both!r} is in the lists {part_of[both]!r} and {part!r}")
        part_of |= dict.fromkeys(names, part)
    absent = [name for name in image_ids if name not in part_of]
    if absent:
        raise SplitError(
            f"{len(absent)} images are in none of the lists {list(lists)}, such as {absent[0]!r}; "
            f"the lists name {len(part_of)}, such as {next(iter(part_of), None)!r}. Write the ids "
            "alike, leave these images out, or take the lists of this data set"
        )
    split = np.array([part_of[name] for name in image_ids], dtype=str)
    if not leak:
        check_split(split, patient_ids)
    return split


def patient_overlap(train_patients: Sequence, eval_patients: Sequence) -> float:
    """Share of the evaluation images whose patient also has a training image.

    Args:
        train_patients: (N,) the patient of each training image.
        eval_patients: (M,) the patient of each evaluation image.

    Returns:
        A share in [0, 1]; 0 means that no patient is on both sides.

    Raises:
        SplitError: there is no evaluation image, or the ids are not as the module says.

    >>> patient_overlap([1, 1, 2], [2, 2, 3, 4])
    0.5
    """
    if len(eval_patients) == 0:
        raise SplitError("there is no evaluation image; the overlap is not defined")
    return float(np.isin(*_comparable(eval_patients, train_patients)).mean())


def check_split(split: Sequence[str], patient_ids: Sequence) -> None:
    """Raise if a patient has images in two parts.

    Args:
        split: (N,) the part of each image.
        patient_ids: (N,) the patient of each image.

    Raises:
        SplitError: names how many patients are in several parts, and some of them; or the lengths
            differ, or the ids are not as the module says.

    >>> check_split(["train", "test"], [1, 2])
    >>> check_split(["train", "test"], [1, 1])
    Traceback (most recent call last):
    cxr_helpers.data.splits.SplitError: 1 of 1 patients are in several parts, for example [1]; split
    by patient, or pass leak=True to measure what it does
    """
    split, (patient_ids,) = np.asarray(split), _comparable(patient_ids)
    if any(map(_is_missing, split.tolist())):
        raise SplitError("an image is in no part; give every image one")
    if len(split) != len(patient_ids):
        raise SplitError(f"{len(split)} parts but {len(patient_ids)} patient ids; give one each")
    patients, inverse = np.unique(patient_ids, return_inverse=True)
    _, part = np.unique(split, return_inverse=True)
    pairs = np.unique(np.column_stack([inverse, part]), axis=0)
    leaking = patients[np.bincount(pairs[:, 0], minlength=len(patients)) > 1]
    if len(leaking):
        raise SplitError(
            f"{len(leaking)} of {len(patients)} patients are in several parts, for example "
            f"{leaking[:3].tolist()}; split by patient, or pass leak=True to measure what it does"
        )


def nested_fractions(
    labels: np.ndarray, patient_ids: Sequence, *, fractions: Sequence[float], seed: int
) -> dict[float, np.ndarray]:
    """Draw ever larger shares of the images, patient by patient, each containing the last.

    The smallest share first takes a patient for each label, rarest label first, as long as there
    is room. Then iterative stratification gives each share its part of every label's images, the
    rarest label first; patients without a label fill up what is left. Sizes go by images.

    Args:
        labels: (N, K) of 0 and 1.
        patient_ids: (N,) the patient of each image.
        fractions: shares of the N images in (0, 1].
        seed: of the draw.

    Returns:
        For each fraction the sorted row numbers, of whole patients: never more images than the
        share, but for one patient who alone exceeds it. A label that fewer images carry than the
        smallest share would need is over-represented there.

    Raises:
        SplitError: a fraction outside (0, 1], labels other than 0 and 1, labels and patients of
            different length, no image, or ids that are not as the module says.

    Source: Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD
    2011, https://doi.org/10.1007/978-3-642-23808-6_10.

    >>> labels = np.array([[0], [0], [1], [0]])
    >>> draw = nested_fractions(labels, [1, 2, 3, 4], fractions=[0.5, 1.0], seed=0)
    >>> len(draw[0.5]), 2 in draw[0.5], len(draw[1.0])
    (2, True, 4)
    """
    labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    (patient_ids,) = _comparable(patient_ids)
    if np.ndim(fractions) != 1 or not len(fractions) or any(not 0 < f <= 1 for f in fractions):
        raise SplitError(f"label fractions {fractions} must lie in (0, 1], in a list")
    if labels.ndim != 2 or len(labels) != len(patient_ids):
        raise SplitError(
            f"labels of shape {labels.shape} do not fit {len(patient_ids)} patient ids; give "
            "one row of labels an image"
        )
    if not len(labels):
        raise SplitError("there is no image to draw from")
    odd = labels[~np.isin(labels, (0, 1))]
    if len(odd):
        raise SplitError(
            f"labels must be 0 or 1, not {odd[0]}; decide what uncertain or missing ones count as"
        )
    _, inverse, sizes = np.unique(patient_ids, return_inverse=True, return_counts=True)
    carried = np.zeros((len(sizes), labels.shape[1]), dtype=np.int64)  # images with each label
    np.add.at(carried, inverse, labels.astype(np.int64))
    steps = sorted(set(fractions))
    rest = [1.0] if steps[-1] < 1 else []  # a last step for the patients whom no share takes
    ends = np.array([round(fraction * len(labels)) for fraction in (*steps, *rest)])
    step_of = _stratify(carried, sizes, ends, _generator(seed))[inverse]
    return {f: np.flatnonzero(step_of <= steps.index(f)) for f in fractions}


def _generator(seed: int) -> np.random.Generator:
    if not isinstance(seed, Integral) or seed < 0:
        raise SplitError(f"the seed must be a whole number from 0, not {seed!r}")
    return np.random.default_rng(int(seed))


def _comparable(*sides: Sequence) -> list[np.ndarray]:
    """Patient ids as (N,) arrays that compare with each other, or SplitError."""
    columns = [np.asarray(s.cpu() if hasattr(s, "cpu") else s, dtype=object) for s in sides]
    for column in columns:
        if column.ndim != 1:
            raise SplitError(f"patient ids of shape {column.shape}; give (N,), one for each image")
    ids = [one for column in columns for one in column]
    odd = [one for one in ids if _is_missing(one)]
    if odd:
        raise SplitError(
            f"{len(odd)} patient ids are neither text nor a number, or missing, such as "
            f"{odd[0]!r}; give every image an id"
        )
    text = [one for one in ids if isinstance(one, str)]
    if 0 < len(text) < len(ids):
        raise SplitError(
            f"some patient ids are numbers, others text such as {text[0]!r}; make all text, with "
            "the same leading zeros"
        )
    inexact = [one for one in ids if not isinstance(one, str | Integral)]
    if inexact and max(abs(one) for one in ids) >= 2**53:
        raise SplitError(
            f"patient ids are floats such as {inexact[0]!r}, which do not hold numbers so large: "
            "two patients may have become one. Read them as text"
        )
    spelled: dict[str, str] = {}
    for one in dict.fromkeys(text):
        other = spelled.setdefault(re.sub(r"^0*(\d+)(\.0)?$", r"\1", one.strip().casefold()), one)
        if other != one:
            raise SplitError(
                f"patients {other!r} and {one!r} may be one; write each patient in one way"
            )
    # Mixed with others, whole numbers that int64 does not hold would become floats.
    large = not text and any(abs(one) >= 2**63 for one in ids)
    kind = str if text else object if large else None
    return [np.array(column.tolist(), dtype=kind) for column in columns]


def _is_missing(patient_id: object) -> bool:
    """Also what a missing id becomes once a table's column is made text."""
    if isinstance(patient_id, str):
        return patient_id.strip().casefold() in ("", "nan", "none", "<na>")
    return not isinstance(patient_id, Number) or patient_id != patient_id


def _stratify(carried, sizes, ends, rng) -> np.ndarray:
    """Deal patients to steps whose images add up to `ends`; (P,) the step of each patient.

    `carried` is (P, K) images of each patient with each label, `sizes` (P,) images, and `ends`
    (S,) how many images the steps hold together, up to each.
    """
    room = np.diff(ends, prepend=0).astype(float)  # (S,) images that each step may still take
    wanted = carried.sum(axis=0)[:, None] * room / max(ends[-1], 1)  # (K, S)
    step_of = np.full(len(sizes), -1)
    order = rng.permutation(len(sizes))

    def deal(patient: int, step: int) -> None:
        step_of[patient] = step
        room[step] -= sizes[patient]
        wanted[:, step] -= carried[patient]

    rarest_first = np.argsort(carried.sum(axis=0), kind="stable")
    for label in rarest_first:  # one patient for each label, where there is room
        if not carried[step_of == 0, label].any():
            fitting = order[(carried[order, label] > 0) & (sizes[order] <= room[0])]
            for patient in fitting[:1]:
                deal(patient, 0)
    if not (step_of == 0).any():  # no label, or no room: one patient in any case
        fitting = order[sizes[order] <= room[0]]
        deal(fitting[0] if len(fitting) else order[0], 0)
    for label in rarest_first:
        for patient in order[(carried[order, label] > 0) & (step_of[order] < 0)]:
            deal(patient, _neediest(wanted[label], room, sizes[patient]))
    for patient in order[step_of[order] < 0]:
        deal(patient, _neediest(room, room, sizes[patient]))
    return step_of


def _neediest(need: np.ndarray, room: np.ndarray, size: int) -> int:
    """The step with the greatest need among those with room; the last one where none has."""
    fits = room >= size
    return int(np.argmax(np.where(fits, need, -np.inf))) if fits.any() else len(room) - 1
