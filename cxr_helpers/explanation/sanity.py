"""Does a heatmap depend on what was learned, and on what the score rests on?

Three checks that a useless map fails:

- randomize the weights, part by part from the output down; a map that stays is about the image,
  not about the network;
- randomize the labels, train again, and compare the maps of the two networks;
- delete the pixels that the map names first, or insert them into an empty image: the score must
  move sooner than with pixels in random order.

Sources: Adebayo et al., Sanity checks for saliency maps, https://arxiv.org/abs/1810.03292 (weights
and labels); Petsiuk et al., RISE, https://arxiv.org/abs/1806.07421 (deletion and insertion).

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, scipy, torch.
Goes with: inputs.py.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import integrate, ndimage, stats
from torch import nn

from .inputs import ExplanationError, array, gray_values, numbers

# Parts of a torchvision Faster R-CNN on a ResNet with pyramid, from the output down.
DETECTOR_PARTS = {
    "head": ("roi_heads.box_head", "roi_heads.box_predictor"),
    "pyramid": ("backbone.fpn",),
    "layer4": ("backbone.body.layer4",),
    "layer3": ("backbone.body.layer3",),
    "layer2": ("backbone.body.layer2",),
    "layer1": ("backbone.body.layer1",),
    "stem": ("backbone.body.conv1", "backbone.body.bn1"),
}
# A frozen batch norm that passes its input on.
FROZEN_START = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def randomized_copy(model: nn.Module, names: Sequence[str], *, seed: int) -> nn.Module:
    """A copy with the weights of some submodules drawn anew.

    Nothing below the names keeps what was learned: convolutions get torchvision's start of a
    ResNet and a bias of 0; frozen batch norm (`FrozenBatchNorm2d`) passes its input on; every
    other layer gets what its own `reset_parameters` gives it, which sets batch norm's running
    statistics back too. The weights are drawn on the CPU, the same for every device, and the
    global random state is left as it was.

    Args:
        model: on one device; left as it is.
        names: of submodules, such as `backbone.body.layer4`, or one name; all below them is
            randomized.
        seed: of the new weights.

    Raises:
        ExplanationError: no such submodule; or one holds weights or statistics that nothing above
            sets anew.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> changed = randomized_copy(model, ["1"], seed=0)
    >>> [torch.equal(a, b) for a, b in zip(model.parameters(), changed.parameters())]
    [True, True, False, False]
    """
    names = [names] if isinstance(names, str) else list(names)
    device = next(model.parameters(), torch.empty(0)).device
    changed = copy.deepcopy(model).cpu()
    known = dict(changed.named_modules())
    unknown = [name for name in names if name not in known]
    if unknown:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ExplanationError(
            f"the network has no part {unknown[0]!r}; at the top it has: {parts}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        for name in names:
            for below, module in known[name].named_modules(prefix=name):
                _draw_anew(below, module)
    return changed.to(device)


def _draw_anew(name: str, module: nn.Module) -> None:
    """Set what the module itself holds; its children are left to their own turn."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif type(module).__name__ == "FrozenBatchNorm2d":  # torchvision's, all buffers
        for key, value in FROZEN_START.items():
            getattr(module, key).fill_(value)
    elif hasattr(module, "reset_parameters"):
        module.reset_parameters()
    elif [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
        raise ExplanationError(
            f"{name!r}, a {type(module).__name__}, has no reset_parameters to draw its weights "
            "anew; give it one, or name parts without it"
        )


def cascade(
    model: nn.Module, parts: Mapping[str, Sequence[str]], *, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    """Randomize part after part, each step keeping those before.

    Args:
        model: left as it is.
        parts: name of each step and the submodules that it randomizes, in order.
        seed: of the new weights; a part gets the same in every later step.

    Yields:
        The step's name and the network with all parts up to this one randomized.

    Raises:
        ExplanationError: as `randomized_copy`.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> [name for name, changed in cascade(model, {"last": ["1"], "first": ["0"]}, seed=0)]
    ['last', 'first']
    """
    changed = model
    for number, (name, names) in enumerate(parts.items()):
        changed = randomized_copy(changed, names, seed=seed + number)
        yield name, changed


def shuffle_labels(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """The same labels in random order: nothing is left to learn but by heart.

    Args:
        labels: (N,) or (N, K), an array, a list, a tensor or a data frame; rows are kept whole.
        seed: of the order.

    Returns:
        An array of the same shape, a copy.

    Raises:
        ExplanationError: there is no row to move, as in a single number.

    >>> sorted(shuffle_labels(np.array([1, 1, 2, 3]), seed=0).tolist())
    [1, 1, 2, 3]
    """
    labels = array(labels, "list of labels")
    if not labels.ndim:
        raise ExplanationError(f"labels {labels} have no rows; expected (N,) or (N, K)")
    return labels[np.random.default_rng(seed).permutation(len(labels))]


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two maps or two lists of weights; 0 where one is constant.

    So an empty map looks as if it had nothing of the other: count empty maps before a low
    correlation is taken for a passed check.

    Args:
        first: finite, any shape.
        second: finite, the same shape.

    Raises:
        ExplanationError: shapes differ, or a value is no number or not finite.

    >>> rank_correlation(np.array([1, 2, 3]), np.array([1, 10, 100]))
    1.0
    """
    a, b = numbers(first, "first map"), numbers(second, "second map")
    if a.shape != b.shape or a.size < 2:
        raise ExplanationError(
            f"shapes {a.shape} and {b.shape}; expected the same, two values or more, so resize a "
            "smaller map first"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ExplanationError("a value to be ranked is not finite")
    if (a == a.flat[0]).all() or (b == b.flat[0]).all():
        return 0.0
    return float(np.clip(stats.spearmanr(a.ravel(), b.ravel()).statistic, -1, 1))


@dataclass(frozen=True)
class Curve:
    """How a score moves while pixels go or come.

    Attributes:
        share: (S + 1,) share of the pixels changed, from 0 to 1.
        score: (S + 1,) score at each.

    >>> Curve(np.array([0, 0.5, 1]), np.array([1.0, 0.0, 0.0])).area
    0.25
    """

    share: np.ndarray
    score: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve by the trapezoid rule: the mean score on the way."""
        return float(integrate.trapezoid(self.score, self.share))


def deletion_curve(
    score: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    heatmap: np.ndarray,
    *,
    steps: int = 8,
    blur: float = 8.0,
    seed: int = 0,
) -> Curve:
    """Replace the pixels that the map ranks highest by their blurred surroundings, step by step.

    A good map makes the score fall early: a small area.

    Args:
        score: takes (B, H, W) images, float arrays in [0, 1], and gives (B,) scores.
        image: (H, W) array or tensor: uint8, uint16 of the full range, or float in [0, 1].
        heatmap: (H, W) finite, of the image's shape; equal values are taken in random order.
        steps: how many times the score is asked after the start.
        blur: standard deviation in pixels of the Gaussian that empties the image.
        seed: of the order of equal values.

    Raises:
        ExplanationError: image and map are not of one shape (H, W), the image is of another type or
            range, a value is not finite, there are no steps or no blur, or `score` gives another
            number of values or one not finite.

    >>> image = np.array([[1.0, 0, 0, 0]])
    >>> curve = deletion_curve(lambda images: images[:, 0, 0], image, image, steps=4)
    >>> curve.share.tolist(), curve.score.round(1).tolist()
    ([0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 0.3, 0.3, 0.3, 0.3])
    """
    image, empty, ranks = _prepare(image, heatmap, steps, blur, seed)
    return _curve(score, image, empty, ranks, steps)


def insertion_curve(
    score: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    heatmap: np.ndarray,
    *,
    steps: int = 8,
    blur: float = 8.0,
    seed: int = 0,
) -> Curve:
    """Start from the blurred image and put the pixels back that the map ranks highest.

    A good map makes the score rise early: a large area. Arguments and errors are those of
    `deletion_curve`.

    >>> image = np.array([[1.0, 0, 0, 0]])
    >>> curve = insertion_curve(lambda images: images[:, 0, 0], image, image, steps=2)
    >>> curve.score.round(1).tolist()
    [0.3, 1.0, 1.0]
    """
    image, empty, ranks = _prepare(image, heatmap, steps, blur, seed)
    return _curve(score, empty, image, ranks, steps)


def _prepare(image, heatmap, steps, blur, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image as float32 in [0, 1], the same blurred, and each pixel's place in the order."""
    image, heatmap = gray_values(image), numbers(heatmap, "heatmap")
    if image.ndim != 2 or not image.size or image.shape != heatmap.shape:
        raise ExplanationError(
            f"image of shape {image.shape}, map of shape {heatmap.shape}; expected one (H, W), so "
            "resize a map smaller than its image, as heatmaps.resize_map does"
        )
    if not np.isfinite(heatmap).all():
        raise ExplanationError("the map holds a value that is not finite")
    if not (steps >= 1 and steps == int(steps) and 0 < blur < np.inf):
        raise ExplanationError(f"steps {steps} must be 1 or more, whole, and blur {blur} above 0")
    chance = np.random.default_rng(seed).random(heatmap.size)
    ranks = np.empty(heatmap.size, dtype=int)
    ranks[np.lexsort((chance, -heatmap.ravel()))] = np.arange(heatmap.size)
    return image, ndimage.gaussian_filter(image, blur), ranks.reshape(image.shape)


def _curve(score, before: np.ndarray, after: np.ndarray, ranks: np.ndarray, steps: int) -> Curve:
    share = np.linspace(0, 1, int(steps) + 1)
    changed = ranks < np.round(share * ranks.size)[:, None, None]  # (S + 1, H, W)
    scores = numbers(score(np.where(changed, after, before)), "score")
    if scores.shape != share.shape:
        raise ExplanationError(f"score gave shape {scores.shape} for {len(share)} images")
    if not np.isfinite(scores).all():
        raise ExplanationError(f"score gave {scores.tolist()}; an area needs finite scores")
    return Curve(share, scores)
