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
# **The question: where does it look, is that where the finding is, and does the map depend on what was
# learned at all?**
#
# A network gives a number, and a [heatmap](../docs/glossary.md#heatmap) is supposed to say why. The
# paper shows such maps as pictures. Here they get scores, baselines, and tests that a useless map
# fails. First comes a network that is right for the wrong reason.
#
# ## What you will learn
#
# - To catch a network that reads a letter instead of the lung.
# - What [Ablation-CAM](../docs/glossary.md#ablation-cam) is, by hand: remove a channel, see what
#   the score loses.
# - To explain a detected box with pytorch-grad-cam, and, with the box held fixed, much faster.
# - Which cells can change a box's score at all, and why a map may be bright elsewhere.
# - To score a heatmap against boxes, beside maps that cost nothing.
# - To check that a map depends on what was learned, and what it may be used for.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. The
# detectors of notebook 04 are used where they are kept; else they are trained here first, which
# takes minutes more. If your time is short, run the cells of 'The library's way' and 'The fast
# way' without reading them.

# %%
import contextlib
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from sklearn.metrics import roc_auc_score

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
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401
from cxr_helpers.course.plots import ch05, style
from cxr_helpers.detection.prediction import gray_to_tensor
from cxr_helpers.explanation import ablation_fast, cam, cells, fixed_box, heatmaps, sanity
from cxr_helpers.explanation.layers import LAYER_NAMES, STAGES

style.set_style()
settings = load_settings()
seed, resamples = settings.seed, settings.explain.resamples
results = Results("05_ablation_cam", settings)

# %% [markdown]
# ## The letter that the network read
#
# The task: is the heart enlarged ([cardiomegaly](../docs/glossary.md#cardiomegaly))? Technologists put
# letters beside patients, and not on all alike. What goes with a finding without being it is a
# [shortcut](../docs/glossary.md#shortcut). On real radiographs the projection is one: AP views make the
# heart look larger, and are taken of sicker people. We plant one: the letter E, which nobody takes for
# a side, in 95% of the training images with the finding and in 5% of those without.

# %%
data = load_detection(settings)
train_images = shortcut.finding_images(data, "train", "Cardiomegaly", most=800)
test_images = shortcut.finding_images(data, "test", "Cardiomegaly")
for part, images in {"training": train_images, "test": test_images}.items():
    print(f"{part}: {len(images.labels)} images, {images.labels.sum()} with the finding")

# %% [markdown]
# Two small networks of five convolutions learn the task: one with the letters, and a control on the
# same images without any.

# %%
KIND, word = "marker", "letter"  # or "tube", "tube", or "border", "black border"
labels = train_images.labels
present = shortcut.draw_presence(labels, with_finding=0.95, without=0.05, seed=seed)
planted = shortcut.plant(train_images, present, KIND, seed=seed)
nets = {
    "shortcut": shortcut.train(planted.pixels, labels, epochs=16, seed=seed),
    "control": shortcut.train(train_images.pixels, labels, epochs=16, seed=seed),
}

# %% [markdown]
# ### Now move the letter
#
# On test images the letter stands where it stood in training (with the finding), nowhere, and swapped:
# on every image *without* the finding and on no other.

# %%
sick = test_images.labels == 1
places = {"as in training": sick, "in no image": sick & False, "swapped": ~sick}
auroc = {}
for place, where in places.items():
    pixels = shortcut.plant(test_images, where, KIND, seed=seed + 1).pixels
    auroc[place] = {n: roc_auc_score(sick, shortcut.scores(net, pixels)) for n, net in nets.items()}
auroc = pd.DataFrame(auroc)

# %% [markdown]
# And would a heatmap have told? Warm is where the score came from, the cross marks the highest place,
# the finding is dashed. The titles say which share of a network's map lies on the letter, the mean over the
# test images. Ask first: what would each network have to look at?

# %% tags=["readme-picture"]
everywhere = shortcut.plant(test_images, sick | True, KIND, seed=seed + 1)
i = np.flatnonzero(sick)[10]  # chosen because it shows it well; try others
on_it, maps = {}, {}
for name, net in nets.items():
    on_it[name] = shortcut.share_on_object(net, everywhere, np.flatnonzero(sick))
    title = f"{name} network: {on_it[name]:.0%}\nof its map on the {word}"
    maps[title] = shortcut.ablation_heatmap(net, everywhere.pixels[i])
