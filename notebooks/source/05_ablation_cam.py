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
# **The question: which part of the image does a detection rest on, and is that where the readers
# saw the finding?**
#
# A detector draws a box and writes a number beside it. A heatmap is supposed to say why. The paper
# shows such maps as pictures. Here they get scores, a baseline, and a test that a useless map would
# fail.
#
# ## What you will learn
#
# - What Ablation-CAM is, by hand: remove a channel, see what the score loses.
# - To explain a detected box with pytorch-grad-cam, and the same much faster.
# - To score a heatmap against boxes, beside maps that cost nothing.
# - To check that a map depends on what was learned.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores.

# %%
import contextlib
import io
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

# %%
from cxr_helpers import cam, detection_plots, heatmaps, plots, vindr
from cxr_helpers import detector as det
from cxr_helpers.course import detection
from cxr_helpers.course.data import load_vindr
from cxr_helpers.course.results import Results, claim
from cxr_helpers.course.settings import load_settings

# %%
plots.set_style()
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
# channels, each times its share. Negative values are cut off; here there are none.

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
# always draws a progress bar; the third line of the cell sends that away.

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
# ## A detected box
#
# The detectors are those of notebook 04; where they are missing, they are trained now. To compare
# the arms we need a box that both found. Take the one that the less sure of the two is most sure
# of.

# %% tags=["nbval-ignore-output"]
data = load_vindr(settings)
trained = {
    arm: detection.train_or_load_detector(settings, data, arm, seed=settings.seed)
    for arm in detection.ARMS
}
trained = {arm: pair for arm, pair in trained.items() if pair[0] is not None}
print("arms:", ", ".join(trained))

# %%
assert {"random", "pretrained"} <= trained.keys()
preset, test = settings.explain, data.rows("test", abnormal_only=True)
print(f"{len(test)} abnormal test images; layer to explain: {preset.layer}")

# %%
detectors = {arm: detector for arm, (detector, _) in trained.items()}
found = {
    arm: detection.predictions(detector, path, data, test)
    for arm, (detector, path) in trained.items()
}
explained = {
    arm: detection.explained_boxes(
        data, test, f, threshold=preset.score_threshold, max_images=preset.max_images
    )
    for arm, f in found.items()
}

# %% tags=["nbval-ignore-output"]
shared = detection.shared_boxes(explained["random"], explained["pretrained"])
row, label = shared[0].row, shared[0].label
pd.DataFrame([{"class": vindr.CLASSES[s.label - 1], "score": s.score} for s in shared[:3]]).round(2)

# %%
claim(len(shared) >= 10, "both arms find at least ten of the same findings", settings)

# %% [markdown]
# ### The library's way
#
# For each of the channels of the layer the whole detector runs once. With a channel missing, the
# proposals move, and so do the boxes. The score is then that of the box that overlaps the old one
# best. The layer is the third stage of the ResNet, the one that the paper's code uses.

# %%
picture = np.asarray(data.images.pixels[row])
as_tensor = det.gray_to_tensor(picture)
boxes = {
    arm: next(b.box for b in e if (b.row, b.label) == (row, label)) for arm, e in explained.items()
}
start = time.perf_counter()
slow = {
    arm: cam.library_ablation_cam(detectors[arm], as_tensor, boxes[arm], label, layer=preset.layer)
    for arm in ("random", "pretrained")
}
slow_seconds = (time.perf_counter() - start) / len(slow)

# %% [markdown]
# ### The fast way
#
# Ask a narrower question: hold the box fixed, and see how its class score changes. Between the
# channel and the first layer of the box head everything is linear: a 1x1 convolution, upsampling, a
# 3x3 convolution, RoIAlign. So what a channel contributes to that layer can be computed for all
# channels at once, and taken away. The derivation stands in `cxr_helpers/cam.py`.

# %%
start = time.perf_counter()
fast = {
    arm: cam.ablate_box(detectors[arm], as_tensor, boxes[arm], label, layer=preset.layer)
    for arm in slow
}
fast_seconds = (time.perf_counter() - start) / len(fast)

