"""Augmentation for detection: albumentations pipelines that move image and boxes together.

A loader's workers work on copies of a pipeline, made anew for each epoch. albumentations' own
generator would be copied along, and all workers and epochs would get the same draws. Here each
call draws from the seed and from where and when it is made; and with `EpochImages` and
`EpochOrder` from seed, epoch and place of the image alone, so that any number of workers gives the
same pictures, and a run that was killed goes on as an unbroken one.

albumentations has had no release since June 2025. torchvision's transforms, `v2`, move boxes too.
This is nearly the pipeline `demo`, for a dict of image, labels and `tv_tensors.BoundingBoxes`. It
draws one zoom for both directions, and keeps a box however little of it is left::

    v2.Compose([
        v2.RandomApply([v2.RandomAffine(5, translate=(0.06, 0.06), scale=(0.9, 1.1))], p=0.8),
        v2.RandomApply([v2.ColorJitter(brightness=0.15, contrast=0.15)], p=0.5),
        v2.SanitizeBoundingBoxes(min_size=2),
    ])

From cxr-helpers 0.2.0 (MIT license).
Needs: albumentations, numpy, torch.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# albumentations asks PyPI for a newer version while it is imported, and waits for the answer:
# without a network that is seconds for every process.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import Dataset, DistributedSampler, get_worker_info  # noqa: E402

PIPELINES = ("demo", "paper", "none")


def detection_pipeline(
    name: str, *, seed: int, min_side: float = 2.0, min_visibility: float = 0.3
) -> "DetectionPipeline":
    """A pipeline to be called as `pipeline(image=..., bboxes=..., labels=...)`.

    - `demo`: small shifts, zooms and rotations, brightness and contrast. No mirroring: the heart
      lies on one side, and findings such as an enlarged aorta do too.
    - `paper`: horizontal flip at one half, as the paper's code trains.
    - `none`: the image as it is; boxes are clipped to it all the same.

    A box that leaves the image is clipped to it. One of which less than `min_visibility` of the
    area is left, or with a side under `min_side`, is dropped together with its label.

    Args:
        name: one of the above.
        seed: of all draws, 0 or above; how they follow from it says `DetectionPipeline`.
        min_side: shortest side of a box in pixels after the change.
        min_visibility: share of the area that a box had in the image that must stay, 0 to 1.

    Raises:
        ValueError: no such pipeline, or a number is out of range.

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
                p=0.8,
            ),
            A.RandomBrightnessContrast(0.15, 0.15, p=0.5),
        ],
    }
    if name not in steps:
        raise ValueError(f"pipeline {name!r} is none of {', '.join(PIPELINES)}")
    if not (seed >= 0 and min_side >= 0 and 0 <= min_visibility <= 1):
        raise ValueError(
            f"seed {seed} and min_side {min_side} must be 0 or above, and min_visibility "
            f"{min_visibility} in 0 to 1"
        )
    boxes = A.BboxParams(
        format="pascal_voc",
        label_fields=["labels"],
        clip=True,
        min_width=min_side,
        min_height=min_side,
        min_visibility=min_visibility,
    )
    return DetectionPipeline(steps[name], bbox_params=boxes, seed=int(seed))


