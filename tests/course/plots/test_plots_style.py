"""Figures of the linear evaluation: what is drawn, on which axes, with which names."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from cxr_helpers.course.plots import style as plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def curve(**columns):
    rows = [
        {"arm": arm, "fraction": f, "value": 0.6 + f / 10, "low": 0.5, "high": 0.8, **columns}
        for arm in ("random", "pretrained", "another")
        for f in (0.01, 1.0)
    ]
    return pd.DataFrame(rows)


def test_a_label_curve_has_a_line_an_arm_and_names_its_axes():
    figure = plots.plot_label_curve(curve(), chance=None, legend="method")
    axis = figure.axes[0]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["random", "pretrained", "another"]
    assert axis.get_xscale() == "log" and "%" in axis.get_xlabel() and axis.get_ylabel()
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "100"]
    styles = {(c[0].get_color(), c[0].get_marker()) for c in axis.containers}
    assert len(styles) == 3  # color and marker tell the arms apart


def test_chance_is_drawn_where_it_is_known():
    with_line = plots.plot_label_curve(curve(), chance=0.5).axes[0]
    without = plots.plot_label_curve(curve(), chance=None).axes[0]
    assert len(with_line.lines) == len(without.lines) + 1


def test_each_label_gets_a_panel_on_common_axes():
    table = pd.concat([curve(label=name) for name in ("Mass", "Edema", "Hernia")])
    figure = plots.plot_class_curves(table, columns=2)
    shown = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in shown] == ["Mass", "Edema", "Hernia"]
    assert len({axis.get_ylim() for axis in shown}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()][0] == "random"
    with pytest.raises(ValueError, match="no label"):
        plots.plot_class_curves(table.iloc[:0])


def test_reliability_lies_on_square_axes_with_the_diagonal():
    table = pd.DataFrame({"predicted": [0.1, 0.4], "observed": [0.2, 0.3]})
    axis = plots.plot_reliability({"random": table, "pretrained": table}).axes[0]
    assert axis.get_xlim() == axis.get_ylim() == (0, pytest.approx(0.44))
    assert len(axis.lines) == 3
    assert np.array_equal(axis.lines[1].get_xydata(), table.to_numpy())


def test_sites_stand_side_by_side_in_the_order_given():
    rows = [
        {"label": label, "site": site, "value": 0.7, "low": 0.6, "high": 0.9}
        for site in ("here", "there")
        for label in ("Mass", "Edema")
    ]
    axis = plots.plot_sites(pd.DataFrame(rows), xlabel="AUROC").axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Edema", "Mass"]
    here, there = (c[0].get_ydata() for c in axis.containers)
    assert (here > there).all() and (np.abs(here - there) < 0.5).all()


TABLE = pd.DataFrame({"name": ["a"], "value": [0.6], "low": [0.5], "high": [0.8]})
COUNTS = pd.Series({"a": 3, "b": 1})
READERS = pd.DataFrame(
    {"normal_percent": [10.0], "abnormal_percent": [90.0], "boxes": [5]}, index=["R1"]
)
LOG = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, np.nan]})
BOX = pd.DataFrame([["Mass", 1, 1, 3, 3]], columns=["label", "x_min", "y_min", "x_max", "y_max"])
SITES = TABLE.rename(columns={"name": "label"}).assign(site="here")
PLOTS = {
    "plot_label_curve": (lambda t: plots.plot_label_curve(t), curve()),
    "plot_class_curves": (lambda t: plots.plot_class_curves(t), curve(label="Mass")),
    "plot_sites": (lambda t: plots.plot_sites(t, xlabel="AUROC"), SITES),
    "plot_estimates": (lambda t: plots.plot_estimates(t, xlabel="AUROC"), TABLE),
    "plot_training_log": (lambda t: plots.plot_training_log(t, {"loss": "loss"}), LOG),
    "plot_readers": (lambda t: plots.plot_readers(t), READERS),
    "plot_reliability": (
        lambda t: plots.plot_reliability({"one": t}),
        pd.DataFrame({"predicted": [0.1, 0.4], "observed": [0.2, np.nan]}),
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_leaves_its_table_and_the_settings_alone_and_says_what_is_missing(name):
    plot, table = PLOTS[name]
    before, settings = table.copy(), dict(plt.rcParams)
    assert plot(table).axes
    pd.testing.assert_frame_equal(table, before)
    assert dict(plt.rcParams) == settings
    for column in table:
        with pytest.raises(ValueError, match=f"no column '{column}'; it has"):
            plot(table.drop(columns=column))
    with pytest.raises(ValueError, match="no rows|no label"):
        plot(table.iloc[:0])
    numbers = table.select_dtypes("number").columns[-1]
    with pytest.raises(ValueError, match=f"column '{numbers}' holds the text"):
        plot(table.astype({numbers: str}))


def test_an_interval_that_does_not_hold_its_value_is_drawn():
    axis = plots.plot_estimates(TABLE.assign(low=0.7), xlabel="AUROC").axes[0]
    ends = axis.collections[0].get_segments()[0][:, 0]
    assert ends == pytest.approx([0.6, 0.8])


GRAY = np.arange(100, dtype=np.uint8).reshape(10, 10)


@pytest.mark.parametrize(
    ("image", "white"),
    [
        (GRAY, 255),
        (torch.from_numpy(GRAY), 255),
        (GRAY.astype(np.uint16) * 600, 65535),
        (torch.from_numpy(GRAY / 255).requires_grad_(), 1),
        ((GRAY / 255).tolist(), 1),
        ((GRAY / 255).astype(np.float16), 1),
    ],
    ids=["uint8", "tensor", "uint16", "with gradient", "list", "float16"],
)
def test_images_of_each_kind_are_drawn_from_black_to_white(image, white):
    shown = plots.show_images([image]).axes[0].images[0]
    assert shown.get_clim() == (0, white) and np.max(shown.get_array()) > 0.3 * white


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (GRAY.astype(int), "image 1 is int64; give uint8"),
        (GRAY > 1, "image 1 is bool"),
        (GRAY.astype(float), r"image 1 has values from 0.0 to 99.0; floats must lie in \[0, 1\]"),
        (np.full((2, 2), np.nan), "values from nan"),
        (GRAY.astype(np.uint16), "uint16 up to 99, so it holds 7 bits only"),
        (np.zeros((4, 4, 3)), r"expected gray \(H, W\)"),
        (np.zeros((0, 4)), r"expected gray \(H, W\)"),
    ],
)
def test_what_is_no_gray_image_is_not_drawn(image, words):
    with pytest.raises(ValueError, match=words):
        plots.show_images([GRAY, image])


def test_titles_and_boxes_are_as_many_as_images():
    for more in ({"titles": ["a", "b"]}, {"boxes": []}):
        with pytest.raises(ValueError, match="1 images and . (titles|boxes)"):
            plots.show_images([GRAY], **more)
    assert plots.show_images([GRAY], boxes=[BOX]).axes[0].patches
    assert not plots.show_images([GRAY], boxes=[BOX[:0]]).axes[0].patches
    for wrong, words in (
        (BOX.drop(columns="y_max"), "no column 'y_max'"),
        (BOX.assign(x_max=0), "x_min <= x_max"),
        (BOX.assign(x_max=np.nan), "finite"),
        (BOX.assign(x_max="9"), "text '9'"),
    ):
        with pytest.raises(ValueError, match=words):
            plots.show_images([GRAY], boxes=[wrong])


def test_nothing_to_count_or_to_look_at_is_said():
    for call in (
        lambda: plots.plot_counts(COUNTS[:0], xlabel="n"),
        lambda: plots.plot_reliability({}),
        lambda: plots.plot_training_log(LOG, {}),
        lambda: plots.plot_gray_values({}),
    ):
        with pytest.raises(ValueError, match="there is no"):
            call()
    for values in ([], [0, 1]):
        with pytest.raises(ValueError, match="logarithmic axis"):
            plots.plot_frequencies(values, xlabel="x", ylabel="y")


def test_each_site_has_its_line_however_many_there_are():
    sites = {f"site {i}": torch.from_numpy(GRAY[None]) for i in range(8)}
    axis = plots.plot_gray_values(sites).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(sites)
    with pytest.raises(ValueError, match="here: pixels .* float64; expected some, uint8"):
        plots.plot_gray_values({"here": GRAY / 255})


@pytest.mark.parametrize("fraction", [0, 10, np.nan])
def test_a_fraction_is_a_share(fraction):
    for plot in (plots.plot_label_curve, plots.plot_class_curves):
        with pytest.raises(ValueError, match="no share of the labels"):
            plot(curve(label="Mass").assign(fraction=fraction))


def test_one_arm_with_one_share_is_drawn():
    one = curve(label="Mass").iloc[:1]
    assert len(plots.plot_label_curve(one).axes[0].containers) == 1
    assert plots.plot_class_curves(one).axes
    with pytest.raises(ValueError, match="percent are divided"):
        plots.plot_reliability({"a": pd.DataFrame({"predicted": [10], "observed": [20]})})
