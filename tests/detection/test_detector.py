"""The detector: hand-off of the backbone, anchors, training step, prediction, files."""

from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18
from torchvision.ops import box_iou

from cxr_helpers.data import nih
from cxr_helpers.detection import detector as d
from cxr_helpers.detection.augmentation import CountedPipeline, detection_pipeline

TINY = d.DetectorSettings(
    classes=("mass", "nodule", "heart"),
    arch="resnet18",
    image_size=64,
    anchors=d.Anchors((4, 8, 16, 32, 48)),
    fpn_channels=16,
    head_width=32,
    roi_samples=16,
    roi_sampling=1,
    roi_canonical_size=32,
    proposals=(40, 20),
    batch_norm="train",
)


def backbone_state(seed=0):
    torch.manual_seed(seed)
    net = resnet18()
    net.fc = nn.Identity()
    return net.state_dict()


def targets(boxes=(), labels=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}


def images(n, size=64, seed=0):
    return np.random.default_rng(seed).random((n, size, size), dtype=np.float32)


# What cannot be built or read is refused by name.
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ()}, "classes"),
        ({"classes": ("mass", "mass")}, "classes"),
        ({"arch": "vgg"}, "vgg"),
        ({"batch_norm": "off"}, "off"),
        ({"frozen_stages": 5}, "5"),
        ({"anchors": d.Anchors((8, 16))}, "pyramid has 5"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(change, words):
    with pytest.raises(d.DetectorError, match=words):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), "shape"),
        (np.zeros((0, 8), np.uint8), "shape"),
        (np.full((8, 8), 4000, np.uint16), "uint16.* 4000 holds 12 bits, not 16"),
        (np.full((8, 8), 4000, np.int64), "int64 .* 4000"),
        (np.zeros((8, 8), bool), "bool"),
        (torch.full((8, 8), 300), "int64 .* 300"),
        (np.zeros((8, 8, 1), np.uint8), r"\(8, 8, 1\); take one channel"),
        (torch.zeros(1, 8, 8), r"\(1, 8, 8\); take one channel"),
        (np.array([["a"]]), "<U1"),
        (np.full((8, 8), 255.0), "255"),
        (np.full((8, 8), np.nan), "nan"),
    ],
)
def test_images_that_are_not_gray_in_range_are_refused(image, words):
    with pytest.raises(d.DetectorError, match=words):
        d.gray_to_tensor(image)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_and_tensors_of_the_three_types_give_the_same_image(kind):
    values = np.array([[0, 51], [204, 255]])
    for image in (
        values.astype(np.uint8), (values * 257).astype(np.uint16), values / 255,
    ):  # fmt: skip
        tensor = d.gray_to_tensor(kind(image))
        assert tensor.shape == (3, 2, 2) and tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor[2], [[0, 0.2], [0.8, 1]], rtol=1e-6)
    needs_gradient = torch.rand(8, 8, requires_grad=True)
    assert not d.gray_to_tensor(needs_gradient).requires_grad
    assert d.gray_to_tensor(np.zeros((2, 2), np.uint16)).max() == 0


def test_no_images_give_no_predictions():
    assert d.predict(d.build_detector(TINY, seed=0), []) == []


# The hand-off.
def test_every_tensor_of_the_backbone_arrives():
    state = backbone_state()
    built = d.build_detector(TINY, seed=1)
    placed = d.place_backbone(built, state)
    assert set(placed) == set(state)
    own = built.backbone.body.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state)


