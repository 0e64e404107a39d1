"""Small settings and made-up data for all tests of this chapter."""

from dataclasses import replace

import pytest
from course_data import made_up_nih

from cxr_helpers.course.core.settings import ProbePreset, load_settings

PRESET = ProbePreset(
    fractions=(0.2, 1.0),
    draws=2,
    resamples=100,
    neighbors=3,
    finetune_fractions=(1.0,),
    finetune_draws=1,
    finetune_epochs=1,
    finetune_min_steps=2,
    finetune_batch_size=32,
)


@pytest.fixture
def settings(tmp_path):
    """The course's settings with small numbers; what is written goes to a temporary folder."""
    found = load_settings({})
    small = replace(found.pretrain, image_size=16)
    return replace(found, probe=PRESET, pretrain=small, project=tmp_path)


@pytest.fixture(scope="module")
def data():
    return made_up_nih()