learned, moved = auroc.loc["shortcut", ["as in training", "swapped"]]
title = f"It read the {word}: AUROC {learned:.2f}, and {moved:.2f} once the {word} is moved"
ch05.plot_shortcut(everywhere.pixels[i], maps, auroc, title=title, boxes=test_images.boxes[i])
plt.show()

# %% [markdown]
# The first number of each line is what a test set from the same hospital would show: there the
# shortcut network looks *better* than its control. An AUROC near 0 is worse than chance: nearly every
# pair of images is put in the wrong order, for the letter lies on the wrong one. In the mean its map lies more on the letter than
# the control's. But most of it lies elsewhere even then, and here we knew what to look for. **A heatmap
# may raise a suspicion; the experiment confirms it: move the object, and see whether the score follows.**
#
# The next cell is folded, as are all that only check what the text says. A click opens it.

# %% tags=["hide-input"]
fall = learned - moved
claim(fall > 0.15, "the shortcut network fails once the shortcut is moved", settings)
more = on_it["shortcut"] > on_it["control"]
claim(more, "its map lies more on the object than the control's", settings)
claim(on_it["shortcut"] < 0.5, "in the mean most of the map lies elsewhere", settings)

# %% [markdown]
# ## How was that map made? By hand
#
# A tiny network ends in two feature maps (channels) of 2 x 2 cells. Its second part, the head, turns
# them into a score: twice the mean of the first plus the mean of the second. Remove one channel at a
# time, and ask the head again.

# %%
channels = np.array([[[4.0, 0], [0, 0]], [[0, 0], [2, 2]]])


def head(channels):
    return 2 * channels[0].mean() + channels[1].mean()


for c in range(2):
    without = channels.copy()
    without[c] = 0
    print(f"score {head(channels):.0f}, without channel {c}: {head(without):.0f}")

# %% [markdown]
# Two are lost with the first channel, one with the second. Write $s$ for the score, $s_c$ for the
# score without channel $c$, $A_c$ for the channel. The map is the sum of the channels, each times what
# it costs. What is negative is cut off:
#
# $$w_c = s - s_c, \qquad \text{map} = \max\left(0, \sum_c w_c A_c\right)$$
#
# So the upper left cell gets $2 \cdot 4 = 8$, the lower ones $1 \cdot 2 = 2$ each. No gradient is needed:
# the network is only asked again, with a part of it missing. The authors of Ablation-CAM divide $w_c$ by
# $s$, which only scales the map where $s$ is positive. The same for the letter network, in ten lines:


# %%
@torch.no_grad()
def ablation_map(net, image):
    channels = net.features(torch.from_numpy(image)[None, None] - 0.5)  # (1, 64, 8, 8)
    total = torch.zeros(channels.shape[2:])
    for c in range(channels.shape[1]):
        without = channels.clone()
        without[:, c] = 0
        cost = net.head(channels) - net.head(without)
        total += cost.item() * channels[0, c]
    return torch.relu(total).numpy()


# %% [markdown]
# pytorch-grad-cam calls the same thing `AblationCAM`. It draws a progress bar, which
# `redirect_stderr` sends away, and stretches each map from 0 to 1; so do we.

# %%
net, image = nets["shortcut"], everywhere.pixels[i]
by_hand = heatmaps.resize_map(ablation_map(net, image), image.shape)
with contextlib.redirect_stderr(io.StringIO()):
    method = AblationCAM(net, [net.features])
    library = method(torch.from_numpy(image)[None, None], [ClassifierOutputTarget(0)])[0]
stretched = (by_hand - by_hand.min()) / (by_hand.max() - by_hand.min())
assert np.abs(stretched - library).max() < 1e-3
assert np.abs(heatmaps.normalize_map(by_hand) - shortcut.ablation_heatmap(net, image)).max() < 1e-3
print("Ten lines, the library and the map in the figure are the same.")

