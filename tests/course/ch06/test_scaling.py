"""The table of scale: what differs between the presets."""

import pytest

from cxr_helpers.course.ch06 import scaling
from cxr_helpers.course.core.settings import PRESETS


@pytest.mark.parametrize("stage", PRESETS["demo"])
def test_every_difference_of_the_presets_is_listed_and_nothing_else(stage):
    table = scaling.preset_changes(stage)
    assert (table["demo"] != table["paper"]).all()
    for field, row in table.iterrows():
        assert row["paper"] == scaling.as_text(getattr(PRESETS["paper"][stage], field))
    same = set(vars(PRESETS["demo"][stage])) - set(table.index)
    sides = [PRESETS[scale][stage] for scale in ("demo", "paper")]
    assert all(getattr(sides[0], field) == getattr(sides[1], field) for field in same)
