"""The detector: what is built and refused, what trains and what stays, its file."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_detector import TINY, backbone_state, gray_image, tiny_detector
from torch import nn

from cxr_helpers.detection import detector as d
from cxr_helpers.detection.anchors import Anchors
from cxr_helpers.detection.prediction import predict


def targets(boxes=(), labels=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64)}


def settings(**changes):
    return d.DetectorSettings(**{**TINY, "batch_norm": "train", **changes})


# What is built.
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": ()}, "different names"),
        ({"class_names": ("mass", "mass")}, "different names"),
        ({"class_names": "mass"}, "different names"),
        ({"class_names": {"mass", "nodule"}}, "different names"),
        ({"arch": "vgg"}, "vgg"),
        ({"batch_norm": "off"}, "off"),
        ({"frozen_stages": 5}, "5"),
        ({"anchors": Anchors((8, 16))}, "pyramid has 5"),
    ],
)
def test_settings_that_cannot_be_built_are_refused(change, words):
    with pytest.raises(d.DetectorError, match=words):
        settings(**change)


def test_names_may_be_a_list():
    assert settings(class_names=["mass", "nodule"]) == settings()


def test_building_neither_reads_nor_moves_the_global_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = d.build_detector(settings(), seed=3)
    assert torch.equal(torch.rand(3), expected)
    second = d.build_detector(settings(), seed=3)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_every_size_can_be_used_at_every_level():
    built = tiny_detector(anchors=Anchors((4, 8, 16), (1.0,), every_level=True))
    assert built.rpn.anchor_generator.num_anchors_per_location() == [3] * 5
    assert len(predict(built, gray_image()[:1])) == 1


def test_random_stages_do_not_stay_frozen_unless_that_is_meant():
    frozen = settings(frozen_stages=1)
    with pytest.raises(d.DetectorError, match="freeze_random"):
        d.build_detector(frozen, seed=0)
    assert d.build_detector(frozen, backbone_state(), seed=0).settings == frozen


# What trains.
def changed_by_a_step(**changes):
    """Names of the backbone's weights and statistics that one step of training changes."""
    built = d.build_detector(settings(**changes), seed=0, freeze_random=True).train()
    before = {k: v.clone() for k, v in built.backbone.body.state_dict().items()}
    losses = built([gray_image()] * 2, [targets([[5, 5, 30, 30]], [1]), targets()])
    sum(losses.values()).backward()
    torch.optim.SGD([p for p in built.parameters() if p.requires_grad], 0.1).step()
    after = built.backbone.body.state_dict()
    return {k for k in before if not torch.equal(before[k], after[k])}


@pytest.mark.parametrize(
    ("change", "learns", "stays"),
    [
        ({}, {"conv1.weight", "bn1.running_mean"}, ()),  # one of the images has no box
        ({"batch_norm": "sync"}, {"conv1.weight", "bn1.running_mean"}, ()),
        ({"batch_norm": "frozen"}, {"conv1.weight", "bn1.weight"}, ("bn1.running_mean",)),
        ({"frozen_stages": 1}, {"layer2.0.conv1.weight"}, ("conv1", "bn1", "layer1")),
    ],
)
def test_what_is_frozen_stays_and_the_rest_learns(change, learns, stays):
    changed = changed_by_a_step(**change)
    assert learns <= changed and not any(name.startswith(stays) for name in changed if stays)


def test_what_is_frozen_is_so_from_the_start():
    built = d.build_detector(
        settings(batch_norm="frozen", frozen_stages=1), backbone_state(), seed=0
    )
    norms = [m for m in built.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert built.training and norms and not any(norm.training for norm in norms)


def test_synchronized_batch_norm_takes_the_same_weights():
    built = d.build_detector(settings(batch_norm="sync"), backbone_state(), seed=0)
    kinds = {type(m) for m in built.backbone.body.modules() if hasattr(m, "running_mean")}
    assert kinds == {nn.SyncBatchNorm}
    assert built.state_dict().keys() == tiny_detector().state_dict().keys()


def test_one_pixel_boxes_and_large_images_pass_and_a_box_without_area_does_not():
    built = tiny_detector().train()
    losses = built([gray_image(4000, 3000)], [targets([[10, 10, 11, 11]], [1])])
    assert all(torch.isfinite(v) for v in losses.values())
    with pytest.raises(AssertionError, match="positive height and width"):
        built([gray_image()], [targets([[10, 10, 10, 20]], [1])])


@pytest.mark.slow
def test_the_paper_preset_takes_a_training_step_at_full_size():
    names = tuple(f"class {i}" for i in range(14))
    paper = d.DetectorSettings(names, batch_norm="frozen", frozen_stages=1)
    built = d.build_detector(paper, seed=0, freeze_random=True).train()
    assert sum(p.numel() for p in built.parameters()) > 41e6
    before = built.backbone.body.layer4[0].conv1.weight.clone()
    losses = built([gray_image(640, 640)], [targets([[40, 50, 300, 280]], [14])])
    sum(losses.values()).backward()
    torch.optim.SGD([p for p in built.parameters() if p.requires_grad], 0.005).step()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not torch.equal(built.backbone.body.layer4[0].conv1.weight, before)


# Files.
def test_a_saved_detector_comes_back_with_settings_weights_and_notes(tmp_path):
    built, names = tiny_detector(), TINY["class_names"]
    path = d.save_detector(built, tmp_path / "new" / "a.safetensors", notes={"arm": "random"})
    loaded = d.load_detector(str(path), class_names=names)
    assert d.read_detector_settings(path) == (built.settings, {"arm": "random"})
    assert loaded.settings == built.settings and not loaded.training
    one, other = (predict(net, gray_image()[:1]) for net in (built, loaded))
    np.testing.assert_array_equal(one[0]["boxes"], other[0]["boxes"])
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    with pytest.raises(d.DetectorError, match="2 classes.*1 classes"):
        d.load_detector(path, class_names=("mass",))
    kept = d.save_detector(built, path, notes={"seed": np.int64(1), "from": tmp_path})
    assert d.read_detector_settings(kept)[1] == {"seed": 1, "from": str(tmp_path)}


def test_what_cannot_be_kept_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(d.DetectorError, match="notes of .*a.safetensors"):
        d.save_detector(tiny_detector(), path, notes={"seed": {1, 2}})
    with pytest.raises(d.DetectorError, match="Identity has no settings"):
        d.save_detector(nn.Identity(), path)
    assert not path.exists()


def test_nobody_is_told_to_delete_a_file_of_another_kind(tmp_path):
    path = tmp_path / "my_weights.safetensors"
    save_file({"head.weight": torch.ones(2, 2)}, path)
    with pytest.raises(d.DetectorError, match="my_weights.*expected a file of save_det") as caught:
        d.load_detector(path)
    assert "delete" not in str(caught.value).replace(str(tmp_path), "")
    save_file({}, path, metadata={"settings": '{"anchors": 3}', "notes": "{}"})
    with pytest.raises(d.DetectorError, match="my_weights.*no detector's of this version"):
        d.load_detector(path)


@pytest.mark.parametrize("content", [b"", b"not a detector", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_or_missing_file_is_named(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(d.DetectorError, match="broken.safetensors"):
        d.load_detector(path)
    with pytest.raises(FileNotFoundError):
        d.load_detector(tmp_path / "absent.safetensors")
