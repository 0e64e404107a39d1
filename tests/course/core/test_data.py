"""How tables, lists, boxes and files of a download are joined: what does not meet is told."""

import gzip
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_root import NIH_HEADER, make_nih_root

from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.core import data
from cxr_helpers.course.core.settings import SettingsError, load_settings
from cxr_helpers.data.packed import PackedImages

NAMES = [f"{k:08d}_000.png" for k in range(1, 21)]
TEST, REST = NAMES[:4], NAMES[4:]


def table(names=NAMES):
    return "\n".join([NIH_HEADER, *(f"{n},Mass,0,{n[:8]},50,F,PA,9,9,0.1,0.1" for n in names)])


@pytest.fixture
def root(tmp_path):
    """Twenty NIH images of as many patients, and their table."""
    folder = tmp_path / "nih"
    (folder / "images").mkdir(parents=True)
    for k, name in enumerate(NAMES):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(folder / "images" / name)
    (folder / data.NIH_TABLE).write_text(table())
    return folder


def load(root, **changes):
    settings = load_settings({"CXR_DATA": str(root)})
    return data.load_nih(replace(settings, **{"project": root.parent / "project"} | changes))


def names_in_test(found):
    return set(found.entries["image_id"][found.rows("test")])


def test_a_file_that_was_replaced_is_packed_anew(root):
    assert load(root).images.pixels[0].max() == 0
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(root / "images" / NAMES[0])
    assert load(root).images.pixels[0].max() == 200


def test_another_root_of_the_same_name_is_another_cache(root, tmp_path):
    other = tmp_path / "elsewhere" / root.name
    (other / "images").mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(np.full((8, 8), 90, np.uint8)).save(other / "images" / name)
    (other / data.NIH_TABLE).write_text(table())
    project = tmp_path / "project"
    pixels = [load(one, project=project).images.pixels.max() for one in (root, other)]
    assert pixels == [19, 90]


def test_an_image_without_a_view_or_an_age_is_kept(root):
    row = f"{NAMES[3][:8]},50,F,PA"
    (root / data.NIH_TABLE).write_text(table().replace(row, f"{NAMES[3][:8]},,F,"))
    found = load(root)
    assert len(found.entries) == len(NAMES)
    assert found.entries[["view", "age"]].isna().sum().tolist() == [1, 1]


# Lists.
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(TEST),
        "\r\n".join(TEST) + "\r\n",
        "\ufeff" + "\n".join(TEST),
        "\n\n" + "\n \n".join(TEST) + "\n\n",
    ],
    ids=["plain", "Windows", "byte order mark", "blank lines"],
)
def test_the_test_part_is_that_of_the_list_however_it_is_written(root, text):
    (root / data.TEST_LIST).write_bytes(text.encode())
    found = load(root)
    assert names_in_test(found) == set(TEST)
    assert {part: len(found.rows(part)) for part in data.PARTS} == {
        "train": 14,
        "val": 2,
        "test": 4,
    }
    assert found.split_source.startswith("Test part: the images of test_list.txt. ")


@pytest.mark.parametrize("prefix", ["images_001/", "images\\", "./"])
@pytest.mark.parametrize("some", [1, 4])
def test_names_with_a_folder_are_refused(root, prefix, some):
    listed = [f"{prefix}{name}" for name in TEST[:some]] + TEST[some:]
    (root / data.TEST_LIST).write_text("\n".join(listed))
    with pytest.raises(SettingsError, match=rf"test_list\.txt names {some} images with their") as e:
        load(root)
    assert repr(listed[0]) in str(e.value) and repr(NAMES[0]) in str(e.value)


def test_names_of_images_that_are_not_here_are_passed_over_with_a_word(root):
    (root / data.TEST_LIST).write_text("\n".join([*TEST, "99999998_000.png", "99999999_000.png"]))
    found = load(root)
    assert names_in_test(found) == set(TEST) and "(2 of its 6 are not here)" in found.split_source