# %% [markdown]
# Fast is worth nothing if it is wrong. Brute force runs pyramid and head once for each channel, with
# the same fixed box.

# %%
brute = cam.brute_force_ablation(
    detectors["pretrained"], as_tensor, boxes["pretrained"], label, layer=preset.layer
)
assert np.abs(brute.ablated - fast["pretrained"].ablated).max() < 1e-4
print(f"{len(brute.ablated)} channels: fast and brute force agree to 0.0001.")

# %% tags=["nbval-ignore-output"]
print(f"library: {slow_seconds:.1f} s a box; fast way: {fast_seconds:.3f} s a box")

# %%
claim(slow_seconds > fast_seconds, "the fast way is the faster one", settings)

# %%
figure, axes = plt.subplots(2, 2, figsize=(7.5, 8))
for (arm, ablation), line in zip(fast.items(), axes, strict=True):
    quick = heatmaps.normalize_map(heatmaps.resize_map(ablation.heatmap, picture.shape))
    for axis, name, heatmap in zip(line, ("library", "fast"), (slow[arm], quick), strict=True):
        readers = next(b.readers for b in explained[arm] if (b.row, b.label) == (row, label))
        detection_plots.show_heatmap(
            axis, picture, heatmap, title=f"{arm}: {name}", truth_boxes=readers,
            found_boxes=boxes[arm][None],
        )  # fmt: skip
plt.show()

# %% [markdown]
# Dashed is the readers' box, solid the detected one; bright is where the evidence lies. The two
# columns answer two questions, so they need not agree. The library's score also falls when the box
# slips away, and its channels reach the score through later stages too. The fast map shows what the
# class of this very box rests on.

# %% [markdown]
# ## Both arms, side by side
#
# Four findings that both detectors have found, chosen by their score and each of another class.

# %% tags=["readme-picture"]
chosen = list({s.label: s for s in reversed(shared)}.values())[::-1][:4]
figure, axes = plt.subplots(2, len(chosen), figsize=(2.7 * len(chosen), 6), squeeze=False)
for column, one in zip(axes.T, chosen, strict=True):
    for axis, arm in zip(column, ("random", "pretrained"), strict=True):
        item = next(b for b in explained[arm] if (b.row, b.label) == (one.row, one.label))
        pixels = np.asarray(data.images.pixels[one.row])
        heatmap = detection.heatmap_of(detectors[arm], pixels, item, layer=preset.layer)
        detection_plots.show_heatmap(
            axis, pixels, heatmap, title=f"{arm}: {vindr.CLASSES[one.label - 1]}",
            truth_boxes=item.readers, found_boxes=item.box[None],
        )  # fmt: skip
plt.show()

# %% [markdown]
# Above the arm that started from random weights, below the pretrained one. It is tempting to read a
# story into such pictures. Count first.

# %% [markdown]
# ## Scores
#
# For each test image and each class that the readers saw in it: take the detector's best box of
# that class, make its map, and compare the map with the readers' boxes. Three measures:
#
# - **pointing game**: does the brightest pixel lie in a box?
# - **energy in the box**: which share of the map's brightness lies in the boxes?
# - **IoU**: cut the map at half its maximum. How well does that region fit the boxes?
#
# And two maps that need no explanation: a bell in the middle of the image, and the detected box
# itself, filled evenly.

# %%
scores = {
    arm: detection.score_heatmaps(detectors[arm], data, explained[arm], layer=preset.layer)
    for arm in detectors
}
table = detection.score_table(scores, resamples=preset.resamples, seed=settings.seed)

# %% tags=["nbval-ignore-output"]
print({arm: len(e) for arm, e in explained.items()}, "boxes explained")
table.pivot(index="map", columns="measure", values="value").round(3)

# %%
hits = table[table["measure"] == "pointing game"].set_index("map")["value"]
better = [hits[arm] > hits["centered bell"] for arm in detectors]
claim(all(better), "every arm's brightest pixel lies in a box more often than a bell's", settings)