def test_the_placed_backbone_computes_what_it_computed_alone():
    net = resnet18()
    net.load_state_dict(backbone_state(), strict=False)
    net.eval()
    x = torch.rand(1, 3, 64, 64)
    alone = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
    built = d.build_detector(TINY, backbone_state(), seed=1).eval()
    torch.testing.assert_close(built.backbone.body(x)["0"], alone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"fc.weight": torch.zeros(2)}, "without a place.*fc.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "conv1.weight"}, "absent.*conv1.weight"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, "64, 1, 7, 7"),
        (lambda s: s | {"bn1.weight": torch.full((64,), torch.nan)}, "not finite.*bn1.weight"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "without a place"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_and_changes_nothing(change, words):
    built = d.build_detector(TINY, seed=0)
    before = built.backbone.body.conv1.weight.clone()
    with pytest.raises(d.DetectorError, match=words):
        d.place_backbone(built, change(backbone_state()))
    assert torch.equal(built.backbone.body.conv1.weight, before)


def test_counters_of_batch_norm_may_be_absent():
    state = {k: v for k, v in backbone_state().items() if "num_batches" not in k}
    assert set(d.place_backbone(d.build_detector(TINY, seed=0), state)) == set(state)


def test_building_neither_reads_nor_moves_the_global_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = d.build_detector(TINY, seed=3)
    assert torch.equal(torch.rand(3), expected)
    second = d.build_detector(TINY, seed=3)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


# What trains.
def train_one_step(settings):
    built = d.build_detector(settings, seed=0, freeze_random=True).train()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    batch = [d.gray_to_tensor(i) for i in images(2)]
    losses = built(batch, [targets([[5, 5, 30, 30]], [1]), targets()])
    trained = [p for p in built.parameters() if p.requires_grad]
    sum(losses.values()).backward()
    torch.optim.SGD(trained, 0.1).step()
    after = built.state_dict()
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_by_default_nothing_is_frozen_and_an_image_may_have_no_box():
    changed = train_one_step(TINY)
    assert "backbone.body.conv1.weight" in changed
    assert "backbone.body.bn1.running_mean" in changed


def test_frozen_batch_norm_keeps_its_statistics_and_still_learns_scale_and_shift():
    changed = train_one_step(replace(TINY, batch_norm="frozen"))
    assert "backbone.body.bn1.running_mean" not in changed
    assert {"backbone.body.bn1.weight", "backbone.body.conv1.weight"} <= changed


def test_synchronized_batch_norm_takes_the_same_weights_and_learns_as_train_does():
    settings = replace(TINY, batch_norm="sync")
    built = d.build_detector(settings, backbone_state(), seed=0)
    kinds = {type(m) for m in built.backbone.body.modules() if hasattr(m, "running_mean")}
    assert kinds == {nn.SyncBatchNorm}
    assert built.state_dict().keys() == d.build_detector(TINY, seed=0).state_dict().keys()
    assert "backbone.body.bn1.running_mean" in train_one_step(settings)


def test_random_stages_do_not_stay_frozen_unless_that_is_meant():
    frozen = replace(TINY, frozen_stages=1)
    with pytest.raises(d.DetectorError, match="freeze_random"):
        d.build_detector(frozen, seed=0)
    assert d.build_detector(frozen, backbone_state(), seed=0).settings == frozen


def test_frozen_stages_stay_and_later_ones_learn():
    changed = train_one_step(replace(TINY, frozen_stages=1))
    assert not any(k.startswith(("backbone.body.conv1", "backbone.body.bn1")) for k in changed)
    assert not any(k.startswith("backbone.body.layer1") for k in changed)
    assert any(k.startswith("backbone.body.layer2") for k in changed)


def test_boxes_stay_float32_under_bfloat16():
    built = d.build_detector(TINY, seed=0)
    (found,) = d.predict(built, images(1), precision=torch.bfloat16)
    assert found["boxes"].dtype == np.float32
    as_bf16 = torch.from_numpy(found["boxes"]).bfloat16().float().numpy()
    assert not np.array_equal(found["boxes"], as_bf16)


def test_the_detector_learns_one_image_by_heart():
    image = np.zeros((64, 64), np.float32)
    image[16:40, 12:44] = 1
    item = (d.gray_to_tensor(image), targets([[12, 16, 44, 40]], [2]))
    built = d.build_detector(TINY, seed=0)
    module = d.DetectorModule(built, optimizer="adamw", learning_rate=2e-3, warmup_steps=5)
    loader = DataLoader([item] * 4, 4, collate_fn=d.collate_detection)
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_epochs=25, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert trainer.callback_metrics["loss"] > 0
    assert optimizer_rate(trainer) < 2e-4  # the cosine has come down
    (found,) = d.predict(built, [image])
    best = torch.from_numpy(found["boxes"][:1])
    assert found["labels"][0] == 2
    assert box_iou(best, item[1]["boxes"])[0, 0] > 0.5


def optimizer_rate(trainer):
    return trainer.optimizers[0].param_groups[0]["lr"]


def test_a_loss_that_is_not_finite_stops_training_by_name():
    class Broken(nn.Module):
        def forward(self, images, targets):
            return {"loss_classifier": torch.tensor(float("nan"))}

    module = d.DetectorModule(Broken(), optimizer="sgd", learning_rate=1.0)
    module.trainer = type("Trainer", (), {"global_step": 7})()
    with pytest.raises(FloatingPointError, match="loss_classifier.*learning rate"):
        module.training_step(([], []), 0)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(d.DetectorError, match="lion"):
        d.DetectorModule(nn.Identity(), optimizer="lion", learning_rate=1.0)


# Prediction.
def test_predict_gives_boxes_inside_the_image_and_restores_the_mode():
    built = d.build_detector(TINY, seed=0).train()
    found = d.predict(built, (images(3) * 255).astype(np.uint8), batch_size=2)
    assert built.training and len(found) == 3
    for one in found:
        assert one["boxes"].shape == (len(one["scores"]), 4)
        assert one["boxes"].min() >= 0 and one["boxes"].max() <= 64
        assert (np.diff(one["scores"]) <= 0).all()
        assert one["labels"].dtype == np.int64 and set(one["labels"]) <= {1, 2, 3}


def test_predictions_do_not_depend_on_the_batch():
    built = d.build_detector(TINY, seed=0)
    together, alone = (d.predict(built, images(3), batch_size=n) for n in (3, 1))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1e-3)


