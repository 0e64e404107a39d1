"""Right for the wrong reason: networks on phantoms with a planted shortcut.

A letter, a tube or a border is drawn into images: in nearly all with the finding and in hardly any
without. Notebook 05 trains a network on these and a control on the same images before, moves the
object to the other images, and looks at the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from cxr_helpers.course.core.data import BoxData
from cxr_helpers.explanation import heatmaps

SIZE = 64  # pixels a side
KINDS = ("marker", "tube", "border")
# Channels before and after each convolution, and its stride.
WIDTHS = ((1, 16, 2), (16, 32, 2), (32, 48, 1), (48, 64, 2), (64, 64, 1))
# A letter E, as a technician's marker.
LETTER = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=bool)


@dataclass(frozen=True)
class Images:
    """Images with and without a finding.

    Attributes:
        pixels: (N, 64, 64) float32 in [0, 1].
        labels: (N,) 1 where the finding is, else 0.
        boxes: for each image the finding's (n, 4) boxes, xyxy in these pixels.
    """

    pixels: np.ndarray
    labels: np.ndarray
    boxes: list[np.ndarray]


@dataclass(frozen=True)
class Planted:
    """Images after a shortcut was drawn into some.

    Attributes:
        pixels: (N, 64, 64) float32 in [0, 1].
        masks: (N, 64, 64) bool, where.
    """

    pixels: np.ndarray
    masks: np.ndarray


class SmallNet(nn.Module):
    """Five convolutions, an average over the 8 x 8 places, one number: is the finding there?"""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in WIDTHS:
            convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, 64, 64) in [0, 1] -> (B, 1) logits."""
        return self.head(self.features(images - 0.5))


def finding_images(data: BoxData, part: str, name: str, *, most: int | None = None) -> Images:
    """The images of one part, with the boxes of one finding, at 64 pixels.

    Args:
        data: images and boxes.
        part: `train`, `val` or `test`.
        name: class of the finding.
        most: the first so many images; None takes all.

    Raises:
        ValueError: the data has no such class.
    """
    if name not in data.class_names:
        raise ValueError(f"no boxes of {name!r} here; there are {', '.join(data.class_names)}")
    rows = data.rows(part)[:most]
    scale = SIZE / data.images.size
    pixels = [
        ndimage.zoom(np.asarray(data.images.pixels[row], dtype=np.float32) / 255, scale, order=1)
        for row in rows
    ]
    label = data.class_names.index(name) + 1
    boxes = [scale * one["boxes"][one["labels"] == label] for one in data.truths(rows)]
    return Images(np.stack(pixels), np.array([int(len(b) > 0) for b in boxes]), boxes)


def draw_presence(
    labels: np.ndarray, *, with_finding: float, without: float, seed: int
) -> np.ndarray:
    """(N,) bool: which images get the shortcut, by the chance with and without the finding."""
    chance = np.where(np.asarray(labels) == 1, with_finding, without)
    return np.random.default_rng(seed).random(len(chance)) < chance


def plant(images: Images, present: np.ndarray, kind: str, *, seed: int) -> Planted:
    """Draw a shortcut into some of the images; places vary from image to image.

    Args:
        images: left as they are.
        present: (N,) bool, which of them.
        kind: `marker` (a bright letter in an upper corner), `tube` (a bright line that hangs in
            from above) or `border` (a black stripe on the left or right edge).
        seed: of the places.

    Raises:
        ValueError: no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"shortcut {kind!r} is none of {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    masks = np.zeros(images.pixels.shape, dtype=bool)
    for i in np.flatnonzero(present):
        masks[i] = _MASKS[kind](rng)
    value = 0.0 if kind == "border" else 0.95
    return Planted(np.where(masks, np.float32(value), images.pixels), masks)


def _marker(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    letter = np.kron(LETTER, np.ones((2, 2), dtype=bool))
    height, width = letter.shape
    top = rng.integers(2, 8)
    left = rng.integers(2, 8) if rng.random() < 0.5 else SIZE - width - rng.integers(2, 8)
    mask[top : top + height, left : left + width] = letter
    return mask


def _tube(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    rows = np.arange(rng.integers(28, 40))
    bend, start = rng.uniform(-5, 5), SIZE / 2 + rng.uniform(-6, 6)
    columns = np.round(start + bend * np.sin(rows / 14)).astype(int)
    mask[rows, columns] = mask[rows, columns + 1] = True
    return mask


def _border(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    width = rng.integers(2, 6)
    mask[:, slice(0, width) if rng.random() < 0.5 else slice(SIZE - width, SIZE)] = True
    return mask


_MASKS = {"marker": _marker, "tube": _tube, "border": _border}


def train(pixels: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int) -> SmallNet:
    """Train a small network to tell images with the finding from those without.

    Args:
        pixels: (N, 64, 64) float32 in [0, 1].
        labels: (N,) of 0 and 1; both kinds weigh the same together.
        epochs: passes.
        seed: of weights and order.

    Returns:
        The network in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SmallNet()
    x = torch.from_numpy(pixels)[:, None]
    y = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    balance = (1 - y).sum() / y.sum().clamp(min=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    batch = min(32, len(x))
    whole = len(x) // batch * batch
    steps = epochs * whole // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in order[:whole].split(batch):
            logits = net(x[rows])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(
                logits, y[rows], pos_weight=balance
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def scores(net: SmallNet, pixels: np.ndarray) -> np.ndarray:
    """(N,) logits."""
    return net(torch.from_numpy(pixels)[:, None])[:, 0].numpy()


@torch.no_grad()
def ablation_heatmap(net: SmallNet, image: np.ndarray) -> np.ndarray:
    """Ablation-CAM of the logit at the last convolution, (64, 64) in [0, 1].

    The head is an average and a weighted sum, so removing channel c takes weight_c * mean_c from
    the logit. That difference is the channel's weight; a share of a logit that may be zero or
    negative would mean nothing.
    """
    features = net.features(torch.from_numpy(image)[None, None] - 0.5)[0]  # (64, 8, 8)
    lost = net.head[2].weight[0] * features.mean(dim=(1, 2))
    heatmap = torch.relu((lost[:, None, None] * features).sum(0)).numpy()
    return heatmaps.normalize_map(heatmaps.resize_map(heatmap, image.shape))


def share_on_object(net: SmallNet, planted: Planted, rows: Sequence[int]) -> float:
    """Mean share of the map's evidence that lies on what was drawn into these images.

    A cell of the map is as wide as eight pixels, so the object counts with four around it.

    Args:
        net: whose maps.
        planted: each of the rows carries the object.
        rows: images.
    """
    shares = []
    for i in rows:
        near = ndimage.binary_dilation(planted.masks[i], iterations=4)
        heatmap = ablation_heatmap(net, planted.pixels[i])
        shares.append(heatmap[near].sum() / max(heatmap.sum(), np.finfo(float).tiny))
    return float(np.mean(shares))