@pytest.mark.parametrize(
    ("test", "rest", "told"),
    [
        (TEST, NAMES[3:], r"1 images are in both .*'00000004_000\.png'"),
        (TEST, NAMES[6:], r"2 images are in neither .*'00000005_000\.png'"),
        (NAMES, None, "leaves none of the 20 images here to learn from"),
        (None, NAMES, "leaves none of the 20 images here to test on"),
        (["9_000.png"], None, r"none of the images here, such as '9_000.png'.*such as '00000001_0"),
    ],
)
def test_lists_that_contradict_or_leave_nothing_are_refused(root, test, rest, told):
    for name, listed in ((data.TEST_LIST, test), (data.TRAIN_LIST, rest)):
        if listed:
            (root / name).write_text("\n".join(listed))
    with pytest.raises(SettingsError, match=told):
        load(root)


def test_both_lists_and_the_list_of_the_training_images_alone_give_the_same_part(root):
    (root / data.TRAIN_LIST).write_text("\n".join(REST))
    alone = load(root)
    (root / data.TEST_LIST).write_text("\n".join(TEST))
    both = load(root)
    assert names_in_test(alone) == names_in_test(both) == set(TEST)
    assert "the images that train_val_list.txt leaves out" in alone.split_source


def test_the_split_follows_its_own_seed_alone(root):
    first, same, other = load(root), load(root, seed=5), load(root, split_seed=5)
    assert first.split.tolist() == same.split.tolist() != other.split.tolist()
    assert first.digest == same.digest != other.digest
    assert first.split_source.startswith("No official list")


# Table and files.
def test_files_without_a_row_are_passed_over_with_a_word_and_none_that_meet_refused(root):
    (root / data.NIH_TABLE).write_text(table(NAMES[:-1]))
    (root / "images" / NAMES[0]).write_bytes(b"no picture")
    found = load(root)
    assert len(found.entries) == 18 and found.images.image_ids == NAMES[1:-1]
    extra, unread = found.left_out
    assert extra == f"1 images are not in the table, such as {NAMES[-1]}."
    assert unread.startswith(f"1 images could not be read, such as {NAMES[0]}: ")
    (root / data.NIH_TABLE).write_text(table(["99999999_000.png"]))
    told = r"none of the 20 images .*'00000001_000\.png', and the table says '99999999_000\.png'"
    with pytest.raises(SettingsError, match=told):
        load(root)


OLD, COPY = "Data_Entry_2017.csv", "Data_Entry_2017_v2020 (1).csv"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([OLD, data.NIH_TABLE], data.NIH_TABLE),
        ([COPY, data.NIH_TABLE], data.NIH_TABLE),
        ([OLD, f"{data.NIH_TABLE}.gz"], f"{data.NIH_TABLE}.gz"),
        ([OLD], OLD),
        ([f"{OLD}.gz"], f"{OLD}.gz"),
    ],
)
def test_of_several_tables_the_one_that_the_readme_names_is_taken(tmp_path, names, taken):
    for name in names:
        (tmp_path / name).touch()
    assert data.nih_table(str(tmp_path)) == tmp_path / taken


def test_tables_that_cannot_be_told_apart_are_named_and_none_is_the_packaged_one(tmp_path):
    assert tmp_path not in data.nih_table(tmp_path).parents
    for name in (OLD, COPY):
        (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=r"Data_Entry_2017\.csv, .*\(1\)\.csv; call the one"):
        data.nih_table(tmp_path)


def test_a_packed_table_of_ones_own_is_read(root):
    (root / data.NIH_TABLE).unlink()
    (root / f"{data.NIH_TABLE}.gz").write_bytes(gzip.compress(table().encode()))
    assert load(root).entries["image_id"].tolist() == NAMES


