"""Views of a whole batch, compared with lightly, torchvision and Pillow one image at a time."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from cxr_helpers.pretraining import view_pairs, views

COUNT, SIZE = 24, 32
NOTHING = {"hf_prob": 0, "cj_prob": 0, "gaussian_blur": 0, "solarization_prob": 0}
SECOND = views.recipe("paper")[1]
GRAY_LEVELS = 4.5 / 255  # Pillow rounds to bytes after each of up to eleven passes


def smooth_images(count=COUNT, side=48):
    noise = np.random.default_rng(0).random((count, side, side))
    smooth = np.stack([gaussian_filter(image, 2) for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.round(smooth * 255).astype(np.uint8)


IMAGES = smooth_images()


def with_pillow(image, draws, i):
    """The same drawn changes through torchvision and Pillow, as lightly's classes do them."""
    top, left, height, width = draws.box[i].tolist()
    picture = F.resized_crop(Image.fromarray(image), top, left, height, width, [SIZE, SIZE])
    picture = F.hflip(picture) if draws.flip[i] else picture
    changes = [
        lambda p: F.adjust_brightness(p, draws.brightness[i].item()),
        lambda p: F.adjust_contrast(p, draws.contrast[i].item()),
    ]
    for change in reversed(changes) if draws.contrast_first[i] else changes:
        picture = change(picture)
    if draws.sigma[i] > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(draws.sigma[i].item()))
    if draws.solarize[i]:
        picture = ImageOps.solarize(picture, threshold=128)
    return np.asarray(picture) / 255


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"hf_prob": 0.5},
        {"cj_prob": 1.0},
        {"gaussian_blur": 1.0},
        {"hf_prob": 0.5, "cj_prob": 0.8, "gaussian_blur": 0.7},
    ],
    ids=["crop", "flip", "jitter", "blur", "all"],
)
def test_the_same_draws_give_pillows_picture(changed):
    draws = view_pairs.draw(
        SECOND | NOTHING | changed, COUNT, (48, 48), torch.Generator().manual_seed(0)
    )
    made = view_pairs.apply(torch.from_numpy(IMAGES).float() / 255, draws, SIZE).numpy()
    expected = np.stack([with_pillow(image, draws, i) for i, image in enumerate(IMAGES)])
    assert np.abs(made - expected).max() < GRAY_LEVELS
    assert np.abs(made - expected).mean() < 1 / 255


def test_solarization_inverts_what_is_bright():
    draws = view_pairs.draw(
        SECOND | NOTHING | {"solarization_prob": 1, "min_scale": 1.0},
        1,
        (4, 4),
        torch.Generator().manual_seed(0),
    )
    whole = torch.tensor([[0, 0, 4, 4]])
    draws = view_pairs.ViewDraws(**{**vars(draws), "box": whole})
    image = torch.tensor([0.0, 0.25, 0.5, 0.875]).expand(1, 4, 4)
    assert view_pairs.apply(image, draws, 4)[0, 0].tolist() == [0.0, 0.25, 0.5, 0.125]


def test_crops_are_drawn_as_torchvision_draws_them():
    boxes = view_pairs.draw_boxes(
        4000, (96, 96), min_scale=0.3, generator=torch.Generator().manual_seed(0)
    ).double()
    torch.manual_seed(0)
    image = torch.empty(1, 96, 96)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    ).double()
    for statistic in (boxes.mean(0) - theirs.mean(0), boxes.std(0) - theirs.std(0)):
        assert statistic.abs().max() < 1.0  # pixels of 96; the standard error is about 0.3
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 96 and (boxes[:, 1] + boxes[:, 3]).max() <= 96


def test_a_crop_that_never_fits_falls_back_to_the_center_as_in_torchvision():
    boxes = view_pairs.draw_boxes(
        5, (10, 100), min_scale=1.0, generator=torch.Generator().manual_seed(0)
    )
    theirs = RandomResizedCrop.get_params(torch.empty(1, 10, 100), [1.0, 1.0], [3 / 4, 4 / 3])
    assert boxes.tolist() == [list(theirs)] * 5


def test_how_much_of_a_finding_is_in_view():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0]])
    crops = torch.tensor([[0, 0, 8, 8], [4, 0, 4, 8], [6, 6, 2, 2]])
    expected = [[1.0, 1.0], [0.0, 0.5], [0.0, 0.0]]
    assert view_pairs.share_in_view(boxes, crops).tolist() == expected
    assert view_pairs.share_in_view(boxes[:0], crops).shape == (3, 0)


