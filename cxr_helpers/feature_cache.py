"""Frozen features on disk, under a name that changes when network, images or recipe change.

Extracting features is the slow part of linear evaluation. A cache must never hand out features of
other weights or other images, so its files are named after the content of both.

Needs: numpy, torch.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn


class FeatureError(ValueError):
    """Features that are damaged, or that belong to other images than asked for."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features with the ids of their images, so that they cannot slip against the labels.

    Attributes:
        values: (N, D) float32.
        image_ids: N ids, each once.

    Raises:
        FeatureError: an id is there twice, or ids and rows differ in number.

    >>> frozen = FrozenFeatures(np.array([[1.0], [2.0]], np.float32), ["a.png", "b.png"])
    >>> frozen.of(["b.png", "a.png"]).ravel().tolist()
    [2.0, 1.0]
    """

    values: np.ndarray
    image_ids: list[str]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.image_ids):
            raise FeatureError(
                f"{len(self.values)} rows of features and {len(self.image_ids)} image ids differ; "
                "give one id a row"
            )
        seen, twice = set(), set()
        for image_id in self.image_ids:
            (twice if image_id in seen else seen).add(image_id)
        if twice:
            raise FeatureError(
                f"{len(twice)} images are there twice, such as {min(twice)!r}; a copy in training "
                "and test flatters the score, so keep each once"
            )

    def of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Features of these images, in their order.

        Raises:
            FeatureError: an image has no features; the text names it and says how many more.
        """
        row = {image_id: i for i, image_id in enumerate(self.image_ids)}
        absent = [i for i in image_ids if i not in row]
        if absent:
            raise FeatureError(
                f"{len(absent)} of {len(image_ids)} images have no features, such as "
                f"{absent[0]!r}; extract features from the same images as the labels"
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
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def pixels_key(pixels: np.ndarray, image_ids: Sequence[str]) -> str:
    """Sixteen hex digits that change with any pixel, id or their order."""
    digest = hashlib.sha256(json.dumps([str(pixels.dtype), pixels.shape, list(image_ids)]).encode())
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
    folder: Path,
) -> FrozenFeatures:
    """Features from the cache, or extracted and kept there.

    Args:
        backbone: the network; the file's name depends on its layers and weights.
        pixels: (N, H, W) uint8; the name depends on them too.
        image_ids: N ids.
        extract: backbone and pixels to (N, D) features.
        recipe: JSON values that say what else `extract` depends on, such as the image size.
        folder: of the cache; made where it is missing.

    Raises:
        FeatureError: a file is damaged (the text says which to delete), `extract` gave another
            number of rows than there are ids, or an id is there twice.
    """
    recipe_text = json.dumps(recipe, sort_keys=True)
    parts = backbone_key(backbone), pixels_key(pixels, image_ids), recipe_text
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    path = Path(folder) / f"features_{key}.npz"
    if path.is_file():
        return _load(path)
    found = FrozenFeatures(np.asarray(extract(backbone, pixels), np.float32), list(image_ids))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        np.savez(stream, values=found.values, image_ids=np.array(found.image_ids, dtype=np.str_))
    os.replace(temporary, path)
    return found


def _load(path: Path) -> FrozenFeatures:
    try:
        with np.load(path, allow_pickle=False) as content:
            return FrozenFeatures(content["values"], content["image_ids"].tolist())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path} is no whole cache of features ({error}); delete it") from error
