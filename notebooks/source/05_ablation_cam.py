# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 05 · Ablation-CAM: where does the detector look?
#
# **The question: where does the detector look, is that where the finding is, and does the map depend
# on what was learned at all?**
#
# A detector draws a box and writes a number beside it. A [heatmap](../docs/glossary.md#heatmap) is
# supposed to say why. The paper shows such maps as pictures. Here they get scores, baselines, and
# tests that a useless map fails. One cell below answers the question in a sentence.
#
# ## What you will learn
#
# - What [Ablation-CAM](../docs/glossary.md#ablation-cam) is, by hand: remove a channel, see what
#   the score loses.
# - Where gradients mislead, and where ablation does.
# - To explain a detected box with pytorch-grad-cam, and, with the box held fixed, much faster.
# - Which cells can change a box's score at all, and why a map may be bright elsewhere.
# - To score a heatmap against boxes, beside maps that cost nothing.
# - To check that a map depends on what was learned.
# - To catch a network that is right for the wrong reason.
# - What a heatmap may and may not be used for.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. The
# detectors of notebook 04 are used where they are kept; else they are trained here first, which
# takes minutes more. If your time is short, leave out 'The fast way' and 'Grad-CAM on the same box'.
# The cells, the scores against baselines and the planted shortcut are the core.

# %%
import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from cxr_helpers.course.ch02.pretraining import ARM_NAMES
from cxr_helpers.course.ch04 import experiment
from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.ch05 import (
    explained,
    map_checks,
    map_scores,
    random_labels,
    shortcut,
    viewer,
)
from cxr_helpers.course.ch05 import probe as probes
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.plots import ch05, style
from cxr_helpers.detection.prediction import gray_to_tensor
from cxr_helpers.explanation import ablation_fast, cam, cells, fixed_box, heatmaps, sanity
from cxr_helpers.explanation.layers import LAYER_NAMES

# %%
style.set_style()
settings = load_settings()
results = Results("05_ablation_cam", settings)

# %% [markdown]
# ## By hand: two channels
#
# A tiny network has two feature maps of 2 x 2 pixels. Its score is twice the mean of the first plus
# once the mean of the second.

# %%
maps = np.array([[[4.0, 0], [0, 0]], [[0, 0], [2, 2]]])
weight = np.array([2.0, 1.0])
score = (weight * maps.mean(axis=(1, 2))).sum()
print(f"score = 2 * 1 + 1 * 1 = {score:.0f}")

# %% [markdown]
# Now remove one channel at a time, and write down which share of the score is lost.

# %%
lost = []
for channel in range(2):
    ablated = maps.copy()
    ablated[channel] = 0
    lost.append((score - (weight * ablated.mean(axis=(1, 2))).sum()) / score)
print("share of the score that goes with each channel:", np.round(lost, 3))

# %% [markdown]
# Two thirds go with the first channel, one third with the second. The map is the sum of the
# channels $A_c$, each times its share $w_c$. What is negative is cut off; here there is nothing.
#
# $$w_c = \frac{s - s_c}{s}, \qquad \text{map} = \max\left(0, \sum_c w_c A_c\right)$$

# %%
np.maximum(np.tensordot(lost, maps, axes=1), 0).round(2)

# %% [markdown]
# The upper left pixel carries the score. No gradient was needed: the network was only asked again,
# with a part of it missing.

# %% [markdown]
# ## In ten lines of torch
#
# The same for any network that ends in a score: run the first part once, and the second part once
# for each channel that is set to zero.


# %%
def ablation_map(first, second, image, target):
    with torch.no_grad():
        features = first(image)
        score = second(features)[0, target]
        lost = []
        for channel in range(features.shape[1]):
            ablated = features.clone()
            ablated[:, channel] = 0
            lost.append((score - second(ablated)[0, target]) / score)
        return torch.relu((torch.stack(lost)[:, None, None] * features[0]).sum(0)).numpy()


# %% [markdown]
# A small random network to try it on. pytorch-grad-cam calls the same thing `AblationCAM`. It
# always draws a progress bar; `redirect_stderr` below sends that away.

# %%
torch.manual_seed(0)
first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
second = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3), nn.Softmax(dim=1))
image = torch.rand(1, 1, 16, 16)

# %%
by_hand = ablation_map(first, second, image, target=1)
with contextlib.redirect_stderr(io.StringIO()):
    method = AblationCAM(nn.Sequential(first, second), [first])
    library = method(image, [ClassifierOutputTarget(1)])[0]

# %% [markdown]
# The library stretches each map from 0 to 1. Do the same with ours, and compare.

# %%
stretched = (by_hand - by_hand.min()) / (by_hand.max() - by_hand.min())
assert np.abs(stretched - library).max() < 1e-4
print("Ten lines and the library give the same map.")

# %% [markdown]
# ## Where gradients mislead, and where ablation does
#
# Grad-CAM weighs a channel by the slope of the score instead. A slope says what a *small* change
# would do. Take two channels whose sum is cut at 1, as a score that is sure of itself is: more
# evidence changes nothing any more. Look at the row of slopes.


