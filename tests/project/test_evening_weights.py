"""The weights that ship with the course are those that its recipe makes."""

import hashlib
import json
from dataclasses import asdict

import pytest

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.pretraining import barlow, weights

SETTINGS = load_settings({})
PATH = pretraining.evening_path(SETTINGS)

pytestmark = pytest.mark.skipif(
    not PATH.is_file(), reason="weights/evening.safetensors is not made: python -m tools.evening"
)


@pytest.fixture(scope="module")
def record():
    return json.loads((PATH.with_suffix("") / "record.json").read_text(encoding="utf-8"))


def test_the_file_is_the_one_its_record_names(record):
    assert PATH.stat().st_size <= 25e6
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == record["sha256"]


def test_they_load_into_the_network_of_the_course():
    state, sentence = pretraining.arm_state(SETTINGS, "evening", seed=0)
    weights.load_weights(barlow.build_backbone(SETTINGS.pretrain.arch, seed=0), state)
    assert PATH.name in sentence


def test_the_record_belongs_to_the_recipe_of_the_code(record):
    """Whoever changes the recipe makes them anew: python -m tools.evening."""
    recipe = json.loads(json.dumps(asdict(PRESETS["evening"]["pretrain"])))
    assert record["preset"] == recipe == record["settings"]["pretrain"]
    assert weights.read_weights(PATH)[1]["preset"] == recipe
    assert record["commit"] and record["versions"]["torch"] and record["phantoms"]


def test_no_demo_draws_the_phantoms_that_they_learned_from(record):
    """A phantom follows from its seed; another seed shares no picture (see test_make_demo)."""
    from_seed = record["preset"]["phantoms_seed"]
    made = SETTINGS.project / "data" / "demo" / "demo.json"
    if made.is_file():
        assert json.loads(made.read_text(encoding="utf-8"))["seed"] != from_seed
    assert from_seed not in range(1000)


def test_the_log_goes_to_the_end(record):
    log = pretraining.training_log(PATH)
    assert log["step"].iloc[-1] == record["steps"] >= PRESETS["evening"]["pretrain"].min_steps
    assert log["moved_layer4"].iloc[-1] > 0.1
