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
# tests that a useless map fails.
#
# ## What you will learn
#
# - What [Ablation-CAM](../docs/glossary.md#ablation-cam) is, by hand: remove a channel, see what
#   the score loses.
# - Where gradients mislead, and where ablation does.
# - To explain a detected box with pytorch-grad-cam, and, with the box held fixed, much faster.
# - To score a heatmap against boxes, beside maps that cost nothing.
# - To check that a map depends on what was learned.
# - To catch a network that is right for the wrong reason.
# - What a heatmap may and may not be used for.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. The
# detectors of notebook 04 are used where they are kept; else they are trained here first, which
# takes minutes more. If your time is short, leave out 'The fast way', 'Grad-CAM on the same box'
# and 'Which layer?'. The scores against baselines and the planted shortcut are the core.

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
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.plots import ch05, style
from cxr_helpers.detection.prediction import gray_to_tensor
from cxr_helpers.explanation import ablation_fast, cam, heatmaps, sanity
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
# as long as there. Two [arms](../docs/glossary.md#arm): one started from random weights, the other
# from [Barlow Twins](../docs/glossary.md#barlow-twins).

# %%
data = load_detection(settings)
trained = {
    arm: experiment.train_or_load_detector(settings, data, arm, seed=settings.seed)
    for arm in ("random", "pretrained")
}
detectors = {arm: found for arm, (found, _) in trained.items()}

# %%
preset, layer = settings.explain, settings.explain.layer
rows = {part: data.rows(part, abnormal_only=True) for part in ("val", "test")}
print(f"{len(rows['val'])} validation and {len(rows['test'])} test images; layer: {layer}")

# %% [markdown]
# What is explained: in each abnormal image, for each class that the readers saw there, the
# detector's surest box of that class. A class that it did not find there has no map. The score may
# be low, and the box may lie elsewhere than the readers' one: a map that explains such a box well
# still scores nothing. The line 'detected box' below says how often.

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
shared = explained.shared(found["random"]["test"], found["pretrained"]["test"])
example = dict(zip(("random", "pretrained"), shared[0], strict=True))
table = [{"class": a.name, "random": a.score, "pretrained": b.score} for a, b in shared[:3]]
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
item = example["pretrained"]
picture = data.images.picture(item.row)
height, width = picture.shape
asked = (detectors["pretrained"], gray_to_tensor(np.asarray(data.images.pixels[item.row])))
slow = cam.ablation_cam(*asked, [item.box], [item.label], layer=layer)
print(f"{len(slow.weights)} channels, so the detector ran {len(slow.weights)} times and once more.")

# %% [markdown]
# ### The fast way
#
# Ask a narrower question: hold the box fixed, and see how its class probability changes. If the
# formula is new to you, skip it: the next cell checks it against brute force. Between a channel and
# the first layer of the box head everything is linear: a 1x1 convolution, nearest upsampling, a 3x3
# convolution, RoIAlign. Write $z$ for what the head's first layer gives. Without channel $c$ it
# gives
#
# $$z_c = z - Q\,\delta_c, \qquad \delta_c = \sum_d \left(L_d W_c\right) R\left(S_d\, U A_c\right)$$
#
# with $U$ the upsampling, $S_d$ the nine shifts of the 3x3 convolution $L$, $W$ the 1x1 convolution,
# $R$ RoIAlign, and $Q$ the layer's weights. So all channels are done with three matrix products, and
# the detector runs once. The derivation stands in `cxr_helpers/explanation/ablation_fast.py`.

# %%
fast = ablation_fast.ablate_box(*asked, item.box, item.label, layer=layer)
brute = ablation_fast.brute_force_ablation(*asked, item.box, item.label, layer=layer)
assert np.abs(brute.ablated - fast.ablated).max() < 1e-4
print(f"{len(fast.ablated)} channels: fast and brute force agree to 0.0001.")

# %% [markdown]
# Brute force means: pyramid and head again for each channel, with the same fixed box. How long each
# way takes is measured in the [benchmarks](../benchmarks/README.md), under explanation.py: the fast
# way takes less than a hundredth of the library's time for the median box.
#
# But it is another question than the library's, which is also that of the paper's code; of all that
# this course does otherwise, this is the largest (see the [ledger](../docs/ledger.md), point 13). Four
# things differ:
#
# - **The score.** The library explains IoU plus class probability, the fast way the probability alone.
# - **The box.** In the library proposals and boxes move when a channel is missing; here the box is held.
# - **What is scored.** The detector scores a *proposal* and moves it afterwards; the library takes that
#   score. The fast way pools the moved box once more and asks for its probability.
# - **The next stage.** A channel of C4 also feeds C5; the fast way holds that stage as it was.
#
# Brute force can run the next stage again, and so shows what the last one does by itself. Two maps are
# compared by their rank correlation: 1 means that all pixels come in the same order.