# %%
def sure_score(channels):
    return channels.sum().clamp(max=1)


def explain(values):
    channels = torch.tensor(values, requires_grad=True)
    (slope,) = torch.autograd.grad(sure_score(channels), channels)
    without = [sure_score(channels * (torch.arange(2) != c)).item() for c in range(2)]
    return {"slope": slope.tolist(), "lost by ablation": [round(1 - s, 2) for s in without]}


# %%
cases = {"one strong, one weak (2.0, 0.5)": [2.0, 0.5], "each would do (2.0, 2.0)": [2.0, 2.0]}
pd.DataFrame({name: explain(values) for name, values in cases.items()}).T

# %% [markdown]
# In the first case the strong channel holds half of the score, and the slope is zero: Grad-CAM
# shows nothing. Ablation sees it. In the second case each channel alone would do, so removing
# either costs nothing, and ablation is blind too. **Two channels of which each would do hide each
# other.** No method that removes one at a time can find them.

# %% [markdown]
# ### Exercises
#
# Fill in the dots, run the cell, and `check` says what is wrong or that it is right. Stuck? In a new
# cell, `hint("5.1")` nudges, `hint("5.1", 2)` says more, `solution("5.1")` shows one way. Nothing below
# depends on your answers. What is done is remembered, and notebook 00 counts it.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

# %% [markdown]
# **Exercise 5.1, two minutes.** A box has the score 0.8. With one channel removed, its score is 0.9.
# Predict the weight of that channel.

# %%
weight_of_that_channel = ...
check("5.1", weight_of_that_channel)

# %% [markdown]
# **Exercise 5.2, fifteen minutes.** Write the map: from the `score`, the scores without each channel
# (`ablated`, an array (C,)) and the channels themselves (`maps`, an array (C, h, w)).


# %%
def map_from_channels(score, ablated, maps):
    return ...  # your code


check("5.2", map_from_channels)

# %% [markdown]
# **Exercise 5.3, five minutes.** A score is the larger one of two channels, `max(a, b)`, and
# `a = 3`, `b = 2`. Predict the weight that ablation gives to each.

# %%
weights_of_two = {"a": ..., "b": ...}
check("5.3", weights_of_two)

# %% [markdown]
# ## A detected box
#
# The detectors are those of notebook 04; where they are missing, they are trained now, which takes
# as long as there. Two [arms](../docs/glossary.md#arm): one started from random weights, the other from
# [Barlow Twins](../docs/glossary.md#barlow-twins): an evening's, where its weights are there, or
# else your own minutes'.

# %%
data = load_detection(settings)
main = probes.main_arm(settings)
trained = {
    arm: experiment.train_or_load_detector(settings, data, arm, seed=settings.seed)
    for arm in ("random", main)
}
detectors = {arm: found for arm, (found, _) in trained.items()}
print(f"random: {ARM_NAMES['random']}; {main}: {ARM_NAMES[main]}")

# %%
preset, layer = settings.explain, settings.explain.layer
rows = {part: data.rows(part, abnormal_only=True) for part in ("val", "test")}
print(f"{len(rows['val'])} validation and {len(rows['test'])} test images; layer: {layer}")

# %% [markdown]
# What is explained: in each abnormal image, for each class that the readers saw there, the
# detector's surest box of that class. A class that it did not find there has no map. The score may
# be low, and the box may lie elsewhere than the readers' one: a map that explains such a box well
# still scores nothing. The line 'detected box' below says how often. So that the notebook stays
# short, the first abnormal images of each part are asked; the
# [benchmark](../benchmarks/README.md) asks all.

# %%
options = {"threshold": preset.score_threshold, "max_images": preset.max_images}
found = {
    arm: {
        part: explained.choose(
            data, rows[part], experiment.predictions(detector, path, data, rows[part]), **options
        )
        for part in rows
    }
    for arm, (detector, path) in trained.items()
}

# %% [markdown]
# To compare the arms we need boxes that both found, where the [readers](../docs/glossary.md#reader)
# have one too. Take of each pair the lower of the two scores; here are the three pairs where it is
# highest. The first one is the example from here on.

# %% tags=["nbval-ignore-output"]
shared = explained.shared(found["random"]["test"], found[main]["test"])
example = dict(zip(("random", main), shared[0], strict=True))
table = [{"class": a.name, "random": a.score, main: b.score} for a, b in shared[:3]]
pd.DataFrame(table).round(2)

# %%
claim(len(shared) >= 10, "both arms place at least ten of the same findings", settings)

# %% [markdown]
# ### The library's way
#
# For each channel of the layer the whole detector runs once. With a channel missing, the proposals
# move, and so do the boxes. The library's score is the [IoU](../docs/glossary.md#iou) of the best
# overlapping box with the old one, plus its class probability; 0 if the box is gone. The layer is
# the third stage of the ResNet, called C4 because the stem counts as the first. It is the one that
# the paper's code uses.

