"""Order and views follow from seed, epoch and image alone, however they are made."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from PIL import Image
from torch.utils.data import DataLoader

from cxr_helpers.pretraining import pairs, views

COUNT = 24
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6), dtype=np.uint8)
IMAGES = IMAGES.repeat(8, axis=1).repeat(8, axis=2)
TWO_VIEWS = views.TwoViews("paper", 16)


def test_draws_follow_from_the_key_and_leave_all_generators_as_they_were():
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = draw(), draw()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    outside = [draw()]
    found = []
    for key in ((0, 1, 2), (0, 1, 2), (0, 2, 1), (1, 1, 2)):
        with pairs.drawn_from(*key):
            found.append(draw())
    with pytest.raises(KeyError), pairs.drawn_from(0):
        raise KeyError
    assert (*outside, draw()) == expected
    assert found[0] == found[1] and len(set(found)) == 3
    assert all(len({one[k] for one in found}) == 3 for k in range(3))


def test_the_views_are_those_of_lightlys_classes():
    made = pairs.ImagePairs(IMAGES, range(COUNT), TWO_VIEWS, seed=5)
    norm = {"normalize": {"mean": [0.5], "std": [0.25]}}
    first, second = views.recipe("paper")
    for place in range(4):
        with pairs.drawn_from(5, 2, place):
            image = Image.fromarray(IMAGES[place])
            expected = BYOLView1Transform(16, **first, **norm)(image)
            other = BYOLView2Transform(16, **second, **norm)(image)
        found = made[2, place]
        assert torch.equal(found[0], expected) and torch.equal(found[1], other)
        assert not torch.equal(found[0], found[1])


def test_an_image_has_its_views_wherever_it_stands():
    whole = pairs.ImagePairs(IMAGES, range(COUNT), TWO_VIEWS, seed=0)
    some = pairs.ImagePairs(IMAGES, [7, 3], TWO_VIEWS, seed=0)
    assert torch.equal(whole[1, 3][0], some[1, 1][0])
    assert not torch.equal(whole[1, 3][0], whole[2, 3][0])
    assert not torch.equal(
        whole[1, 3][0], pairs.ImagePairs(IMAGES, [3], TWO_VIEWS, seed=1)[1, 0][0]
    )
    with pytest.raises(TypeError, match=r"expected \(epoch, place\), got 3; give the loader"):
        whole[3]


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_share_the_batches_of_one(world):
    images = pairs.ImagePairs(IMAGES, range(COUNT), TWO_VIEWS, seed=0)

    def batches(rank, world):
        order = pairs.EpochOrder(images, seed=4, num_replicas=world, rank=rank)
        order.set_epoch(2)
        return [a for a, _ in DataLoader(images, 12 // world, sampler=order)]

    shares = [batches(rank, world) for rank in range(world)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        assert torch.equal(whole, torch.stack(parts, dim=1).flatten(0, 1))


class Spy(pl.LightningModule):
    """Remembers the views that each step saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch[0].sum().item(), batch[1].sum().item()))
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


def fed(**changes):
    options = {"rows": range(20), "batch_size": 8, "seed": 0, **changes}
    return pairs.ViewPairs(IMAGES, make_views=TWO_VIEWS, **options)


def fit(data, epochs):
    spy = Spy()
    pl.Trainer(**QUIET, max_epochs=epochs).fit(spy, data)
    return spy.seen


def test_each_epoch_has_another_order_and_the_seed_fixes_all():
    first, again, other = fit(fed(), 2), fit(fed(), 2), fit(fed(seed=1), 2)
    assert first == again and len(first) == 4  # 20 images fill 2 batches of 8 an epoch
    assert len(set(first)) == 4 and not set(first) & set(other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_resumed_fit_sees_what_an_unbroken_one_sees(tmp_path, workers):
    def part(epochs, resume=None):
        spy, trainer = Spy(), pl.Trainer(**QUIET, max_epochs=epochs)
        trainer.fit(spy, fed(workers=workers), ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return spy.seen

    assert part(1) + part(3, tmp_path / "last.ckpt") == fit(fed(), 3)


@pytest.mark.parametrize("batch_size", [0, 1, 21])
def test_a_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} does not fit 20 images"):
        fed(batch_size=batch_size)


def test_rows_are_numbers_or_a_mask():
    assert fit(fed(rows=np.arange(COUNT) < 20), 1) == fit(fed(), 1)
    for rows, told in (
        ([0, COUNT], f"from 0 to {COUNT}, but there are {COUNT} images"),
        ([-1, 2], "from -1 to 2"),
        (np.ones(3, bool), r"rows are bool \(3,\)"),
        ([0.5], "rows are float64"),
        ((np.arange(COUNT) < 20).astype(int), "give a mask as bool"),
    ):
        with pytest.raises(ValueError, match=told):
            fed(rows=rows)


@pytest.mark.parametrize(
    "pixels, told", [(IMAGES.astype(np.int64), "got int64"), (IMAGES[0], r"got shape \(48, 48")]
)
def test_pixels_of_another_kind_are_refused_before_training(pixels, told):
    with pytest.raises(ValueError, match=told):
        pairs.ImagePairs(pixels, range(20), TWO_VIEWS, seed=0)


def test_stored_pixels_are_read_and_never_written(tmp_path):
    np.save(tmp_path / "pixels.npy", IMAGES)
    stored = np.load(tmp_path / "pixels.npy", mmap_mode="r")

    def whiten(image):
        image[:] = 255
        return torch.from_numpy(image), torch.from_numpy(image)

    for given in (stored, torch.from_numpy(IMAGES)):
        assert pairs.ImagePairs(given, [5], whiten, seed=0)[0, 0][0].min() == 255
    assert np.array_equal(stored, np.load(tmp_path / "pixels.npy")) and IMAGES[5].min() < 255