def test_boxes_are_in_pixels_of_the_image_that_was_given():
    built = d.build_detector(TINY, seed=0)
    image = np.zeros((64, 64), np.float32)
    image[8:40, 12:48] = 0.8
    (small,), (large,) = (d.predict(built, [np.kron(image, np.ones((k, k)))]) for k in (1, 4))
    # Scores of random weights are nearly equal, so their order may differ.
    overlap = box_iou(*(torch.from_numpy(b) for b in (small["boxes"] * 4, large["boxes"])))
    assert (overlap.max(dim=1).values > 0.95).float().mean() > 0.8


def test_an_image_of_4000_pixels_gives_boxes_inside_it():
    tall = np.zeros((4000, 3000), np.uint8)
    tall[1000:2000, 500:2500] = 200
    (found,) = d.predict(d.build_detector(TINY, seed=0), [tall])
    assert len(found["boxes"]) and (found["boxes"] <= [3000, 4000, 3000, 4000]).all()
    assert found["boxes"].max() > 1000


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_of_8_or_16_bits_gives_boxes_in_its_pixels(tmp_path, bits):
    values = (images(1, size=200)[0] * (2**bits - 1)).astype(f"uint{bits}")
    Image.fromarray(values).save(tmp_path / "a.png")
    built = d.build_detector(TINY, seed=0)
    (found,) = d.predict_files(built, [tmp_path / "a.png"], nih.read_image)
    (direct,) = d.predict(built, [nih.read_image(tmp_path / "a.png")])
    np.testing.assert_array_equal(found["boxes"], direct["boxes"])
    assert found["boxes"].max() > 64


def test_a_file_that_is_absent_or_no_gray_image_is_named(tmp_path):
    built = d.build_detector(TINY, seed=0)
    with pytest.raises(FileNotFoundError, match=r"absent.png"):
        d.predict_files(built, [tmp_path / "absent.png"], nih.read_image)
    (tmp_path / "a.raw").write_bytes(b"")
    with pytest.raises(d.DetectorError, match=r"a.raw: uint16 image"):
        d.predict_files(built, [tmp_path / "a.raw"], lambda path: np.full((9, 9), 4000, np.uint16))


def test_a_training_box_without_area_is_refused_by_name():
    built = d.build_detector(TINY, seed=0).train()
    with pytest.raises(AssertionError, match="positive height and width"):
        built([d.gray_to_tensor(images(1)[0])], [targets([[10, 10, 10, 20]], [1])])


def test_one_pixel_boxes_and_large_images_pass():
    built = d.build_detector(TINY, seed=0).train()
    image = torch.rand(1, 4000, 3000).expand(3, -1, -1)
    losses = built([image], [targets([[10, 10, 11, 11]], [1])])
    assert all(torch.isfinite(v) for v in losses.values())