# %%
item = example[main]
picture = data.images.picture(item.row)
height, width = picture.shape
asked = (detectors[main], gray_to_tensor(np.asarray(data.images.pixels[item.row])))
slow = cam.ablation_cam(*asked, [item.box], [item.label], layer=layer)
print(f"{len(slow.weights)} channels, so the detector ran {len(slow.weights)} times and once more.")

# %% [markdown]
# ### The fast way
#
# Ask a narrower question: hold the box fixed, and see how the score of its class changes. The score
# is the class's log-odds, $s = \log\frac{p}{1-p}$. A probability near 1 is a score that is sure of
# itself, as the one above: it is flat there. Log-odds are as steep there as anywhere. They may be
# zero or negative, so a share of them means nothing, and a channel's weight is the loss itself,
# $w_c = s - s_c$.
#
# If the next formula is new to you, skip it: the cell after it checks it against brute force.
# Between a channel and the first layer of the box head everything is linear: a 1x1 convolution,
# nearest upsampling, a 3x3 convolution, RoIAlign. Write $z$ for what the head's first layer gives.
# Without channel $c$ it gives
#
# $$z_c = z - Q\,\delta_c, \qquad \delta_c = \sum_d \left(L_d W_c\right) R\left(S_d\, U A_c\right)$$
#
# with $U$ the upsampling, $S_d$ the nine shifts of the 3x3 convolution $L$, $W$ the 1x1 convolution,
# $R$ RoIAlign, and $Q$ the layer's weights. So all channels are done with three matrix products, and
# the detector runs once. The derivation stands in `cxr_helpers/explanation/ablation_fast.py`.

# %%
fast = ablation_fast.ablate_box(*asked, item.box, item.label, layer=layer)
brute = ablation_fast.brute_force_ablation(*asked, item.box, item.label, layer=layer)
assert np.abs(brute.ablated - fast.ablated).max() < 1e-3
print(f"{len(fast.ablated)} channels: fast and brute force agree to 0.001.")

# %% [markdown]
# Brute force means: pyramid and head again for each channel, with the same fixed box. How long each
# way takes is measured in the [benchmarks](../benchmarks/README.md), under explanation.py: the fast
# way takes less than a hundredth of the library's time for the median box.
#
# But it is another question than the library's, which is also that of the paper's code; of all that
# this course does otherwise, this is the largest (see the [ledger](../docs/ledger.md), point 13). The
# library explains IoU plus class probability of a box that may move, the fast way the class's log-odds
# in a box that is held. The detector scores a *proposal* and moves it afterwards, and the library
# takes that score; the fast way pools the moved box once more. And a channel of C4 also feeds C5,
# which the fast way holds as it was. Two maps are compared by their rank correlation: 1 means that all
# pixels come in the same order.

# %%
shown = {
    "library": heatmaps.normalize_map(slow.heatmap[:height, :width]),
    "fast": explained.on_image(fast, data.images, item.row),
}
alike = sanity.rank_correlation(shown["fast"], shown["library"])
claim(alike < 0.99, "the two ways do not give the same map", settings)

# %% [markdown]
# Radiographs are not square: black fills them up, and the detector sees it. What fills up is no
# part of the radiograph, so it is cut off here, and no map is scored on it.
# Dashed is the readers' box, solid the detected one. The map is brown to white where it is high, and lets the
# image through where it is low. Over black a high place looks darker than over white: the cross
# marks the highest. Ask before you look: where would a radiologist look for this finding?

# %%
figure, axes = style.panels(1, 2, width=2.0)
for axis, (name, heatmap) in zip(axes[0], shown.items(), strict=True):
    ch05.show_heatmap(
        axis, picture, heatmap, title=name, truth_boxes=item.readers, found_boxes=[item.box]
    )
plt.show()

# %% [markdown]
# Where does each cross lie: in the box, beside it, at the border of the picture? Nor need the maps
# agree: they answer different questions.
#
# Use the fast way for 'what does the class of this very box rest on', and the library for 'what
# holds this box in its place'. Below, all maps come from the fast way.
#
# ## Which cells can change the score at all?
#
# Ablation weighs a channel by what it does *in the box*, and then draws it over the whole image. So
# the map is bright wherever that channel is active. Ask the other way round: empty one **cell** of the
# layer, all channels at once, and see what the same score loses. A cell, too, is one summand of what
# the box is pooled from, so the same products do all cells at once.

# %%
(by_cell,) = cells.ablate_cells(*asked, [item.box], [item.label], layer=layer)
brute = cells.brute_force_cells(*asked, item.box, item.label, layer=layer)
assert np.abs(brute.ablated - by_cell.ablated).max() < 1e-3
print("Cells: fast and brute force agree to 0.001.")

# %% [markdown]
# The veil lies over the cells that change nothing; above, the share of those that do. Left the
# channels' map, then the cells', then the cells' with the next stage run again.

