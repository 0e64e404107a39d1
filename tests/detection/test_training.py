"""Training: learns an image by heart, and refuses what trains wrongly or ends the process."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tiny_detector import tiny_detector
from torch import nn
from torch.utils.data import DataLoader

from cxr_helpers.detection.boxes import box_iou
from cxr_helpers.detection.prediction import gray_to_tensor, predict
from cxr_helpers.detection.training import DetectorModule, collate_detection

IMAGE = torch.full((3, 64, 64), 0.5)


def targets(box=None, label=1):
    boxes = torch.tensor([] if box is None else [box], dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.full((len(boxes),), label)}


GOOD = targets([1, 1, 30, 30])


def train(images, targets):
    module = DetectorModule(tiny_detector().train(), optimizer="sgd", learning_rate=0.1)
    module.log_dict = lambda *values, **options: None
    return module.training_step((images, targets), 0)


def test_the_detector_learns_one_image_by_heart():
    image = np.zeros((64, 64), np.float32)
    image[16:40, 12:44] = 1
    item = (gray_to_tensor(image), targets([12, 16, 44, 40], 2))
    built = tiny_detector(batch_norm="train", box_batch_size_per_image=16, sampling_ratio=1).train()
    module = DetectorModule(built, optimizer="adamw", learning_rate=2e-3, warmup_steps=5)
    loader = DataLoader([item] * 4, 4, collate_fn=collate_detection)
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_epochs=25, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert trainer.callback_metrics["loss"] > 0
    assert trainer.optimizers[0].param_groups[0]["lr"] < 2e-4  # the cosine has come down
    (found,) = predict(built, [image])
    assert found["labels"][0] == 2
    assert box_iou(found["boxes"][:1], item[1]["boxes"])[0, 0] > 0.5


def test_a_loss_that_is_not_finite_stops_training_by_name():
    class Broken(nn.Module):
        def forward(self, images, targets):
            return {"loss_classifier": torch.tensor(float("nan"))}

    module = DetectorModule(Broken(), optimizer="sgd", learning_rate=1.0)
    module.trainer = type("Trainer", (), {"global_step": 7})()
    with pytest.raises(FloatingPointError, match="loss_classifier.*learning rate"):
        module.training_step(([], []), 0)
    with pytest.raises(ValueError, match="lion"):
        DetectorModule(Broken(), optimizer="lion", learning_rate=1.0)


def fitted(backbone_rate, steps=3):
    """How far the ResNet and the rest moved, each a largest change, and the rates at the end."""
    built = tiny_detector(batch_norm="train").train()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    module = DetectorModule(
        built, optimizer="adamw", learning_rate=1e-3, backbone_rate=backbone_rate, warmup_steps=0
    )
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    loader = DataLoader([(image, GOOD)] * 2, 2, collate_fn=collate_detection)
    trainer = pl.Trainer(
        max_epochs=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[LooksBetween()],
    )  # fmt: skip
    trainer.fit(module, loader)
    moved = {k: float((v - before[k]).abs().max()) for k, v in built.state_dict().items()}
    body = {k: v for k, v in moved.items() if k.startswith("backbone.body.")}
    rest = max(v for k, v in moved.items() if k not in body)
    return body, rest, [group["lr"] for group in trainer.optimizers[0].param_groups]


class LooksBetween(pl.Callback):
    """Switches training off and on after each epoch, as a look at validation images does."""

    def on_train_epoch_end(self, trainer, module):
        module.detector.eval()
        module.detector.train()


def test_a_frozen_backbone_keeps_weights_and_statistics_and_the_rest_learns():
    body, rest, rates = fitted(0.0)
    assert any("running_mean" in name for name in body) and max(body.values()) == 0
    assert rest > 1e-4 and len(rates) == 1


def test_a_slow_backbone_moves_less_than_a_free_one():
    (slow, rest, rates), (free, _, one_rate) = fitted(0.1), fitted(1.0)
    slow, free = (b["backbone.body.layer4.1.conv2.weight"] for b in (slow, free))
    assert 0 < slow < 0.3 * free < free and rest > 1e-4
    assert rates[1] == pytest.approx(0.1 * rates[0]) and len(one_rate) == 1


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_the_rate_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"backbone_rate {share}.*0 for a frozen"):
        DetectorModule(tiny_detector(), optimizer="sgd", learning_rate=1.0, backbone_rate=share)


@pytest.mark.parametrize(
    ("box", "label", "words"),
    [
        ([1, 1, 30, 30], 0, "label 0; 0 is background, and the classes are 1 mass, 2 nodule"),
        ([1, 1, 30, 30], -1, "label -1"),
        ([1, 1, 30, 30], 3, "label 3.* 2 nodule"),
        ([5, 5, 5, 20], 1, "5.0, 5.0, 5.0, 20.0"),
        ([9, 9, 4, 4], 1, "9.0, 9.0, 4.0, 4.0"),
        ([0, 5, np.inf, 20], 1, "inf"),
        ([0, np.nan, 9, 20], 1, "nan"),
        ([100, 100, 120, 120], 1, "100.0.*within "),
    ],
)
def test_what_cannot_train_is_refused_with_its_image(box, label, words):
    odd = targets(box, label) | {"image_id": torch.tensor(42)}
    with pytest.raises(ValueError, match=rf"image 1 of the batch \(image_id 42\).*{words}"):
        train([IMAGE] * 2, [GOOD, odd])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.tensor([1], dtype=torch.int32)}, "labels of torch.int32"),
        ({"labels": torch.tensor([True])}, "labels of torch.bool"),
        ({"labels": torch.tensor([1, 2])}, r"labels of shape \(2,\)"),
        ({"boxes": torch.tensor([[1, 1, 30, 30]])}, "boxes of torch.int64"),
        ({"boxes": torch.tensor([1.0, 1, 30, 30])}, r"boxes of shape \(4,\)"),
    ],
)
def test_targets_of_another_type_or_shape_are_refused(change, words):
    with pytest.raises(ValueError, match=f"image 0 .*{words}"):
        train([IMAGE], [GOOD | change])


@pytest.mark.parametrize(
    ("images", "target", "words"),
    [
        ([IMAGE] * 2, GOOD, "2 images with 1 targets"),
        ([IMAGE], {"boxes": GOOD["boxes"]}, "image 0 .* lacks labels"),
        ([IMAGE * 255], GOOD, "to 127.5; the detector takes .0, 1."),
        ([torch.full((3, 64, 64), torch.nan)], GOOD, "nan"),
        ([IMAGE[:1]], GOOD, r"\(1, 64, 64\)"),
        ([IMAGE.to(torch.uint8)], GOOD, "uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, target, words):
    with pytest.raises(ValueError, match=words):
        train(images, [target])


def test_an_image_without_a_box_trains():
    assert torch.isfinite(train([IMAGE], [targets()]))