# %%
later = ablation_fast.brute_force_ablation(
    *asked, item.box, item.label, layer=layer, recompute_later=True
)
shown = {
    "library": heatmaps.normalize_map(slow.heatmap[:height, :width]),
    "fast": explained.on_image(fast, data.images, item.row),
    "next stage again": explained.on_image(later, data.images, item.row),
}

# %%
ranks = {
    name: sanity.rank_correlation(heatmap, shown["library"]) for name, heatmap in shown.items()
}
claim(ranks["fast"] < 0.99, "the two ways do not give the same map", settings)

# %% [markdown]
# Radiographs are not square: black fills them up, and the detector sees it. What fills up is no
# part of the radiograph, so it is cut off here, and no map is scored on it.
#
# Look at the figure; above each map is its rank correlation with the library's. Dashed is the
# readers' box, solid the detected one. The map is brown to white where it is high, and lets the
# image through where it is low. Over black a high place looks darker than over white: the cross
# marks the highest. Ask before you look: where would a radiologist look for this finding?

# %%
figure, axes = style.panels(1, 3, width=2.0)
for axis, (name, heatmap) in zip(axes[0], shown.items(), strict=True):
    ch05.show_heatmap(
        axis, picture, heatmap, title=f"{name} ({ranks[name]:.2f})",
        truth_boxes=item.readers, found_boxes=[item.box],
    )  # fmt: skip
plt.show()

# %% [markdown]
# Where does each cross lie: in the box, beside it, at the border of the picture? A map can light up at
# the border although the box is right; the next section and 'Failures' below say how.
#
# Nor need the maps agree: they answer different questions. If the third is much nearer to the first
# than the second is, the way through C5 makes the difference; else it is the score, or the box that
# may move. One box is an anecdote.
#
# Use the fast way for 'what does the class of this very box rest on', and the library for 'what
# holds this box in its place'. Below, all maps come from the fast way.

# %% [markdown]
# ## Grad-CAM on the same box
#
# The same box, score and layer, but weights from the slope, averaged over the channel's pixels.
# Watch two things: how the maps differ, and whether the slope at least predicts what removal costs.

# %%
slope = ablation_fast.box_gradient(*asked, item.box, item.label, layer=layer)
library_slope = cam.grad_cam(*asked, [item.box], [item.label], layer=layer)
square = (data.images.size, data.images.size)
gradient_map = heatmaps.resize_map(slope.heatmap, square, covered=slope.covered)
of_library = heatmaps.normalize_map(library_slope.heatmap[:height, :width])

# %%
pairs = {
    "ablation": shown["fast"],
    "gradient": heatmaps.normalize_map(gradient_map[:height, :width]),
    "library, ablation": shown["library"], "library, gradient": of_library,
}  # fmt: skip
figure, axes = style.panels(1, 4)
for axis, (name, heatmap) in zip(axes[0], pairs.items(), strict=True):
    ch05.show_heatmap(
        axis, picture, heatmap, title=name, truth_boxes=item.readers, found_boxes=[item.box]
    )
plt.show()

# %% [markdown]
# Four maps of one box. Which two are most alike: those of one method, or those of one question?
#
# And for each channel: what its removal costs, against what a straight line along the gradient
# predicts. On the gray line the two are equal. The title says what the most important channel costs.

# %%
costs = fast.score - fast.ablated
figure = ch05.plot_predicted(costs, slope.score - slope.predicted)
figure.axes[0].set_title(f"at most {costs.max():.4f} of a score of {fast.score:.4f}", fontsize=10)
plt.show()

# %% [markdown]
# Where the points hug the line, the slope was right about each channel: this head is nearly straight
# there. Where even the most important channel costs next to nothing, the score is sure of itself, or
# many channels say the same. A map is stretched from 0 to 1 before it is drawn, so even such small
# losses look bright. Even so Grad-CAM's map differs. Its weight is the slope *averaged over all
# places*, also those outside the box, where the channel does not matter, and it never asks whether the
# channel is active where its slope is steep. One box is an anecdote, so here are thirty.