# %%
detection_plots.plot_scores(table)
plt.show()

# %% [markdown]
# In the pointing game both arms beat the bell. In energy and IoU look for yourself: the map is
# coarse and spreads over more than the box, so it may be no better than the bell there. One measure
# alone would have told a nicer story.
#
# Now look at the last line. The detected box itself, without any explanation, may well score higher
# than the map: the detector was trained to put boxes where the readers do. So a good score of a map
# does not prove that the map adds anything to the box. What it can add is *inside* the box, and
# *around* it.
#
# The arms explain different boxes, since each found its own. So this table compares maps with
# baselines; it does not say which arm looks at better places.

# %% [markdown]
# ## A check that a useless map would fail
#
# Randomize the detector, part by part, and draw the map of the same box again. A map that stays the
# same shows the image, not what was learned. The number is the correlation with the first map.

# %%
steps = {"as trained": (), "+ head": ("head",), "+ pyramid": ("head", "pyramid")}
steps["+ layer4"] = (*steps["+ pyramid"], "layer4")
steps["+ layer3"] = (*steps["+ layer4"], "layer3")

# %%
item = next(b for b in explained["pretrained"] if (b.row, b.label) == (row, label))
cascade = {
    name: detection.heatmap_of(
        cam.randomized_copy(detectors["pretrained"], parts, seed=settings.seed),
        picture,
        item,
        layer=preset.layer,
    )
    for name, parts in steps.items()
}

# %%
figure, axes = plt.subplots(1, len(cascade), figsize=(2.2 * len(cascade), 2.7))
for axis, (name, heatmap) in zip(axes, cascade.items(), strict=True):
    alike = detection.correlation(heatmap, cascade["as trained"])
    detection_plots.show_heatmap(axis, picture, heatmap, title=f"{name}: {alike:.2f}")
plt.show()

# %% [markdown]
# One box is an anecdote. The same for thirty boxes, with the head randomized alone and with
# everything from `layer3` on.

# %%
some = explained["pretrained"][:30]
checks = detection.randomization_check(
    detectors["pretrained"], data, some, [steps["+ head"], steps["+ layer3"]],
    layer=preset.layer, seed=settings.seed,
)  # fmt: skip

# %% tags=["nbval-ignore-output"]
checks.mean().round(2)

# %%
claim(
    checks.iloc[:, -1].mean() < 0.5, "without learned weights the maps come out different", settings
)

# %% [markdown]
# A correlation well below 1 means that the maps depend on the weights. It is not 0: bright and dark
# parts of an image excite random filters too. That part of every heatmap has nothing to do with
# learning.

# %%
summary = detection.score_summary(table)
results.add(
    **{m: {arm: v for arm, v in by_map.items() if arm in detectors} for m, by_map in summary.items()},
    baselines={m: {k: v for k, v in by_map.items() if k not in detectors}
               for m, by_map in summary.items()},
)  # fmt: skip
results.save().name

# %% [markdown]
# ## What this does not show
#
# A map shows what the score rests on, not whether that is a good reason. A score against boxes asks
# whether the network looks where readers look; a network may be right for another reason. The map
# has one value for 16 x 16 pixels of the image, so it cannot point into a small box. And on the
# demo the findings are synthetic: that a map lies on them says nothing about patients.
#
# ## What you learned
#
# - Ablation-CAM weighs each channel by the share of the score that is lost without it.
# - The library reruns the detector for each channel; with the box fixed, linear algebra does.
# - A score of a map means little without a baseline, and the detected box is a strong one.
# - A map that survives randomized weights explains nothing.
#
# ## Questions to think about
#
# 1. Two channels carry the same information. What share does ablation give to each?
# 2. The score of the detected box itself is high. Construct a map that beats it in energy and means
#    nothing.
# 3. A marker letter stands beside every abnormal image of one hospital. Would these scores reveal a
#    detector that reads the letter?
