"""Two random views of a whole batch of gray images at once, and the data module that feeds them.

The recipes are those of lightly's BYOLView1Transform and BYOLView2Transform, which take one image
at a time through Pillow. Here every image of a batch gets its own random numbers, drawn from the
same distributions, and all are changed together. Cropping, flipping and resizing an image is one
product with a matrix from each side, and so is blurring: each row of such a matrix holds the
weights of one pixel of the result. Pillow rounds to bytes after each step and this does not, so
that the two differ by about one gray value.

Source: Zbontar et al. 2021, appendix A (arXiv 2103.03230), for the augmentations; Pillow's
`Image.resize` (bilinear, antialiased) and `ImageFilter.GaussianBlur` (three box blurs).

From cxr-helpers 0.1.0 (MIT license).
Needs: numpy, pytorch-lightning, torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

RATIO = (3 / 4, 4 / 3)  # width to height of a crop, torchvision's default
TRIES = 10  # crops drawn for each image until one fits, as in torchvision
SETTINGS = {
    "min_scale",
    "hf_prob",
    "cj_prob",
    "cj_bright",
    "cj_contrast",
    "sigmas",
    "gaussian_blur",
    "solarization_prob",
}
TYPES = "uint8, uint16 of the full range or float in [0, 1]"  # of gray values
IDLE_ON_GRAY = {"cj_sat", "cj_hue", "random_gray_scale"}  # nothing to draw for these


@dataclass(frozen=True)
class ViewDraws:
    """What was drawn for one view of each of B images.

    Attributes:
        box: (B, 4) int, top, left, height and width of the crop in pixels.
        flip: (B,) bool.
        brightness: (B,) factor; 1 leaves the image as it is.
        contrast: (B,) factor of the distance to the mean; 1 leaves the image as it is.
        contrast_first: (B,) bool, the order of these two.
        sigma: (B,) standard deviation of the blur in pixels of the view; 0 is none.
        solarize: (B,) bool.
    """

    box: Tensor
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    contrast_first: Tensor
    sigma: Tensor
    solarize: Tensor

    def to(self, device: torch.device) -> "ViewDraws":
        """The same draws on another device."""
        return ViewDraws(*(getattr(self, f.name).to(device) for f in fields(self)))

    def of(self, images: slice) -> "ViewDraws":
        """The draws of some of the images."""
        return ViewDraws(*(getattr(self, f.name)[images] for f in fields(self)))


def draw_boxes(
    count: int, image_hw: tuple[int, int], *, min_scale: float, generator: torch.Generator
) -> Tensor:
    """Random crops as torchvision's RandomResizedCrop draws them.

    Args:
        count: number of images.
        image_hw: their height and width in pixels.
        min_scale: least share of the image's area; the most is 1.
        generator: source of the draws.

    Returns:
        (count, 4) int64: top, left, height, width. Where none of ten tries fits into the image,
        the largest central crop with an allowed ratio.
    """
    height, width = image_hw
    area = height * width * (min_scale + (1 - min_scale) * _uniform((count, TRIES), generator))
    low, high = np.log(RATIO)
    ratio = torch.exp(low + (high - low) * _uniform((count, TRIES), generator))
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
    none = ~fits.any(dim=1)
    h[none] = min(height, round(width / RATIO[0]))
    w[none] = min(width, round(height * RATIO[1]))
    top = (_uniform((count,), generator) * (height - h + 1)).long()
    left = (_uniform((count,), generator) * (width - w + 1)).long()
    top[none], left[none] = (height - h[none]) // 2, (width - w[none]) // 2
    return torch.stack([top, left, h, w], dim=1)


def share_in_view(boxes_xyxy: Tensor, crops: Tensor) -> Tensor:
    """How much of each finding is still in view after each crop.

    Args:
        boxes_xyxy: (N, 4) x_min, y_min, x_max, y_max in pixels of the image.
        crops: (C, 4) top, left, height, width, as `draw_boxes` gives them.

    Returns:
        (C, N) share of each box's area that lies inside each crop, in [0, 1].

    Raises:
        ValueError: boxes or crops of another shape, or a box without an area.

    >>> crop = torch.tensor([[0, 0, 10, 5]])  # the left half of an image of 10 x 10
    >>> share_in_view(torch.tensor([[4.0, 0.0, 8.0, 2.0]]), crop).tolist()
    [[0.25]]
    """
    boxes_xyxy, crops = torch.as_tensor(boxes_xyxy), torch.as_tensor(crops)
    if not (boxes_xyxy.ndim == crops.ndim == 2 and boxes_xyxy.shape[1] == crops.shape[1] == 4):
        raise ValueError(
            f"expected (N, 4) boxes and (C, 4) crops, got {tuple(boxes_xyxy.shape)} and "
            f"{tuple(crops.shape)}"
        )
    if not (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all():
        raise ValueError("a box has no area; give x_min, y_min, x_max, y_max")
    top, left, height, width = crops[:, :, None].unbind(dim=1)  # (C, 1) each
    x_min, y_min, x_max, y_max = boxes_xyxy.T  # (N,) each
    seen_w = (torch.minimum(x_max, left + width) - torch.maximum(x_min, left)).clamp_min(0)
    seen_h = (torch.minimum(y_max, top + height) - torch.maximum(y_min, top)).clamp_min(0)
    return seen_w * seen_h / ((x_max - x_min) * (y_max - y_min))


def draw(
    settings: dict, count: int, image_hw: tuple[int, int], generator: torch.Generator
) -> ViewDraws:
    """Draw what happens to each of `count` images in one view.

    Args:
        settings: keyword arguments of lightly's BYOLView1Transform: min_scale, hf_prob, cj_prob,
            cj_bright, cj_contrast, sigmas, gaussian_blur, solarization_prob. Those of saturation,
            hue and grayscale may be there; they do nothing on gray images.
        count: number of images.
        image_hw: their height and width in pixels.
        generator: source of the draws.

    Raises:
        ValueError: a setting is missing, is none of these, or is out of its range.
    """
    if missing := SETTINGS - settings.keys():
        raise ValueError(f"the recipe of a view lacks {sorted(missing)}")
    if unknown := settings.keys() - SETTINGS - IDLE_ON_GRAY:
        raise ValueError(f"the recipe of a view has {sorted(unknown)}, which is not made here")
    s = settings
    chances = ("hf_prob", "cj_prob", "gaussian_blur", "solarization_prob")
    if not (0 < s["min_scale"] <= 1 and all(0 <= s[name] <= 1 for name in chances)):
        told = {name: s[name] for name in ("min_scale", *chances)}
        raise ValueError(f"{told}: min_scale is a share above 0, up to 1, and each chance up to 1")
    if not 0 <= s["sigmas"][0] <= s["sigmas"][1]:
        raise ValueError(f"sigmas is {s['sigmas']}; give the least and the most, not negative")

    def chance(probability: float) -> Tensor:
        return _uniform((count,), generator) < probability

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * _uniform((count,), generator)

    jittered = chance(s["cj_prob"])
    one = torch.ones(count)
    return ViewDraws(
        box=draw_boxes(count, image_hw, min_scale=s["min_scale"], generator=generator),
        flip=chance(s["hf_prob"]),
        brightness=torch.where(jittered, between(1 - s["cj_bright"], 1 + s["cj_bright"]), one),
        contrast=torch.where(jittered, between(1 - s["cj_contrast"], 1 + s["cj_contrast"]), one),
        contrast_first=chance(0.5),
        sigma=between(*s["sigmas"]) * chance(s["gaussian_blur"]),
        solarize=chance(s["solarization_prob"]),
    )


def apply(images: Tensor, draws: ViewDraws, image_size: int) -> Tensor:
    """Make one view of each image.

    Args:
        images: (B, H, W) float in [0, 1].
        draws: for these B images.
        image_size: side S of a view in pixels.

    Returns:
        (B, S, S) float in [0, 1].
    """
    top, left, height, width = draws.box.unbind(dim=1)
    rows = resize_matrix(images.shape[1], image_size, top, height)  # (B, S, H)
    columns = resize_matrix(images.shape[2], image_size, left, width)  # (B, S, W)
    columns = torch.where(draws.flip[:, None, None], columns.flip(1), columns)
    views = rows @ images @ columns.mT  # (B, S, S)
    views = _jitter(views, draws)
    blur = blur_matrix(image_size, draws.sigma)  # (B, S, S)
    views = blur @ views @ blur.mT
    inverted = torch.where(views >= 0.5, 1 - views, views)
    return torch.where(draws.solarize[:, None, None], inverted, views)


def resize_matrix(length: int, size: int, start: Tensor, extent: Tensor) -> Tensor:
    """Weights that crop a line of pixels and resize it, bilinear and antialiased as in Pillow.

    Args:
        length: pixels of the line.
        size: pixels S of the result.
        start: (B,) first pixel of the crop.
        extent: (B,) pixels of the crop.

    Returns:
        (B, S, length), each row sums to 1.

    >>> (7 * resize_matrix(4, 2, torch.tensor([0]), torch.tensor([4]))).round().tolist()
    [[[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]]
    """
    device = start.device
    pixel = torch.arange(length, device=device) + 0.5  # centers, (length,)
    step = extent[:, None, None] / size  # (B, 1, 1) pixels of the line for one of the result
    center = start[:, None, None] + (torch.arange(size, device=device)[:, None] + 0.5) * step
    weight = (1 - (pixel - center).abs() / step.clamp_min(1)).clamp_min(0)  # (B, S, length)
    first, end = start[:, None, None], (start + extent)[:, None, None]
    weight = weight * ((pixel > first) & (pixel < end))
    return weight / weight.sum(dim=2, keepdim=True)


def blur_matrix(size: int, sigma: Tensor) -> Tensor:
    """Weights that blur a line of pixels as Pillow does: three box blurs for one Gaussian.

    Args:
        size: pixels S of the line; beyond its ends its last pixels go on.
        sigma: (B,) standard deviation in pixels; 0 leaves the line as it is.

    Returns:
        (B, S, S), each row sums to 1.

    Source: Gwosdek et al. 2011, 'Theoretical foundations of Gaussian convolution by extended box
    filtering', equations 7, 11 and 14, as in Pillow's BoxBlur.c.

    >>> [round(x, 3) for x in blur_matrix(5, torch.tensor([0.5]))[0, 2].tolist()]
    [0.005, 0.105, 0.78, 0.105, 0.005]
    """
    variance = sigma[:, None, None] ** 2 / 3  # (B, 1, 1) of one of the three boxes
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    radius = whole + part / (6 * (variance - (whole + 1) ** 2))  # a box of 2 radius + 1 pixels
    reach = int(radius.max().ceil()) + 1 if len(sigma) else 1
    position = torch.arange(-reach, size + reach, device=sigma.device)
    pixel = torch.arange(size, device=sigma.device)[:, None]
    weight = (radius + 1 - (position - pixel).abs()).clamp(0, 1) / (2 * radius + 1)
    box = weight[..., reach : reach + size].clone()  # (B, S, S)
    box[..., 0] += weight[..., :reach].sum(dim=2)
    box[..., -1] += weight[..., reach + size :].sum(dim=2)
    return box @ box @ box


def _jitter(views: Tensor, draws: ViewDraws) -> Tensor:
    """Brightness and contrast in the drawn order, each cut off at 0 and 1 as in Pillow."""
    first = draws.contrast_first[:, None, None]
    brightness = draws.brightness[:, None, None]
    contrast = draws.contrast[:, None, None]

    def brighten(x: Tensor) -> Tensor:
        return (x * brightness).clamp(0, 1)

    def stretch(x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2), keepdim=True)
        return (mean + (x - mean) * contrast).clamp(0, 1)

    views = torch.where(first, stretch(views), views)
    views = brighten(views)
    return torch.where(first, views, stretch(views))


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator)


class BatchViews:
    """Makes two views of every image of a batch.

    Args:
        first: settings of the first view (see `draw`).
        second: settings of the second view.
        image_size: side of a view in pixels.
        mean: subtracted from gray values in [0, 1].
        std: divided by.

    Raises:
        ValueError: the size or the standard deviation is not positive, or a recipe has wrong
            settings.
    """

    def __init__(
        self, first: dict, second: dict, image_size: int, *, mean: float = 0.5, std: float = 0.25
    ):
        if image_size < 1:
            raise ValueError(f"image_size is {image_size}; give the side of a view in pixels")
        if not std > 0:
            raise ValueError(f"std is {std}; it must be above 0")
        for settings in (first, second):
            draw(settings, 0, (1, 1), torch.Generator())
        self.sides, self.image_size, self.mean, self.std = (first, second), image_size, mean, std

    def __call__(
        self, images: Tensor, generator: torch.Generator, *, rank: int = 0, world: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Two views of each image.

        Args:
            images: (B, H, W) tensor or array, uint8, or uint16 of the full range, or float in
                [0, 1].
            generator: source of the draws, on the CPU.
            rank: these images are numbers rank, rank + world, ... of a larger batch, and get the
                views that they would get in it.
            world: how many processes share that batch.

        Returns:
            Two tensors (B, 1, image_size, image_size), normalized float32.

        Raises:
            ValueError: images of another shape, type or range.
        """
        images = to_unit_range(images)
        views = []
        for settings in self.sides:
            draws = draw(settings, len(images) * world, images.shape[1:], generator)
            draws = draws.of(slice(rank, None, world))
            view = apply(images, draws.to(images.device), self.image_size)
            views.append(((view - self.mean) / self.std)[:, None])
        return views[0], views[1]


def to_unit_range(images: Tensor) -> Tensor:
    """Gray images as float32 in [0, 1].

    Args:
        images: (B, H, W) tensor or array, uint8, or uint16 of the full range, or float in [0, 1].

    Raises:
        ValueError: images of another shape, type or range; or uint16 whose highest bit is never
            set, so that they hold fewer bits.

    >>> to_unit_range(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist()
    [[[0.0, 1.0]]]
    """
    try:
        images = torch.as_tensor(images)
    except TypeError as error:
        raise ValueError(
            f"expected {TYPES}, got {getattr(images, 'dtype', type(images))}"
        ) from error
    if images.ndim != 3:
        raise ValueError(f"expected gray images (B, H, W), got shape {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if images.dtype == torch.uint16:
        values = images.float()
        if values.numel() and 0 < (top := int(values.max())) < 32768:
            raise ValueError(
                f"expected uint16 of the full range, got values up to {top}, which hold "
                f"{top.bit_length()} bits; scale them to 65535, or pass floats in [0, 1]"
            )
        return values / 65535
    if not images.is_floating_point():
        span = f" from {images.min().item()} to {images.max().item()}" if images.numel() else ""
        raise ValueError(
            f"expected {TYPES}, got {images.dtype}{span}; convert them to one of these"
        )
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"expected floats in [0, 1], got {images.min():g} to {images.max():g}; scale them first"
        )
    return images.float()


class GrayImages(Dataset):
    """Rows of an array of gray images (N, H, W), which may be memory-mapped, as tensors.

    Args:
        pixels: array or tensor.
        rows: which images, by number, or a mask (N,) of bool.

    Raises:
        ValueError: the pixels are no images, or a row is not there.
    """

    def __init__(self, pixels: np.ndarray, rows: Sequence[int]):
        pixels, rows = np.asanyarray(pixels), np.asarray(rows)
        if pixels.ndim != 3:
            raise ValueError(f"expected gray images (N, H, W), got shape {pixels.shape}")
        if not (pixels.dtype in (np.uint8, np.uint16) or pixels.dtype.kind == "f"):
            raise ValueError(f"expected images of {TYPES}, got {pixels.dtype}")
        if rows.dtype == bool and len(rows) == len(pixels):
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise ValueError(f"rows are {rows.dtype} {rows.shape}; give the numbers of images")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(pixels):
            raise ValueError(
                f"rows from {rows.min()} to {rows.max()}, but there are {len(pixels)} images"
            )
        self.pixels, self.rows = pixels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.pixels[self.rows[index]]))

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """A whole batch (B, H, W) in one copy; torch's loader asks for it where it is there."""
        return torch.from_numpy(np.asarray(self.pixels[self.rows[np.asarray(indices)]]))


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


