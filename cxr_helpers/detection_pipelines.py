"""Augmentation for detection: albumentations pipelines that move image and boxes together.

Needs: albumentations, opencv-python-headless.
"""

import os
from collections import Counter

# albumentations asks PyPI for a newer version while it is imported, and waits for the answer:
# without a network that is seconds for every process.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: E402
import cv2  # noqa: E402

PIPELINES = ("demo", "paper", "none")


def detection_pipeline(
    name: str, *, seed: int, min_side: float = 2.0, min_visibility: float = 0.3
) -> A.Compose:
    """A pipeline to be called as `pipeline(image=..., bboxes=..., labels=...)`.

    - `demo`: small shifts, zooms and rotations, brightness and contrast. No mirroring: the heart
      lies on one side, and findings such as an enlarged aorta do too.
    - `paper`: horizontal flip at one half, as the paper's code trains.
    - `none`: the image as it is; boxes are clipped to it all the same.

    A box that leaves the image is clipped to it. One of which less than `min_visibility` of the
    area is left, or with a side under `min_side`, is dropped together with its label.

    Args:
        name: one of the above.
        seed: of the pipeline's own random state.
        min_side: shortest side of a box in pixels after the change.
        min_visibility: share of a box's area that must stay in the image, 0 to 1.

    Raises:
        ValueError: no such pipeline.

    >>> import numpy as np
    >>> out = detection_pipeline("none", seed=0)(
    ...     image=np.zeros((8, 8), np.uint8), bboxes=np.array([[1.0, 1, 5, 12]]),
    ...     labels=np.array([3]))
    >>> out["bboxes"].tolist(), [int(label) for label in out["labels"]]
    ([[1.0, 1.0, 5.0, 8.0]], [3])
    """
    steps = {
        "none": [A.NoOp()],
        "paper": [A.HorizontalFlip(p=0.5)],
        "demo": [
            A.Affine(
                scale=(0.9, 1.1),
                translate_percent=(-0.06, 0.06),
                rotate=(-5, 5),
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                p=0.8,
            ),
            A.RandomBrightnessContrast(0.15, 0.15, p=0.5),
        ],
    }
    if name not in steps:
        raise ValueError(f"pipeline {name!r} is none of {', '.join(PIPELINES)}")
    boxes = A.BboxParams(
        format="pascal_voc",
        label_fields=["labels"],
        clip=True,
        min_width=min_side,
        min_height=min_side,
        min_visibility=min_visibility,
    )
    return A.Compose(steps[name], bbox_params=boxes, seed=seed)


class CountedPipeline:
    """A pipeline that counts the boxes it meets and loses, in the process that calls it.

    A box that a small shift pushes out of the image is lost without a word, and so is one that is
    smaller than `min_side`. The counts say how much of the truth training never sees.

    Args:
        pipeline: as `detection_pipeline` makes it.

    Attributes:
        seen: boxes that went in, by label.
        lost: of these, boxes that did not come out.

    >>> import numpy as np
    >>> counted = CountedPipeline(detection_pipeline("none", seed=0))
    >>> thin = {"bboxes": np.array([[0.0, 0, 8, 1], [0, 0, 8, 8]]), "labels": np.array([1, 2])}
    >>> _ = counted(image=np.zeros((8, 8), np.uint8), **thin)
    >>> dict(counted.seen), dict(counted.lost)
    ({1: 1, 2: 1}, {1: 1})
    """

    def __init__(self, pipeline: A.Compose):
        self.pipeline = pipeline
        self.seen: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()

    def __call__(self, *, image, bboxes, labels) -> dict:
        """Change image and boxes, and count."""
        changed = self.pipeline(image=image, bboxes=bboxes, labels=labels)
        went_in = Counter(int(label) for label in labels)
        self.seen += went_in
        self.lost += went_in - Counter(int(label) for label in changed["labels"])
        return changed
