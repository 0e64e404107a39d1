"""Frozen features on disk."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxr_helpers.evaluation import feature_cache as cache
from cxr_helpers.evaluation.checks import EvaluationError

PIXELS = np.random.default_rng(0).integers(0, 256, size=(6, 4, 4), dtype=np.uint8)
IDS = [f"{i:08d}_000.png" for i in range(6)]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))


class Extractor:
    """Counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, backbone, pixels):
        self.calls += 1
        with torch.inference_mode():
            return backbone.eval()(torch.from_numpy(pixels).float()).numpy()


def run(folder, extract, *, backbone=None, pixels=PIXELS, ids=IDS, recipe=None):
    return cache.cached_features(
        backbone or network(),
        pixels,
        ids,
        extract=extract,
        recipe=recipe or {"image_size": 4},
        folder=folder,
    )


def test_the_second_time_nothing_is_extracted_and_all_is_the_same(tmp_path):
    extract = Extractor()
    first = run(tmp_path / "new", extract)
    second = run(tmp_path / "new", extract, backbone=network())  # equal weights, another object
    assert extract.calls == 1
    assert (first.values == second.values).all() and first.image_ids == second.image_ids == IDS
    assert second.values.dtype == np.float32
    assert [p.suffix for p in (tmp_path / "new").iterdir()] == [".npz"]  # no temporary file


def changed(what):
    """The arguments of `run` with one thing changed."""
    backbone, pixels = network(), PIXELS.copy()
    with torch.no_grad():
        backbone[1].weight[0, 0] += 1e-6 * (what == "weight")
    backbone[2].running_mean += 0.1 * (what == "buffer")
    backbone[2].eps = 0.1 if what == "layer" else backbone[2].eps
    pixels[5, 3, 3] ^= what == "pixel"
    ids = [*IDS[1:], IDS[0]] if what == "order of ids" else IDS
    recipe = {"image_size": 8 if what == "recipe" else 4}
    return {"backbone": backbone, "pixels": pixels, "ids": ids, "recipe": recipe}


@pytest.mark.parametrize(
    ("what", "calls"),
    [
        ("nothing", 1),
        ("weight", 2),
        ("buffer", 2),
        ("layer", 2),
        ("pixel", 2),
        ("order of ids", 2),
        ("recipe", 2),
    ],
)
def test_any_change_makes_new_features(tmp_path, what, calls):
    extract = Extractor()
    run(tmp_path, extract)
    run(tmp_path, extract, **changed(what))
    assert extract.calls == calls


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([*IDS[:5], IDS[0]], r"1 images are there twice, such as '00000000_000.png'"),
        (IDS[:5], "6 rows of features and 5 image ids differ"),
    ],
)
def test_ids_that_do_not_fit_are_refused_before_anything_is_extracted(tmp_path, ids, message):
    extract = Extractor()
    with pytest.raises(EvaluationError, match=message):
        run(tmp_path, extract, ids=ids)
    assert extract.calls == 0 and not list(tmp_path.iterdir())


def test_features_follow_the_ids_and_an_image_without_any_is_named(tmp_path):
    frozen = run(tmp_path, Extractor())
    assert (frozen.of(IDS[::-1]) == frozen.values[::-1]).all()
    with pytest.raises(EvaluationError, match=r"2 of 3 images have no features.*'x.png'"):
        frozen.of([IDS[0], "x.png", "y.png"])


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"PK\x03\x04 no", lambda b: b[:-40]])
def test_a_damaged_file_is_named(tmp_path, damage):
    run(tmp_path, Extractor())
    path = next(tmp_path.iterdir())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EvaluationError, match=rf"{path.name} is no whole cache.*delete it"):
        run(tmp_path, Extractor())


def test_what_pandas_and_torch_give_is_the_same_as_text_and_arrays(tmp_path):
    extract, folder = Extractor(), str(tmp_path)
    numbers = pd.Series([3, 1, 2, 6, 5, 4])
    recipe = {"size": np.int64(4), "std": torch.tensor(0.5)}
    first = run(folder, extract, ids=numbers, recipe=recipe)
    again = run(
        folder,
        extract,
        ids=[str(i) for i in numbers],
        recipe={"size": 4, "std": 0.5},
        pixels=torch.from_numpy(PIXELS),
    )
    assert extract.calls == 1 and first.image_ids == again.image_ids == list("312654")
    for frozen in (first, again):
        for asked in ([1, 2], ["1", "2"], pd.Series([1, 2]), np.array([1, 2])):
            np.testing.assert_array_equal(frozen.of(asked), first.values[[1, 2]])
    with pytest.raises(EvaluationError, match="in the recipe is no number"):
        run(folder, extract, recipe={"folder": tmp_path})


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda x: x / (np.arange(6)[:, None] != 2), "1 images .* not finite, such as '00000002"),
        (lambda x: x[:, 0], r"shape \(6,\); expected numbers \(N, D\)"),
        (lambda x: x.astype(str), "the features are <U32, no numbers"),
        (lambda x: x[:5], "5 rows of features and 6 image ids differ"),
    ],
)
def test_features_that_are_none_are_not_kept(tmp_path, give, told):
    extract = Extractor()
    with pytest.raises(EvaluationError, match=told):
        run(tmp_path, lambda net, pixels: give(extract(net, pixels)))
    assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    run(tmp_path, Extractor())

    def locked(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", locked)
    with pytest.raises(EvaluationError, match="cannot be read: Permission denied$"):
        run(tmp_path, Extractor())


def test_a_network_in_bfloat16_has_a_key():
    first, second = (nn.Linear(2, 1).bfloat16() for _ in range(2))
    assert cache.backbone_key(first) != cache.backbone_key(second)
    second.load_state_dict(first.state_dict())
    assert cache.backbone_key(first) == cache.backbone_key(second)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_pass_in_training_mode_changes_batch_norm_and_so_the_key(mode):
    backbone = getattr(network(), mode)()
    before = cache.backbone_key(backbone)
    backbone(torch.randn(8, 1, 4, 4))
    assert (cache.backbone_key(backbone) == before) == (mode == "eval")
