"""Barlow Twins in the order of notebook 02: the loss, the network, its training, its features.

Two views of each image go through backbone and projector. The cross-correlation matrix of the two
outputs, taken over the batch, is pulled towards the identity: ones on the diagonal (a feature says
the same of both views), zeros elsewhere (no two features say the same).

A whole run on gray images `pixels` (N, H, W), uint8, with `pairs.py`, `views.py` and `weights.py`:

    fed = ViewPairs(pixels, range(len(pixels)), TwoViews("demo", 64), batch_size=128, seed=0)
    steps = 40 * (len(pixels) // 128)
    module = BarlowTwins(build_backbone("resnet18", seed=0), total_steps=steps)
    trainer = pl.Trainer(max_epochs=40)
    trainer.fit(module, fed)
    save_weights(module.backbone.state_dict(), "backbone.safetensors", settings={"epochs": 40})

Source: Zbontar et al. 2021, equations 1 and 2 (arXiv 2103.03230).

From cxr-helpers 0.2.0 (MIT license).
Needs: lightly, pytorch-lightning, torch, torchvision.
"""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
import torchvision
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.dist import gather, world_size
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import Tensor, nn

ARCHITECTURES = ("resnet18", "resnet50")


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Cross-correlation of two batches of outputs, over the batch.

    Args:
        z_a: (B, D) outputs for the first views.
        z_b: (B, D) outputs for the second views of the same images.

    Returns:
        (D, D), entries in [-1, 1]; a feature that does not vary over the batch gives 0.

    Raises:
        ValueError: the shapes differ, or there are fewer than two images.

    Source: Zbontar et al. 2021, equation 2.

    >>> z = torch.tensor([[1.0], [-1.0]])
    >>> round(cross_correlation(z, -z).item(), 3)
    -1.0
    """
    z_a, z_b = torch.as_tensor(z_a), torch.as_tensor(z_b)
    if z_a.shape != z_b.shape or z_a.ndim != 2 or len(z_a) < 2:
        raise ValueError(
            f"expected two batches (B, D) of at least 2 images, got {tuple(z_a.shape)} and "
            f"{tuple(z_b.shape)}"
        )
    return _standardize(z_a).T @ _standardize(z_b) / len(z_a)  # (D, D)


def _standardize(z: Tensor) -> Tensor:
    z = z if z.is_floating_point() else z.float()
    centered = z - z.mean(dim=0)
    variance = centered.pow(2).mean(dim=0)
    return centered / (variance + 1e-5).sqrt()  # the constant of batch norm, and so of lightly


def loss_terms(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, before the redundancy term is weighted.

    Args:
        correlation: (D, D) cross-correlation.

    Returns:
        Invariance, the sum of (1 - c_ii)^2, and redundancy, the sum of c_ij^2 with i != j.

    Raises:
        ValueError: it is no square matrix.

    Source: Zbontar et al. 2021, equation 1.

    >>> [round(x.item(), 4) for x in loss_terms(torch.tensor([[0.5, 0.1], [0.0, 1.0]]))]
    [0.25, 0.01]
    """
    correlation = _square(correlation)
    diagonal = correlation.diagonal()
    invariance = (1 - diagonal).pow(2).sum()
    redundancy = (correlation - diagonal.diag()).pow(2).sum()
    return invariance, redundancy


def offdiagonal_abs_mean(correlation: Tensor) -> float:
    """Mean absolute value off the diagonal of a (D, D) cross-correlation; 0 is the aim.

    Raises:
        ValueError: it is no square matrix.

    >>> offdiagonal_abs_mean(torch.tensor([[1.0, -0.5], [0.0, 1.0]]))
    0.25
    """
    correlation = _square(correlation)
    d = len(correlation)
    total = correlation.abs().sum() - correlation.diagonal().abs().sum()
    return (total / max(1, d * (d - 1))).item()


def _square(correlation: Tensor) -> Tensor:
    matrix = torch.as_tensor(correlation)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1] or not len(matrix):
        raise ValueError(f"expected a correlation (D, D), got shape {tuple(matrix.shape)}")
    return matrix