# %%
thirty = found["pretrained"]["test"][:30]
alike = []
for finding, ablation in explained.ablations(detectors["pretrained"], data, thirty, layer=layer):
    tensor = gray_to_tensor(np.asarray(data.images.pixels[finding.row]))
    gradient = ablation_fast.box_gradient(
        detectors["pretrained"], tensor, finding.box, finding.label, layer=layer
    )
    alike.append(
        {
            "the line's prediction": np.corrcoef(ablation.ablated, gradient.predicted)[0, 1],
            "Grad-CAM's weights": sanity.rank_correlation(ablation.weights, gradient.weights),
        }
    )

# %%
alike = pd.DataFrame(alike)
axis = alike.plot.box(vert=False, figsize=(6, 1.6), xlim=(-1.05, 1.05))
axis.set_xlabel("agreement with ablation (1: the same)")
plt.show()

# %%
claim(
    alike["Grad-CAM's weights"].median() < 0.9,
    "Grad-CAM's weights rank the channels otherwise than ablation does",
    settings,
)

# %% [markdown]
# 'The line's prediction' says how well a straight line predicts each removal (a correlation);
# 'Grad-CAM's weights', how alike the two methods rank the channels (a rank correlation). If the
# first is near 1 and the second is not, it is the averaging that misleads, not the slope.

# %% [markdown]
# ## Both arms, side by side
#
# Findings that both detectors have placed: the four classes whose surest pair is surest, and of
# each that pair.

# %% tags=["readme-picture"]
best = {}
for a, b in shared:  # the surest pair first
    best.setdefault(a.label, (a, b))
chosen = list(best.values())[:4]
figure, axes = style.panels(2, len(chosen), width=2.0)
for column, pair in zip(axes.T, chosen, strict=True):
    for axis, arm, one in zip(column, detectors, pair, strict=True):
        heatmap = explained.heatmap_of(detectors[arm], data, one, layer=layer)
        ch05.show_heatmap(
            axis, data.images.picture(one.row), heatmap, title=f"{arm}: {one.name}",
            truth_boxes=one.readers, found_boxes=[one.box],
        )  # fmt: skip
plt.show()

# %% [markdown]
# Above the arm that started from random weights, below the pretrained one. How many crosses lie in
# their dashed box? It is tempting to read a story into such pictures. Count first.

# %% [markdown]
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
# And three maps that need no explanation: a bell in the middle of the image; how often the
# *training* boxes of that class cover each pixel; and the detected box itself, filled evenly. They
# are scored on the pretrained arm's boxes. A filled box has the same value in the pointing game as
# in energy, and one IoU at each threshold.

# %%
scores = {
    arm: map_scores.score_maps(detector, data, found[arm]["val"], found[arm]["test"], layer=layer)
    for arm, detector in detectors.items()
}
drawn = {"resamples": preset.resamples, "seed": settings.seed}
table = map_scores.score_table(scores, reference="pretrained", **drawn)

# %% [markdown]
# Each line is a mean over findings with its 95% [interval](../docs/glossary.md#interval-95) over
# images. Look first at the three baselines, then at the arms.

# %%
style.plot_estimates(table, rows="map", groups="map", panels="measure", limits=(0, 1))
plt.show()

# %% tags=["nbval-ignore-output"]
print({arm: len(f["test"]) for arm, f in found.items()}, "findings explained")
table.pivot(index="map", columns="measure", values="value").round(3)

# %%
pointing = table[table["measure"] == map_scores.POINTING].set_index("map")["value"]
better = [pointing[arm] > pointing[map_scores.BELL] for arm in detectors]
claim(all(better), "every arm's brightest pixel lies in a box more often than a bell's", settings)

# %% [markdown]
# One measure alone would tell a nicer story: in the pointing game both arms beat the bell, as the
# claim above checks. Now look at the class prior, which has never seen the image. An enlarged heart nearly always lies at
# the same place, and a map of that place is hard to beat. Energy and IoU ask for more than one
# pixel, and there a map pays for lighting up so much beside the box: in these columns, too, compare it
# with the bell.
#
# Last, the detected box itself, without any explanation: the detector was trained to put boxes where
# the readers do. So a good score of a map does not prove that the map adds anything to the box.

# %%
claim(
    pointing[map_scores.BOX] > pointing[list(detectors)].max(),
    "the detected box beats its own explanation in the pointing game",
    settings,
)

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
# Each class of which both arms explain ten findings or more; in brackets how many, random /
# pretrained. The others are too rare here, as pneumothorax is, or found too rarely, as nodules
# are. Large findings have it easier: even a map of nothing has more of its energy in a large box.
# So compare arms within a class, not classes.

