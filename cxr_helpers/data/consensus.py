"""One truth from several readers: weighted box fusion, and how well the readers agree.

Weighted box fusion (WBF) runs through the boxes of one class on one image. A box joins the fused
box with which it overlaps most, if their IoU is above the threshold, and the fused box becomes
the mean of its members; else it starts a fused box of its own. All scores are 1 here, as in the
published boxes beside the paper's code: one list of all readers' boxes, IoU 0.5.

Source: Solovyev et al., Weighted boxes fusion, Image and Vision Computing 2021,
https://arxiv.org/abs/1910.13302; the boxes are visited as its package ensemble-boxes does when
scores are equal: from the last to the first.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

_BOX = ["x_min", "y_min", "x_max", "y_max"]


def weighted_box_fusion(
    boxes_xyxy: np.ndarray, readers: np.ndarray, *, iou_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fuse the readers' boxes of one class on one image.

    Args:
        boxes_xyxy: (N, 4) array, tensor or list, x_min, y_min, x_max, y_max in pixels (or any one
            unit).
        readers: (N,), who drew each box; names or numbers.
        iou_threshold: IoU above which a box joins a fused box, 0 to 1.

    Returns:
        Fused boxes float64 (M, 4), in the order in which they were begun, from the last box of
        the list to the first; how many different readers stand behind each, int64 (M,); how many
        boxes went into each, int64 (M,).

    Raises:
        ValueError: wrong shape, a box that is empty or not finite, a reader written in two ways
            (8 and '8', 'R8' and 'r8 '), or a threshold outside 0 to 1.

    Example:
        >>> boxes = np.array([[0, 0, 10, 10], [2, 0, 10, 10], [50, 50, 60, 60]])
        >>> fused, n_readers, n_boxes = weighted_box_fusion(boxes, ['R8', 'R9', 'R9'])
        >>> fused.tolist()
        [[50.0, 50.0, 60.0, 60.0], [1.0, 0.0, 10.0, 10.0]]
        >>> n_readers.tolist(), n_boxes.tolist()
        ([1, 2], [1, 2])
    """
    boxes, readers = _checked(boxes_xyxy, readers, iou_threshold)
    cluster, fused = _fuse(boxes, np.zeros(len(boxes), dtype=np.int64), iou_threshold)
    return fused, *_count(cluster, readers, len(fused))


def fuse_readings(boxes: pd.DataFrame, *, iou_threshold: float = 0.5) -> pd.DataFrame:
    """Fuse a whole table of readers' boxes, per image and label.

    Args:
        boxes: columns `image_id`, `reader_id`, `label`, `x_min`, `y_min`, `x_max`, `y_max`.
        iou_threshold: see `weighted_box_fusion`.

    Returns:
        One row per fused box: `image_id`, `label`, the corners (float64), `readers` (how many
        stand behind it), `boxes` (how many went into it). Images come in the order of the table,
        labels by name, boxes of one label as from `weighted_box_fusion`. An image on which nobody
        drew a box is not in it.

    Raises:
        ValueError: a column is missing, a box is empty, not finite or of no reader, image or
            label, one of these is written in two ways (8 and '8', 'Edema' and 'edema '), or the
            threshold lies outside 0 to 1.

    Example:
        >>> columns = ['image_id', 'reader_id', 'label', 'x_min', 'y_min', 'x_max', 'y_max']
        >>> rows = [['a', 'R8', 'Edema', 0, 0, 10, 10], ['a', 'R9', 'Edema', 2, 0, 10, 10]]
        >>> fused = fuse_readings(pd.DataFrame(rows, columns=columns))
        >>> fused.values.tolist()
        [['a', 'Edema', 1.0, 0.0, 10.0, 10.0, 2, 2]]
    """
    images, labels, names, readers, corners = _columns(boxes, iou_threshold)
    group = images.astype(np.int64) * len(names) + labels
    keys, group = np.unique(group, return_inverse=True)
    cluster, fused = _fuse(corners, group, iou_threshold)
    n_readers, n_boxes = _count(cluster, readers, len(fused))
    first = np.zeros(len(fused), dtype=np.int64)
    first[cluster] = np.arange(len(corners))  # any member's row tells image and label
    table = pd.DataFrame(
        {
            "image_id": boxes["image_id"].array[first],
            "label": boxes["label"].array[first],
            **{name: fused[:, k] for k, name in enumerate(_BOX)},
            "readers": n_readers,
            "boxes": n_boxes,
        }
    )
    return table.iloc[np.argsort(group[first], kind="stable")].reset_index(drop=True)