@pytest.mark.parametrize("preset", sorted(views.PRESETS))
def test_views_are_distributed_as_lightlys(preset):
    """Mean and spread of both views over many draws of one image agree with lightly's classes."""
    image, count = IMAGES[0], 600
    torch.manual_seed(0)
    np.random.seed(0)
    reference = views.TwoViews(preset, SIZE)
    theirs = [
        torch.stack(side) for side in zip(*(reference(image) for _ in range(count)), strict=True)
    ]
    batch = view_pairs.BatchViews(*views.recipe(preset), SIZE)
    ours = batch(torch.from_numpy(image).expand(count, -1, -1), torch.Generator().manual_seed(1))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        scatter = b.mean((1, 2, 3)).std()
        assert (a.mean() - b.mean()).abs() < 4 * scatter * (2 / count) ** 0.5
        assert (a.std() / b.std() - 1).abs() < 0.08
        detail = [(x - x.mean((2, 3), keepdim=True)).std((1, 2, 3)).mean() for x in (a, b)]
        assert abs(detail[0] / detail[1] - 1) < 0.08


def test_the_generator_alone_decides():
    batch = view_pairs.BatchViews(*views.recipe("demo"), SIZE)
    images = torch.from_numpy(IMAGES)
    state = torch.random.get_rng_state()
    first, again, other = (batch(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0], first[1])
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("world", [2, 3])
def test_the_shares_of_several_processes_are_the_views_of_one(world):
    make = view_pairs.BatchViews(*views.recipe("paper"), SIZE)
    whole = make(torch.from_numpy(IMAGES), torch.Generator().manual_seed(5))
    for rank in range(world):
        share = torch.from_numpy(IMAGES[rank::world])
        found = make(share, torch.Generator().manual_seed(5), rank=rank, world=world)
        for view, expected in zip(found, whole, strict=True):
            assert torch.allclose(view, expected[rank::world], atol=1e-5)