# %%
measures = (map_scores.POINTING, map_scores.ENERGY)
by_class = map_scores.class_table(scores, measures, at_least=10, **drawn)
ch05.plot_class_scores(by_class)
plt.show()

# %% [markdown]
# Look for a class whose maps mostly point into its boxes, and for one of which much of the energy lies
# there. Is it the same class in both arms?
#
# ### Which arm's maps lie better?
#
# Each arm found its own boxes, so the lines above are about different findings. Fair is the
# difference on the findings that both explain: pretrained minus random, with its interval.

# %%
difference = map_scores.paired_difference(scores["random"], scores["pretrained"], **drawn)
named = difference.assign(name=difference["measure"])
figure = style.plot_estimates(named, xlabel="pretrained - random, same findings")
sides = f"{(named['high'] < 0).sum()} intervals left of zero, {(named['low'] > 0).sum()} right"
figure.axes[0].set_title(sides, fontsize=10)
plt.show()

# %% [markdown]
# An interval that covers zero leaves it open which arm's maps lie better; one right of zero speaks
# for the pretrained arm, one left of zero for the random arm, in that measure. Remember the figure of
# scores: where both arms lose to the class prior, this is a difference between two maps that both lose.
#
# These are one training run of each arm: another seed may move the difference by more than the
# interval says.

# %% [markdown]
# ### Which layer?
#
# The layer was chosen before any map was seen, because the paper's code uses it. With the fast way one can
# ask all of them, on *validation* images. Early layers have finer maps but know less; a box is
# pooled from one level of the pyramid, and stages below that level do not reach it.

# %%
by_layer = map_scores.pointing_by_layer(detectors["pretrained"], data, found["pretrained"]["val"])
named = by_layer.rename(LAYER_NAMES).round(2)
figure = style.plot_dots(named, xlabel="pointing game, validation (0 to 1)")
figure.axes[0].set_title(f"{named.idxmax()} points best", fontsize=10)
plt.show()

# %% [markdown]
# C4, the layer of the paper's code, was not chosen for its score. The score changes from layer to layer,
# so name the layer beside every score of a map.
#
# ## Does the map depend on what was learned?
#
# ### Randomize the weights
#
# Draw the detector's weights anew, part by part from the output down, and make the map of the same
# box again. A map that stays the same shows the image, not what was learned. First one box.

# %%
item, steps = example["pretrained"], {"as trained": detectors["pretrained"]}
for name, changed in sanity.cascade(
    detectors["pretrained"], sanity.DETECTOR_PARTS, seed=settings.seed
):
    steps[f"+ {name}"] = changed

# %%
figure, axes = style.panels(2, 4, width=1.6)
for axis, (name, changed) in zip(axes.flat, steps.items(), strict=True):
    heatmap = explained.heatmap_of(changed, data, item, layer=layer)
    ch05.show_heatmap(axis, picture, heatmap, title=name, truth_boxes=item.readers)
plt.show()

# %% [markdown]
# An empty panel means that nothing speaks for the box any more: every channel's weight is negative,
# or zero.
#
# Now thirty boxes: the rank correlation of each map with the map of the trained detector. For this
# the maps are taken before what is negative is cut off.

# %%
checks = map_checks.randomization_check(
    detectors["pretrained"], data, thirty, layer=layer, seed=settings.seed
)
ch05.plot_randomization(checks, ylabel="rank correlation")
plt.show()

# %%
claim(
    checks["+ stem"].median() < 0.6,
    "without any learned weight the maps come out different",
    settings,
)

# %% [markdown]
# How far does the first step alone, new weights in the head, change the maps? The head decides which
# channels count. What correlation single boxes keep at the end has nothing to do with learning: bright
# and dark parts of an image excite random filters too.

# %% [markdown]
# ### Randomize the labels
#
# The other half of the check: train on labels that mean nothing. To do so with the whole detector
# takes minutes. Here only the box head is trained anew, on the frozen features of the readers'
# boxes and of background; three times: with the true labels, with the true labels from another
# start, and with the labels shuffled.