def reader_agreement(
    boxes: pd.DataFrame, *, iou_threshold: float = 0.5, readers_per_image: int = 3
) -> pd.DataFrame:
    """Measure per label how far two readers of one image draw the same boxes.

    Every pair of an image's readers is compared: boxes of one label with an IoU of at least the
    threshold are matched one to one, best first. F1 is 2 x matches / boxes of both, over all
    pairs and images. A reader who drew nothing counts: every box of the other is then unmatched.

    Args:
        boxes: columns as for `fuse_readings`.
        iou_threshold: IoU from which two boxes count as the same, 0 to 1.
        readers_per_image: how many read each image, those who drew nothing included.

    Returns:
        Indexed by `label`, by name: `images` with a box of it, `boxes`, `matches` (pairs of boxes
        of two readers), `f1` (float64, 0 to 1), `all_readers` (share of the label's images that
        all readers marked, 0 to 1).

    Raises:
        ValueError: a column is missing, a box is unusable, or an image has more readers than said.

    Example:
        >>> columns = ['image_id', 'reader_id', 'label', 'x_min', 'y_min', 'x_max', 'y_max']
        >>> rows = [['a', 'R8', 'Edema', 0, 0, 10, 10], ['a', 'R9', 'Edema', 2, 0, 10, 10]]
        >>> agreement = reader_agreement(pd.DataFrame(rows, columns=columns), readers_per_image=2)
        >>> agreement.loc['Edema', ['boxes', 'matches', 'f1']].tolist()
        [2.0, 1.0, 1.0]
    """
    images, labels, names, readers, corners = _columns(boxes, iou_threshold)
    if readers_per_image < 2:
        raise ValueError(f"agreement needs 2 or more readers per image, not {readers_per_image}")
    marks = pd.DataFrame({"image": images, "label": labels, "reader": readers})
    most = marks.groupby("image")["reader"].nunique().max() if len(marks) else 0
    if most > readers_per_image:
        raise ValueError(f"an image has {most} readers; pass readers_per_image={most}")
    matches = np.bincount(
        labels[_matched(corners, images * len(names) + labels, readers, iou_threshold)],
        minlength=len(names),
    )
    n_boxes = np.bincount(labels, minlength=len(names))
    per_image = marks.groupby(["label", "image"])["reader"].nunique()
    n_images = per_image.groupby("label").size().to_numpy(np.int64)
    everyone = (per_image == readers_per_image).groupby("label").mean().to_numpy(np.float64)
    # Each box is compared with those of every other reader of its image.
    compared = n_boxes * (readers_per_image - 1)
    return pd.DataFrame(
        {
            "images": n_images,
            "boxes": n_boxes,
            "matches": matches,
            "f1": 2 * matches / np.maximum(compared, 1),
            "all_readers": everyone,
        },
        index=pd.Index(names, name="label"),
    )


