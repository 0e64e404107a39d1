"""A data set for detectors: images with boxes, checked before they can spoil a training.

The truth has one form from the table to the detector: for each image a dictionary of `boxes`,
float32 (n, 4) xyxy in pixels, and `labels`, int64 (n,) from 1. `boxes_by_image` makes it.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pandas, torch.
Goes with: gray.py, packed.py, workers.py.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from .gray import gray_image
from .packed import PackedImages

Truth = dict[str, np.ndarray]
CORNERS = ["x_min", "y_min", "x_max", "y_max"]


class DetectionDataset(Dataset):
    """Images with boxes, in the form that torchvision's detectors take.

    A box that reaches over the image's border stays as it is, for training takes it; the pipelines
    of `detection.augmentation` clip it to the image. One that cannot train is refused by name.

    Args:
        images: what gives (H, W) for a row number, such as `PackedImages`: array or tensor, uint8,
            uint16 of the full range, or float in [0, 1].
        truths: boxes and labels of each image, as `boxes_by_image` gives them, in pixels of the
            image; an image without a box is a normal one.
        transform: called as `transform(image=..., bboxes=..., labels=...)` with a uint8 image
            (float32 in [0, 1] where `images` gives no uint8) and returning a dict of the same (the
            form of an albumentations pipeline), or None.
        rows: row number of each truth's image; None if there is one for each image, in order.

    Raises:
        ValueError: images and truths differ in number, a row is no image's, there is not a label,
            a whole number from 1, for each box, or a box cannot train: it is not finite, has no
            area or lies outside its image. What lies beyond the right or lower border is known
            only once the image is read, unless these are `PackedImages`. An image of another type
            or range raises when it is read.

    >>> truth = {"boxes": np.array([[1, 2, 5, 6]], np.float32), "labels": np.array([1])}
    >>> image, target = DetectionDataset([np.zeros((8, 8), np.uint8)], [truth])[0]
    >>> image.shape, target["boxes"].tolist(), target["labels"].tolist()
    (torch.Size([3, 8, 8]), [[1.0, 2.0, 5.0, 6.0]], [1])
    """

    def __init__(
        self,
        images: Sequence,
        truths: Sequence[Mapping[str, np.ndarray]],
        transform: Callable | None = None,
        *,
        rows: Sequence[int] | None = None,
    ):
        self.rows = _checked_rows(range(len(images)) if rows is None else rows, len(images))
        if len(self.rows) != len(truths):
            raise ValueError(f"{len(self.rows)} images but {len(truths)} truths; give one each")
        self.images, self.truths, self.transform = images, truths, transform
        packed = isinstance(images, PackedImages)
        hw = (images.size, images.size) if packed else (sys.maxsize,) * 2
        for index, truth in enumerate(truths):
            boxes, labels = np.asarray(truth["boxes"]), np.asarray(truth["labels"])
            _check_labels(labels, len(boxes), self._name(index))
            _check_boxes(boxes, self._name(index), hw)

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Image (3, H, W) float32 in [0, 1], gray repeated, and its target."""
        boxes, labels = (np.asarray(self.truths[index][name]) for name in ("boxes", "labels"))
        image = self._checked(index, self.images[self.rows[index]], boxes)
        if self.transform is not None:
            changed = self.transform(image=image, bboxes=boxes, labels=labels)
            boxes, labels = (np.asarray(changed[name]) for name in ("bboxes", "labels"))
            boxes = boxes.astype(np.float32).reshape(-1, 4)
            image = self._checked(index, changed["image"], boxes)
        target = {
            "boxes": torch.from_numpy(boxes.astype(np.float32).reshape(-1, 4)),
            "labels": torch.as_tensor(labels.astype(np.int64).reshape(-1)),
            "image_id": torch.tensor(index),
        }
        gray = torch.from_numpy(image.astype(np.float32))
        return (gray / 255 if image.dtype == np.uint8 else gray).expand(3, -1, -1), target

    def _name(self, index: int) -> object:
        row = self.rows[index]
        return self.images.image_ids[row] if isinstance(self.images, PackedImages) else row

    def _checked(self, index: int, image: object, boxes: np.ndarray) -> np.ndarray:
        try:
            image = gray_image(image)
        except ValueError as error:
            raise ValueError(f"image {self._name(index)!r}: {error}") from error
        _check_boxes(boxes, self._name(index), image.shape)
        return image