class ViewPairs(pl.LightningDataModule):
    """Feeds pairs of views; what a step sees depends on seed, epoch and step alone.

    So a run that was killed and goes on from a checkpoint sees what an unbroken one would have
    seen. Under several processes each gets its share of every batch, and the images in it get the
    views that one process would have given them.

    Args:
        pixels: (N, H, W) uint8, or uint16 of the full range, or float in [0, 1].
        rows: which of these images to use, by number, or a mask (N,) of bool.
        make_views: called with a batch (B, H, W) and a generator, as BatchViews is; under several
            processes also with `rank` and `world`.
        batch_size: images a step over all processes.
        seed: of order and views.
        workers: processes that read ahead; none are needed for a packed cache.

    Raises:
        ValueError: the images do not fill one batch, or images or rows are not as above.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: Sequence[int],
        make_views: Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]],
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ):
        super().__init__()
        self.dataset, self.make_views = GrayImages(pixels, rows), make_views
        count = len(self.dataset)
        if not 2 <= batch_size <= count:
            raise ValueError(
                f"batch_size {batch_size} does not fit {count} images; a batch needs at "
                "least 2 images and at most all of them: change batch_size or give more images"
            )
        self.batch_size, self.seed, self.workers = batch_size, seed, workers

    def train_dataloader(self) -> DataLoader:
        """Batches of images for this process; Lightning tells the sampler each new epoch.

        Raises:
            ValueError: the batch cannot be shared evenly among the processes.
        """
        world, rank = self.trainer.world_size, self.trainer.global_rank
        if self.batch_size % world:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of {world} processes")
        sampler = DistributedSampler(
            self.dataset, num_replicas=world, rank=rank, seed=self.seed, drop_last=True
        )
        sampler.set_epoch(self.trainer.current_epoch)  # workers read ahead before Lightning does
        return DataLoader(
            self.dataset,
            self.batch_size // world,
            sampler=sampler,
            drop_last=True,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Make the views where the batch is, on the processor or on the GPU."""
        parts = [self.seed, self.trainer.global_step, 0]
        seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
        world, rank = self.trainer.world_size, self.trainer.global_rank
        share = {"rank": rank, "world": world} if world > 1 else {}
        return self.make_views(batch, torch.Generator().manual_seed(seed), **share)
