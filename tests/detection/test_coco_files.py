"""COCO's files: what goes in comes back, and what does not fit is refused by file and value."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from box_cases import NAMES, as_coco_truth, inside, prediction, random_case, truth

from cxr_helpers.detection.coco_files import CocoError, read_coco, write_coco, write_coco_results

NODULE = [truth([[0, 0, 9, 9]], [2])]


def written(folder, truths=NODULE, **options):
    return write_coco(folder / "truth.json", as_coco_truth(truths, **options))


def test_files_come_back_as_they_went_and_tensors_as_arrays_do(tmp_path):
    predictions, truths = (inside(x) for x in random_case(n=20))
    truths.append(truth())  # a normal image
    predictions.append(prediction())
    path = write_coco(tmp_path / "new" / "truth.json", as_coco_truth(truths), suffix=".png")
    back = read_coco(path, class_names=NAMES)
    assert back.image_ids == as_coco_truth(truths).image_ids and len(back.boxes) == 21
    for before, read in zip(truths, back.boxes, strict=True):
        for key, value in before.items():
            np.testing.assert_allclose(read[key], value)
    assert [p.name for p in path.parent.iterdir()] == ["truth.json"]
    results = write_coco_results(str(tmp_path / "r.json"), back.image_ids, predictions)
    rows, found = json.loads(results.read_text()), predictions[-2]
    assert rows[-1]["image_id"] == 20 and rows[-1]["score"] == found["scores"][-1]
    sides = found["boxes"][-1][2:] - found["boxes"][-1][:2]
    np.testing.assert_allclose(rows[-1]["bbox"], [*found["boxes"][-1][:2], *sides])
    tensors = [{k: torch.tensor(v) for k, v in one.items()} for one in truths]
    again = write_coco(tmp_path / "t.json", as_coco_truth(tensors), suffix=".png")
    assert again.read_text() == path.read_text()


@pytest.mark.parametrize("suffix", ["", ".png", ".PNG", ".dcm"])
def test_every_id_comes_back_as_it_went_in(tmp_path, suffix):
    ids = ("00000013_000.png", "1.2.840.dcm", "p1/s1", "scan", 13, np.int64(14), np.str_("x.PNG"))
    ids += ("1.2.840.113619.2.1",)
    many = as_coco_truth([truth()] * 8, ids=ids)
    path = write_coco(str(tmp_path / "truth.json"), many, suffix=suffix)
    assert read_coco(str(path)).image_ids == ids
    files = [entry["file_name"] for entry in json.loads(path.read_text())["images"]]
    assert files[3] == f"scan{suffix}"
    assert files[0] == f"00000013_000.png{suffix if suffix == '.dcm' else ''}"


def test_classes_are_matched_by_name_and_not_by_number(tmp_path):
    path, other = written(tmp_path), (NAMES[1], NAMES[0], *NAMES[2:])
    assert read_coco(path, class_names=other).boxes[0]["labels"].tolist() == [1]


@pytest.mark.parametrize("names", [("mass", "Nodule", "heart", "hernia"), NAMES[:3], (*NAMES, "x")])
def test_a_class_that_differs_by_a_letter_or_is_absent_is_named(tmp_path, names):
    with pytest.raises(CocoError, match="truth.json has other classes"):
        read_coco(written(tmp_path), class_names=names)


def test_without_names_the_classes_are_those_of_the_file_by_number(tmp_path):
    path = written(tmp_path)
    content = json.loads(path.read_text())
    content["categories"].reverse()
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")  # some tools' first mark
    read = read_coco(path)
    assert read.class_names == NAMES and read.boxes[0]["labels"].tolist() == [2]


# What is not written.
TWO = as_coco_truth([truth()] * 2)


@pytest.mark.parametrize(
    ("wrong", "suffix", "words"),
    [
        *[
            (as_coco_truth([truth([box], [1])]), "", "image000.*empty or outside")
            for box in ([0, 0, 500, 9], [5, 5, 5, 9], [-3, 0, 9, 9])
        ],
        (as_coco_truth([truth([[9, 9, 4, 4]], [1])]), "", "image 'image000': boxes has .9.0, 9.0"),
        (replace(TWO, image_ids=("a", "a")), "", "'a' occurs twice"),
        (replace(TWO, image_ids=("a", "a.png")), ".png", "2 images have the file_name a.png"),
        (TWO, "png", "write .png"),
        (replace(TWO, image_hw=TWO.image_hw[:1]), "", "2 image_ids, 1 image_hw, 2 boxes"),
        (replace(TWO, image_ids="ab"), "", "a list, not the text 'ab'"),
        *[(replace(TWO, image_ids=(i, "b")), "", f"image id {i} is") for i in (1.5, None, True)],
    ],
)
def test_what_makes_no_file_is_refused_and_a_file_stays(tmp_path, wrong, suffix, words):
    before = written(tmp_path).read_text()
    with pytest.raises(ValueError, match=words):
        write_coco(tmp_path / "truth.json", wrong, suffix=suffix)
    assert (tmp_path / "truth.json").read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_where_a_file_cannot_stand(tmp_path):
    path = written(tmp_path)
    with pytest.raises(IsADirectoryError):
        write_coco(tmp_path, TWO)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_results_that_do_not_fit_are_not_written(tmp_path):
    turned = prediction([[9, 0, 4, 9]], [1], [0.5])
    with pytest.raises(ValueError, match="image 'a': boxes has"):
        write_coco_results(tmp_path / "r.json", ["a"], [turned])
    with pytest.raises(CocoError, match="1 image_ids, 2 predictions"):
        write_coco_results(tmp_path / "r.json", ["a"], [prediction()] * 2)


# What is not read.
def put(key, place=0, **values):
    """A change of one entry of a file's content."""

    def damage(content):
        content[key][place] |= values

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c.pop("categories"), "no COCO annotation file"),
        (lambda c: c.update(annotations={"1": {}}), "images, annotations and categories, each a"),
        (put("annotations", iscrowd=1), "iscrowd 1: a crowd"),
        (put("annotations", iscrowd="0"), "iscrowd '0'"),
        (put("annotations", category_id=77), "names no image or class"),
        (put("annotations", image_id=77), "names no image or class"),
        (put("annotations", image_id=[1]), r"annotation 1 has image_id \[1\]"),
        (put("annotations", bbox=[390, 0, 20, 5]), "image000.*outside"),
        (put("annotations", bbox=[390, 0, 20]), "annotation 1 has bbox"),
        (put("annotations", bbox=None), "annotation 1 has bbox None"),
        (put("annotations", bbox=[1, 2, None, 4]), r"bbox \[1, 2, None, 4\]"),
        (put("annotations", bbox=["1", "2", "3", "4"]), r"bbox \['1', '2'"),
        (put("annotations", bbox={"x": 1}), "bbox {'x': 1}"),
        (put("annotations", bbox=[1, 2, 3, float("nan")]), "bbox .*nan"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 1 lacks bbox"),
        (lambda c: c["annotations"][0].pop("image_id"), "annotation 1 lacks image_id"),
        (lambda c: c["annotations"].append({"iscrowd": 1}), "at place 1 lacks bbox, cat"),
        (put("images", height=None), "image000' has a height or width of None"),
        (put("images", width="400"), "width of '400'"),
        (put("images", width=0), "width of 0"),
        (lambda c: c["images"].append("b.png"), "image at place 2 lacks id"),
        (put("images", 1, file_name="b/image000.png"), "2 images have the name image000,"),
        (put("images", 1, id=1), "2 images have the id 1,"),
        (put("categories", name="nodule"), "2 classes have the name nodule"),
        (put("categories", id=2), "2 classes have the id 2"),
    ],
)
def test_a_damaged_annotation_file_is_named_with_its_value(tmp_path, damage, words):
    path = written(tmp_path, [*NODULE, truth()])
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CocoError, match=f"truth.json.*{words}"):
        read_coco(path, class_names=NAMES)


@pytest.mark.parametrize(
    ("text", "words"), [("[]", "needs images, annotations"), ("", "no JSON"), ("{", "no JSON")]
)
def test_what_is_no_annotation_file_is_named(tmp_path, text, words):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(CocoError, match=f"truth.json.*{words}"):
        read_coco(tmp_path / "truth.json")