# %%
heads, accuracy = random_labels.random_label_heads(
    detectors["pretrained"], data, steps=250, seed=settings.seed
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
# The shuffled labels can only be learned by heart. Now compare the maps of two heads that learned
# the same with those of a head that learned nothing.

# %%
agreement = map_checks.agreement(heads.items(), data, thirty, layer=layer)
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

# %% [markdown]
# ### Delete and insert pixels
#
# If the map names the pixels that matter, the score must fall fast when they are blurred away, and
# rise fast when they are put back into a blurred image. Two other orders for comparison: a random
# map, and a bell on the detected box, which knows the box and nothing else.

# %%
curves, areas = map_checks.pixel_curves(
    detectors["pretrained"], data, thirty[:15], layer=layer, seed=settings.seed
)
ch05.plot_curves(curves)
plt.show()

# %% tags=["nbval-ignore-output"]
areas.mean().unstack().round(3)

# %%
claim(
    areas["deletion", "bell on the box"].mean() < areas["deletion", "ablation"].mean(),
    "deleting the bare box hurts the score sooner than deleting by the map does",
    settings,
)

# %% [markdown]
# With all pixels blurred the score does not fall to 0: a blurred heart or aorta is still one at
# that place. So the curves have little room. The map does worse than the bell on the box: the pixels
# that the score rests on lie in the box, and the map spreads beyond it. Whether it does better than
# chance, the columns of the table say; whoever compares with chance alone would let such a map pass.
# And remember that a half blurred radiograph is an image that the detector has never seen.

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
# ## Failures
#
# ### Maps that lie elsewhere
#
# The surest findings whose map has its brightest pixel outside the readers' boxes.

# %%
one = scores["pretrained"]
one = one[(one["map"] == map_scores.ABLATION) & (one[map_scores.POINTING] == 0)]
by_key = explained.by_key(found["pretrained"]["test"])
missed = sorted(
    (by_key[key] for key in zip(one["row"], one["label"], strict=True)), key=lambda f: -f.score
)[:4]

# %%
figure, axes = style.grid(len(missed), 4)
for axis, f in zip(axes, missed, strict=True):
    heatmap = explained.heatmap_of(detectors["pretrained"], data, f, layer=layer)
    ch05.show_heatmap(
        axis, data.images.picture(f.row), heatmap, title=f"{f.name} {f.score:.2f}",
        truth_boxes=f.readers, found_boxes=[f.box],
    )  # fmt: skip
plt.show()

# %% [markdown]
# The boxes may be right all the same. Ablation weighs whole channels: a channel that matters
# inside the box lights up everywhere else where it is active, at the edge of the picture too,
# where a sharp border excites many channels: the collimator's, or that of the black which fills
# the image up. That is a limit of the method, and no proof that the detector looked there.

# %% [markdown]
# ### Right for the wrong reason
#
# Now a network that does look elsewhere, because we made it so: it learns a
# [shortcut](../docs/glossary.md#shortcut). The task: is the heart enlarged
# ([cardiomegaly](../docs/glossary.md#cardiomegaly))? On real radiographs the projection is such a
# shortcut: AP views make the heart look larger, and are taken of sicker people. Into 95% of the
# training images with the finding, and 5% of those without, we draw a letter like a technologist's
# marker; in a second experiment a tube; in a third the black border of a collimator. A real marker
# says R or L; ours is an E, which nobody takes for a side. The tube is a bright bar, far cruder
# than a real one. A control is trained on the same images without anything drawn.

# %%
train_images = shortcut.finding_images(data, "train", "Cardiomegaly")
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

# %% [markdown]
# ### A question

# %%
quiz("5.C")

# %% [markdown]
# ## See for yourself
#
# Choose arm, image, box, layer and threshold. The white line is where the map reaches the threshold;
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
results.add(
    **summary,
    difference=difference.set_index("measure")[["value", "low", "high"]].T.to_dict(),
    rank_correlation_with_library=ranks["fast"],
    randomized=checks.median().to_dict(),
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
# - prove that a finding is there, or where it ends: the map is coarse, and in the pointing game
#   here the box that was detected beats it;
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
# - A score of a map means little without baselines; where the class usually lies, and the detected
#   box, are strong ones.
# - A map that survives random weights or random labels explains nothing.
# - A map can give a shortcut away, but moving the object proves it.
# - A heatmap is a tool for questions, not for diagnoses.
#
# ## Questions to think about
#
# 1. Two channels carry the same information. What share does ablation give to each? What would you
#    remove to find them?
# 2. The detected box scores higher than its map. Construct a map that beats the box in energy and
#    means nothing.
# 3. The class prior never sees the image. Which findings would it score worst on, and which of the
#    three measures would tell?
# 4. A marker letter stands beside every abnormal image of one hospital, *inside* the readers' boxes.
#    Which of the checks above would still reveal it?
