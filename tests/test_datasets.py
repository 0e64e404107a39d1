"""The packed cache and the data sets that read from it."""

import json
import os
import subprocess
import sys

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


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Reader:
    """Reads, counts, and is interrupted at one file."""

    def __init__(self, stop_at=""):
        self.stop_at, self.names = stop_at, []

    def __call__(self, path):
        if path.stem == self.stop_at:
            raise KeyboardInterrupt
        self.names.append(path.stem)
        return read_png(path)


@pytest.fixture
def interrupted(files, tmp_path, monkeypatch):
    """An unfinished cache of the files before 'd', and the folder of a whole one."""
    datasets.pack_images(files, read_png, size=20, out=tmp_path / "whole")
    monkeypatch.setattr(datasets, "SECONDS_AT_RISK", -1)
    with pytest.raises(KeyboardInterrupt):
        datasets.pack_images(files, Reader("d"), size=20, out=tmp_path / "cache")
    return tmp_path / ".cache.partial"


def cut_journal(folder, files):
    path = folder / datasets.JOURNAL
    path.write_bytes(path.read_bytes()[:-5])


def cut_pixels(folder, files):
    with (folder / "pixels.npy").open("r+b") as stream:
        stream.truncate(128 + 2 * 400 + 1)


def garble_journal(folder, files):
    lines = (folder / datasets.JOURNAL).read_bytes().split(b"\n")
    lines[3] = b"\0\0"
    (folder / datasets.JOURNAL).write_bytes(b"\n".join(lines))


def touch_a_file(folder, files):
    os.utime(files["b"], (1, 1))


def lose_journal(folder, files):
    (folder / datasets.JOURNAL).unlink()


@pytest.mark.parametrize(
    "change, left",
    [
        (lambda folder, files: None, ["d", "broken"]),
        (cut_journal, ["c", "d", "broken"]),
        (cut_pixels, ["c", "d", "broken"]),
        (garble_journal, ["c", "d", "broken"]),
        (touch_a_file, ["b", "c", "d", "broken"]),
        (lose_journal, ["a", "b", "c", "d", "broken"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    files, tmp_path, interrupted, change, left
):
    change(interrupted, files)
    reader = Reader()
    datasets.pack_images(files, reader, size=20, out=tmp_path / "cache")
    assert reader.names == left
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_an_unfinished_cache_of_another_size_or_list_is_not_gone_on_with(
    files, tmp_path, interrupted
):
    reader = Reader()
    packed = datasets.pack_images({"c": files["c"]}, reader, size=8, out=tmp_path / "cache")
    assert reader.names == ["c"] and packed.pixels.shape == (1, 8, 8)


def crash_or_read(path):
    if path.stem == "c":
        os._exit(1)
    return read_png(path)


def test_a_file_that_crashes_its_process_is_set_aside(files, tmp_path):
    packed = datasets.pack_images(files, crash_or_read, size=8, out=tmp_path / "cache", workers=2)
    assert packed.image_ids == ["a", "b", "d"]
    assert "process that read it died" in packed.unreadable["c"]


def raise_key_error(path):
    if path.stem == "a":
        raise KeyError("surprise")
    return read_png(path)


def test_an_unexpected_error_costs_one_file(files, tmp_path):
    packed = datasets.pack_images(files, raise_key_error, size=8, out=tmp_path / "cache")
    assert packed.unreadable["a"] == "KeyError: 'surprise'"


def test_a_disk_that_cannot_be_written_is_named(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(datasets.CacheError, match="cannot write .*file"):
        datasets.pack_images(files, read_png, size=8, out=tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name == "nt", reason="holds the lock in the way of POSIX")
def test_two_processes_do_not_pack_into_one_folder(files, tmp_path):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold += "; print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".cache.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(datasets.CacheError, match="another process is packing"):
            datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")
        other.stdin.close()
    datasets.pack_images(files, read_png, size=8, out=tmp_path / "cache")


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