# %%
again = cells.brute_force_cells(*asked, item.box, item.label, layer=layer, recompute_later=True)
panels = {"channels": (fast, by_cell), "cells": (by_cell,) * 2, "and next stage": (again,) * 2}
figure, axes = style.panels(1, 3, width=2.0)
for axis, (name, (made, counts)) in zip(axes[0], panels.items(), strict=True):
    heatmap = heatmaps.normalize_map(made.heatmap)
    ch05.show_heatmap(
        axis, picture, explained.as_cells(heatmap, made, data.images, item.row),
        title=f"{name} ({counts.reach.mean():.0%})",
        truth_boxes=item.readers, found_boxes=[item.box],
        veiled=~explained.as_cells(counts.reach, counts, data.images, item.row),
    )  # fmt: skip
plt.show()

# %% [markdown]
# With the next stage held, only the cells under the box can, and those that the 3x3 convolution and
# RoIAlign reach beside it. What the left map shows below the veil is no influence of these cells on
# this box, however bright it is. Right, the next stage is run again: it looks far around, so more cells
# reach the box through it. And a cell has itself seen more of the image than its own square. So a map
# says through which cells the score came, not which pixels made it. Only at the pyramid, which the
# head reads, nothing is left to hold. How much is it on average?

# %%
twenty = found[main]["test"][:20]
matter = explained.shares_that_matter(detectors[main], data, twenty, layer=layer).mean()

# %% tags=["nbval-ignore-output"]
matter.round(2)

# %%
few = matter["cells that change the score"] < 0.5
claim(few, "with the next stage held, fewer than half of the cells can change a score", settings)
idle = matter["channel map on other cells"] > 0.1
claim(idle, "a tenth or more of a channel map lies on cells that change nothing", settings)

# %% [markdown]
# ### A map that knows no box
#
# Both maps above are asked about a box, and the box alone says much about where to look. A third map
# knows none: a [linear probe](../docs/glossary.md#linear-probe) for each class, on the features of the
# frozen backbone averaged over the image, learned from 'is the class anywhere on this image?'. Its
# score is a mean over cells, so each cell's part in it can be read off, against what the mean training
# image has there.

# %%
frozen = probes.frozen_detector(settings, data, main, seed=settings.seed)
probe = probes.train_probe(frozen, data, layer=layer, most=400)

# %% [markdown]
# ### Which map is reported?
#
# Three ways, and a layer for each: whoever looks at all and shows the best picture has chosen on what
# is tested. So a rule decides, on *validation* findings, in the
# pointing game: does the brightest pixel lie in a reader's box?
# Of each way the layer that points best, and of these the best way is reported. The probe keeps its
# one layer; 'pyramid' is the level that the box is pooled from.

# %%
pointing = map_scores.pointing_by_layer(
    detectors[main], data, found[main]["val"][:60], probe=probe,
    layers=("layer2", "layer3", "layer4", "pyramid"),
)  # fmt: skip
way, layers = map_scores.reported_map(pointing)
ways = explained.ways(detectors[main], probe, layer=layers)

# %%
axis = pointing.rename(index=LAYER_NAMES).plot.barh(figsize=(6, 3), xlim=(0, 1))
axis.set(xlabel="pointing game, validation (0 to 1)", ylabel="")
axis.set_title(f"reported: {way}, {LAYER_NAMES[layers[way]]}", fontsize=10)
plt.show()

# %% [markdown]
# ## Grad-CAM on the same box
#
# The same box, score and layer, but weights from the slope, averaged over the channel's pixels. Does
# the slope at least predict what removal costs? For each channel: what its removal costs, against
# what a straight line along the gradient predicts. On the gray line the two are equal.

# %%
slope = ablation_fast.box_gradient(*asked, item.box, item.label, layer=layer)
costs = fast.score - fast.ablated
figure = ch05.plot_predicted(costs, slope.score - slope.predicted)
before, after = fixed_box.probability(fast.score), fixed_box.probability(fast.ablated.min())
line = np.corrcoef(fast.ablated, slope.predicted)[0, 1]
ranked = sanity.rank_correlation(fast.weights, slope.weights)
figure.axes[0].set_title(
    f"at most {costs.max():.2f} of log-odds of {fast.score:.2f},\n"
    f"{before - after:.4f} of a probability of {before:.4f}\n"
    f"agreement: the line {line:.2f}, Grad-CAM's weights {ranked:.2f}", fontsize=9,
)  # fmt: skip
plt.show()

# %% [markdown]
# The title also says what the costliest channel takes of the probability: where that is near 1, next
# to nothing. Where the points hug the line, the slope was right about each channel: this head is
# nearly straight there. Even so Grad-CAM's map differs. Its weight is the slope *averaged over all
# places*, also those outside the box, where the channel does not matter, and it never asks whether the
# channel is active where its slope is steep. So it may rank the channels otherwise than the very slope
# predicts: compare the two agreements with ablation.

