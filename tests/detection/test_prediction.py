"""Prediction: gray images of any size and kind, boxes in their own pixels."""

import numpy as np
import pytest
import torch
from dicom_files import gradient, make_dataset, to_bytes
from PIL import Image
from tiny_detector import tiny_detector
from torch import nn

from cxr_helpers.data import dicom, nih
from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.detection.prediction import gray_to_tensor, predict, predict_files


def images(n, size=64):
    return np.random.default_rng(0).random((n, size, size), dtype=np.float32)


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


# What is no image.
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), "shape"),
        (np.zeros((0, 8), np.uint8), "shape"),
        (np.full((8, 8), 4000, np.uint16), "uint16.* 4000 holds 12 bits, not 16"),
        (np.full((8, 8), 4000, np.int64), "int64 image: make it uint8"),
        (np.zeros((8, 8), bool), "bool"),
        (torch.full((8, 8), 300), "int64"),
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\); take one channel"),
        (torch.zeros(1, 8, 8), r"\(1, 8, 8\); take one channel"),
        (np.array([["a"]]), "<U1"),
        (np.full((8, 8), 255.0), "255"),
        (np.full((8, 8), np.nan), "nan"),
    ],
)
def test_images_that_are_not_gray_in_range_are_refused(image, words):
    with pytest.raises(ValueError, match=words):
        gray_to_tensor(image)


def test_images_that_fail_and_detectors_without_settings_are_named(detector):
    with pytest.raises(ValueError, match="image 1: int64"):
        predict(detector, [images(1)[0], np.full((8, 8), 9)], batch_size=1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        predict(detector, images(1), batch_size=0)
    with pytest.raises(ValueError, match="Identity has no settings"):
        predict(nn.Identity(), images(1))
    with pytest.raises(ValueError, match="list of files"):
        predict_files(detector, "a.png", nih.read_image)
    assert predict(detector, []) == []


def test_a_file_that_is_absent_or_no_gray_image_is_named(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.png"):
        predict_files(detector, [tmp_path / "absent.png"], nih.read_image)
    (tmp_path / "a.raw").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.raw: uint16 image"):
        predict_files(detector, [tmp_path / "a.raw"], lambda _: np.full((9, 9), 4000, np.uint16))


# What is taken.
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_and_tensors_of_the_three_types_give_the_same_image(kind):
    values = np.array([[0, 51], [204, 255]])
    for image in (values.astype(np.uint8), (values * 257).astype(np.uint16), values / 255):
        tensor = gray_to_tensor(kind(image))
        assert tensor.shape == (3, 2, 2) and tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor[2], [[0, 0.2], [0.8, 1]], rtol=1e-6)
    assert not gray_to_tensor(torch.rand(8, 8, requires_grad=True)).requires_grad
    assert gray_to_tensor(np.zeros((2, 2), np.uint16)).max() == 0


def test_predict_gives_boxes_inside_the_image_and_restores_the_mode():
    built = tiny_detector().train()
    found = predict(built, (images(3) * 255).astype(np.uint8), batch_size=2)
    assert built.training and len(found) == 3
    for one in found:
        assert one["boxes"].shape == (len(one["scores"]), 4)
        assert one["boxes"].min() >= 0 and one["boxes"].max() <= 64
        assert (np.diff(one["scores"]) <= 0).all()
        assert one["labels"].dtype == np.int64 and set(one["labels"]) <= {1, 2}


def test_predictions_depend_neither_on_the_batch_nor_on_the_kind(detector):
    together = predict(detector, images(3), batch_size=3)
    alone = predict(detector, torch.from_numpy(images(3)), batch_size=1)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1e-3)


def test_boxes_stay_float32_under_bfloat16(detector):
    (found,) = predict(detector, images(1), precision=torch.bfloat16)
    assert found["boxes"].dtype == np.float32
    as_bf16 = torch.from_numpy(found["boxes"]).bfloat16().float().numpy()
    assert not np.array_equal(found["boxes"], as_bf16)


def test_boxes_are_in_pixels_of_the_image_that_was_given(detector):
    image = np.zeros((64, 64), np.float32)
    image[8:40, 12:48] = 0.8
    (small,), (large,) = (predict(detector, [np.kron(image, np.ones((k, k)))]) for k in (1, 4))
    # Scores of random weights are nearly equal, so their order may differ.
    overlap = box_iou(small["boxes"] * 4, large["boxes"])
    assert (overlap.max(axis=1) > 0.95).mean() > 0.8


def test_an_image_of_4000_pixels_gives_boxes_inside_it(detector):
    tall = np.zeros((4000, 3000), np.uint8)
    tall[1000:2000, 500:2500] = 200
    (found,) = predict(detector, [tall])
    assert len(found["boxes"]) and (found["boxes"] <= [3000, 4000, 3000, 4000]).all()
    assert found["boxes"].max() > 1000


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_of_8_or_16_bits_gives_boxes_in_its_pixels(detector, tmp_path, bits):
    values = (images(1, size=200)[0] * (2**bits - 1)).astype(f"uint{bits}")
    Image.fromarray(values).save(tmp_path / "a.png")
    (found,) = predict_files(detector, [tmp_path / "a.png"], nih.read_image)
    (direct,) = predict(detector, [nih.read_image(tmp_path / "a.png")])
    np.testing.assert_array_equal(found["boxes"], direct["boxes"])
    assert found["boxes"].max() > 64


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_dicom_gives_boxes_in_its_pixels(detector, tmp_path, photometric):
    stored = gradient(rows=60, columns=90)
    (tmp_path / "wide.dicom").write_bytes(
        to_bytes(make_dataset(stored, PhotometricInterpretation=photometric))
    )
    paths = [str(tmp_path / "wide.dicom")]
    (found,) = predict_files(detector, paths, lambda path: dicom.read_dicom(path).pixels)
    assert len(found["boxes"]) and (found["boxes"].max(axis=0) <= [90, 60, 90, 60]).all()
    assert found["boxes"][:, 2].max() > 64  # pixels of the file, not of the square that goes in