def boxes_by_image(
    boxes: pd.DataFrame, image_ids: Sequence[str], class_names: Sequence[str]
) -> list[Truth]:
    """For each image its boxes, float32 (n, 4) xyxy, and their labels, int64 (n,) from 1.

    Args:
        boxes: `image_id`, `label`, `x_min`, `y_min`, `x_max`, `y_max`, in pixels; those of other
            images are left out.
        image_ids: the images, in order.
        class_names: the labels, in the order of their numbers; 0 is background.

    Raises:
        ValueError: a column is missing, a label is none of the classes, a box names no image, an
            image is written otherwise than here (13 and '00000013', 'a' and 'a.dicom'), no box
            belongs to any image, all boxes end below 1 as shares of an image do, or a box of these
            images is not finite, has no area or lies left of or above the image.

    >>> corners = {"x_min": [1.0], "y_min": [2.0], "x_max": [3.0], "y_max": [4.0]}
    >>> table = pd.DataFrame({"image_id": ["a"], "label": ["ILD"], **corners})
    >>> for truth in boxes_by_image(table, ["b", "a"], ["Edema", "ILD"]):
    ...     print(truth["boxes"].tolist(), truth["labels"].tolist())
    [] []
    [[1.0, 2.0, 3.0, 4.0]] [2]
    """
    boxes, image_ids = pd.DataFrame(boxes), list(image_ids)
    absent = [name for name in ("image_id", "label", *CORNERS) if name not in boxes]
    if absent:
        raise ValueError(f"the table of boxes has no column {', '.join(absent)}")
    labels = _numbered(boxes["label"], class_names)
    _check_ids(boxes["image_id"], image_ids)
    numbers = boxes[CORNERS].apply(pd.to_numeric, errors="coerce")  # other text becomes NaN
    xyxy = numbers.to_numpy(np.float32).reshape(-1, 4)
    rows_of = boxes.groupby("image_id", observed=True).indices
    none = np.zeros(0, dtype=np.int64)
    found = []
    for image_id in image_ids:
        rows = rows_of.get(image_id, none)
        _check_boxes(xyxy[rows], image_id)
        found.append({"boxes": xyxy[rows], "labels": labels[rows]})
    drawn = [truth["boxes"].max() for truth in found if len(truth["boxes"])]
    if len(boxes) and image_ids and not drawn:
        raise ValueError(
            f"none of {len(boxes)} boxes belongs to any of {len(image_ids)} images; the boxes name "
            f"images such as {boxes['image_id'].iloc[0]!r}, the images are called such as "
            f"{image_ids[0]!r}. Where all are normal, pass boxes.iloc[:0]"
        )
    if drawn and max(drawn) <= 1:
        raise ValueError(
            "no box ends above 1, so these are shares of the image; multiply them by its width and "
            "height in pixels"
        )
    return found


def _numbered(labels: pd.Series, class_names: Sequence[str]) -> np.ndarray:
    """Class of each box, int64 from 1."""
    names = () if isinstance(class_names, str | set | frozenset) else list(class_names)
    number = {name: k for k, name in enumerate(names, start=1)}
    if not number or len(number) < len(names):
        raise ValueError(f"class_names must be a list of different names, not {class_names!r}")
    unknown = set(labels) - set(number)
    if unknown:
        raise ValueError(
            f"label {min(unknown, key=str)!r} is none of the classes "
            f"{', '.join(map(str, names))}; a detector would leave its boxes out"
        )
    return labels.astype(object).map(number).to_numpy(np.int64)


def _check_ids(of_boxes: pd.Series, image_ids: Sequence[str]) -> None:
    """Raise where a box names no image, or names one in another way than `image_ids` does."""
    if of_boxes.isna().any():
        raise ValueError(f"row {int(of_boxes.isna().argmax())} of the boxes has no image_id")
    known, others = set(image_ids), dict.fromkeys(of_boxes.tolist())
    # Where both have folders, these may be patients', and the files' names the same in each.
    bare = any(not re.search(r"[/\\]", " ".join(map(str, ids))) for ids in (known, others))
    plain = {_plain_id(i, bare): i for i in image_ids}
    for other in others:
        if other not in known and _plain_id(other, bare) in plain:
            raise ValueError(
                f"a box is of image {other!r}, but that image is "
                f"{plain[_plain_id(other, bare)]!r} here; write the ids alike"
            )


def _plain_id(image_id: object, bare: bool) -> str:
    """An id without what tables and files add: suffix, zeros, case, white space, and folder."""
    name = str(image_id).strip().casefold()
    name = re.split(r"[/\\]", name)[-1] if bare else name
    name = re.sub(r"\.(dicom|dcm|dicm|png|jpe?g|tiff?|npy)$", "", name)
    return re.sub(r"^0*(\d+)(\.0)?$", r"\1", name)


def _checked_rows(rows: Sequence[int], n_images: int) -> list[int]:
    found = np.asarray(rows)
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):  # such as a mask
        raise ValueError(f"rows are {found.dtype} {found.shape}; give the numbers of images")
    if outside := [row for row in found.tolist() if not 0 <= row < n_images]:
        raise ValueError(f"row {outside[0]} is none of {n_images} images, counted from 0")
    return found.astype(int).tolist()


def _check_labels(labels: np.ndarray, n_boxes: int, image_id: object) -> None:
    whole = labels.dtype.kind in "iuf" and bool(((labels >= 1) & (labels % 1 == 0)).all())
    if labels.shape != (n_boxes,) or not whole:
        raise ValueError(
            f"image {image_id!r}: {n_boxes} boxes with labels {labels.tolist()}; give each box a "
            "whole number from 1"
        )


def _check_boxes(
    boxes_xyxy: np.ndarray, image_id: object, hw: tuple[int, int] = (sys.maxsize,) * 2
) -> None:
    """Raise for the first box that cannot train, naming image and box."""
    if not len(boxes_xyxy):
        return
    if boxes_xyxy.dtype.kind not in "iuf" or boxes_xyxy.shape[1:] != (4,):
        raise ValueError(
            f"image {image_id!r}: boxes of {boxes_xyxy.dtype} {boxes_xyxy.shape}; expected numbers "
            "(n, 4)"
        )
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    outside = (high <= 0) | (low >= np.array(hw[::-1]))
    size = "" if sys.maxsize in hw else f" of {hw[0]} x {hw[1]} pixels"
    faults = {
        "is not of finite numbers": ~np.isfinite(boxes_xyxy).all(axis=1),
        "has no x_min < x_max and y_min < y_max": ~(high > low).all(axis=1),
        f"is outside the image{size}": outside.any(axis=1),
    }
    for fault, bad in faults.items():
        if bad.any():
            box = boxes_xyxy[int(np.argmax(bad))].tolist()
            raise ValueError(f"image {image_id!r}: the box {box} {fault}; mend it or leave it out")
