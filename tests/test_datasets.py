"""The packed cache and the data sets that read from it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cxr_helpers import datasets


def read_png(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def files(tmp_path):
    """Four readable pictures of different shape and one that is text."""
    rng = np.random.default_rng(0)
    paths = {}
    for name, shape in {"a": (40, 40), "b": (20, 40), "c": (40, 10), "d": (7, 7)}.items():
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[name])
    paths["broken"] = tmp_path / "broken.png"
    paths["broken"].write_text("not a picture")
    return paths


@pytest.mark.parametrize("workers", [1, 2])
def test_packing_keeps_order_shape_and_names_what_it_could_not_read(files, tmp_path, workers):
    packed = datasets.pack_images(files, read_png, size=20, out=tmp_path / "cache", workers=workers)
    assert packed.image_ids == ["a", "b", "c", "d"]
    assert packed.pixels.shape == (4, 20, 20) and packed.pixels.dtype == np.uint8
    assert list(packed.unreadable) == ["broken"]
    assert packed.original_hw.tolist() == [[40, 40], [20, 40], [40, 10], [7, 7]]
    assert packed.scale.tolist() == [0.5, 0.5, 0.5, 20 / 7]
    assert (packed.pixels[1, 10:] == 0).all() and (packed.pixels[1, :10] > 0).any()
    assert packed.rows(["d", "a"]).tolist() == [3, 0]
    assert [p.name for p in tmp_path.glob(".cache*")] == []


def test_an_image_that_is_not_there_is_named(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")
    with pytest.raises(KeyError, match="1 images are not in the cache, such as 'broken'"):
        packed.rows(["a", "broken"])


def test_nothing_to_pack_is_refused(files, tmp_path):
    with pytest.raises(datasets.CacheError, match="nothing to pack"):
        datasets.pack_images({}, read_png, size=8, out=tmp_path / "cache")
    with pytest.raises(datasets.CacheError, match="none of 1 files could be read.*broken"):
        datasets.pack_images({"broken": files["broken"]}, read_png, size=8, out=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_caches_are_refused_by_name(files, tmp_path):
    out = tmp_path / "cache"
    with pytest.raises(datasets.CacheError, match="cache is no packed cache"):
        datasets.PackedImages.load(out)
    datasets.pack_images(files, read_png, size=8, out=out)
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**index, "image_ids": ["a"]}))
    with pytest.raises(datasets.CacheError, match="differ in length"):
        datasets.PackedImages.load(out)
    (out / "pixels.npy").write_bytes(b"")
    with pytest.raises(datasets.CacheError, match="delete it"):
        datasets.PackedImages.load(out)


def test_scaling_keeps_brightness_and_takes_floats():
    assert datasets.fit_square(np.full((30, 30), 77, np.uint8), 8).tolist() == [[77] * 8] * 8
    assert (datasets.fit_square(np.full((30, 30), 0.5, np.float32), 8) == 128).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.full((4, 4), np.nan),
        np.full((4, 4), 255.0),
    ],
)
def test_images_of_the_wrong_kind_are_refused(image):
    with pytest.raises(ValueError):
        datasets.fit_square(image, 4)


def test_detection_samples_are_what_torchvision_takes(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=16, out=tmp_path / "cache")
    boxes = [np.array([[1, 2, 5, 6]]), np.zeros((0, 4))]
    dataset = datasets.DetectionDataset(packed, [2, 0], boxes, [[3], []])
    image, target = dataset[0]
    assert image.shape == (3, 16, 16) and 0 <= image.min() and image.max() <= 1
    assert target["boxes"].dtype == torch.float32 and target["labels"].tolist() == [3]
    assert dataset[1][1]["boxes"].shape == (0, 4)
    with pytest.raises(ValueError, match="differ"):
        datasets.DetectionDataset(packed, [0], boxes, [[3]])


def test_an_image_dataset_feeds_a_loader(files, tmp_path):
    packed = datasets.pack_images(files, read_png, size=16, out=tmp_path / "cache")
    dataset = datasets.ImageDataset(packed, [1, 3], torch.from_numpy)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert (batch.numpy() == packed.pixels[[1, 3]]).all()
