"""Tables of scale: what differs between the presets, what grows with D, how speed is read."""

import matplotlib.pyplot as plt
import pytest
from torch import nn

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


def test_twice_the_width_takes_four_times_the_correlation():
    small, large = scaling.projector_bytes(1024), scaling.projector_bytes(2048)
    assert large["correlation"] == 4 * small["correlation"]
    assert small["projector"] == 12 * (2048 * 1024 + 2 * 1024**2)
    layers = [nn.Linear(a, b, bias=False) for a, b in ((2048, 1024), (1024, 1024), (1024, 1024))]
    assert small["projector"] == scaling.trained_bytes(nn.Sequential(*layers))


def test_the_curves_of_the_projector_are_named_and_every_width_has_a_tick():
    widths = [128, 1024, 8192]
    axis = scaling.plot_projector(widths, backbone_bytes=2**28, published=8192)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["128", "1024", "8192"]
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert len(named) == 3 and "ResNet-50, counted alike" in named
    assert axis.lines[0].get_ydata()[-1] == scaling.projector_bytes(8192)["projector"] / 2**20
    plt.close(axis.figure)


def test_a_scaling_table_from_known_times(monkeypatch):
    used = []
    seconds = {1: 2.0, 2: 1.25, 4: 1.0}
    monkeypatch.setattr(scaling.timeit, "repeat", lambda *a, **k: [9.0, seconds[used[-1]]])
    table = scaling.scaling_table(lambda: None, (1, 2, 4), used.append, items=100)
    assert table["images a second"].tolist() == [50, 80, 100]
    assert table["times faster"].tolist() == [1, 1.6, 2]
    assert table["efficiency"].tolist() == [1, 0.8, 0.5]
    assert table.index.tolist() == used == [1, 2, 4]