# %% [markdown]
# **Exercise 5.1, ten minutes.** The ablation of one channel: return what the score `head(maps)` loses
# when one channel of `maps` (C, h, w) is set to zero. Fill in the dots and run
# the cell. Stuck? `hint("5.1")`, `hint("5.1", 2)`, `solution("5.1")`.


# %%
def loss_without(head, maps, channel):
    return ...  # your code


check("5.1", loss_without)

# %% [markdown]
# **Exercise 5.2, fifteen minutes.** Write the map, as its authors do, with shares
# $(s - s_c) / s$: from the `score`, the scores without each channel (`ablated`, an array (C,)) and the
# channels (`maps`, an array (C, h, w)). Cut the sum at zero; do not stretch it.


# %%
def map_from_channels(score, ablated, maps):
    return ...  # your code


check("5.2", map_from_channels)

# %% [markdown]
# **Exercise 5.3, five minutes.** Where ablation is blind. A score is the larger one of two channels,
# `max(a, b)`, and `a = 3`, `b = 2`. Set one to 0, then the other. Predict which share of the score is lost
# each time.

# %%
weights_of_two = {"a": ..., "b": ...}
check("5.3", weights_of_two)

# %% [markdown]
# ## A detected box
#
# Now the detectors of notebook 04; where they are missing, they are trained now. Two
# [arms](../docs/glossary.md#arm): one trained **from scratch**, one that began **pretrained** by
# [Barlow Twins](../docs/glossary.md#barlow-twins).
#
# What is explained: in each abnormal image, for each class that the
# [readers](../docs/glossary.md#reader) saw there, the detector's surest box of that class, which may
# have a low score or lie elsewhere. A class that it did not find has no map. For time, only the first
# images of each part are asked; the [benchmark](../benchmarks/README.md) asks all.

# %%
main = probes.main_arm(settings)
ours = ARM_NAMES[main]
detectors, found = {}, {}
for name, arm in {"from scratch": "random", ours: main}.items():
    detector, path = experiment.train_or_load_detector(settings, data, arm, seed=seed)
    detectors[name], found[name] = detector, explained.findings(settings, data, detector, path)
print(f"the second arm: {ours}")

# %% [markdown]
# To compare the arms we need boxes that both found, where the readers have one too. Of each
# pair take the lower of the two scores: where it is highest is the example from here on. Here is what is
# known of its second half: row, class, score, boxes; `exact` is what was drawn.

# %% tags=["nbval-ignore-output"]
shared = explained.shared(found["from scratch"]["test"], found[ours]["test"])
item = shared[0][1]
print(f"{len(shared)} findings are placed by both")
print(item)

# %% [markdown]
# ### The library's way
#
# For each channel of a layer the whole detector runs once. With a channel missing, the proposals
# move, and so do the boxes. The library's score is the [IoU](../docs/glossary.md#iou) of the best
# overlapping box with the old one, plus its class probability; 0 if the box is gone. The layer is
# the third stage of the ResNet, called C4 because the stem counts as the first, as in the paper's code.

# %%
assert len(shared) >= 10 or not settings.is_demo
layer, picture = settings.explain.layer, data.images.picture(item.row)
detector = detectors[ours]
image = gray_to_tensor(np.asarray(data.images.pixels[item.row]))
slow = cam.ablation_cam(detector, image, [item.box], [item.label], layer=layer)
print(f"{len(slow.weights)} channels, so the detector ran {len(slow.weights)} times and once more.")

# %% [markdown]
# ### The fast way
#
# Ask a narrower question: hold the box fixed, and see how the score of its class changes. The score
# is the class's log-odds, $s = \log\frac{p}{1-p}$: a probability near 1 is flat, log-odds are not.
# Between a channel and the first layer of the box head everything is linear: a 1x1 convolution,
# upsampling, a 3x3 convolution, RoIAlign. So the part of each channel can be computed apart and
# subtracted. Three matrix products do all channels, and the detector runs once. The derivation stands
# at the head of `cxr_helpers/explanation/ablation_fast.py`. Brute force means: pyramid and head again for
# each channel, with the same fixed box.