# %% [markdown]
# ## Both arms, side by side
#
# The cells of C4 for findings that both detectors have placed: the four classes whose surest pair is
# surest, and of each that pair.

# %% tags=["readme-picture"]
best = {}
for a, b in shared:  # the surest pair first
    best.setdefault(a.label, (a, b))
chosen = list(best.values())[:4]
figure, axes = style.panels(2, len(chosen), width=2.0)
for column, pair in zip(axes.T, chosen, strict=True):
    for axis, arm, one in zip(column, detectors, pair, strict=True):
        explain = explained.ways(detectors[arm], layer=layer)[explained.CELLS]
        heatmap = explained.heatmap_of(explain, data, one)
        ch05.show_heatmap(
            axis, data.images.picture(one.row), heatmap, title=f"{arm}: {one.name}",
            truth_boxes=one.readers, found_boxes=[one.box],
        )  # fmt: skip
plt.show()

# %% [markdown]
# Above the arm that started from random weights, below the pretrained one. How many crosses lie in
# their dashed box? It is tempting to read a story into such pictures. Count first.
#
# ## Scores
#
# Four measures:
#
# - **pointing game**: does the brightest pixel lie in a reader's box?
# - **energy in the box**: which share of the map's brightness lies in the boxes?
# - **IoU**: cut the map at a threshold. How well does that region fit the boxes? The threshold is
#   the one that is best on validation images, for each kind of map its own;
# - the same at the threshold that is best for this very map and these very boxes: not an honest
#   score, but no threshold could give more.
#
# And four maps that explain nothing: a bell in the middle of the image; how often the *training*
# boxes of that class cover each pixel; the detected box itself, filled evenly; and a bell in that box.
# They are scored on the pretrained arm's boxes. A filled box has the same value in the pointing game
# as in energy, and one IoU at each threshold.

# %%
ablated = (explained.CHANNELS, explained.CELLS)
wanted = {"random": ablated, main: (*explained.WAYS, *map_scores.BASELINES)}
scores = {
    arm: map_scores.score_maps(
        detectors[arm], data, found[arm]["val"], found[arm]["test"], layer=layers, names=names,
        probe=probe if arm == main else None,
    )
    for arm, names in wanted.items()
}  # fmt: skip
drawn = {"resamples": preset.resamples, "seed": settings.seed}
table = map_scores.score_table(scores, reference=main, **drawn)

# %% [markdown]
# Each line is a mean over findings with its 95% [interval](../docs/glossary.md#interval-95) over
# images. Look first at the four baselines, then at the maps.

# %%
style.plot_estimates(table, rows="map", groups="map", panels="measure", limits=(0, 1))
plt.show()

# %% [markdown]
# The class prior has never seen the image. An enlarged heart nearly always lies at the same place, and
# a map of that place is hard to beat. So a map must be held against it on the same findings: each map
# minus a baseline, in the pointing game. Left by the readers' boxes; right by where the finding was
# really drawn, which only a demo can know.

# %%
gains = map_scores.over_baselines(scores[main], **drawn)
style.plot_estimates(
    gains, rows="map", groups="minus", panels="truth", limits=(-1, 1), size=(8, 2.6)
)
plt.show()

# %% [markdown]
# ### The answer
#
# In one sentence, from the rule's map and the readers' boxes:

# %% tags=["nbval-ignore-output"]
reach = explained.shares_that_matter(detectors[main], data, twenty, layer=layers[explained.CELLS])
share = reach["cells that change the score"].mean()
print(map_scores.answer(scores[main], gains, share, way=way, layer=layers[way]))

# %%
over_bell = gains[(gains["truth"] == "readers") & (gains["minus"] == map_scores.BELL)]
claim(
    over_bell.set_index("map").loc[way, "low"] > 0,
    "the reported map points better than a bell in the middle, interval above zero",
    settings,
)

# %% [markdown]
# The last difference is the sobering one. The detector was trained to put boxes where the readers do,
# the middle of a box is a good place to point at, and cells light up only at the box. So their score
# says that the box lies well and that the score comes from there. It says nothing on what was learned:
# here are the same boxes with a box head of random weights.

# %% tags=["nbval-ignore-output"]
blind = sanity.randomized_copy(detectors[main], sanity.DETECTOR_PARTS["head"], seed=settings.seed)
hits, asked_layer = {}, [layers[explained.CELLS]]
for name, one in {"as trained": detectors[main], "random head": blind}.items():
    of_one = map_scores.pointing_by_layer(one, data, twenty, layers=asked_layer)
    hits[name] = of_one[explained.CELLS].item()
hits

# %%
claim(
    hits["random head"] > 0.25,
    "with a random head the cells still point into the box for more than a quarter of the findings",
    settings,
)

# %% [markdown]
# A map can point well and depend on nothing. What it depends on is asked below. The probe's map owes
# nothing to a box: what it scores above the class prior, it has seen.

