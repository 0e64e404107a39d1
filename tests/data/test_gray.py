"""gray.py: what counts as one gray image, and how it fits into a square."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxr_helpers.data.gray import fit_square, gray_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
TAKEN = {
    "uint8": RAMP,
    "uint16 of the full range": RAMP.astype(np.uint16) * 257,
    "uint16 of the other byte order": (RAMP.astype(np.uint16) * 257).astype(">u2"),
    "float32": (RAMP / 255).astype(np.float32),
    "float64": RAMP / 255,
    "nothing masked": np.ma.masked_array(RAMP),
    "a tensor of bytes": torch.from_numpy(RAMP),
    "a tensor that wants a gradient": torch.tensor(RAMP / 255, requires_grad=True),
    "what read_dicom returns": SimpleNamespace(pixels=(RAMP / 255).astype(np.float32)),
}
REFUSED = {
    "no pixel": (np.zeros((0, 4), np.uint8), "shape"),
    "three channels": (np.zeros((4, 4, 3), np.uint8), "shape"),
    "NaN": (np.full((4, 4), np.nan), "nan to nan"),
    "inf": (np.array([[0, np.inf]]), "inf"),
    "floats to 255": (np.full((4, 4), 255.0), "255.0 to 255.0; floats must be in"),
    "below zero": (np.array([[-0.1, 1]]), "-0.1 to 1.0"),
    "int64": (np.array([[0, 255]]), "int64 image, 0 to 255"),
    "int64 of 0 and 1": (np.array([[0, 1]]), "int64 image, 0 to 1"),
    "int32": (torch.zeros((2, 2), dtype=torch.int32), "int32"),
    "bool": (np.array([[True, False]]), "bool"),
    "objects": (np.array([[0, None]]), "object"),
    "12 bits": (np.array([[0, 4095]], np.uint16), "up to 4095 holds 12 bits"),
    "15 bits": (np.array([[0, 32767]], np.uint16), "15 bits"),
    "a list": ([[0, 255]], "int64"),
    "masked": (np.ma.masked_array([[0.0, 0.5]], [[False, True]]), "masked; give them a value"),
}


@pytest.mark.parametrize("image", TAKEN.values(), ids=TAKEN)
def test_every_image_of_the_contract_comes_out_the_same(image):
    assert (fit_square(image, 16) == RAMP).all()
    gray = gray_image(image)
    assert gray.dtype in (np.uint8, np.float32)
    np.testing.assert_allclose(gray / (255 if gray.dtype == np.uint8 else 1), RAMP / 255, atol=1e-6)


@pytest.mark.parametrize(("image", "message"), REFUSED.values(), ids=REFUSED)
def test_images_of_another_kind_are_refused_by_name(image, message):
    with pytest.raises(ValueError, match=message):
        fit_square(image, 4)


def test_a_black_image_of_16_bits_and_one_of_the_upper_half_are_taken():
    assert fit_square(np.zeros((2, 2), np.uint16), 2).max() == 0
    assert fit_square(np.full((2, 2), 32768, np.uint16), 2).max() == 128


def test_scaling_keeps_brightness_and_no_side_is_refused():
    assert fit_square(np.full((30, 30), 77, np.uint8), 8).tolist() == [[77] * 8] * 8
    assert (fit_square(np.full((30, 30), 0.5, np.float32), 8) == 128).all()
    with pytest.raises(ValueError, match="1 pixel or more, not 0"):
        fit_square(np.zeros((4, 4), np.uint8), 0)