# %%
fast = ablation_fast.ablate_box(detector, image, item.box, item.label, layer=layer)
brute = ablation_fast.brute_force_ablation(detector, image, item.box, item.label, layer=layer)
assert np.abs(brute.ablated - fast.ablated).max() < 1e-3
print(f"{len(fast.ablated)} channels: fast and brute force agree to 0.001.")

# %% [markdown]
# The fast way takes less than a hundredth of the library's time
# ([benchmarks](../benchmarks/README.md), explanation.py). But it asks another question than the library
# and the paper's code: the largest of this course's departures ([ledger](../docs/ledger.md), point 13).
# The library's box may move, and IoU is part of its score; it scores a proposal, the fast way the final
# box; and a channel of C4 also feeds C5, which the fast way holds as it was.
#
# The maps of both, compared by rank correlation: 1 means that all pixels come in the same order. Solid
# is the detected box. Ask before you look: where would a radiologist look for this finding?

# %%
height, width = picture.shape
shown = {"library": heatmaps.normalize_map(slow.heatmap[:height, :width])}
shown["fast"] = explained.on_image(fast, data.images, item.row)
alike = sanity.rank_correlation(shown["fast"], shown["library"])
figure, axes = style.panels(1, 2, width=2.8)
for axis, (name, heatmap) in zip(axes[0], shown.items(), strict=True):
    boxes = {"truth_boxes": item.readers, "found_boxes": [item.box]}
    ch05.show_heatmap(axis, picture, heatmap, title=name, **boxes)
figure.suptitle(f"{item.name}: rank correlation {alike:.2f}", fontsize=10)
plt.show()

# %% [markdown]
# They need not agree: they answer different questions. Use the library for 'what holds this box in its
# place', the fast way for 'what does the class of this very box rest on'. Below, all maps are fast.
#
# ## Which cells can change the score at all?
#
# Ablation weighs a channel by what it does *in the box*, and then draws it over the whole image: it is
# bright wherever that channel is active. Ask the other way round. Empty one **cell** of the layer, in
# all channels at once, and see what the same score loses. First under the box, then in a corner:

# %%
scene, (label,) = fixed_box.enter(detector, image, [item.box], [item.label], layer)
rows, columns = scene.stages[STAGES.index(layer)].shape[2:]
x_min, y_min, x_max, y_max = item.box / data.images.size
middle = int((y_min + y_max) / 2 * rows), int((x_min + x_max) / 2 * columns)
everything = slice(None)
with torch.no_grad():
    whole = fixed_box.score_without(detector, scene, label, layer, None)
    for name, (row, column) in {"under the box": middle, "in the corner": (0, 0)}.items():
        emptied = (everything, everything, row, column)
        score = fixed_box.score_without(detector, scene, label, layer, emptied)
        print(f"cell {name} emptied: the score changes: {abs(whole - score) > 1e-4}")

# %% [markdown]
# The same products as above do all cells at once, exactly. The veil lies over the cells that change
# nothing. Left the channels' map, then the cells', then the cells' with the next stage run again.

# %%
(by_cell,) = cells.ablate_cells(detector, image, [item.box], [item.label], layer=layer)
brute = cells.brute_force_cells(detector, image, item.box, item.label, layer=layer)
assert np.abs(brute.ablated - by_cell.ablated).max() < 1e-3
again = cells.brute_force_cells(
    detector, image, item.box, item.label, layer=layer, recompute_later=True
)
print("Cells: fast and brute force agree to 0.001.")

# %%
panels = [("channels", fast, by_cell), ("cells", by_cell, by_cell), ("next stage", again, again)]
figure, axes = style.panels(1, 3, width=2.8)
for axis, (name, made, counts) in zip(axes[0], panels, strict=True):
    heatmap = heatmaps.normalize_map(made.heatmap)
    title = f"{name}: {counts.reach.mean():.0%} of the cells count"
    ch05.show_heatmap(
        axis, picture, explained.as_cells(heatmap, made, data.images, item.row), title=title,
        truth_boxes=item.readers, found_boxes=[item.box],
        veiled=~explained.as_cells(counts.reach, counts, data.images, item.row),
    )  # fmt: skip
