"""The two switches of the course."""

import json

import pytest

from cxr_helpers.course.core import settings as s


def test_the_default_is_the_demo_and_paper_scale_the_published_recipe():
    found, paper = s.load_settings({}), s.load_settings({"CXR_SCALE": "paper"})
    assert found.is_demo and found.nih.parts[-3:] == ("data", "demo", "nih")
    assert found.runs.parts[-2:] == ("runs", "demo") and found.pretrain.arch == "resnet18"
    assert not paper.is_demo
    assert (paper.pretrain.batch_size, paper.pretrain.projector) == (768, (8192, 8192, 8192))
    assert (paper.detect.image_size, paper.detect.frozen_stages) == (640, 1)


def test_an_evening_is_the_demo_with_a_longer_pretraining_on_phantoms_of_its_own():
    demo, evening = s.load_settings({}), s.load_settings({"CXR_SCALE": "evening"})
    assert (evening.probe, evening.detect, evening.explain) == (
        demo.probe,
        demo.detect,
        demo.explain,
    )
    assert evening.pretrain.min_steps > 4 * demo.pretrain.min_steps
    assert evening.pretrain.phantoms and evening.pretrain.phantoms_seed not in range(1000)
    assert not demo.pretrain.phantoms and evening.data == "demo"
    with pytest.raises(s.SettingsError, match="'night' is none of quick, demo, evening, paper"):
        s.load_settings({"CXR_SCALE": "night"})


def test_a_quick_run_reads_the_demos_images_has_the_notebooks_shares_and_results_of_its_own():
    demo, quick = s.load_settings({}), s.load_settings({"CXR_SCALE": "quick"})
    assert not quick.is_demo, "no claim may fail"
    assert quick.pretrain.cache_size == demo.pretrain.cache_size
    assert quick.detect.image_size == demo.detect.image_size
    assert {0.1, 1.0} <= {*quick.probe.fractions} and 1.0 in quick.detect.fractions
    assert {*quick.probe.finetune_fractions} <= {*quick.probe.fractions}
    assert quick.pretrain.epochs >= 2, "matrices are kept before, halfway and after"
    assert quick.runs == demo.runs and quick.results != demo.results


def make(root, *names):
    for name in names:
        path = root / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True)


@pytest.mark.parametrize(
    "names, nih, vindr",
    [
        (["images"], ".", None),
        (["images_001/images"], ".", None),
        (["train", "train.csv"], None, "."),
        (["nih/images", "vindr/train", "vindr/annotations_train.csv"], "nih", "vindr"),
    ],
)
def test_real_roots_are_recognized(tmp_path, names, nih, vindr):
    root = tmp_path / "real"
    make(root, *names)
    found = s.load_settings({"CXR_DATA": str(root)})
    assert found.data == "real" and not found.is_demo
    assert found.nih == (nih and (root / nih).resolve())
    assert found.vindr == (vindr and (root / vindr).resolve())


def test_roots_that_cannot_be_used_say_what_is_missing(tmp_path):
    with pytest.raises(s.SettingsError, match="nowhere is not a folder"):
        s.load_settings({"CXR_DATA": str(tmp_path / "nowhere")})
    with pytest.raises(s.SettingsError, match="Missing there: `images/`"):
        s.load_settings({"CXR_DATA": str(tmp_path)})
    make(tmp_path / "demo", "images")
    with pytest.raises(s.SettingsError, match="must not be named `demo`"):
        s.load_settings({"CXR_DATA": str(tmp_path / "demo")})
    with pytest.raises(s.SettingsError, match="CXR_SCALE='big'"):
        s.load_settings({"CXR_SCALE": "big"})


def test_the_summary_is_plain_tells_both_seeds_and_names_no_path(tmp_path):
    make(tmp_path, "images")
    assert s.find_sources(str(tmp_path)) == (tmp_path, None)
    told = s.load_settings({"CXR_DATA": str(tmp_path)}).summary()
    assert (told["seed"], told["split_seed"], told["pretrain"]["arch"]) == (0, 0, "resnet18")
    assert str(tmp_path) not in json.dumps(told)