def train(images, targets):
    module = d.DetectorModule(d.build_detector(TINY, seed=0), optimizer="sgd", learning_rate=0.1)
    module.log_dict = lambda *values, **options: None
    return module.training_step((images, targets), 0)


@pytest.mark.parametrize(
    ("box", "label", "words"),
    [
        ([1, 1, 30, 30], 0, "label 0; 0 is background, and the classes are 1 mass, 2 nodule"),
        ([1, 1, 30, 30], -1, "label -1"),
        ([1, 1, 30, 30], 4, "label 4.* 3 heart"),
        ([5, 5, 5, 20], 1, "5.0, 5.0, 5.0, 20.0"),
        ([9, 9, 4, 4], 1, "9.0, 9.0, 4.0, 4.0"),
        ([0, 5, np.inf, 20], 1, "inf"),
        ([0, np.nan, 9, 20], 1, "nan"),
        ([100, 100, 120, 120], 1, "100.0.*within "),
    ],
)
def test_what_cannot_train_is_refused_with_its_image(box, label, words):
    good = targets([[1, 1, 30, 30]], [1])
    odd = targets([box], [label]) | {"image_id": torch.tensor(42)}
    with pytest.raises(d.DetectorError, match=rf"image 1 of the batch \(image_id 42\).*{words}"):
        train([torch.rand(3, 64, 64)] * 2, [good, odd])


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
    with pytest.raises(d.DetectorError, match=f"image 0 .*{words}"):
        train([torch.rand(3, 64, 64)], [targets([[1, 1, 30, 30]], [1]) | change])


def test_batches_that_do_not_fit_are_refused():
    image, target = torch.rand(3, 64, 64), targets([[1, 1, 30, 30]], [1])
    with pytest.raises(d.DetectorError, match="2 images with 1 targets"):
        train([image] * 2, [target])
    with pytest.raises(d.DetectorError, match="image 0 .* lacks labels"):
        train([image], [{"boxes": target["boxes"]}])
    for odd, words in (
        (image * 255, "to 25.*takes .0, 1."),
        (torch.full((3, 64, 64), torch.nan), "nan"),
        (image[:1], r"\(1, 64, 64\)"),
        (image.to(torch.uint8), "uint8"),
    ):
        with pytest.raises(d.DetectorError, match=words):
            train([odd], [target])
    assert torch.isfinite(train([image], [targets()]))


def test_images_that_fail_and_detectors_without_settings_are_named():
    built = d.build_detector(TINY, seed=0)
    with pytest.raises(d.DetectorError, match="image 1: int64"):
        d.predict(built, [images(1)[0], np.full((8, 8), 9)], batch_size=1)
    with pytest.raises(d.DetectorError, match="batch_size is 0"):
        d.predict(built, images(1), batch_size=0)
    with pytest.raises(d.DetectorError, match="Identity has no settings"):
        d.predict(nn.Identity(), images(1))
    with pytest.raises(d.DetectorError, match="list of files"):
        d.predict_files(built, "a.png", nih.read_image)


def test_tensors_are_detected_in_as_arrays_are():
    built = d.build_detector(TINY, seed=0)
    for a, b in zip(
        d.predict(built, images(2)), d.predict(built, torch.from_numpy(images(2))), strict=True
    ):
        np.testing.assert_array_equal(a["boxes"], b["boxes"])


# Anchors.
@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), np.zeros((4, 3)), [[0, 0, 5, 5]] * 4])
def test_anchors_from_too_few_or_misshapen_boxes_are_refused(boxes):
    with pytest.raises(d.DetectorError):
        d.derive_anchors(boxes)


def test_boxes_for_anchors_may_be_tensors_and_are_finite():
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 32, 32]], requires_grad=True)
    anchors = d.derive_anchors(boxes, sizes=3, ratios=1)
    assert anchors.sizes == (8, 16, 32) and d.anchor_coverage(boxes, anchors) == 1
    for odd in (np.full((1, 4), np.nan), np.zeros((0, 4))):
        with pytest.raises(d.DetectorError, match="finite|one at least"):
            d.anchor_coverage(odd, anchors)


def test_a_box_without_area_is_named():
    boxes = [[0, 0, 5, 5]] * 5 + [[3.0, 3.0, 3.0, 9.0]]
    with pytest.raises(d.DetectorError, match=r"3. 3. 3. 9."):
        d.derive_anchors(boxes)