def test_byte_word_and_float_images_give_the_same_views():
    batch = view_pairs.BatchViews(*views.recipe("demo"), SIZE)
    kinds = [IMAGES, IMAGES.astype(np.uint16) * 257, IMAGES / 255]
    made = [batch(torch.from_numpy(k), torch.Generator().manual_seed(0))[0] for k in kinds]
    assert torch.allclose(made[0], made[1]) and torch.allclose(made[0], made[2], atol=1e-6)


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(4, 4), "got shape"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), "torch.int64"),
        (torch.full((1, 4, 4), 2.0), "got 2 to 2"),
        (torch.full((1, 4, 4), float("nan")), "nan"),
        (torch.tensor([[[0.5, float("inf")]]]), "got 0.5 to inf"),
        (torch.ones(1, 4, 4, dtype=torch.bool), "got torch.bool"),
        (np.full((1, 4, 4), 7, np.int32), "got torch.int32 from 7 to 7; convert"),
        (np.full((1, 4, 4), "7", object), "got object"),
        (
            np.full((2, 4, 4), 4095, np.uint16),
            "up to 4095, which hold 12 bits; scale them to 65535",
        ),
        (np.full((2, 4, 4), 32767, np.uint16), "15 bits"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        view_pairs.to_unit_range(images)


def test_arrays_are_taken_and_full_words_are_divided_by_65535():
    words = np.array([[[0, 32768, 65535]]], np.uint16)
    assert view_pairs.to_unit_range(words).tolist() == [[[0.0, pytest.approx(0.5, abs=1e-4), 1.0]]]
    assert view_pairs.to_unit_range(np.zeros((1, 2, 2), np.uint16)).max() == 0
    assert view_pairs.to_unit_range(np.zeros((0, 2, 2), np.uint16)).shape == (0, 2, 2)
    assert view_pairs.to_unit_range(torch.ones(1, 1, 1).half()).dtype == torch.float32


def test_boxes_without_an_area_or_of_another_shape_have_no_share():
    crops = np.array([[0, 0, 10, 5]])
    assert view_pairs.share_in_view(np.array([[4.0, 0.0, 8.0, 2.0]]), crops).tolist() == [[0.25]]
    with pytest.raises(ValueError, match="a box has no area"):
        view_pairs.share_in_view(torch.tensor([[4.0, 4.0, 4.0, 8.0]]), crops)
    with pytest.raises(ValueError, match=r"expected \(N, 4\) boxes .* got \(4,\)"):
        view_pairs.share_in_view(torch.zeros(4), crops)


@pytest.mark.parametrize(
    "first, size, message",
    [
        ({**SECOND, "min_scale": 0.0}, 32, "min_scale is a share above 0"),
        ({**SECOND, "hf_prob": 1.5}, 32, "each chance up to 1"),
        ({**SECOND, "sigmas": (2.0, 0.1)}, 32, "sigmas is .2.0, 0.1."),
        ({}, 32, "lacks"),
        ({**SECOND, "rr_prob": 0.5}, 32, "rr_prob"),
        (SECOND, 0, "image_size is 0"),
    ],
)
def test_wrong_recipes_are_named(first, size, message):
    with pytest.raises(ValueError, match=message):
        view_pairs.BatchViews(first, SECOND, size)


class Spy(pl.LightningModule):
    """Remembers the views that each step saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].sum().item())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fit(pairs, epochs):
    spy = Spy()
    pl.Trainer(**QUIET, max_epochs=epochs).fit(spy, pairs)
    return spy.seen


def pairs(**changes):
    batch = view_pairs.BatchViews(*views.recipe("demo"), 16)
    options = {"batch_size": 8, "seed": 0, **changes}
    return view_pairs.ViewPairs(IMAGES, range(20), batch, **options)


def test_each_epoch_has_another_order_and_the_seed_fixes_all():
    first, again, other = fit(pairs(), 2), fit(pairs(), 2), fit(pairs(seed=1), 2)
    assert first == again and len(first) == 4  # 20 images fill 2 batches of 8 an epoch
    assert len(set(first)) == 4 and not set(first) & set(other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_resumed_fit_sees_what_an_unbroken_one_sees(tmp_path, workers):
    def part(epochs, resume=None):
        spy, trainer = Spy(), pl.Trainer(**QUIET, max_epochs=epochs)
        trainer.fit(spy, pairs(workers=workers), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return spy.seen

    assert part(1) + part(3, tmp_path / "last.ckpt") == fit(pairs(), 3)


@pytest.mark.parametrize("batch_size", [0, 1, 21])
def test_a_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} does not fit 20 images"):
        pairs(batch_size=batch_size)


def test_rows_are_numbers_or_a_mask():
    mask = np.arange(COUNT) < 20
    batch = view_pairs.BatchViews(*views.recipe("demo"), 16)
    masked = view_pairs.ViewPairs(IMAGES, mask, batch, batch_size=8, seed=0)
    assert len(masked.dataset) == 20 and fit(masked, 1) == fit(pairs(), 1)
    assert torch.equal(
        view_pairs.GrayImages(torch.from_numpy(IMAGES), [3])[0], torch.from_numpy(IMAGES[3])
    )
    for rows, told in (
        ([0, COUNT], f"from 0 to {COUNT}, but there are {COUNT} images"),
        ([-1, 2], "from -1 to 2"),
        (np.ones(3, bool), r"rows are bool \(3,\)"),
        ([0.5], "rows are float64"),
    ):
        with pytest.raises(ValueError, match=told):
            view_pairs.GrayImages(IMAGES, rows)


def test_pixels_of_another_kind_are_refused_before_training():
    batch = view_pairs.BatchViews(*views.recipe("demo"), 16)
    for pixels, told in (
        (IMAGES.astype(np.int64), "got int64"),
        (IMAGES[0], r"got shape \(48, 48"),
    ):
        with pytest.raises(ValueError, match=told):
            view_pairs.ViewPairs(pixels, range(20), batch, batch_size=8, seed=0)
    with pytest.raises(ValueError, match="std is 0"):
        view_pairs.BatchViews(SECOND, SECOND, 16, std=0)


def test_a_batch_in_one_copy_is_the_images_one_by_one(tmp_path):
    np.save(tmp_path / "pixels.npy", IMAGES)
    stored = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    images = view_pairs.GrayImages(stored, [5, 3, 9, 1])
    batch = images.__getitems__([2, 0, 2])
    assert torch.equal(batch, torch.stack([images[2], images[0], images[2]]))
    batch[:] = 0
    assert np.array_equal(stored, IMAGES)