# %% [markdown]
# ### Exercises
#
# **Exercise 5.4, fifteen minutes.** The pointing game. `heatmap` is an array (height, width), `box` is
# (x_min, y_min, x_max, y_max) in whole pixels, where x_max and y_max are the first ones outside. If
# several pixels share the maximum, return the share of them that lies inside. A map with nothing above
# zero points nowhere: 0.


# %%
def points_into(heatmap, box):
    return ...  # your code


check("5.4", points_into)

# %% [markdown]
# **Exercise 5.5, ten minutes.** The energy: which share of what is above zero lies in at least one of
# the `boxes`? Boxes as before, a list of several; they may overlap. Return 0 where nothing is above
# zero.


# %%
def energy_inside(heatmap, boxes):
    return ...  # your code


check("5.5", energy_inside)

# %% [markdown]
# **Exercise 5.6, five minutes.** Two maps that explain nothing. A *constant* map is 1 everywhere, and the
# readers' box covers a fifth of the image. A filled *box* is 1 inside a detected box and 0 outside; it
# is as large as the readers' box, but shifted by half its width. Predict their scores, with ties in the
# pointing game as in 5.4, and the IoU at half of the map's maximum.

# %%
scores_of_nothing = {
    "constant: energy": ...,
    "constant: pointing": ...,
    "box: energy": ...,
    "box: IoU": ...,
}
check("5.6", scores_of_nothing)

# %% [markdown]
# A question. Choose, then unfold the answers.

# %%
quiz("5.A")

# %% [markdown]
# ### Class by class
#
# The cells' maps, for each class of which both arms explain ten findings or more; in brackets how
# many. The others are too rare here, or found too rarely. Large findings have it easier: even a map
# of nothing has more of its energy in a large box. So compare arms within a class, not classes.

# %%
measures = (map_scores.POINTING, map_scores.ENERGY)
by_class = map_scores.class_table(scores, measures, at_least=10, way=explained.CELLS, **drawn)
ch05.plot_class_scores(by_class)
plt.show()

# %% [markdown]
# ### Which arm's maps lie better?
#
# Each arm found its own boxes, so the lines above are about different findings. Fair is the
# difference of the cells' maps on the findings that both explain: pretrained minus random, with its
# interval.

# %%
difference = map_scores.paired_difference(
    scores["random"], scores[main], way=explained.CELLS, **drawn
)
named = difference.assign(name=difference["measure"])
style.plot_estimates(named, xlabel="pretrained - random, same findings")
plt.show()

# %% [markdown]
# An interval that covers zero leaves it open which arm's maps lie better; one right of zero speaks
# for the pretrained arm, one left of zero for the random arm, in that measure. These are one
# training run of each arm: another seed may move the difference by more than the interval says.
#
# ## Does the map depend on what was learned?
#
# ### Randomize the weights
#
# Draw the detector's weights anew, part by part from the output down, and make the maps of the same
# boxes again. A map that stays the same shows the image, not what was learned. For twenty boxes and
# each way: the rank correlation of each map with the map of the trained detector, before what is
# negative is cut off. Of the cells, only those that count are compared. The probe's head is its
# logistic regression; there is no pyramid in it.

# %%
checks = map_checks.randomization_check(
    detectors[main], data, twenty, layer=layers, seed=settings.seed, probe=probe
)
ch05.plot_randomization(checks, ylabel="rank correlation")
plt.show()

# %%
ends = {name: check["+ stem"].median() for name, check in checks.items()}
claim(
    max(ends.values()) < 0.7,
    "without any learned weight the maps of every way come out different",
    settings,
)

# %% [markdown]
# How far does the first step alone, new weights in the head, change each map? The head decides which
# channels and cells count. What correlation single boxes keep at the end has nothing to do with
# learning: bright and dark parts of an image excite random filters too, and the middle of a box weighs
# more than its edge in any head.
#
# ### Randomize the labels
#
# The other half of the check: train on labels that mean nothing. To do so with the whole detector
# takes minutes. Here only the box head is trained anew, on the frozen features of some readers'
# boxes and of background: with the true labels, with them from another start, and with them shuffled.

# %%
heads, accuracy = random_labels.random_label_heads(
    detectors[main], data, steps=250, seed=settings.seed
)

# %% tags=["nbval-ignore-output"]
accuracy.round(2)

# %%
accuracy = accuracy["accuracy on validation boxes"]
claim(
    accuracy["true labels"] > accuracy["shuffled"] + 0.1,
    "what was learned from shuffled labels does not carry over to validation boxes",
    settings,
)

# %% [markdown]
# Up to half of these boxes are background, so a head that always says so would be right for as many.
# Now compare the channel maps of two heads that learned the same with those of one that learned nothing.

# %%
explains = [
    (name, explained.ways(head, layer=layer)[explained.CHANNELS]) for name, head in heads.items()
]
agreement = map_checks.agreement(explains, data, twenty)
agreement = agreement.drop(columns="true labels")  # the reference
same, nothing = agreement["true labels again"], agreement["shuffled"]

# %% tags=["nbval-ignore-output"]
agreement.median().round(2).to_frame("rank correlation with the map of 'true labels'")