def build_backbone(arch: str, *, seed: int) -> nn.Module:
    """A torchvision ResNet without its classifier, with random weights.

    Args:
        arch: `resnet18` (512 features) or `resnet50` (2048 features).
        seed: of the initialization; the global random state is left as it was.

    Returns:
        A module from (B, 3, H, W) to (B, features).

    Raises:
        ValueError: there is no such architecture here.

    >>> build_backbone("resnet18", seed=0).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 512])
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"no backbone {arch!r}; there are {', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        backbone = torchvision.models.get_model(arch, weights=None)
    backbone.fc = nn.Identity()
    return backbone


def feature_count(backbone: nn.Module) -> int:
    """Number of features that a ResNet backbone gives for each image.

    Raises:
        ValueError: another kind of network.

    >>> feature_count(build_backbone("resnet50", seed=0))
    2048
    """
    stage = getattr(backbone, "layer4", None)
    last = stage[-1] if isinstance(stage, nn.Sequential) and len(stage) else None
    if not hasattr(last, "bn2"):
        raise ValueError(
            f"a {type(backbone).__name__} is no ResNet of torchvision's kind (stages layer1 to "
            "layer4); take one that build_backbone makes"
        )
    return getattr(last, "bn3", last.bn2).num_features


class BarlowTwins(pl.LightningModule):
    """Backbone and projector with the Barlow Twins loss; trains and logs, nothing else.

    With several processes the outputs of all are gathered before lightly's loss, so that loss and
    gradients are those of one process with the whole batch. (lightly's own `gather_distributed`
    averages correlations that each process standardized by its own images.) For this batch norm
    must be synchronized too: `Trainer(sync_batchnorm=True)` on GPUs, `synchronize_batch_norm` of
    processes.py on any device.

    Args:
        backbone: (B, 3, H, W) to (B, features), as `build_backbone` makes it.
        projector: widths of the hidden layers and the output, (hidden, hidden, output).
        redundancy_weight: lambda of the paper.
        optimizer: `adamw`, or `lars` (the published code's), its rate scaled by batch / 256.
        learning_rate: of weights; with `lars`, biases and norms get 0.024 of it.
        weight_decay: of weights; biases and norms get none.
        batch_size: images a step over all processes.
        total_steps: optimizer steps of the whole run, for warm-up and cosine.
        warmup_fraction: share of the steps that warm up.
        gather_distributed: take the correlation over the images of all processes.
        criterion: called with z_a and z_b; lightly's loss where None.

    Raises:
        ValueError: a width, the batch or the number of steps is too small.

    >>> module = BarlowTwins(build_backbone("resnet18", seed=0), projector=(8, 8, 4))
    >>> module(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, int, int] = (512, 512, 512),
        redundancy_weight: float = 5e-3,
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        total_steps: int = 1000,
        warmup_fraction: float = 0.1,
        gather_distributed: bool = True,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__()
        if len(projector) != 3 or min(projector) < 1 or projector[0] != projector[1]:
            raise ValueError(
                f"projector is {tuple(projector)}; lightly's head takes (hidden, hidden, output), "
                "all positive"
            )
        if batch_size < 2 or total_steps < 1:
            raise ValueError(
                f"batch_size {batch_size} and total_steps {total_steps}: correlation over a batch "
                "needs at least 2 images, and training at least 1 step"
            )
        if optimizer not in ("adamw", "lars"):
            raise ValueError(f"optimizer is {optimizer!r}; give `adamw` or `lars`")
        self.save_hyperparameters(ignore=["backbone", "criterion"])
        self.backbone = backbone
        width = feature_count(backbone)
        self.projector = BarlowTwinsProjectionHead(width, projector[0], projector[2])
        self.criterion = criterion or BarlowTwinsLoss(redundancy_weight)
        self._outputs: tuple[Tensor, Tensor] | None = None  # of the last step, for the log

    def forward(self, views: Tensor) -> Tensor:
        """(B, 1, H, W) normalized gray to (B, D) outputs; the projector runs in float32."""
        images = views.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)  # (B, features)
        with torch.autocast(features.device.type, enabled=False):
            return self.projector(features.to(torch.promote_types(features.dtype, torch.float32)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of view pairs; logs loss, its two terms and the mean diagonal.

        The criterion makes the (D, D) matrix; the log does without one (256 MB at D = 8192).

        Raises:
            ValueError: there is only one image in the batch.
            FloatingPointError: the loss is not finite.
        """
        if len(batch[0]) < 2:
            raise ValueError("a batch of 1 image has no correlation; set batch_size to 2 or more")
        z_a, z_b = self(batch[0]), self(batch[1])  # (B, D) float32
        if self.hparams.gather_distributed:
            z_a, z_b = _of_all_processes(z_a), _of_all_processes(z_b)
        with torch.autocast(z_a.device.type, enabled=False):
            loss, logged = self._loss_and_log(z_a, z_b)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}; lower the learning rate "
                f"(now {self.hparams.learning_rate:g}), lengthen the warm-up (now "
                f"{self.hparams.warmup_fraction:g} of the steps), or train in float32"
            )
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(z_a))
        return loss

    def _loss_and_log(self, z_a: Tensor, z_b: Tensor) -> tuple[Tensor, dict]:
        loss = self.criterion(z_a, z_b)
        self._outputs = z_a.detach(), z_b.detach()
        a, b = (_standardize(z) for z in self._outputs)  # (B, D)
        diagonal = (a * b).mean(dim=0)  # (D,)
        squares = ((a @ a.T) * (b @ b.T)).sum() / len(a) ** 2  # of all c_ij, by (B, B) products
        return loss, {
            "loss": loss.detach(),
            "invariance": (1 - diagonal).pow(2).sum(),
            "redundancy": (squares - diagonal.pow(2).sum()).clamp_min(0),
            "diagonal_mean": diagonal.mean(),
        }

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Log the mean off the diagonal, after the last step of an epoch.

        It takes the whole (D, D) matrix, which is made here once, when the step has let its own go.
        """
        kept, self._outputs = self._outputs, None
        trainer = self.trainer
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:
            value = offdiagonal_abs_mean(cross_correlation(*kept))
            self.log(
                "offdiagonal_abs_mean", value, on_step=False, on_epoch=True, batch_size=len(kept[0])
            )

    def configure_optimizers(self):
        """AdamW or LARS without decay of biases and norms; warm-up, then cosine to zero."""
        h = self.hparams
        weights, others = get_weight_decay_parameters([self.backbone, self.projector])
        groups = [
            {"params": weights, "weight_decay": h.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        if h.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=h.learning_rate, fused=True)
        else:
            rate = h.learning_rate * h.batch_size / 256
            groups[1]["lr"] = 0.024 * rate
            optimizer = LARS(groups, lr=rate, momentum=0.9, weight_decay=h.weight_decay)
        warmup = max(1, round(h.warmup_fraction * h.total_steps))
        # One step more, so that the last one still learns: the rate is 0 after it.
        scheduler = CosineWarmupScheduler(optimizer, warmup, h.total_steps + 1, end_value=0.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _of_all_processes(z: Tensor) -> Tensor:
    """(B, D) of each process to (B * processes, D), in their order; gradients flow back to each."""
    return torch.cat(gather(z.contiguous())) if world_size() > 1 else z


def effective_rank(features: Tensor) -> float:
    """How many directions the features use: exp of the entropy of the singular values.

    Args:
        features: (N, D).

    Returns:
        Between 1 (all features say the same) and min(N, D).

    Raises:
        ValueError: fewer than two images, another shape, or a feature that is not finite.

    Source: Roy and Vetterli 2007, 'The effective rank'.

    >>> round(effective_rank(torch.eye(4)), 1)
    3.0
    """
    features = torch.as_tensor(features).float()
    if features.ndim != 2 or len(features) < 2 or not torch.isfinite(features).all():
        raise ValueError(
            f"expected finite features (N, D) of at least 2 images, got {tuple(features.shape)}"
        )
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum().clamp_min(1e-12)
    share = share[share > 1e-12]
    return torch.exp(-(share * share.log()).sum()).item()