plt.show()

# %% [markdown]
# With the next stage held, only the cells under the box count, and a few beside it that the 3x3
# convolution and RoIAlign reach. What the left map shows below the veil is no influence on this box,
# however bright. Through the next stage, which looks far around, more cells reach the box. And a cell has
# itself seen more than its own square: a map says through which cells the score came, not which pixels
# made it. How large is each part on average: the cells that count, and the share of the channel map that
# lies on cells that do not?

# %%
twenty = found[ours]["test"][:20]
matter = explained.shares_that_matter(detector, data, twenty, layer=layer).mean()

# %% tags=["nbval-ignore-output"]
matter.round(2)

# %% tags=["hide-input"]
few = matter["cells that change the score"] < 0.5
claim(few, "with the next stage held, fewer than half of the cells can change a score", settings)
idle = matter["channel map on other cells"] > 0.5
claim(idle, "most of a channel map lies on cells that change nothing", settings)

# %% [markdown]
# So most of what such a picture shows of a fixed box is no influence on it.
#
# ## Which map is reported?
#
# Both maps are asked about a box, and the box alone says much about where to look. A third map knows
# none: a [linear probe](../docs/glossary.md#linear-probe) on the frozen backbone, learned from 'is the
# class anywhere on this image?'. Its score is a mean over cells, so each cell's part can be read off.
#
# Three ways, and a layer for each. If you look at all maps and show the best one, you have chosen on the
# test. So a rule decides, on *validation* findings, in the pointing game: does the brightest
# pixel lie in a reader's box? Of each way the layer that points best, and of these the best way.
# 'Pyramid' is the level that the box is pooled from.

# %%
frozen = probes.frozen_detector(settings, data, main, seed=seed)
probe = probes.train_probe(frozen, data, layer=layer, most=400)
tried = ("layer2", "layer3", "layer4", "pyramid")
some = found[ours]["val"][:60]
pointing = map_scores.pointing_by_layer(detector, data, some, probe=probe, layers=tried)
way, layers = map_scores.reported_map(pointing)
ways = explained.ways(detector, probe, layer=layers)
xlabel = "pointing game on validation findings (share that hits)"
figure = style.plot_dots(pointing.rename(index=LAYER_NAMES), xlabel=xlabel)
figure.suptitle(f"reported: {way}, {LAYER_NAMES[layers[way]]}", fontsize=10)
plt.show()

# %% [markdown]
# The cells of C4, the layer of the paper's code, for findings that both detectors have placed: the four classes whose surest pair is
# surest. Above from scratch, below the other arm.

# %%
best, hits = {}, []
for a, b in shared:  # the surest pair first
    best.setdefault(a.label, (a, b))
chosen = list(best.values())[:4]
figure, axes = style.panels(2, len(chosen), width=2.3)
for column, pair in zip(axes.T, chosen, strict=True):
    for axis, arm, one in zip(column, detectors, pair, strict=True):
        explain = explained.ways(detectors[arm], layer=layer)[explained.CELLS]
        heatmap = explained.heatmap_of(explain, data, one)
        hits.append(heatmaps.pointing_game(heatmap, one.readers))
        boxes = {"truth_boxes": one.readers, "found_boxes": [one.box]}
        title = one.name
        ch05.show_heatmap(axis, data.images.picture(one.row), heatmap, title=title, **boxes)
figure.suptitle(f"{sum(hits):.0f} of {len(hits)} crosses lie in a reader's box", fontsize=10)
plt.show()

# %% [markdown]
# It is tempting to read a story into such pictures. Count first.
#
# ## Scores
#
# - **pointing game**: does the brightest pixel lie in a reader's box?
# - **energy in the box**: which share of the map's brightness lies in the boxes?
# - **IoU**: cut the map at the threshold that is best on validation images. How well does that region
#   fit the boxes? (A later figure also gives each map its own best threshold, which is too kind.)
#
# And four maps that explain nothing: a bell in the middle of the image; how often the *training* boxes
# of that class cover each pixel (class prior); the detected box itself, filled; and a bell in that
# box. Look first at these four. Each line is a mean over findings with its 95%
# [interval](../docs/glossary.md#interval-95) over images.