# Boxes, parts, digests.
def test_boxes_on_images_that_the_table_does_not_have_are_told(tmp_path):
    root = make_nih_root(tmp_path / "nih_alone")
    kept = [f"{k:08d}_000.png" for k in range(5, 80)]
    (root / "nih" / data.NIH_TABLE).write_text(table(kept))
    settings = replace(load_settings({"CXR_DATA": str(root)}), project=tmp_path / "project")
    told = r"5 images with a box are not in .*'00000000_000\.png'; it names such as '00000005"
    with pytest.raises(SettingsError, match=told):
        load_detection(settings)


def vindr_data():
    images = PackedImages(np.zeros((2, 4, 4), np.uint8), ["a", "b"], np.full((2, 2), 8), {})
    corners = {"x_min": 0.0, "y_min": 0.0, "x_max": 8.0, "y_max": 4.0}
    boxes = pd.DataFrame([{"image_id": i, "label": "ILD", **corners} for i in ("a", "c", "d")])
    return data.BoxData(None, boxes, images, np.array(["train", "test"])), boxes


def test_boxes_without_an_image_get_no_coordinates():
    found, boxes = vindr_data()
    (truth,) = found.truths([0], boxes[:1])
    assert truth["boxes"].tolist() == [[0, 0, 4, 2]] and truth["labels"].tolist() == [6]
    with pytest.raises(
        ValueError, match="2 boxes lie on images that are not here, such as 'c'.*'a'"
    ):
        found.truths([0], boxes)


def test_a_part_that_does_not_exist_is_not_an_empty_one():
    found, _ = vindr_data()
    assert found.rows("train").tolist() == [0] and found.rows("val").tolist() == []
    with pytest.raises(ValueError, match="part 'valid' is none of train, val, test"):
        found.rows("valid")
    nih = data.NihData(pd.DataFrame(), found.images, found.split, "")
    with pytest.raises(ValueError, match="part 'Test' is none of train, val, test"):
        nih.rows("Test")


def test_a_split_of_other_images_has_no_digest():
    found, _ = vindr_data()
    with pytest.raises(ValueError, match="2 images, but a split of 3"):
        data.data_digest(found.images, ["train"] * 3)


def demo_of(project, *, seed, **sizes):
    """A project folder with the scripts of this one and a small demo of a seed."""
    project.mkdir()
    here = load_settings({}).project
    for name in ("data_scripts", "cxr_helpers"):
        (project / name).symlink_to(here / name)
    out = project / "data" / "demo"
    command = [sys.executable, str(here / "data_scripts" / "make_demo.py"), "--out", str(out)]
    asked = {"seed": seed, **sizes, "workers": 1}
    command += [str(part) for key, value in asked.items() for part in (f"--{key}", value)]
    subprocess.run(command, check=True, capture_output=True)
    settings = load_settings({})
    return replace(settings, project=project, nih=out / "nih", vindr=out / "vindr")


def test_phantoms_are_made_from_their_own_seed_and_the_demo_brings_its_exact_boxes(tmp_path):
    settings = demo_of(tmp_path / "project", seed=5, nih=4, vindr=12)
    preset = replace(settings.pretrain, phantoms=6, phantoms_seed=77)
    made = data.load_phantoms(replace(settings, pretrain=preset))
    assert made.size == settings.pretrain.cache_size and len(made.image_ids) >= 6
    own = data.load_nih(settings).images.pixels
    assert not any((picture == own).all(axis=(1, 2)).any() for picture in made.pixels)
    with pytest.raises(SettingsError, match="phantoms_seed 5 is the seed of .*give another seed"):
        data.load_phantoms(replace(settings, pretrain=replace(preset, phantoms_seed=5)))
    boxes = data.load_vindr(settings)
    rows = np.flatnonzero(boxes.abnormal)
    exact, readers = boxes.truths(rows, boxes.exact), boxes.truths(rows, boxes.readings.boxes)
    assert all(set(r["labels"]) <= set(e["labels"]) for e, r in zip(exact, readers, strict=True))
    (settings.vindr / data.EXACT_TABLE).unlink()
    assert data.load_vindr(settings).exact is None