def test_anchor_coverage_by_hand():
    # A 10 x 10 anchor covers a 10 x 10 box fully, and a 20 x 10 box with IoU 100 / 200.
    anchors = d.Anchors((10,) * 5, (1.0,))
    boxes = [[0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 30, 10]]
    assert d.anchor_coverage(boxes, anchors) == pytest.approx(2 / 3)


def test_derived_anchors_cover_the_boxes_better_than_those_for_everyday_objects():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (300, 2))
    boxes = np.hstack([corners, corners + np.exp(rng.normal(2.5, 0.7, (300, 2)))])
    derived = d.derive_anchors(boxes)
    assert list(derived.sizes) == sorted(derived.sizes)
    assert d.anchor_coverage(boxes, derived) > 0.9 > d.anchor_coverage(boxes, d.Anchors())


def test_every_size_can_be_used_at_every_level():
    anchors = d.Anchors((4, 8, 16), (1.0,), every_level=True)
    built = d.build_detector(replace(TINY, anchors=anchors), seed=0)
    assert built.rpn.anchor_generator.num_anchors_per_location() == [3] * 5
    assert len(d.predict(built, images(1))) == 1


def test_anchors_grow_with_the_image():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 80, (50, 2))
    boxes = np.hstack([corners, corners + rng.uniform(4, 40, (50, 2))])
    small, large = d.derive_anchors(boxes), d.derive_anchors(boxes * 4)
    np.testing.assert_allclose(np.array(small.sizes) * 4, large.sizes, atol=0.3)
    assert small.ratios == large.ratios


# Files.
def test_a_saved_detector_comes_back_with_settings_weights_and_notes(tmp_path):
    built = d.build_detector(TINY, seed=0)
    path = d.save_detector(built, tmp_path / "new" / "a.safetensors", notes={"arm": "random"})
    loaded = d.load_detector(path, classes=TINY.classes)
    assert d.read_detector_settings(path) == (TINY, {"arm": "random"})
    assert loaded.settings == TINY and not loaded.training
    for a, b in zip(d.predict(built, images(1)), d.predict(loaded, images(1)), strict=True):
        np.testing.assert_array_equal(a["boxes"], b["boxes"])
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_a_detector_for_other_classes_is_refused(tmp_path):
    path = d.save_detector(d.build_detector(TINY, seed=0), tmp_path / "a.safetensors")
    with pytest.raises(d.DetectorError, match="3 classes.*2 classes"):
        d.load_detector(path, classes=("mass", "nodule"))


def test_paths_may_be_text_and_notes_must_be_plain(tmp_path):
    built = d.build_detector(TINY, seed=0)
    path = d.save_detector(built, f"{tmp_path}/new/a.safetensors", notes={"seed": 1})
    assert d.load_detector(str(path)).settings == TINY
    with pytest.raises(d.DetectorError, match="notes of .*a.safetensors"):
        d.save_detector(built, path, notes={"seed": {1, 2}})
    with pytest.raises(d.DetectorError, match="Identity has no settings"):
        d.save_detector(nn.Identity(), path)
    kept = d.save_detector(built, path, notes={"seed": np.int64(1), "from": tmp_path})
    assert d.read_detector_settings(kept) == (TINY, {"seed": 1, "from": str(tmp_path)})


def test_nobody_is_told_to_delete_a_file_of_another_kind(tmp_path):
    path = tmp_path / "my_weights.safetensors"
    save_file({"head.weight": torch.ones(2, 2)}, path)
    with pytest.raises(d.DetectorError, match="my_weights.*expected a file of save_det") as caught:
        d.load_detector(path)
    assert "delete" not in str(caught.value).replace(str(tmp_path), "")
    save_file({}, path, metadata={"settings": '{"anchors": 3}', "notes": "{}"})
    with pytest.raises(d.DetectorError, match="my_weights.*settings that are no detector's"):
        d.load_detector(path)


def test_classes_may_be_a_list_and_are_no_text(tmp_path):
    listed = replace(TINY, classes=list(TINY.classes))
    assert listed == TINY
    with pytest.raises(d.DetectorError, match="different names"):
        replace(TINY, classes="mass")