# %%
scores, ablations = {}, (explained.CHANNELS, explained.CELLS)
for arm, asked in found.items():
    known = probe if arm == ours else None
    wanted = (*explained.WAYS, *map_scores.BASELINES) if known else ablations
    scores[arm] = map_scores.score_maps(
        detectors[arm], data, asked["val"], asked["test"], layer=layers, names=wanted, probe=known
    )
table = map_scores.score_table(scores, reference=ours, resamples=resamples, seed=seed)
shown = table[table["measure"] != map_scores.BEST_IOU]
size = {"limits": (0, 1), "size": (9.5, 4.4)}
figure = style.plot_estimates(shown, rows="map", groups="map", panels="measure", **size)
top = shown.loc[shown[shown["measure"] == map_scores.POINTING]["value"].idxmax()]
figure.suptitle(f"Points best: {top['map']} ({top['value']:.2f})", fontsize=10)
plt.show()

# %% [markdown]
# The class prior has never seen the image. An enlarged heart nearly always lies at the same place, and
# a map of that place is hard to beat. So hold each map against the baselines on the same findings.
# By the readers' boxes, and by where the finding was really drawn, which only a demo can know:

# %%
gains = map_scores.over_baselines(scores[ours], resamples=resamples, seed=seed)
look = {"rows": "map", "groups": "minus", "panels": "truth", "size": (8.5, 3)}
figure = style.plot_estimates(gains, **look)
own = gains[(gains["map"] == way) & (gains["truth"] == map_scores.READERS)].set_index("minus")
told = ", ".join(f"{one:+.2f} over {name}" for name, one in own["value"].items())
figure.suptitle(f"pointing game, {way}: {told}", fontsize=10)
plt.show()

# %% [markdown]
# The bell on the box is the sobering one. The detector was trained to put boxes where the readers do,
# the middle of a box is a good place to point at, and cells light up only at the box. So their score
# says that the box lies well. Here are the same boxes with a box head of **random** weights:

# %% tags=["nbval-ignore-output"]
blind = sanity.randomized_copy(detector, sanity.DETECTOR_PARTS["head"], seed=seed)
hits, asked = {}, [layers[explained.CELLS]]
for name, one in {"as trained": detector, "random head": blind}.items():
    pointed = map_scores.pointing_by_layer(one, data, twenty, layers=asked)
    hits[name] = round(pointed[explained.CELLS].item(), 2)
hits

# %% tags=["hide-input"]
text = "with a random head the cells still point into the box for more than a quarter of findings"
claim(hits["random head"] > 0.25, text, settings)

# %% [markdown]
# Only cells at the box can score, so even with a random head the map points into the box. Pointing does
# not show what a map depends on: it may even point better than the trained head. The pattern inside the box may be another one; that is asked below.
#
# ### Which arm's maps lie better?
#
# Each arm found its own boxes. Fair is the difference on the findings that both explain: the cells' maps,
# the other arm minus from scratch. These are one training run each: another seed may move it by more than
# the interval says.

# %%
both = scores["from scratch"], scores[ours]
difference = map_scores.paired_difference(
    *both, way=explained.CELLS, resamples=resamples, seed=seed
)
named = difference.rename(columns={"measure": "name"})
figure = style.plot_estimates(named, xlabel=f"{ours} minus from scratch, same findings")
apart = ((named["low"] > 0) | (named["high"] < 0)).sum()
figure.suptitle(f"{apart} of {len(named)} intervals leave zero out", fontsize=10)
plt.show()

# %% [markdown]
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
# the `boxes`, a list that may overlap? Return 0 where nothing is above zero.


# %%
def energy_inside(heatmap, boxes):
    return ...  # your code


check("5.5", energy_inside)

# %% [markdown]
# **Exercise 5.6, five minutes.** A *constant* map is 1 everywhere, and the readers' box covers a fifth
# of the image. A filled *box* is 1 inside a detected box and 0 outside; it is as large as the readers'
# box, but shifted by half its width. Predict their scores, with ties in the pointing game as in 5.4, and
# the IoU at half of the map's maximum.