# %%
claim(
    same.median() > nothing.median() + 0.05,
    "heads that learned the same have more similar maps than one that learned by heart",
    settings,
)

# %% [markdown]
# So the map does depend on the labels. How far apart the two figures are says how much.
#
# ### Delete and insert pixels
#
# If the map names the pixels that matter, the score must fall fast when they are blurred away, and
# rise fast when they are put back into a blurred image. Two other orders for comparison: a random
# map, and a bell on the detected box, which knows the box and nothing else.

# %%
curves, _ = map_checks.pixel_curves(
    detectors[main], data, twenty[:8], ways, steps=6, seed=settings.seed
)
ch05.plot_curves(curves)
plt.show()

# %% [markdown]
# A low curve is good for deletion, a high one for insertion.
# Compare the channels with the cells, and both with the bell on the box and the random map: a map that
# does no better than random has not named the pixels that matter, whatever it looks like.
# With all pixels blurred the score need not fall far: a blurred heart is still one at that place. And
# a half blurred radiograph is an image that the detector has never seen.

# %% [markdown]
# ### Exercises
#
# **Exercise 5.7, fifteen minutes.** The rank correlation of two maps (Spearman's): the correlation of
# their ranks, where equal values share their mean rank. Both are arrays of the same shape.


# %%
def rank_correlation(first, second):
    return ...  # your code


check("5.7", rank_correlation)

# %% [markdown]
# A question. Choose, then unfold the answers.

# %%
quiz("5.B")

# %% [markdown]
# ## Right for the wrong reason
#
# A network that does look elsewhere, because we made it so: it learns a
# [shortcut](../docs/glossary.md#shortcut). The task: is the heart enlarged
# ([cardiomegaly](../docs/glossary.md#cardiomegaly))? On real radiographs the projection is such a
# shortcut: AP views make the heart look larger, and are taken of sicker people. Into 95% of the
# training images with the finding, and 5% of those without, we draw a letter like a technologist's
# marker; in a second experiment a tube; in a third the black border of a collimator. A real marker
# says R or L; ours is an E, which nobody takes for a side. The tube is a bright bar, far cruder
# than a real one. A control is trained on the same images without anything drawn.

# %%
train_images = shortcut.finding_images(data, "train", "Cardiomegaly", most=800)
test_images = shortcut.finding_images(data, "test", "Cardiomegaly")
trials = shortcut.run_trials(
    train_images, test_images, strength=0.95, epochs=16, seed=settings.seed
)
print(f"{len(train_images.labels)} training and {len(test_images.labels)} test images")

# %% [markdown]
# [AUROC](../docs/glossary.md#auroc) on test images: with the shortcut in every image with the
# finding and in no other, nearly as in training; in no image; and swapped, in every image without
# the finding and in no other.

# %% tags=["nbval-ignore-output"]
auroc = {trial.kind: trial.auroc for trial in trials}
pd.concat(auroc, names=["shortcut", "network"]).round(2)

# %%
falls = [t.loc["shortcut", "as in training"] - t.loc["shortcut", "swapped"] for t in auroc.values()]
claim(min(falls) > 0.15, "each shortcut network fails once the shortcut is moved", settings)

# %% [markdown]
# The first column is what a test set from the same hospital would show: compare each network with
# its control there. The other two tell: without the object, and with the object moved, see how far
# the network falls, and whether it is still better than chance (0.5). Where the control changes
# too, the object itself disturbs the image. Would a heatmap have told? Every image below has the
# finding (dashed) and the object.

# %%
sick = np.flatnonzero(test_images.labels == 1)[:4]
figure, axes = style.panels(3, 4, width=1.4)
for line, trial in zip(axes, trials, strict=True):
    for axis, i, network in zip(line, np.repeat(sick[:2], 2), list(trial.nets) * 2, strict=True):
        image = trial.test.pixels[i]
        ch05.show_heatmap(
            axis, image, shortcut.ablation_heatmap(trial.nets[network], image),
            title=f"{trial.kind}: {network}", truth_boxes=test_images.boxes[i],
        )  # fmt: skip
plt.show()

# %% [markdown]
# Does the corner with the letter light up in the shortcut network, and not in the control? (A small
# white mark above a shoulder is the demo's own marker, in all panels of that image.) Does the map move
# to the side where the border was drawn? Would you have dared to say so of the tube?
#
# And counted over all test images with the finding: which share of the map lies on the object,
# which in the finding's box?

# %%
energy = shortcut.energy_table(trials)
shares = energy.groupby(["shortcut", "net"])[list(energy.columns[-2:])].mean()

# %% tags=["nbval-ignore-output"]
shares.round(2)

# %%
on_object = shares["on the shortcut"].unstack()
claim(
    (on_object["shortcut"] > on_object["control"]).all(),
    "the shortcut networks' maps lie more on the object than the control's",
    settings,
)
claim(
    (on_object["shortcut"] < 0.5).all(),
    "on average most of a map lies elsewhere even then",
    settings,
)