def test_a_checkpoint_around_the_state_is_no_backbone():
    built = d.build_detector(TINY, seed=0)
    with pytest.raises(d.DetectorError, match="'epoch' is no tensor"):
        d.place_backbone(built, {"epoch": 3, "state_dict": backbone_state()})


@pytest.mark.parametrize("content", [b"", b"not a detector", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(d.DetectorError, match="broken.safetensors"):
        d.load_detector(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        d.load_detector(tmp_path / "absent.safetensors")


def test_the_paper_preset_takes_a_training_step_at_full_size():
    settings = d.DetectorSettings(
        classes=tuple(f"class {i}" for i in range(14)), batch_norm="frozen", frozen_stages=1
    )
    built = d.build_detector(settings, seed=0, freeze_random=True).train()
    assert sum(p.numel() for p in built.parameters()) > 41e6
    before = built.backbone.body.layer4[0].conv1.weight.clone()
    losses = built([d.gray_to_tensor(images(1, 640)[0])], [targets([[40, 50, 300, 280]], [14])])
    sum(losses.values()).backward()
    torch.optim.SGD([p for p in built.parameters() if p.requires_grad], 0.005).step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not torch.equal(built.backbone.body.layer4[0].conv1.weight, before)


# The pipelines.
def test_an_unknown_pipeline_is_refused():
    with pytest.raises(ValueError, match="mosaic"):
        detection_pipeline("mosaic", seed=0)


@pytest.mark.parametrize("name", ["demo", "paper", "none"])
def test_pipelines_take_images_without_boxes(name):
    out = detection_pipeline(name, seed=0)(
        image=np.zeros((32, 32), np.uint8), bboxes=np.zeros((0, 4), np.float32), labels=np.zeros(0)
    )
    assert out["image"].shape == (32, 32) and len(out["bboxes"]) == 0


def test_boxes_follow_the_pixels():
    image = np.zeros((64, 64), np.uint8)
    image[20:40, 10:30] = 255
    pipeline = detection_pipeline("demo", seed=3)
    for _ in range(20):
        out = pipeline(image=image, bboxes=np.array([[10.0, 20, 30, 40]]), labels=np.array([1]))
        rows, columns = np.nonzero(out["image"] > 100)
        bright = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
        box = torch.tensor(np.asarray(out["bboxes"]), dtype=torch.float32)
        assert box_iou(box, bright.float())[0, 0] > 0.8


def test_a_box_that_leaves_the_image_takes_its_label_along():
    pipeline = detection_pipeline("demo", seed=0, min_visibility=0.8)
    boxes, labels = np.array([[0.0, 28, 4, 36], [24, 24, 40, 40]]), np.array([7, 9])
    kept = set()
    for _ in range(60):
        out = pipeline(image=np.zeros((64, 64), np.uint8), bboxes=boxes, labels=labels)
        assert len(out["bboxes"]) == len(out["labels"])
        kept.add(tuple(int(label) for label in out["labels"]))
    assert kept == {(7, 9), (9,)}


def test_a_box_too_small_to_learn_from_is_dropped():
    out = detection_pipeline("none", seed=0, min_side=3)(
        image=np.zeros((32, 32), np.uint8),
        bboxes=np.array([[4.0, 4, 6, 20], [5, 5, 20, 20]]),
        labels=np.array([7, 9]),
    )
    assert [int(label) for label in out["labels"]] == [9]


def test_a_pipeline_repeats_from_its_seed():
    image = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    one, two = (
        detection_pipeline("demo", seed=1)(
            image=image, bboxes=np.array([[4.0, 4, 20, 20]]), labels=np.array([1])
        )
        for _ in range(2)
    )
    assert np.array_equal(one["image"], two["image"])


def test_lost_boxes_are_counted_by_label():
    counted = CountedPipeline(detection_pipeline("none", seed=0, min_side=3))
    image = np.zeros((32, 32), np.uint8)
    for _ in range(2):
        counted(
            image=image,
            bboxes=np.array([[4.0, 4, 6, 20], [5, 5, 20, 20], [1, 1, 9, 9]]),
            labels=np.array([7, 7, 9]),
        )
    counted(image=image, bboxes=np.zeros((0, 4)), labels=np.zeros(0, int))
    assert counted.seen == {7: 4, 9: 2} and counted.lost == {7: 2}
