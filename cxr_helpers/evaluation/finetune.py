"""Train a whole network, backbone and all, to name findings: from scratch or from given weights.

This is the second table of a linear evaluation: what the features become when they may change.
Scores of other images are taken along the way, so that the epoch can be chosen on validation
images, and so that choosing it on the test images can be shown for what it does.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, pytorch-lightning, torch, torchvision.
Goes with: checks.py, features.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from .checks import EvaluationError, as_array, binary_labels
from .features import GrayInput, check_gray, extract_features, to_unit


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        image_size: side in pixels that images are scaled to.
        epochs: passes over the images, but at least `min_steps` steps.
        min_steps: steps that a small set of images trains for.
        checks: how often, evenly over the run, the watched images are scored.
        batch_size: images a step, or all where there are fewer.
        learning_rate: of AdamW at its peak; a one-cycle schedule leads there and to zero.
        weight_decay: of AdamW.
        crop_scale: least and greatest share of an image that a random crop shows.
        mean: as in `features.GrayInput`.
        std: as in `features.GrayInput`.

    Raises:
        EvaluationError: a number that nothing can be trained with.
    """

    image_size: int
    epochs: int = 8
    min_steps: int = 60
    checks: int = 4
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    crop_scale: tuple[float, float] = (0.7, 1.0)
    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.25

    def __post_init__(self) -> None:
        for name in ("image_size", "checks", "batch_size"):
            if getattr(self, name) < 1:
                raise EvaluationError(f"{name} is {getattr(self, name)}; give 1 or more")
        if max(self.epochs, self.min_steps) < 1:
            raise EvaluationError(f"{self.epochs} epochs and {self.min_steps} steps train nothing")

    def steps(self, n_images: int) -> int:
        """Steps in all for so many images.

        >>> Recipe(image_size=64).steps(11), Recipe(image_size=64).steps(1000)
        (60, 248)
        """
        return max(self.min_steps, self.epochs * max(1, n_images // self.batch_size))


class Classifier(pl.LightningModule):
    """Backbone and a linear layer, trained with binary cross-entropy over all classes.

    Args:
        backbone: (B, C, H, W) to (B, D), with C as in `features.GrayInput`.
        n_classes: K.
        recipe: image size, optimizer and normalization.
        total_steps: of the run, for the schedule.

    Raises:
        EvaluationError: the backbone takes another number of channels, or not as many as the recipe
            normalizes, or gives no (B, D).

    >>> backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> classifier = Classifier(backbone, n_classes=2, recipe=Recipe(image_size=8), total_steps=1)
    >>> classifier(torch.zeros(4, 1, 8, 8)).shape
    torch.Size([4, 2])
    """

    def __init__(self, backbone: nn.Module, *, n_classes: int, recipe: Recipe, total_steps: int):
        super().__init__()
        self.backbone, self.recipe, self.total_steps = backbone, recipe, total_steps
        self.prepare = GrayInput(backbone, mean=recipe.mean, std=recipe.std)
        self.head = nn.Linear(_width(backbone, recipe), n_classes)
        size = (recipe.image_size, recipe.image_size)
        self.augment = v2.RandomResizedCrop(size, recipe.crop_scale, (0.9, 1.1), antialias=True)
        self.resize = v2.Resize(size, antialias=True)

    def forward(self, gray: Tensor) -> Tensor:
        """(B, 1, H, W) gray in [0, 1] at the image size to (B, K) log-odds."""
        return self.head(self.backbone(self.prepare(gray)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of (B, H, W) images, as `_gray` gives them, and (B, K) labels."""
        pixels, labels = batch
        gray = _in_unit(torch.stack([self.augment(image[None]) for image in pixels]))
        return nn.functional.binary_cross_entropy_with_logits(self(gray), labels)

    def predict_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        """(B, K) log-odds of (B, H, W) images, as `_gray` gives them."""
        return self(_in_unit(self.resize(batch[0][:, None])))

    def configure_optimizers(self):
        """AdamW with a one-cycle schedule."""
        optimizer = torch.optim.AdamW(
            self.parameters(), self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.learning_rate, total_steps=self.total_steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class _Watch(Callback):
    """Scores the watched images every few steps."""

    def __init__(self, pixels: Mapping[str, np.ndarray], every: int):
        self.pixels, self.every = pixels, every
        self.scores: list[dict[str, np.ndarray]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.every and trainer.global_step < module.total_steps:
            return
        with trainer.precision_plugin.forward_context():
            self.scores.append({name: score(module, p) for name, p in self.pixels.items()})


@torch.inference_mode()
def score(classifier: Classifier, pixels: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """(N, H, W) images to (N, K) log-odds; the module's mode is restored afterwards.

    Args:
        classifier: as `train` returns it.
        pixels: array or tensor: uint8, uint16 of the full range, or float in [0, 1]. N may be 0.
        batch_size: images at once.

    Raises:
        EvaluationError: the pixels have another shape, type or range.

    >>> backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> classifier = Classifier(backbone, n_classes=2, recipe=Recipe(image_size=8), total_steps=1)
    >>> score(classifier, np.zeros((4, 16, 16), np.uint8)).shape
    (4, 2)
    """
    pixels = _gray(pixels, "image")
    was_training = classifier.training
    classifier.eval()
    parts = [torch.zeros(0, classifier.head.out_features)]
    try:
        for part in pixels.split(batch_size) if len(pixels) else ():
            parts.append(classifier.predict_step((part.to(classifier.device),), 0).float().cpu())
    finally:
        classifier.train(was_training)
    return torch.cat(parts).numpy()


def _width(backbone: nn.Module, recipe: Recipe) -> int:
    """How many features a backbone gives, seen on a black image."""
    size, weight = recipe.image_size, next(backbone.parameters(), torch.zeros(0))
    black = np.zeros((1, size, size), np.uint8)
    norm = {"mean": recipe.mean, "std": recipe.std}
    options = {"image_size": size, "device": weight.device, **norm}
    return extract_features(backbone, black, **options).shape[1]


def _gray(pixels: np.ndarray, name: str) -> Tensor:
    """(N, H, W) as uint8, or as float32 in [0, 1]; `name` is what the images are."""
    pixels = check_gray(pixels, name)
    if "uint8" not in str(pixels.dtype):
        return to_unit(pixels, name=name)
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.require(pixels, requirements="CW"))  # copied if read-only
    return pixels.cpu()


def _in_unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _labels(labels: np.ndarray, n_images: int) -> Tensor:
    """(N, K) float32 of 0 and 1; one that is not known has no loss here, so it is refused."""
    shape = np.shape(as_array(labels))
    if n_images < 2 or len(shape) != 2 or shape[0] != n_images or not shape[1]:
        raise EvaluationError(
            f"{n_images} images and labels of shape {shape}: training needs at least 2 images and "
            "one row of labels for each; use a larger label fraction"
        )
    return torch.from_numpy(binary_labels(labels).astype(np.float32))


def train(
    backbone: nn.Module,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    watched: Mapping[str, np.ndarray],
    recipe: Recipe,
    precision: str = "32-true",
    accelerator: str = "auto",
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
    seed: int,
) -> tuple[Classifier, list[dict[str, np.ndarray]]]:
    """Train backbone and head on images with labels.

    Args:
        backbone: (B, C, H, W) to (B, D), with C as in `features.GrayInput`; its weights are
            changed, pass a copy to keep them.
        pixels: (N, H, W) training images, array or tensor: uint8, uint16 of the full range, or
            float in [0, 1].
        labels: (N, K) of 0 and 1, of any type of number or of bool. A label that is not known
            (NaN, -1) is refused: each class counts in each image's loss.
        watched: name to (M, H, W) images that are scored along the way, never trained on.
        recipe: how to train.
        precision: Lightning's name of it.
        accelerator: Lightning's name of it, such as `cpu`.
        callbacks: more of Lightning's.
        progress: whether a bar is drawn.
        seed: of head, order and crops; the global random state is left as it was.

    Returns:
        The network after the last step, and for each check the (M, K) log-odds of each watched
        set, in order of time. The last check is the last step.

    Raises:
        EvaluationError: fewer than 2 images (batch norm needs them), images of another kind, labels
            that do not fit or are not 0 or 1, or a backbone that is none.

    >>> backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> images = np.zeros((2, 8, 8), np.uint8)
    >>> recipe = Recipe(image_size=8, epochs=1, min_steps=2, checks=1)
    >>> options = {"watched": {"val": images}, "recipe": recipe, "accelerator": "cpu", "seed": 0}
    >>> classifier, checks = train(backbone, images, [[0], [1]], **options)
    >>> [check["val"].shape for check in checks]
    [(2, 1)]
    """
    pixels = _gray(pixels, "image")
    labels = _labels(labels, len(pixels))
    watched = {name: _gray(images, f"watched {name} image") for name, images in watched.items()}
    steps = recipe.steps(len(pixels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Classifier(
            backbone.to(memory_format=torch.channels_last),
            n_classes=labels.shape[1],
            recipe=recipe,
            total_steps=steps,
        )
        watch = _Watch(watched, max(1, steps // recipe.checks))
        data = TensorDataset(pixels, labels)
        batch_size = min(recipe.batch_size, len(pixels))
        loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            precision=precision,
            accelerator=accelerator,
            devices=1,
            logger=False,
            callbacks=[watch, *callbacks],
            enable_progress_bar=progress,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    return module, watch.scores
