"""Feeds pairs of views to training: order and views follow from seed, epoch and image alone.

lightly's transforms draw from the global generators of torch and numpy. A loader's workers have
generators of their own, so another number of workers would give other views, and a run that goes
on from a checkpoint would not see what an unbroken one sees. Here the generators are set for each
image, from the seed, the epoch and the image's number, and put back afterwards.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pytorch-lightning, torch.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

Pair = tuple[Tensor, Tensor]


@contextmanager
def drawn_from(*key: int) -> Iterator[None]:
    """Within it torch, numpy and `random` draw on the CPU what the key says.

    Args:
        key: whole numbers, 0 or above, such as seed, epoch and image.

    >>> with drawn_from(0, 3, 7):
    ...     first = torch.rand(1)
    >>> with drawn_from(0, 3, 7):
    ...     bool(torch.rand(1) == first)
    True
    """
    with _put_back():
        _seed(key)
        yield


@contextmanager
def _put_back() -> Iterator[None]:
    """Afterwards torch, numpy and `random` go on where they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed(key: Sequence[int]) -> None:
    words = np.random.SeedSequence(key).generate_state(4)
    # torch.manual_seed would seed the GPUs as well, whose dropout and weights are not ours to set.
    torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words[2:])
    random.seed(int(words[3]))


class ImagePairs(Dataset):
    """Two views of each of some images; an item is asked for by epoch and place.

    Args:
        pixels: (N, H, W) array or tensor, uint8, or uint16 of the full range, or float in [0, 1];
            it may be memory-mapped.
        rows: which images, by number, or a mask (N,) of bool.
        make_views: called with one image (H, W), gives two tensors, as `views.TwoViews` does.
        seed: of the views, 0 or above.

    Raises:
        ValueError: the pixels are no gray images, a row is not there, or the rows are a mask of
            numbers.

    >>> pixels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    >>> noisy = ImagePairs(pixels, [1], lambda image: (torch.rand(1), torch.rand(1)), seed=0)
    >>> noisy[0, 0] == noisy[0, 0], noisy[0, 0] == noisy[1, 0]
    (True, False)
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: Sequence[int],
        make_views: Callable[[np.ndarray], Pair],
        *,
        seed: int,
    ):
        pixels, rows = np.asanyarray(pixels), np.asarray(rows)
        if pixels.ndim != 3:
            raise ValueError(f"expected gray images (N, H, W), got shape {pixels.shape}")
        if not (pixels.dtype in (np.uint8, np.uint16) or pixels.dtype.kind == "f"):
            raise ValueError(
                "expected images of uint8, uint16 of the full range or float in [0, 1], got "
                f"{pixels.dtype}"
            )
        if rows.dtype == bool and len(rows) == len(pixels):
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}; give the numbers of images")
        if len(rows) == len(pixels) > 2 and rows.max() <= 1:
            raise ValueError("rows are only 0 and 1, as a mask's; give a mask as bool")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(pixels):
            raise ValueError(
                f"rows from {rows.min()} to {rows.max()}, but there are {len(pixels)} images"
            )
        self.pixels, self.rows, self.make_views, self.seed = pixels, rows, make_views, int(seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: tuple[int, int]) -> Pair:
        """The views of an image in an epoch.

        Raises:
            TypeError: no pair of epoch and place came.
        """
        return self.__getitems__([at])[0]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[Pair]:
        """The views of several; torch's loader asks for a batch, and states are kept only once."""
        found = []
        with _put_back():
            for at in places:
                if not isinstance(at, tuple):
                    raise TypeError(
                        f"expected (epoch, place), got {at!r}; give the loader an EpochOrder"
                    )
                epoch, row = at[0], self.rows[at[1]]
                _seed((self.seed, epoch, row))
                first, second = self.make_views(np.array(self.pixels[row]))
                found.append((first, second))
        return found


class EpochOrder(DistributedSampler):
    """A new random order for each epoch, of pairs (epoch, place) as `ImagePairs` takes them.

    Lightning tells it the epoch through `set_epoch`.

    Args:
        images: whose places are ordered.
        seed: of the order.
        num_replicas: processes that share each epoch; what cannot be shared evenly is left out.
        rank: number of this one.

    >>> sorted(EpochOrder(["a", "b"], seed=0))
    [(0, 0), (0, 1)]
    """

    def __init__(self, images: Dataset, *, seed: int, num_replicas: int = 1, rank: int = 0):
        super().__init__(images, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, place) for place in super().__iter__()])


class ViewPairs(pl.LightningDataModule):
    """Batches of pairs of views for Lightning.

    A run that was killed and goes on from a checkpoint sees what an unbroken one would have seen,
    with any number of workers. Under several processes each gets its share of every batch.

    Args:
        pixels: (N, H, W), as `ImagePairs` takes them.
        rows: which of these images to use, by number, or a mask (N,) of bool.
        make_views: called with one image (H, W), gives two tensors, as `views.TwoViews` does.
        batch_size: images a step over all processes.
        seed: of order and views.
        workers: processes that make views. Without a GPU none are needed: the cores are busy with
            training as it is.

    Raises:
        ValueError: the images do not fill one batch, or images or rows are not as above.

    >>> pixels = np.zeros((4, 2, 2), np.uint8)
    >>> fed = ViewPairs(pixels, range(4), lambda image: (image, image), batch_size=2, seed=0)
    >>> len(fed.images)
    4
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: Sequence[int],
        make_views: Callable[[np.ndarray], Pair],
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ):
        super().__init__()
        self.images = ImagePairs(pixels, rows, make_views, seed=seed)
        count = len(self.images)
        if not 2 <= batch_size <= count:
            raise ValueError(
                f"batch_size {batch_size} does not fit {count} images; a batch needs at "
                "least 2 images and at most all of them: change batch_size or give more images"
            )
        self.batch_size, self.seed, self.workers = batch_size, seed, workers

    def train_dataloader(self) -> DataLoader:
        """Batches for this process.

        Raises:
            ValueError: the batch cannot be shared evenly among the processes.
        """
        world, rank = self.trainer.world_size, self.trainer.global_rank
        if self.batch_size % world:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of {world} processes")
        order = EpochOrder(self.images, seed=self.seed, num_replicas=world, rank=rank)
        order.set_epoch(self.trainer.current_epoch)  # workers read ahead before Lightning tells it
        return DataLoader(
            self.images,
            self.batch_size // world,
            sampler=order,
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