def _columns(
    boxes: pd.DataFrame, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return image and label codes, label names, reader codes and checked corners."""
    missing = {"image_id", "reader_id", "label", *_BOX} - set(boxes)
    if missing:
        raise ValueError(f"the table of boxes lacks the columns {', '.join(sorted(missing))}")
    corners, readers = _checked(
        boxes[_BOX].to_numpy(), boxes["reader_id"], iou_threshold, boxes["image_id"].to_numpy()
    )
    for column in ("image_id", "label"):
        if boxes[column].isna().any():
            raise ValueError(f"row {boxes[column].isna().argmax()}: the box has no {column}")
        _check_spelling(boxes[column], column)
    images, _ = pd.factorize(boxes["image_id"])
    labels, names = pd.factorize(boxes["label"], sort=True)
    return images, labels, np.asarray(names, dtype=object), readers, corners


def _checked(
    boxes_xyxy: np.ndarray,
    readers: object,
    iou_threshold: float,
    image_ids: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    boxes = _numbers(boxes_xyxy)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have the shape (N, 4), not {boxes.shape}")
    codes, names = pd.factorize(np.asarray(_on_cpu(readers), dtype=object).reshape(-1))
    if len(codes) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes but {len(codes)} readers")
    _check_spelling(names, "reader")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie between 0 and 1, not {iou_threshold!r}")
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        where = "" if image_ids is None else f" (image {image_ids[row]!r})"
        raise ValueError(
            f"box {row}{where} is {boxes[row].tolist()}; expected finite x_min < x_max and "
            "y_min < y_max"
        )
    if (codes < 0).any():
        raise ValueError(f"box {int(np.argmax(codes < 0))} has no reader")
    return boxes, codes


def _on_cpu(values: object) -> object:
    """A tensor without its gradient and device; anything else as it is."""
    return values.detach().cpu() if hasattr(values, "detach") else values


def _numbers(boxes_xyxy: object) -> np.ndarray:
    try:
        return np.asarray(_on_cpu(boxes_xyxy), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes must be (N, 4) numbers ({error})") from error


def _check_spelling(names: Iterable, column: str) -> None:
    """Raise where two names differ only by type, case, white space, leading zeros or suffix."""
    spelled: dict[str, object] = {}
    for name in dict.fromkeys(names):
        if not str(name).strip():
            raise ValueError(f"a box has no {column}, but empty text; leave it out or name it")
        plain = re.sub(r"\.(dicom|dcm|dicm|png)$", "", str(name).strip().casefold())
        other = spelled.setdefault(re.sub(r"^0*(\d+)(\.0)?$", r"\1", plain), name)
        if other is not name:
            raise ValueError(
                f"{column} {other!r} and {name!r} may be one; write each {column} in one way"
            )


def _fuse(
    boxes: np.ndarray, group: np.ndarray, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fuse within groups 0..G-1, all groups abreast: step t takes each group's t-th box.

    Returns the fused box that each box went into, int64 (N,), and the fused boxes (M, 4).
    """
    n = len(boxes)
    if n == 0:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4))
    last_first = np.arange(n)[::-1]
    order = last_first[np.argsort(group[::-1], kind="stable")]
    size = np.bincount(group)
    start = np.cumsum(size) - size
    by_size = np.argsort(-size, kind="stable")  # the groups still running are then the first ones
    longest = int(size.max())
    fused = np.zeros((len(size), longest, 4))  # (group, fused box, corner)
    members = np.zeros((len(size), longest), dtype=np.int64)  # 0: not begun yet
    begun = np.zeros(len(size), dtype=np.int64)
    slot = np.zeros(n, dtype=np.int64)
    for t in range(longest):
        g = by_size[: np.count_nonzero(size > t)]
        box = boxes[order[start[g] + t]]
        width = int(begun[g].max()) if t else 1
        iou = _iou(fused[g, :width], box[:, None])
        iou[members[g, :width] == 0] = -1
        best = iou.argmax(axis=1)
        joins = iou[np.arange(len(g)), best] > iou_threshold
        k = np.where(joins, best, begun[g])
        begun[g] += ~joins
        members[g, k] += 1
        fused[g, k] += (box - fused[g, k]) / members[g, k][:, None]  # the running mean
        slot[order[start[g] + t]] = k
    offset = np.cumsum(begun) - begun
    used = np.arange(longest) < begun[:, None]
    return offset[group] + slot, fused[used]


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes in the last axis, broadcast; 0 where both have no area."""
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.clip(overlap, 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1)
    union = union - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def _count(cluster: np.ndarray, readers: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.unique(np.column_stack([cluster, readers]), axis=0)
    n_readers = np.bincount(pairs[:, 0], minlength=m)
    return n_readers, np.bincount(cluster, minlength=m)


def _matched(
    boxes: np.ndarray, group: np.ndarray, readers: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """Match boxes of two readers within a group; return one box's row of each match."""
    order = np.argsort(group, kind="stable")
    group, readers, boxes = group[order], readers[order], boxes[order]
    lefts, rights, ious = [], [], []
    for step in range(1, np.unique(group, return_counts=True)[1].max(initial=1)):
        i = np.flatnonzero((group[step:] == group[:-step]) & (readers[step:] != readers[:-step]))
        iou = _iou(boxes[i], boxes[i + step])
        near = iou >= iou_threshold
        lefts.append(i[near])
        rights.append(i[near] + step)
        ious.append(iou[near])
    if not lefts:
        return np.zeros(0, dtype=np.int64)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    taken: set[tuple[int, int]] = set()  # a box is taken once per other reader
    kept = []
    for pair in np.argsort(-np.concatenate(ious), kind="stable"):
        i, j = int(left[pair]), int(right[pair])
        one, other = (i, int(readers[j])), (j, int(readers[i]))
        if one not in taken and other not in taken:
            taken |= {one, other}
            kept.append(i)
    return order[np.array(kept, dtype=np.int64)]
