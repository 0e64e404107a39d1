"""Two views of a radiograph."""

import numpy as np
import pytest
import torch

from cxr_helpers.pretraining import views

GRADIENT = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (96, 1))


@pytest.mark.parametrize("preset", sorted(views.PRESETS))
def test_views_have_the_asked_size_and_differ(preset):
    torch.manual_seed(0)
    np.random.seed(0)
    first, second = views.TwoViews(preset, 64)(GRADIENT)
    assert first.shape == second.shape == (1, 64, 64) and first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert 0 <= views.view_to_image(first).min() and views.view_to_image(first).max() <= 1


def test_byte_word_and_float_images_are_the_same_picture():
    words = GRADIENT.astype(np.uint16) << 8
    floats = GRADIENT / 255
    assert (views.to_uint8(words) == GRADIENT).all()
    assert (views.to_uint8(floats) == GRADIENT).all()


def test_the_demo_recipe_is_gray_only_and_keeps_large_crops():
    both = views.PRESETS["demo"]["both"]
    assert both["cj_hue"] == both["cj_sat"] == both["random_gray_scale"] == 0
    assert both["min_scale"] > views.PRESETS["paper"]["both"]["min_scale"]


def test_color_augmentations_do_nothing_on_gray():
    from lightly.transforms.byol_transform import BYOLView1Transform
    from PIL import Image

    off = {"cj_bright": 0, "cj_contrast": 0, "gaussian_blur": 0, "hf_prob": 0, "min_scale": 1.0}
    transform = BYOLView1Transform(96, cj_prob=1, **off, normalize=None)
    torch.manual_seed(0)
    image = Image.fromarray(GRADIENT)
    assert torch.equal(transform(image), transform(image))


@pytest.mark.parametrize("preset, size", [("medical", 64), ("demo", 0)])
def test_wrong_arguments_are_named(preset, size):
    with pytest.raises(ValueError, match=preset if size else "image_size is 0"):
        views.TwoViews(preset, size)


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4), np.int64), np.full((4, 4), np.nan)]
)
def test_images_of_the_wrong_kind_are_refused(image):
    with pytest.raises(ValueError, match="expected"):
        views.to_uint8(image)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.full((4, 4), 4095, np.uint16), "uint16 of the full range, got one up to 4095.*12 bits"),
        (np.full((4, 4), 32767, np.uint16), "15 bits; scale it to 65535, or pass floats"),
        (np.full((4, 4), 7, np.int32), "got int32 from 7 to 7; convert it"),
        (np.ones((4, 4), bool), "got bool; convert"),
        (np.full((4, 4), "7", object), "got object; convert"),
        (np.array([[0.0, np.inf]]), "expected floats in .*inf"),
        (torch.full((4, 4), -0.1), r"expected floats in \[0, 1\], got -0\.1"),
        (torch.zeros(4, 4, dtype=torch.int64), "got int64 from 0 to 0"),
        (np.zeros((0, 4), np.uint8), "one gray image"),
        (np.ma.masked_array([[0.0, 0.5]], [[False, True]]), "masked; give them a value"),
    ],
)
def test_what_is_no_gray_image_of_the_contract_is_named(image, told):
    with pytest.raises(ValueError, match=told):
        views.to_uint8(image)


def test_tensors_and_words_at_the_edge_are_taken():
    assert views.to_uint8(torch.tensor([[0.0, 0.5, 1.0]])).tolist() == [[0, 128, 255]]
    assert views.to_uint8(torch.tensor([[7]], dtype=torch.uint8)).tolist() == [[7]]
    assert views.to_uint8(np.array([[0, 32768]], np.uint16)).tolist() == [[0, 128]]
    assert views.to_uint8(np.zeros((2, 2), np.uint16)).max() == 0
    assert views.to_uint8(np.array([[65535, 256]], ">u2")).tolist() == [[255, 1]]
    short = torch.tensor([[0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    assert views.to_uint8(short).tolist() == [[0, 255]]
    first, second = views.TwoViews("demo", 8)(torch.rand(16, 16))
    assert first.shape == second.shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"one view \(1, H, W\), got shape \(2, 8, 8\)"):
        views.view_to_image(torch.zeros(2, 8, 8))


def test_each_augmentation_shows_what_does_nothing_on_gray():
    state = np.random.get_state()[1].copy()
    assert views.no_effect_on_gray(GRADIENT, "paper", 64) == ["saturation", "hue", "grayscale"]
    texture = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    assert views.no_effect_on_gray(texture, "demo", 64) == ["saturation", "hue", "grayscale"]
    assert (np.random.get_state()[1] == state).all()
    colored = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="one gray image"):
        views.each_augmentation(colored, "paper", 64)


def test_blur_and_solarization_differ_between_the_two_views():
    first, second = views.recipe("paper")
    assert (first["gaussian_blur"], second["gaussian_blur"]) == (1.0, 0.1)
    assert (first["solarization_prob"], second["solarization_prob"]) == (0.0, 0.2)


def test_how_much_of_a_finding_is_in_view():
    boxes = torch.tensor([[4.0, 0.0, 8.0, 2.0], [0.0, 0.0, 10.0, 10.0]])
    crops = np.array([[0, 0, 10, 5], [5, 5, 5, 5]])
    assert views.share_in_view(boxes, crops).tolist() == [[0.25, 0.5], [0.0, 0.25]]
    for box in ([4, 4, 4, 8], [4, 4, torch.inf, 8], [torch.nan, 4, 6, 8]):
        with pytest.raises(ValueError, match="a box has no area, or no end"):
            views.share_in_view(torch.tensor([box]), crops)
    for short in (torch.uint8, torch.int16, torch.float16):  # whose areas overflow
        large = torch.tensor([[0, 0, 250, 250]], dtype=short)
        assert views.share_in_view(large, [[0, 0, 300, 125]]).tolist() == [[0.5]]
        assert views.share_in_view(large, torch.tensor([[0, 0, 250, 250]]).to(short)) == 1
    with pytest.raises(ValueError, match=r"expected \(N, 4\) boxes .* got \(4,\)"):
        views.share_in_view(torch.zeros(4), crops)


@pytest.mark.parametrize("wrong", [{"hf_prob": 1.5}, {"min_scale": -0.1}, {"gaussian_blur": 2}])
def test_a_recipe_with_a_share_out_of_range_is_refused(wrong):
    first, second = views.recipe("demo")
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*shares from 0 to 1"):
        views.TwoViews((first, second | wrong), 16)


def test_nothing_at_all_leaves_the_image():
    image = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    for view in views.TwoViews((views.NOTHING, views.NOTHING), 8)(image):
        assert np.allclose(views.view_to_image(view), image / 255)
