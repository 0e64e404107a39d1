"""A folder of files becomes data to pretrain on: nothing but files, a reader and a patient."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_pretraining import tiny_settings

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch06 import own_data
from cxr_helpers.course.core.settings import SettingsError
from cxr_helpers.data import nih
from cxr_helpers.data.packed import CacheError
from cxr_helpers.data.splits import SplitError


def patient(image_id):
    return image_id.split("_")[0]


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(60):
        pixels = rng.integers(0, 256, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{k // 2:02d}_{k % 2}.png")
    return {path.stem: path for path in sorted(folder.iterdir())}


def own(folder, files, epochs=1, **changes):
    settings = tiny_settings(folder, cache_size=32, epochs=epochs)
    options = {"name": "mine", "files": files, "read": nih.read_image, "patient": patient}
    return own_data.own_images(settings, **options | changes)


def test_images_of_a_patient_stay_together_and_a_broken_file_is_set_aside_and_named(
    tmp_path, files
):
    files["p99_0"] = tmp_path / "files" / "p99_0.png"
    files["p99_0"].write_bytes(b"no picture")
    settings, images = own(tmp_path, files)
    assert images.images.pixels.shape == (60, 32, 32)
    assert list(images.images.unreadable) == ["p99_0"]
    assert settings.runs == tmp_path / "runs" / "mine"
    parts = [set(images.patients[images.rows(part)]) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 30


def test_pretraining_takes_them_without_any_label(tmp_path, files):
    settings, images = own(tmp_path, files, epochs=2)
    path = pretraining.pretrain(settings, images, seed=0, progress=False)
    log = pretraining.training_log(path)
    assert log["epoch"].tolist() == [0, 1, 2] and log["spread"].notna().any()
    assert not [name for name in log if name.startswith("knn")]


def test_the_digest_changes_with_a_pixel_and_with_the_split(tmp_path, files):
    _, images = own(tmp_path, files)
    pixels = np.array(images.images.pixels)
    pixels[3, 0, 0] ^= 1
    other = replace(images, images=replace(images.images, pixels=pixels))
    moved = replace(images, split=np.roll(images.split, 1))
    assert len({images.digest, other.digest, moved.digest}) == 3


def fails_at_the_first(image_id):
    return int(image_id) if image_id.startswith("p00") else image_id


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"files": {}}, SettingsError, "mine: no files were given"),
        ({"files": ["a.png"]}, SettingsError, "map image ids to paths, not be a list"),
        ({"files": {1: "a", "1": "b"}}, SettingsError, "two files have the id '1'"),
        ({"files": pd.Series("ab", ["p1", "p1"])}, SettingsError, "two files have the id 'p1'"),
        *(({"name": n}, SettingsError, f"'{n}' cannot be used") for n in ("demo", "a/b", "", "..")),
        ({"patient": lambda i: None}, SplitError, "60 patient ids .* missing"),
        (
            {"patient": fails_at_the_first},
            SettingsError,
            "`patient` fails for image 'p00_0' .Value",
        ),
        (
            {"patient": lambda i: int(i[1:3]) if i < "p10" else i[1:3]},
            SplitError,
            "some patient ids are numbers, others text",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, files, changes, error, message):
    with pytest.raises(error, match=message):
        own(tmp_path, **{"files": files, **changes})
    assert not (tmp_path / "runs").exists()  # said before anything is packed


def test_paths_as_text_and_ids_as_numbers_are_taken(tmp_path, files):
    numbered = pd.Series({np.int64(k): str(path) for k, path in enumerate(files.values())})
    _, images = own(tmp_path, numbered, patient=lambda i: int(i) // 2)
    assert images.images.image_ids == [str(k) for k in range(60)]
    assert images.patients.tolist() == [k // 2 for k in range(60)]


def test_another_reader_packs_anew(tmp_path, files):
    """As where a warning says how many bits to give, and the first cache was scaled otherwise."""
    for path in files.values():
        Image.fromarray(np.full((40, 30), 1023, np.uint16)).save(path)
    _, first = own(tmp_path, files)
    _, second = own(tmp_path, files, read=partial(nih.read_image, bits=12))
    assert [x.images.pixels.max() for x in (first, second)] == [255, 64]


def test_no_readable_file_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(CacheError, match="none of 1 files could be read"):
        own(tmp_path, {"a": tmp_path / "a.png"})