# %%
scores_of_nothing = {
    "constant: energy": ...,
    "constant: pointing": ...,
    "box: energy": ...,
    "box: IoU": ...,
}
check("5.6", scores_of_nothing)

# %%
quiz("5.A")

# %% [markdown]
# ## Does the map depend on what was learned?
#
# ### Randomize the weights
#
# Draw the detector's weights anew, part by part from the output down, and make the maps of the same
# twenty boxes again. A map that stays the same shows the image, not what was learned. Of the cells, only
# those that count are compared. The probe's head is its logistic regression.

# %%
checks = map_checks.randomization_check(
    detector, data, twenty, layer=layers, seed=seed, probe=probe
)
figure = ch05.plot_randomization(checks, ylabel="rank correlation with the trained map")
ends = {name: check["+ stem"].median() for name, check in checks.items()}
told = ", ".join(f"{name} {end:.2f}" for name, end in ends.items())
figure.suptitle(f"without any learned weight: {told}", fontsize=10)
plt.show()

# %% [markdown]
# How far does the first step alone, new weights in the head, change each map? What single boxes keep at
# the end has nothing to do with learning: bright and dark parts excite random filters too.
#
# ### Randomize the labels
#
# The other half of the check: train on labels that mean nothing. For time, only the box head is trained
# anew, on frozen features of readers' boxes and background: with the true labels, with them from another
# start, and shuffled. Up to half of the boxes are background, so a head that always says so is right for
# as many. Compare the accuracy, then the agreement of the maps with those of 'true labels': all of the
# channels' maps, and of the cells those that count. (The probe's map knows no box head.)

# %% tags=["nbval-ignore-output"]
heads, learned = random_labels.random_label_heads(detector, data, steps=250, seed=seed)
agreement = {}
for kind in (explained.CHANNELS, explained.CELLS):
    explains = [(name, explained.ways(one, layer=layer)[kind]) for name, one in heads.items()]
    agreement[kind] = map_checks.agreement(explains, data, twenty).median()
learned.join(pd.DataFrame(agreement)).round(2)

# %% tags=["hide-input"]
same, nothing = (agreement[explained.CHANNELS][k] for k in ("true labels again", "shuffled"))
accuracy = learned["accuracy on validation boxes"]
carried = accuracy["true labels"] > accuracy["shuffled"] + 0.1
claim(carried, "shuffled labels teach nothing that carries over to validation boxes", settings)
claim(same > nothing + 0.05, "heads that learned the same have more similar maps", settings)
claim(max(ends.values()) < 0.7, "without learned weights every way's maps are others", settings)

# %% [markdown]
# So the channels' map does depend on the labels: two heads that learned the same agree, one that learned
# nothing true does not. How far apart the two last figures of a column are says how much, for twenty
# boxes: read the cells' column in the same way.
#
# ### Delete and insert pixels
#
# If the map names the pixels that matter, the score must fall fast when they are blurred away, and
# rise fast when they are put back into a blurred image. Two other orders for comparison: a random
# map, and the bell on the detected box.

# %%
curves, _ = map_checks.pixel_curves(detector, data, twenty[:8], ways, steps=6, seed=seed)
figure = ch05.plot_curves(curves)
after = {name: said[1] for name, (_, said) in curves["deletion"].items()}
title = f"a sixth of the pixels deleted: {min(after, key=after.get)} costs the score most"
figure.suptitle(title, fontsize=10)
plt.show()

# %% [markdown]
# A low curve is good for deletion, a high one for insertion. A map that does no better than random has
# not named the pixels that matter, whatever it looks like. The bell in the detected box, which explains
# nothing, is again hard to beat; and eight boxes are few. Besides, a half blurred radiograph is an image
# that the detector has never seen.
#
# **Exercise 5.7, fifteen minutes.** The rank correlation of two maps (Spearman's): the correlation of
# their ranks, where equal values share their mean rank. Both are arrays of the same shape.


# %%
def rank_correlation(first, second):
    return ...  # your code


check("5.7", rank_correlation)

# %%
quiz("5.B")