# %% [markdown]
# On average the map gives the shortcut away, although most of it lies elsewhere even then. But look
# at single images: here we know what was drawn and where to look, and can compare with a control.
# In a clinic nobody knows which object to look for. A heatmap may raise a suspicion; only an
# experiment confirms it: move the object, and see whether the score follows.
#
# ### A question

# %%
quiz("5.C")

# %% [markdown]
# ## See for yourself
#
# Choose arm, image, box, way, layer and threshold. The white line is where the map reaches the threshold;
# the IoU is that of the region inside it with the readers' boxes. In a page that is only read, the
# figure below shows all layers of one finding instead.

# %%
arms = {arm: (detector, found[arm]["test"]) for arm, detector in detectors.items()}
viewer.viewer(arms, data)

# %%
viewer.static_view(arms, data, (item.row, item.label), level=0.5)
plt.show()

# %% [markdown]
# From C2 to C5 the maps become coarser; the last column is the level of the pyramid that the box
# is pooled from. A stage below that level stays empty. The IoU above each map says how well the region
# fits the readers' box, which may be hidden below the detected one.

# %%
summary = {
    measure: table[table["measure"] == measure]
    .set_index("map")[["value", "low", "high"]]
    .T.to_dict()
    for measure in map_scores.MEASURES
}
named = gains.assign(name=gains["map"] + " - " + gains["minus"] + ", " + gains["truth"])
over = named.set_index("name")[["value", "low", "high"]].T.to_dict()
results.add(**summary, over_baselines=over)

# %%
results.add(
    reported=f"{way}, {layers[way]}",
    cells_that_change_the_score=share,
    difference=difference.set_index("measure")[["value", "low", "high"]].T.to_dict(),
    rank_correlation_with_library=alike,
    randomized={name: check.median().to_dict() for name, check in checks.items()},
    random_labels=agreement.median().to_dict(),
    shortcut={kind: t.loc["shortcut"].to_dict() for kind, t in auroc.items()},
)
results.save().name

# %% [markdown]
# ## Your own figure
#
# **Exercise 5.8, half an hour.** Draw an Ablation-CAM map and the box that it explains on one
# axis. The image has 64 x 64 pixels, the box (x_min, y_min, x_max, y_max) is in these; the map has
# 8 x 8 cells and covers the same area; its first row is at the top. `score`, `ablated` and `maps`
# are as in exercise 5.2. Label both axes. To try it, `practice_box()` of
# `cxr_helpers.course.exercises.ch05_figure` gives the four arguments.


# %%
def map_figure(axis, score, ablated, maps, box):
    return ...  # your code


check("5.8", map_figure)

# %% [markdown]
# ## What a heatmap may be used for in a clinic, and what not
#
# It may:
#
# - help developers to find a suspicion, such as a marker that lights up, to be tested by experiment;
# - help to debug: a map on the image's border points to a mistake in preparing the images;
# - be shown beside a score in a study of readers that measures whether it helps or harms.
#
# It may not:
#
# - prove that a finding is there, or where it ends: the map is coarse, and the middle of the
#   detected box, which explains nothing, is hard to beat;
# - prove that a network is right for the right reason: a plausible map is what a reader expects to
#   see, and the checks above are about averages, not about the image on the screen;
# - replace a test on patients of another hospital, where a shortcut of the first one may fail;
# - stand in for a diagnosis, or calm a doubt about one.
#
# ## What this does not show
#
# A map shows what the score rests on, not whether that is a good reason. A score against boxes asks
# whether the network looks where readers look; it may be right for another reason. One detector of
# each arm was explained, so nothing here separates pretraining from the luck of a seed. And on the
# demo the findings are synthetic: that a map lies on them says nothing about patients.
#
# ## What you learned
#
# - Ablation-CAM weighs each channel by the share of the score that is lost without it.
# - A slope is blind to a score that is sure of itself; ablation is blind to channels of which each
#   would do.
# - The library reruns the detector for each channel; with the box fixed, linear algebra does.
# - With later stages held, only the cells under a box, and a few beside it, can change its score; a
#   channel map lights up elsewhere too.
# - A score of a map means little without baselines; where the class usually lies, and the detected
#   box, are strong ones. Which map is reported is chosen on validation, by a rule.
# - A map that survives random weights or random labels explains nothing.
# - A map can give a shortcut away, but moving the object proves it.
# - A heatmap is a tool for questions, not for diagnoses.
#
# ## Questions to think about
#
# 1. Two channels carry the same information. What share does ablation give to each? What would you
#    remove to find them?
# 2. A bell in the detected box explains nothing and scores well. Construct a map that beats it in
#    energy and means nothing.
# 3. The class prior never sees the image. Which findings would it score worst on, and which of the
#    three measures would tell?
# 4. A marker letter stands beside every abnormal image of one hospital, *inside* the readers' boxes.
#    Which of the checks above would still reveal it?
