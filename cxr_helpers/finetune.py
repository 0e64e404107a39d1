"""Train a whole network, backbone and all, to name findings: from scratch or from given weights.

This is the second table of a linear evaluation: what the features become when they may change.
Scores of other images are taken along the way, so that the epoch can be chosen on validation
images, and so that choosing it on the test images can be shown for what it does.

Needs: numpy, pytorch-lightning, torch, torchvision.
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


class FinetuneError(ValueError):
    """Images, labels or settings that nothing can be trained with."""


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
        mean: subtracted from gray values in [0, 1]; one value, or one for each channel.
        std: divided by.
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


class Classifier(pl.LightningModule):
    """Backbone and a linear layer, trained with binary cross-entropy over all classes.

    Args:
        backbone: (B, 3, H, W) to (B, D).
        n_features: D.
        n_classes: K.
        recipe: image size, optimizer and normalization.
        total_steps: of the run, for the schedule.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        n_features: int,
        n_classes: int,
        recipe: Recipe,
        total_steps: int,
    ):
        super().__init__()
        self.backbone, self.recipe, self.total_steps = backbone, recipe, total_steps
        self.head = nn.Linear(n_features, n_classes)
        size = (recipe.image_size, recipe.image_size)
        self.augment = v2.RandomResizedCrop(size, recipe.crop_scale, (0.9, 1.1), antialias=True)
        self.resize = v2.Resize(size, antialias=True)

    def forward(self, gray: Tensor) -> Tensor:
        """(B, 1, H, W) gray in [0, 1] at the image size to (B, K) log-odds."""
        mean = torch.tensor(self.recipe.mean, device=gray.device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.recipe.std, device=gray.device).reshape(1, -1, 1, 1)
        images = ((gray - mean) / std).expand(-1, 3, -1, -1)
        return self.head(self.backbone(images.contiguous(memory_format=torch.channels_last)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of (B, H, W) uint8 images and (B, K) labels."""
        pixels, labels = batch
        gray = torch.stack([self.augment(image[None]) for image in pixels]).float() / 255
        return nn.functional.binary_cross_entropy_with_logits(self(gray), labels)

    def predict_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        """(B, K) log-odds of (B, H, W) uint8 images."""
        return self(self.resize(batch[0][:, None]).float() / 255)

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
    """(N, H, W) uint8 images to (N, K) log-odds; the module's mode is restored afterwards."""
    was_training = classifier.training
    classifier.eval()
    parts = []
    for start in range(0, len(pixels), batch_size):
        part = torch.from_numpy(np.array(pixels[start : start + batch_size]))
        parts.append(classifier.predict_step((part.to(classifier.device),), 0).float().cpu())
    classifier.train(was_training)
    return torch.cat(parts).numpy()


def step_count(n_images: int, recipe: Recipe) -> tuple[int, int]:
    """Steps an epoch and in all for so many images.

    >>> step_count(11, Recipe(image_size=64)), step_count(1000, Recipe(image_size=64))
    ((1, 60), (31, 248))
    """
    per_epoch = max(1, n_images // recipe.batch_size)
    return per_epoch, max(recipe.min_steps, recipe.epochs * per_epoch)


def train(
    backbone: nn.Module,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    watched: Mapping[str, np.ndarray],
    n_features: int,
    recipe: Recipe,
    precision: str = "32-true",
    seed: int,
) -> tuple[Classifier, list[dict[str, np.ndarray]]]:
    """Train backbone and head on images with labels.

    Args:
        backbone: (B, 3, H, W) to (B, D); its weights are changed, pass a copy to keep them.
        pixels: (N, H, W) uint8 training images.
        labels: (N, K) of 0 and 1.
        watched: name to (M, H, W) uint8 images that are scored along the way, never trained on.
        n_features: D.
        recipe: how to train.
        precision: Lightning's name of it.
        seed: of head, order and crops; the global random state is left as it was.

    Returns:
        The network after the last step, and for each check the (M, K) log-odds of each watched
        set, in order of time. The last check is the last step.

    Raises:
        FinetuneError: fewer than 2 images (batch norm needs them), or labels that do not fit.
    """
    if len(pixels) < 2 or labels.ndim != 2 or len(labels) != len(pixels):
        raise FinetuneError(
            f"{len(pixels)} images and labels of shape {labels.shape}: training needs at least 2 "
            "images and one row of labels for each; use a larger label fraction"
        )
    _, steps = step_count(len(pixels), recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Classifier(
            backbone.to(memory_format=torch.channels_last),
            n_features=n_features,
            n_classes=labels.shape[1],
            recipe=recipe,
            total_steps=steps,
        )
        watch = _Watch(watched, max(1, steps // recipe.checks))
        data = TensorDataset(
            torch.from_numpy(np.array(pixels)), torch.tensor(labels, dtype=torch.float32)
        )
        batch_size = min(recipe.batch_size, len(pixels))
        loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            precision=precision,
            devices=1,
            logger=False,
            callbacks=[watch],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    return module, watch.scores