class DetectionPipeline(A.Compose):
    """A pipeline that draws anew at each call, in each worker of a loader and in each epoch.

    Inside `with pipeline.at(epoch, index):` a call draws what seed, epoch and index say. Elsewhere
    it draws what seed and number of the call say, and in a loader's worker also the seed that
    torch gives each worker in each epoch.

    Args:
        steps: of albumentations.
        bbox_params: for boxes xyxy in pixels, with `labels`.
        seed: of all draws, 0 or above.

    >>> pipeline = detection_pipeline("demo", seed=0)
    >>> item = {"image": np.eye(64), "bboxes": [[8, 8, 32, 32]], "labels": [1]}
    >>> with pipeline.at(epoch=3, index=5):
    ...     first = pipeline(**item)["bboxes"]
    >>> with pipeline.at(epoch=3, index=5):
    ...     np.array_equal(pipeline(**item)["bboxes"], first)
    True
    """

    def __init__(self, steps: list, *, bbox_params: A.BboxParams, seed: int):
        super().__init__(steps, bbox_params=bbox_params, seed=seed)
        self.calls, self.place = 0, None

    @contextmanager
    def at(self, epoch: int, index: int) -> Iterator[None]:
        """Within it, draws depend on seed, epoch and index alone."""
        self.place = (int(epoch), int(index))
        try:
            yield
        finally:
            self.place = None

    def __call__(self, *, image, bboxes, labels) -> dict:
        """Change image and boxes together.

        Args:
            image: (H, W) or (H, W, C), uint8, uint16, or float in [0, 1]; array or tensor.
            bboxes: (n, 4) xyxy in pixels; n may be 0.
            labels: (n,).

        Returns:
            `image` (float32 where a float came in), `bboxes` (m, 4), `labels` (m,), m <= n.

        Raises:
            ValueError: an image of another shape, type or range, a box that is not finite or ends
                before it begins, or not a label for each box.
        """
        image, boxes, labels = _image(image), _boxes(bboxes), _array(labels)
        if len(boxes) != len(labels):
            raise ValueError(f"{len(boxes)} boxes with {len(labels)} labels; give one for each")
        height, width = image.shape[:2]
        inside = np.minimum(boxes[:, 2:], [width, height]) > np.maximum(boxes[:, :2], 0)
        kept = inside.all(axis=1)  # albumentations takes no box without area in the image
        generator = np.random.default_rng(self._entropy())
        own = random.Random(int(generator.integers(2**62)))
        self.set_random_state(generator, own)  # one stream for all steps
        return super().__call__(image=image, bboxes=boxes[kept], labels=labels[kept])

    def _entropy(self) -> list[int]:
        if self.place is not None:
            return [self.seed, 0, *self.place]
        worker = get_worker_info()
        self.calls += 1
        return [self.seed, 1, self.calls] + ([worker.seed] if worker is not None else [])


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def _image(image) -> np.ndarray:
    image = _array(image)
    if image.ndim not in (2, 3) or image.ndim == 3 and image.shape[2] > 4 or 0 in image.shape:
        raise ValueError(f"image of shape {image.shape}; expected (H, W) or (H, W, channels)")
    if image.dtype in (np.uint8, np.uint16):
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image of {image.dtype}; make it uint8, or float in [0, 1]")
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"image from {image.min():g} to {image.max():g}; scale floats to [0, 1]")
    return image.astype(np.float32)


def _boxes(boxes_xyxy) -> np.ndarray:
    boxes = _array(boxes_xyxy)
    boxes = boxes.astype(np.float64).reshape(boxes.shape if boxes.size else (0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes of shape {boxes.shape}; expected (n, 4)")
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"box {boxes[wrong][0].tolist()}; expected finite x_min, y_min, x_max, y_max"
        )
    return boxes


class EpochOrder(DistributedSampler):
    """A new random order for each epoch, of pairs (epoch, index) as `EpochImages` takes them.

    Lightning tells it the epoch through `set_epoch`. In a loop of one's own each pass is the next
    epoch, and `set_epoch` goes back or on to another.

    Args:
        dataset: whose places are ordered.
        seed: of the order.
        num_replicas: processes that share each epoch; what cannot be shared evenly is left out.
        rank: number of this one.

    >>> order = EpochOrder(["a", "b"], seed=0)
    >>> sorted(order), sorted(order)
    ([(0, 0), (0, 1)], [(1, 0), (1, 1)])
    """

    def __init__(self, dataset, *, seed: int, num_replicas: int = 1, rank: int = 0):
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices, epoch = list(super().__iter__()), self.epoch
        self.set_epoch(epoch + 1)
        return iter([(epoch, index) for index in indices])


class EpochImages(Dataset):
    """A data set whose draws depend on seed, epoch and index alone, whatever worker makes them.

    Args:
        dataset: calls the pipeline for the item of an index.
        pipeline: that it calls, directly or through a `CountedPipeline`.

    >>> images = EpochImages(["a", "b"], detection_pipeline("none", seed=0))
    >>> sorted(images[place] for place in EpochOrder(images, seed=0))
    ['a', 'b']
    """

    def __init__(self, dataset: Dataset, pipeline: DetectionPipeline):
        self.dataset, self.pipeline = dataset, pipeline

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]):
        """The item of an index in an epoch.

        Raises:
            TypeError: no pair of epoch and index came.
        """
        if not isinstance(place, tuple):
            raise TypeError(f"expected (epoch, index), got {place!r}; give the loader EpochOrder")
        with self.pipeline.at(*place):
            return self.dataset[place[1]]


class CountedPipeline:
    """A pipeline that counts the boxes it meets and loses, in the process that calls it.

    A box that a small shift pushes out of the image is lost without a word, and so is one that is
    smaller than `min_side`. The counts say how much of the truth training never sees. A loader's
    workers count in copies of their own, which end with them: count without workers.

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

    def __init__(self, pipeline: DetectionPipeline):
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