# %% [markdown]
# ## See for yourself
#
# Choose arm, image, box, way, layer and threshold. The white line is where the map reaches the threshold;
# the IoU is that of the region inside it with the readers' boxes. (On a page that is only read, there
# are no controls.)

# %%
viewer.viewer({arm: (one, found[arm]["test"]) for arm, one in detectors.items()}, data)

# %% [markdown]
# **Exercise 5.8, half an hour.** Your own figure: draw an Ablation-CAM map and the box that it explains
# on one axis. The image has 64 x 64 pixels, the box (x_min, y_min, x_max, y_max) is in these; the map has
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
# It may help developers to a suspicion, such as a letter that lights up, to be tested by experiment, and
# to debug: a map on the image's border points to a mistake in preparing the images. It may be shown
# beside a score in a study of readers that measures whether it helps or harms.
#
# It may not prove that a finding is there, or where it ends: the middle of the detected box, which
# explains nothing, is hard to beat; nor that a network is right for the right reason: a plausible map is
# what a reader expects to see. It does not replace a test on patients of another hospital, stands in
# for no diagnosis, and calms no doubt about one.

# %%
quiz("5.C")

# %% [markdown]
# ## The answer
#
# From the rule's map and the readers' boxes:

# %% tags=["nbval-ignore-output"]
reach = explained.shares_that_matter(detector, data, twenty, layer=layers[explained.CELLS])
share = reach["cells that change the score"].mean()
print(map_scores.answer(scores[ours], gains, share, way=way, layer=layers[way]))

# %% tags=["hide-input"]
lows = own.loc[[map_scores.BELL, map_scores.PRIOR], "low"]
claim(lows.min() > 0, "the map points better than bell and prior, intervals above zero", settings)
figures = ["value", "low", "high"]
for measure, part in table.groupby("measure"):
    results.add(**{measure: part.set_index("map")[figures].T.to_dict()})
results.add(
    reported=f"{way}, {layers[way]}",
    cells_that_change_the_score=share,
    difference=difference.set_index("measure")[figures].T.to_dict(),
    over_baselines=own[figures].T.to_dict(),
    rank_correlation_with_library=alike,
    random_labels={kind: values.to_dict() for kind, values in agreement.items()},
    shortcut={KIND: auroc.loc["shortcut"].to_dict()},
)
results.save().name

# %% [markdown]
# ## What this does not show
#
# A map shows what the score rests on, not whether that is a good reason. A score against boxes asks
# whether the network looks where readers look; it may be right for another reason. One detector of
# each arm was explained, so nothing here separates pretraining from the luck of a seed. And on the
# demo the findings are synthetic: that a map lies on them says nothing about patients.
#
# ## What you learned
#
# - A map can give a shortcut away; moving the object proves it.
# - Ablation-CAM weighs each channel by what the score loses without it. It is blind to channels of
#   which each would do.
# - The library reruns the detector for each channel; with the box fixed, linear algebra does.
# - With later stages held, only the cells under a box, and a few beside it, can change its score; a
#   channel map lights up elsewhere too.
# - A score of a map means little without baselines; the class's usual place and the detected box are
#   strong ones. Which map is reported is chosen on validation, by a rule.
# - A map that survives random weights or random labels explains nothing.
#
# ## Questions to think about
#
# 1. Two channels carry the same information. What share does ablation give to each? What would you
#    remove to find them?
# 2. A bell in the detected box explains nothing and scores well. Construct a map that beats it in
#    energy and means nothing.
# 3. A marker letter stands beside every abnormal image of one hospital, *inside* the readers' boxes.
#    Which of the checks above would still reveal it?
#
# <details><summary>Answers</summary>
#
# 1) Where the score adds them up, each gets its half. Where one of them would do, as with a
#    probability near 1, each gets next to nothing. Remove pairs or groups together.
# 2) One bright dot in the center of the detected box: all of its energy lies in the readers' box
#    whenever the center does.
# 3) No score against boxes, nor random weights. To move or delete the letter alone, and to watch the
#    score, does; so does another hospital.
#
# </details>
#
# Go on with [06 your_data_and_paper_scale](06_your_data_and_paper_scale.ipynb).
