"""Frozen features on disk, under a name that changes when network, images or recipe change.

Extracting features is the slow part of linear evaluation. A cache must never hand out features of
other weights or other images, so its files are named after the content of both.

From cxr-helpers 0.2.0 (MIT license).
Needs: numpy, torch.
Goes with: checks.py.
"""

import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .checks import EvaluationError, numbers


@dataclass(frozen=True)
class FrozenFeatures:
    """Features with the ids of their images, so that they cannot slip against the labels.

    Attributes:
        values: (N, D) numbers; an array, a tensor or a list.
        image_ids: N ids, each once, as text: a number is the same id as its digits.

    Raises:
        EvaluationError: an id is there twice, ids and rows differ in number, or the values are no
            table of finite numbers.

    >>> frozen = FrozenFeatures(np.array([[1.0], [2.0]], np.float32), ["a.png", "b.png"])
    >>> frozen.of(["b.png", "a.png"]).ravel().tolist()
    [2.0, 1.0]
    """

    values: np.ndarray
    image_ids: list[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", numbers(self.values, "features"))
        object.__setattr__(self, "image_ids", [str(image_id) for image_id in self.image_ids])
        if len(self.values) != len(self.image_ids):
            raise EvaluationError(
                f"{len(self.values)} rows of features and {len(self.image_ids)} image ids differ; "
                "give one id a row"
            )
        twice = [image_id for image_id, n in Counter(self.image_ids).items() if n > 1]
        if twice:
            raise EvaluationError(
                f"{len(twice)} images are there twice, such as {min(twice)!r}; a copy in training "
                "and test flatters the score, so keep each once"
            )
        if self.values.ndim != 2:
            raise EvaluationError(f"features of shape {self.values.shape}; expected numbers (N, D)")
        bad = np.flatnonzero(~np.isfinite(self.values).all(axis=1))
        if len(bad):
            raise EvaluationError(
                f"{len(bad)} images have features that are not finite, such as "
                f"{self.image_ids[bad[0]]!r}; look at its pixels, and at the network's weights"
            )

    def of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Features of these images, in their order.

        Raises:
            EvaluationError: an image has no features; the text names it and says how many more.
        """
        image_ids = [str(image_id) for image_id in image_ids]
        row = {image_id: i for i, image_id in enumerate(self.image_ids)}
        absent = [i for i in image_ids if i not in row]
        if absent:
            raise EvaluationError(
                f"{len(absent)} of {len(image_ids)} images have no features, such as "
                f"{absent[0]!r} (there are such as {next(iter(row), None)!r}); extract features "
                "from the same images as the labels"
            )
        return self.values[[row[i] for i in image_ids]]


def backbone_key(backbone: nn.Module) -> str:
    """Sixteen hex digits that change with any weight, buffer or layer of a network.

    >>> first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> backbone_key(first) == backbone_key(second)
    False
    >>> _ = second.load_state_dict(first.state_dict())
    >>> backbone_key(first) == backbone_key(second)
    True
    """
    digest = hashlib.sha256(repr(backbone).encode())
    for name, value in backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().tobytes())  # as bytes: numpy has no bfloat16
    return digest.hexdigest()[:16]


def pixels_key(pixels: np.ndarray, image_ids: Sequence[str]) -> str:
    """Sixteen hex digits that change with any pixel, id or their order.

    >>> pixels_key(np.zeros((1, 2, 2)), ["a"]) == pixels_key(np.zeros((1, 2, 2)), ["b"])
    False
    """
    pixels, ids = np.asanyarray(pixels), [str(image_id) for image_id in image_ids]
    digest = hashlib.sha256(json.dumps([str(pixels.dtype), pixels.shape, ids]).encode())
    for start in range(0, len(pixels), 1024):
        digest.update(np.ascontiguousarray(pixels[start : start + 1024]).tobytes())
    return digest.hexdigest()[:16]


def cached_features(
    backbone: nn.Module,
    pixels: np.ndarray,
    image_ids: Sequence[str],
    *,
    extract: Callable[[nn.Module, np.ndarray], np.ndarray],
    recipe: Mapping[str, object],
    folder: str | os.PathLike[str],
) -> FrozenFeatures:
    """Features from the cache, or extracted and kept there.

    Args:
        backbone: the network; the file's name depends on its layers and weights.
        pixels: (N, H, W), of a type that `extract` takes; the name depends on them too.
        image_ids: N ids.
        extract: backbone and pixels to (N, D) features.
        recipe: JSON values that say what else `extract` depends on, such as the image size.
        folder: of the cache; made where it is missing.

    Raises:
        EvaluationError: a file is damaged (the text says which to delete), `extract` gave another
            number of rows than there are ids or values that are not finite, an id is there twice,
            or images and ids differ in number.

    >>> import tempfile
    >>> data = (nn.Identity(), np.ones((1, 4, 2), np.uint8), ["a.png"])
    >>> how = {"extract": lambda backbone, pixels: pixels.mean(axis=1), "recipe": {"pool": "rows"}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cached_features(*data, **how, folder=folder).of(["a.png"])
    array([[1., 1.]], dtype=float32)
    """
    FrozenFeatures(np.empty((len(pixels), 0), np.float32), list(image_ids))  # before hours of work
    recipe_text = json.dumps(dict(recipe), sort_keys=True, default=_plain)
    parts = backbone_key(backbone), pixels_key(pixels, image_ids), recipe_text
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    path = Path(folder) / f"features_{key}.npz"
    if path.is_file():
        return _load(path)
    values = numbers(extract(backbone, pixels), "features").astype(np.float32)
    found = FrozenFeatures(values, list(image_ids))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            ids = np.array(found.image_ids, dtype=np.str_)
            np.savez(stream, values=found.values, image_ids=ids)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return found


def _plain(value: object) -> object:
    """A number of numpy or torch as Python's own."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise EvaluationError(
        f"{value!r} in the recipe is no number, text, list or dict; write it as one"
    )


def _load(path: Path) -> FrozenFeatures:
    try:
        with np.load(path, allow_pickle=False) as content:
            return FrozenFeatures(content["values"], content["image_ids"].tolist())
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise EvaluationError(
            f"{path} is no whole cache of features ({error}); delete it"
        ) from error
