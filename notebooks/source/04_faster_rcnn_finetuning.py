# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 04 · Faster R-CNN: find it, box it, name it
#
# **The question: does a detector that starts from the pretrained backbone find abnormalities
# better?**
#
# A probe says whether something is in an image. Whoever checks its answer wants to know where. So a
# pretrained [backbone](../docs/glossary.md#backbone) moves into a detector, which is trained on the boxes
# that radiologists drew: the paper's second phase. First we ask the backbone itself, which takes
# seconds: does it know what is in a box?
#
# The detectors here start from the evening's weights, which come with the course. Your own weights, of
# minutes, are asked about boxes too. A figure below shows what they bring a detector.
#
# ## What you will learn
#
# - What a frozen network knows of a place in the image.
# - What IoU, average precision and non-maximum suppression are, by hand.
# - What Faster R-CNN is made of, and what one training step does.
# - How to move a backbone into a detector, and to prove that all of it arrived.
# - How to compare detectors, with intervals, and what one seed of each leaves open.
# - Why normal images need a second measure, and how much of a number is the choice of the truth.
#
# **Time and memory:** the [README](../README.md) lists both. Most of the time goes into 'The real
# run', which trains two detectors. They are kept, so a second run is short.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import default_convert
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch04 import box_probe, experiment, readers, tables
from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.ch04.training import step_count
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.stored import read_stored
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch03, ch04, style
from cxr_helpers.data import vindr
from cxr_helpers.detection import coco, coco_files, froc
from cxr_helpers.detection import detector as det
from cxr_helpers.detection import errors as error_breakdown
from cxr_helpers.detection import metrics as dm
from cxr_helpers.detection.anchors import Anchors, anchor_coverage, derive_anchors
from cxr_helpers.detection.backbone import DetectorError, place_backbone
from cxr_helpers.detection.box_probe import stage_features
from cxr_helpers.detection.prediction import gray_to_tensor

style.set_style()
plt.rcParams.update({"axes.titlesize": 11, "axes.titlelocation": "left"})

# %% [markdown]
# ## The images and their boxes
#
# Three radiologists read each image. Their boxes were fused into one truth
# ([weighted box fusion](../docs/glossary.md#weighted-box-fusion)), as in notebook 01. `settings`
# holds the choices of this run, `data` the images, their boxes and the split. A row of `data.fused`
# is one box, in pixels of the original file; `readers` says how many drew it.

# %%
settings = load_settings()
results = Results("04_faster_rcnn_finetuning", settings)
data = load_detection(settings)
side = settings.detect.image_size
print(f"{len(data.split):,} images at {side} x {side} pixels, {len(data.class_names)} findings")
data.fused.drop(columns="image_id").head(3).round(0)

# %% [markdown]
# Where only NIH ChestX-ray14 is at hand, its own boxes (BBox_List_2017.csv) take the place of
# VinDr-CXR's. The detection files of the paper's
# [public code](https://github.com/haooyuee/BarlowTwins-CXR) hold abnormal images only, and so do we
# at first. 'Normal' means: no reader drew a box.

# %%
parts = {part: data.rows(part, abnormal_only=True) for part in ("train", "val", "test")}
print("abnormal images:", ", ".join(f"{len(rows):,} {part}" for part, rows in parts.items()))
train_truths = data.truths(parts["train"])
counts = np.array([len(one["boxes"]) for one in train_truths])
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4))
for axis, count in zip(axes, (2, 4, 6), strict=True):
    i = int(np.argmax(counts == count))
    picture = data.images.pixels[parts["train"][i]]
    ch04.show_detections(axis, picture, train_truths[i], class_names=data.class_names)
figure.suptitle(f"An abnormal image has {np.median(counts):.0f} boxes or so, at most {max(counts)}")
plt.show()

# %% [markdown]
# Training images with two, four and six boxes; a black strip only fills a picture up to a square. On the
# demo the images are **synthetic**, with readers who disagree as the real ones do. So a result says how
# the method works, and not what it reaches on patients.
#
# ## Before any detector: what does a frozen network know of a box?
#
# Take a box with a finding (upper row), and the same place in another abnormal image without this
# finding (lower row). Can you tell each pair apart? Size and place cannot help, they are the same. But
# 'same' is a share of width and height: in another chest that may be the edge of the lung. Part of every
# score is telling lung from no lung, and random weights and pixels show how much.

# %%
places = box_probe.draw_places(settings, data)
asked, number = places.parts["test"], places.counts()["test"]
half = len(asked.labels) // 2  # place i has the finding, place half + i is its counterpart
figure, axes = style.panels(2, 4, width=1.7)
for column, name in zip(axes.T, number.nlargest(4).index, strict=False):
    i = int(np.argmax(asked.labels == data.class_names.index(name) + 1))
    for axis, place, title in zip(column, (i, half + i), (name, "without it"), strict=True):
        style.show_image(axis, data.images.pixels[asked.images[place]], title)
        style.draw_boxes(axis, asked.boxes_xyxy[[place]])
figure.suptitle(f"{half:,} pairs of places in test images, of {len(places.labels)} findings")
plt.show()

# %% [markdown]
# Now let a frozen network tell them apart. It turns an image into maps of numbers, stage by stage.
# Those under the box are averaged into four cells (RoIAlign), and a logistic regression, a
# [linear probe](../docs/glossary.md#linear-probe), says from them whether the finding is there. Here
# for one finding, at the third of four stages.
#
# `measure` does it for every finding, stage and start of the network (an
# [arm](../docs/glossary.md#arm)), and for two baselines without a network: a patch of 8 x 8 pixels, and
# size and place alone. Validation images choose strength and stage. It returns an entry for each arm
# and stage. (`claim` checks a sentence and prints it; on the demo it stops the notebook where the
# sentence does not hold. Cells that do nothing else are folded.)


# %% tags=["nbval-ignore-output"]
def auroc_of_frozen(arm, place, stage="layer3"):
    backbone, _ = pretraining.arm_backbone(settings, arm, seed=settings.seed)
    x = {p: stage_features(backbone, data.images.pixels, one)[stage] for p, one in place.items()}
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    probe.fit(x["train"], place["train"].present)
    return roc_auc_score(place["test"].present, probe.decision_function(x["test"]))


common = number.idxmax()
for arm in ("random", "pretrained"):
    value = auroc_of_frozen(arm, places.of_class(common))
    print(f"{common} by hand, {pretraining.ARM_NAMES[arm]}: AUROC {value:.3f}")
judged, left_out = box_probe.measure(settings, data, places)
print(f"measure: {judged[-1].arm}, {judged[-1].stage}, mean of findings {judged[-1].macro:.3f}")
print("\n".join(left_out))


# %%
def span(one):
    return f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


probed, gains = box_probe.chosen(judged), box_probe.differences(judged)
learned = [arm for arm in ("pretrained", "evening") if arm in probed]
best = max(learned, key=lambda arm: probed[arm].validation)
gain = gains[gains["arm"] == best].set_index("stage")
nothing = abs(probed[box_probe.GEOMETRY].macro - 0.5) < 0.02
claim(nothing, "size and place alone tell nothing", settings)
ch04.plot_box_probe(box_probe.table(judged, places), names=pretraining.ARM_NAMES)
each = span(gain.loc["chosen"])
plt.title(f"AUROC at the rings, {pretraining.ARM_NAMES[best]}\nminus random weights: {each}")
plt.show()

# %% [markdown]
# Bars are 95% intervals, level lines need no network. 'All' is the four stages side by side. A ring marks
# the stage that validation images chose for each; the gain at the rings is taken on the same resampled
# test images for both. A larger gain at another stage would be one that the test chose. Compare your own
# ring with that of random weights too.

# %% tags=["hide-input"]
single = gains[gains["stage"].str.startswith("layer")]
above = (single["low"] > 0).groupby(single["arm"]).sum()
text = "at two of the four stages or more, pretrained features know more of a box than random ones"
claim((above[learned] >= 2).all(), text, settings)
gray = box_probe.differences(judged, minus=box_probe.PIXELS).set_index(["arm", "stage"])["low"]
claim(gray[best, "chosen"] > 0, "the best arm knows more of a box than its pixels do", settings)

# %% [markdown]
# Random filters see edges and grays, so in the first stage minutes of pretraining can add little. Look where
# each line leaves that of random weights, and where it does not. Does a detector, which learns from boxes itself, still profit from that?
#
# ## By hand: when is a box right?
#
# A box is written as (x_min, y_min, x_max, y_max). Two [boxes](../docs/glossary.md#bounding-box) are
# compared by their [**IoU**](../docs/glossary.md#iou): the area that they share, divided by the area
# that they cover together. Shift a box of 10 x 10 pixels by half its width: old and new share 50
# pixels and cover 150, so IoU is a third. A box counts as right from 0.5 on, so this one is a miss.
# (Kaggle, where a competition was held on VinDr-CXR, counts from 0.4.)
#
# ## By hand: average precision
#
# Three detections and two boxes in the truth. After each detection, by falling score, ask: what share
# of the truth has been found (recall)? What share of the detections was right (precision)?
#
# | score | right? | recall | precision |
# |---|---|---|---|
# | 0.9 | yes | 1/2 | 1 |
# | 0.8 | no | 1/2 | 1/2 |
# | 0.7 | yes | 2/2 | 2/3 |
#
# Average precision is the mean precision over 101 recall points, 0 to 1. At each point the best
# precision from there on counts: 1 up to a recall of 0.50 (51 points), 2/3 after that (50 points).
# (Notebook 03 took the mean at each box that is found, without points; that gives nearly the same.) Do
# torchmetrics, by COCO's rules, and the course's version, which can be resampled fast, agree?

# %%
boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
three = [{"boxes": boxes, "labels": np.ones(3), "scores": np.array([0.9, 0.8, 0.7])}]
two = [{"boxes": boxes[[0, 2]], "labels": np.ones(2)}]
theirs = coco.coco_scores(three, two, class_names=["mass"]).mean("ap50")
fast = dm.mean_average_precision(dm.match_detections(three, two, class_names=["mass"]))
print(f"by hand {(51 + 50 * 2 / 3) / 101:.3f}, torchmetrics {theirs:.3f}, the course {fast:.3f}")

# %% [markdown]
# The mean over the classes at IoU 0.5 is called [**mAP50**](../docs/glossary.md#map50).
#
# ### Exercises
#
# **Exercise 4.1, two minutes.** Fill in the dots and run the cell; `hint("4.1")` and `solution("4.1")`
# help, and nothing below depends on your answers. The detector of this example also draws ten wrong boxes, with scores
# below all others. Predict the average precision.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

precision_with_ten_more = ...
check("4.1", precision_with_ten_more)

# %% [markdown]
# **Exercise 4.2, fifteen minutes.** Write the IoU of each of N boxes with each of M others, as an
# array (N, M), without a loop. Both inputs are numpy arrays, (N, 4) and (M, 4).


# %%
def iou_of_all_pairs(first, second):
    return ...  # your code


check("4.2", iou_of_all_pairs)

# %% [markdown]
# ## A detector in ten lines
#
# Faster R-CNN begins with box shapes at each place of the image, its
# [anchors](../docs/glossary.md#anchor), and learns which of them hold something and how to move
# them. torchvision's are made for everyday photographs. Ours follow the training boxes: the centers of
# a k-means of their sizes and shapes. An anchor fits a box of the same center from an IoU of 0.5 on. The
# table names the findings with the smallest and the largest boxes.

# %%
all_boxes = np.concatenate([one["boxes"] for one in train_truths])
anchors = derive_anchors(all_boxes, every_level=True)  # each shape on each level
sets = {"anchors from the boxes": anchors, "torchvision's anchors": Anchors()}
ours_fit, theirs_fit = (anchor_coverage(all_boxes, one) for one in sets.values())
ch04.plot_box_shapes(all_boxes, sets)
plt.title(f"Ours fit {ours_fit:.0%} of the boxes, torchvision's {theirs_fit:.0%}")
plt.show()
labels = np.concatenate([one["labels"] for one in train_truths])
short_side = pd.Series((all_boxes[:, 2:] - all_boxes[:, :2]).min(axis=1), dtype=float)
sides = short_side.groupby(np.array(data.class_names)[labels - 1]).median().sort_values()
smallest = sides.index[0]
sides.round(1).rename("short side in pixels, median").iloc[[0, 1, -2, -1]]

# %% [markdown]
# Shift a box of eight pixels by three, and its IoU is below 0.5: the smallest findings are hard to
# hit. Whether size alone decides is another question ('Which findings?').
#
# Now the detector. Its [feature pyramid](../docs/glossary.md#fpn-feature-pyramid) mixes the maps of
# the four stages, so that fine ones know what coarse ones have seen.

# %%
torch.manual_seed(settings.seed)
stages = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
backbone = BackboneWithFPN(resnet18(weights=None), stages, [64, 128, 256, 512], out_channels=64)
shapes = AnchorGenerator(anchors.level_sizes, (anchors.ratios,) * 5)  # for each level
classes = 1 + len(data.class_names)  # 0 is background
detector = FasterRCNN(backbone, classes, rpn_anchor_generator=shapes, min_size=side, max_size=side)

# %%
does = {
    "backbone.body": "the ResNet of notebook 02: four maps",
    "backbone.fpn": "the pyramid: mixes them into five levels",
    "rpn": "anchors to proposals: is anything here?",
    "roi_heads.box_roi_pool": "cuts a proposal from its level, 7 x 7 cells",
    "roi_heads.box_head": "two layers that read these cells",
    "roi_heads.box_predictor": "names it, and moves the box once more",
}
rows = []
for name, text in does.items():
    weights = sum(p.numel() for p in detector.get_submodule(name).parameters())
    rows.append({"part": name, "what it does": text, "weights": f"{weights:,}"})
pd.DataFrame(rows).set_index("part")

# %% [markdown]
# RPN stands for region proposal network. Around each finding many boxes get a high score. The last
# step, [non-maximum suppression](../docs/glossary.md#non-maximum-suppression), keeps the best one,
# drops all that overlap it, and goes on with the next best. Here two boxes lie around one place and
# two around another. Which two are left, and does torchvision's own function keep the same?


# %%
def suppress(boxes, scores, threshold):
    order, kept = scores.argsort(descending=True), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        overlap = torchvision.ops.box_iou(boxes[best][None], boxes[rest])[0]
        order = rest[overlap <= threshold]
    return kept


crowd = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 50, 50], [31, 28, 50, 52]])
scores = torch.tensor([0.6, 0.9, 0.7, 0.5])
print(suppress(crowd, scores, 0.5), torchvision.ops.nms(crowd, scores, 0.5).tolist())

# %% [markdown]
# **Exercise 4.3, twenty minutes.** One place may show two findings. Write non-maximum suppression so
# that a box drops only boxes of its own class, with an IoU above `threshold`. `boxes` is (N, 4),
# `labels` and `scores` are (N,), all numpy. Return the row numbers of the boxes that are kept, as a
# list, by falling score. The course's `box_iou(a, b)` (of `cxr_helpers.detection.boxes`) gives the IoU
# of all pairs.


# %%
def suppress_per_class(boxes, labels, scores, threshold):
    return ...  # your code


check("4.3", suppress_per_class)

# %% [markdown]
# ## One training step, by hand
#
# While it trains, the detector takes images with their boxes, and returns four losses: does an anchor
# hold anything (objectness), how must it be moved, which class is a proposal, how must it be moved. A
# step adds them up, asks for the gradient, and moves all weights a little. Three steps on the same four
# images; look where each loss begins, and at the sum.

# %% tags=["nbval-ignore-output"]
batch = parts["train"][:4]
images = [gray_to_tensor(data.images.pixels[row]) for row in batch]  # (3, H, W) in [0, 1]
targets = [default_convert(one) for one in data.truths(batch)]  # boxes and labels, as tensors
optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-4)
log = []
for _ in range(3):
    losses = detector(images, targets)
    total = sum(losses.values())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    log.append({name: loss.item() for name, loss in losses.items()} | {"sum": total.item()})
pd.DataFrame(log).rename_axis("step").round(2)

# %% tags=["hide-input"]
claim(log[-1]["sum"] < log[0]["sum"], "after two steps the sum is lower on these images", settings)
guess = np.log(1 + len(data.class_names))
near = abs(log[0]["loss_classifier"] - guess) < 0.5
claim(near, "the loss of the classes begins near that of an even guess", settings)
print(f"An even guess among {len(data.class_names)} findings and background: {guess:.2f}.")

# %% [markdown]
# A head of random weights finds all names about equally likely, which costs the logarithm of their
# number; for an anchor's yes or no that is ln 2 = 0.69. A training takes such steps over all images,
# shifted and turned a little, at a rate that rises and falls, and writes a log.
#
# **Exercise 4.4, fifteen minutes.** Write one training step. The detector may have been left in eval
# mode, where it returns boxes instead of losses, and an earlier step may have left its gradients.
# Return the sum of the losses as a number.


# %%
def training_step(detector, optimizer, images, targets):
    return ...  # your code


check("4.4", training_step)

# %% [markdown]
# ## The hand-off, proven
#
# The pretrained weights have to get into `detector.backbone.body`. Some training code leaves a prefix
# before each name. What does torch make of it with `strict=False`?

# %%
state, _ = pretraining.arm_state(settings, "pretrained", seed=settings.seed)
renamed = {f"module.{name}": tensor for name, tensor in state.items()}
told = detector.backbone.body.load_state_dict(renamed, strict=False)
print(f"no error, and {len(told.unexpected_keys)} tensors without a place")

# %% [markdown]
# torch passed over every name without a word. The detector would train from random weights, and the
# table would still say 'pretrained'. The course's detector is built like ours, and its
# `place_backbone` counts:

# %%
blank = det.build_detector(experiment.detector_settings(settings, data, "random"), seed=0)
try:
    place_backbone(blank, renamed)
except DetectorError as error:
    print(str(error)[:80], "...")
print(f"with the right names: {len(place_backbone(blank, state))} of {len(state)} arrived")

# %%
quiz("4.A")

# %% [markdown]
# ## The real run
#
# Each arm sees the same images for the same number of steps; only the backbone's start differs. A high
# rate may wash out what pretraining has brought, a low one keeps a random backbone random. So the backbone
# may stay **frozen**, learn **slowly** (a tenth of the rate), or be **free**: chosen for each arm, on
# validation images of a demo of another seed. The figure shows all three, one run each: dots that
# nearly touch are no difference. Look what minutes and an evening are worth to a frozen backbone, and what is
# left of that when it is free.

# %%
names = pretraining.ARM_NAMES | {"random": "from scratch"}
tried = read_stored("detector_recipes", settings)
if tried is not None:
    print(tried.origin)
    highest = tried.table.groupby(["arm", "backbone_rate"])["value"].max().unstack()
    highest = highest.rename(index=names, columns={0.0: "frozen", 0.1: "slow", 1.0: "free"})
    rates = sorted(tried.table["learning_rate"].unique())
    tried_at = f"learning rate {', '.join(f'{rate:g}' for rate in rates)}"
    style.plot_dots(highest, xlabel=f"mAP50 on validation images, {tried_at}")
    ways = [f"{arm} {way}" for arm, way in highest.idxmax(axis=1).items()]
    plt.title(f"Best: {', '.join(ways)}", pad=28)
    plt.show()

# %%
arms = list(reversed(experiment.arms_here(settings)))
ours = arms[0]
print(f"{step_count(settings, data)} steps of {settings.detect.batch_size} images")
for arm in arms:
    recipe = experiment.with_recipe(settings, arm).detect
    print(f"{names[arm]}: rate {recipe.learning_rate}, backbone x {recipe.backbone_rate}")

# %% [markdown]
# Two arms are trained here: from scratch, and from an evening's weights, or where these are absent
# from your own. A step is the one above; heads are narrower than torchvision's and fewer proposals
# train them, for the sake of your time. The table is the sum of the losses.

# %% tags=["nbval-ignore-output"]
logs, trained = {}, {}
for arm in arms:
    trained[arm] = experiment.train_or_load_detector(settings, data, arm, seed=settings.seed)
    logs[names[arm]] = experiment.training_log(trained[arm][1]).set_index("epoch")["loss"]
pd.DataFrame(logs).round(2)

# %% tags=["hide-input"]
falls = [log.iloc[-1] < log.iloc[0] for log in logs.values()]
claim(all(falls), "the training loss of every arm falls", settings)
lost = experiment.lost_boxes(trained[ours][1])[["seen", "lost"]].sum()
text = "shifting and turning the images loses less than 5% of the boxes"
claim(lost["lost"] < 0.05 * lost["seen"], text, settings)

# %% [markdown]
# A lower training loss is not yet a better detector: it may have learned its images by heart.
#
# What happens inside, on one validation image? The head may give a proposal several names, and
# suppression works class by class, so some overlap is left.

# %%
row = int(parts["val"][0])
image = data.images.pixels[row]
step = tables.stages(trained[ours][0], image)
strong = step.found["boxes"][step.found["scores"] > 0.3]
panels = {f"best 30 of {len(step.proposals)} proposals": step.proposals[:30]}
panels |= {f"all {len(step.found['boxes'])} detections": step.found["boxes"]}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8))
for axis, (title, boxes) in zip(axes[:2], panels.items(), strict=True):
    style.show_image(axis, image, title)
    style.draw_boxes(axis, boxes)
title = f"{len(strong)} with a score above 0.3; dashed: readers"
(readers_boxes,), look = data.truths([row]), {"class_names": data.class_names, "title": title}
ch04.show_detections(axes[2], image, readers_boxes, step.found, **look)
figure.suptitle(f"Of {step.anchors:,} anchors, {len(strong)} end as sure detections")
plt.show()

# %% [markdown]
# Most detections have a low score. They are kept: average precision looks at all thresholds. A flat box
# across the heart? In VinDr-CXR most boxes of [cardiomegaly](../docs/glossary.md#cardiomegaly) mark the
# heart's width.
#
# ## mAP50 on the test images
#
# First the detections, in all test images once. A baseline belongs beside them: a blind 'detector'. It
# knows from the training boxes where each finding usually lies, and says that every time.

# %%
test, everyone = parts["test"], data.rows("test")
found_in_all, found = {}, {}
for arm, (one, path) in trained.items():
    found_in_all[arm] = experiment.predictions(one, path, data, everyone)
    found[arm] = [found_in_all[arm][i] for i in np.flatnonzero(np.isin(everyone, test))]
found["blind"] = experiment.blind_predictions(data, parts["train"], len(test))

# %% [markdown]
# Then each detection is matched to the truth; all numbers below come from these matches. The table
# shows our arm's surest ones. For an interval the test images are drawn again, with replacement, many
# times. That takes seconds, because no detector has to run again.

# %% tags=["nbval-ignore-output"]
truths = data.truths(test)
matches = {arm: tables.match(one, truths, data) for arm, one in found.items()}
first = matches[ours]
columns = {"image": first.image, "label": first.label, "score": first.score, "hit": first.hit}
pd.DataFrame(columns).head(4).round(3)

# %%
draws, seed, map50 = settings.detect.resamples, settings.seed, {}
for arm, one in matches.items():
    map50[arm] = tables.bootstrap_map(one, resamples=draws, seed=seed)
beaten = [map50[arm].value > map50["blind"].value for arm in arms]
claim(all(beaten), "every detector beats the one that does not look", settings)
rows = [{"name": names.get(arm, arm), **one.as_dict()} for arm, one in map50.items()]
style.plot_estimates(pd.DataFrame(rows), xlabel="mAP50 (test), 95% interval", zero=None)
reached = f"{map50[ours].value:.3f}, from scratch: {map50['random'].value:.3f}"
plt.title(f"mAP50 {names[ours]}: {reached}")
plt.show()

# %% [markdown]
# The blind baseline is not at zero: anatomy says roughly where a large heart or a wide aorta is. What
# lies to its right was learned from the image.
#
# ### The difference
#
# In each resample the images are drawn once for both arms, and the difference is taken: against the
# readers' truth, and on the demo against the exact boxes, which no hospital has. Look whether the
# intervals cover zero.


# %%
def verdict(interval):
    return "above zero" if interval.low > 0 else "below zero" if interval.high < 0 else "open"


def gap(by_arm):
    both = by_arm["random"], by_arm[ours]
    return tables.bootstrap_map_difference(*both, resamples=draws, seed=seed)


difference = gap(matches)
gaps = [{"name": "readers' truth", **difference.as_dict()}]
if data.exact is not None:
    exact_truths = data.truths(test, data.exact)
    exactly = {arm: tables.match(found[arm], exact_truths, data) for arm in arms}
    gaps.append({"name": "exact truth", **gap(exactly).as_dict()})
style.plot_estimates(pd.DataFrame(gaps), xlabel="difference in mAP50 (test), 95% interval")
title = f"{names[ours]} minus from scratch: {verdict(difference)}"
plt.title(f"{title}\n{span(difference)} by the readers")
plt.show()

# %% [markdown]
# 'Above zero': the whole interval lies there; 'open': it covers zero. The paper reports
# about 3 percentage points for its pretraining over ImageNet's, another comparison than this one. And
# this is one training of each arm: the interval knows only about other test images.
#
# ### Which findings?
#
# The mean hides a lot. In brackets: how many boxes the test truth has. A gap on a class with few boxes
# is not yet a difference.

# %%
precision = {arm: dm.average_precision(matches[arm]) for arm in arms}
per_class = pd.DataFrame(precision, index=data.class_names)
boxes_of = pd.Series(matches["random"].truths.sum(axis=0), index=data.class_names)
ch04.plot_per_class(per_class.to_dict(), boxes_of[boxes_of > 0].sort_values(ascending=False), names)
two_best = per_class[ours].nlargest(2)
carried = two_best.sum() / per_class[ours].sum()
plt.title(f"{' and '.join(two_best.index)} make {carried:.0%} of the mean")
plt.show()

# %% [markdown]
# Are those that carry the mean findings with a fixed place, on which readers agree (notebook 01)? And are the
# others those
# with the smallest boxes, or do large ones fail too? Compare with the sides in the table above.

# %%
quiz("4.B")

# %% [markdown]
# **Exercise 4.5, fifteen minutes.** A paired bootstrap of the share of boxes that is found. For each
# image: how many of its boxes detector A found (`hits_a`), how many B found (`hits_b`), and how many
# there are (`boxes`). Each row of `draws` lists the images of one resample by their place in these
# arrays, some several times. Return one number for each row: the share of the boxes that B finds in it
# minus the share that A finds.


# %%
def paired_differences(hits_a, hits_b, boxes, draws):
    return ...  # your code


check("4.5", paired_differences)

# %% [markdown]
# ## Fewer boxes
#
# Labels are what pretraining is meant to save. A file of the course holds what took hours: arms with
# shares of the training images, at **equal steps**: a share is seen more often, not trained less.
# Lines are means over the seeds that the sentence names; intervals cover other images, and other seeds
# where there are several. Rings are your own run; of a seed that the file has too it has the same settings,
# and another machine rounds otherwise. Two questions: do more boxes help, and does the gap grow with fewer?

# %%
stored = read_stored("detectors", settings)
if stored is None:
    print("No stored figures yet: `python benchmarks/detection.py --store` makes them in hours.")
else:
    print(stored.origin)
    means = stored.table.query("seed == 'all' and truth == 'readers' and classes == 'all'")
    own = pd.DataFrame([{"arm": a, "fraction": 1.0, "value": map50[a].value} for a in arms])
    curve = means[means["minus"] == ""]
    apart = means[means["minus"] == "random"].groupby("fraction")["value"].max()
    told = ", ".join(f"{value:+.3f} with {share:.0%}" for share, value in apart.items())
    title = f"The best arm above from scratch:\n{told} of the images"
    look = {"ylabel": "mAP50 (test)", "chance": None, "names": names}
    ch03.plot_label_curve(curve, own=own, title=title, **look)
    plt.show()

# %% [markdown]
# Where a line is flat, more boxes brought nothing in these steps. Where the gap does not grow with fewer
# boxes, pretraining is not seen to save any; it is seen to help. What is each arm above training from scratch? Against both
# truths; on all classes, and on those that
# any arm finds at all on validation images, for a class that nobody finds pulls every difference toward
# zero.

# %%
if stored is not None:
    above = stored.table.query("seed == 'all' and minus == 'random'")
    share = above["fraction"].map("{:.0%}".format)
    panel = above["truth"] + ", " + above["classes"]
    above = above.assign(share=share, panel=panel, arm=above["arm"].map(names))
    style.plot_estimates(above, rows="share", groups="arm", panels="panel", size=(12, 3))
    seeds = f"{len(stored.record['seeds'])} seed(s) of each arm, scored in {above['panel'].nunique()} ways"
    plt.suptitle(f"mAP50 minus from scratch: {seeds}")
    plt.show()
    for row in means[means["minus"] == "random"].itertuples():
        print(f"{names[row.arm]}, {row.fraction:.0%} of the images: {span(row)}, {verdict(row)}")

# %% [markdown]
# The same detectors are scored four times, so four intervals are not four proofs. A single seed, yours too,
# may lie beside the line.
#
# Equal steps are fair to the shares, but they are few: your minutes set them. What do more steps make of all
# the images? Another file has the same two arms by the same recipes, trained longer. One training each, so
# the intervals cover other images alone. Does the gap stay when both have time?

# %%
longer, both = read_stored("detectors_long", settings), None
if stored is not None and longer is not None:
    print(longer.origin)
    same = "seed == '0' and truth == 'readers' and classes == 'all' and fraction == 1"
    parts = [one.table.query(same).assign(steps=one.record["steps"]) for one in (stored, longer)]
    both = pd.concat(parts).assign(arm=lambda table: table["arm"].map(names))

# %%
if both is not None:
    plain = both[both["minus"] == ""].assign(panel=both["steps"].map("mAP50, {} steps".format))
    look = {"limits": (0, 1.05 * plain["high"].max()), "size": (8, 2)}
    figure = style.plot_estimates(plain, rows="arm", groups="arm", panels="panel", **look)
    figure.suptitle(f"Best: {plain['value'].max():.2f}, with {plain['steps'].max()} steps", y=1.05)
    plt.show()

# %%
if both is not None:
    for row in both[both["minus"] == "random"].itertuples():
        print(f"{row.steps} steps, {row.arm} minus from scratch: {span(row)}, {verdict(row)}")

# %% [markdown]
# Did both arms gain, and did the gap shrink? A gap that is open is neither shown nor shown to be gone: that
# takes several seeds of the longer training, which the file does not have.
#
# ## The images that the paper's code leaves out
#
# Of VinDr-CXR's 15,000 images 10,606 are normal (notebook 01). A false alarm on one costs a reader's
# time, and may cost a person worry and further tests. mAP50 on abnormal images never sees it. The
# [FROC](../docs/glossary.md#froc) curve does: what share of the boxes is found when so many false alarms
# an image are allowed, **normal images included**?

# %%
all_truths = data.truths(everyone)
all_matches = {arm: tables.match(one, all_truths, data) for arm, one in found_in_all.items()}
sensitivity = {arm: float(froc.sensitivity_at(m, [1.0])[0]) for arm, m in all_matches.items()}
ch04.plot_froc({arm: froc.froc_curve(m) for arm, m in all_matches.items()}, names)
at_one = f"{sensitivity[ours]:.0%}, from scratch {sensitivity['random']:.0%}"
plt.title(f"Found at one false alarm an image: {at_one}")
plt.show()
with_normal = {arm: dm.mean_average_precision(m) for arm, m in all_matches.items()}
lower = [with_normal[arm] < map50[arm].value for arm in arms]
claim(all(lower), "with normal images included, mAP50 falls for every arm", settings)

# %% [markdown]
# A detector that never met a normal image during training finds something in them too.

# %%
quiz("4.C")

# %% [markdown]
# **Exercise 4.6, ten minutes.** One point of the FROC curve. `hit` says of each detection, by falling
# score, whether it is right (numpy, bool). There are `boxes` boxes in `images` images. Which share of
# the boxes is found if at most `allowed` false alarms an image, on average, are accepted?


# %%
def share_found(hit, boxes, images, allowed):
    return ...  # your code


check("4.6", share_found)

# %% [markdown]
# ## What goes wrong?
#
# Each detection with a score of at least 0.3 gets one verdict. It is a *hit*; or a *duplicate* of one;
# or it lies on a finding under the *wrong class*; or it is *badly placed* (IoU from 0.1 to 0.5); or it
# is *background*: none of these. Read the figure line by line: the boxes of a class, how many are
# missed, and what our arm's detections are. An empty field is zero.

# %%
errors = error_breakdown.error_table(found[ours], truths, class_names=data.class_names)
errors = errors[errors["truth"] > 0].sort_values("truth", ascending=False)
ch04.plot_table(errors, xlabel="boxes of the truth, then detections", ylabel="")
plt.title(f"{errors['missed'].sum():,} of {errors['truth'].sum():,} boxes are missed")
plt.show()

# %% [markdown]
# Now pictures, and not only the nice ones, of images with few boxes, so that they can be told apart. Dashed: the readers, named below the box. Solid: our arm's
# detections, named above it. A name without room is left out.

# %%
chosen = tables.gallery_rows(all_matches[ours])
figure, axes = style.grid(len(chosen), 2, width=2.8)
for axis, (title, i) in zip(axes, chosen.items(), strict=True):
    picture, drawn_boxes = data.images.pixels[everyone[i]], found_in_all[ours][i]
    ch04.show_detections(
        axis, picture, all_truths[i], drawn_boxes, class_names=data.class_names, title=title
    )
plt.show()

# %% [markdown]
# Ask of each error: would a second reader agree with the detector or
# with the truth?
#
# ## Which truth?
#
# Now the detectors stay as they are, and the truth changes: the fused boxes, which are the
# [consensus](../docs/glossary.md#consensus); of these what at least two readers drew; what a single
# reader of each image drew; every box of every reader; and on the demo the exact boxes. As detections
# these show what a perfect detector would reach. Guess first: how far from 1 do readers push it?

# %%
exact = readers.exact_detections(data, test)
shown = {arm: found[arm] for arm in arms}
shown |= {} if exact is None else {"exact boxes": exact}
by_truth = readers.truth_table(shown, data, test).drop(columns="boxes")
style.plot_dots(by_truth, xlabel="mAP50 against each truth", names=names, width=8)
if exact is not None:
    ceiling = by_truth.loc["fused", "exact boxes"]
    title = f"Against fused readers, perfection scores {ceiling:.2f}"
    plt.title(title, pad=28)
plt.show()
moved = by_truth[ours].max() - by_truth[ours].min()
text = "the choice of the truth moves the mAP50 of our arm by more than a tenth of it"
claim(moved > 0.1 * by_truth.loc["fused", ours], text, settings)

# %% [markdown]
# With every box of every reader the same heart counts up to three times, and a detector that draws it
# once misses the rest; against boxes that two readers drew, each true box that only one saw is a false
# alarm. Before two numbers are compared, ask which boxes they count. And readers'
# disagreement is no excuse: perfection stays far above ours.
#
# How well does a reader do? Leave one of each image out, fuse the boxes of the others, and score the
# reader against them; then the next one. Detectors and exact boxes get the same truth. Readers give no
# scores, so precision times recall takes the place of average precision. Guess again.

# %%
compared = readers.against_other_readers(shown, data, test)
mean = compared.mean()
real = vindr.read_readings(packaged_table("vinbigdata"))
real_mean = readers.score_readers(real, vindr.CLASSES).mean()
if len(compared):
    with_mean = pd.concat([compared, mean.to_frame("mean of the classes").T])
    xlabel = "average precision against the other readers' fused boxes"
    style.plot_dots(with_mean, xlabel=xlabel, names=names, width=8)
    title = f"A reader scores {mean['one reader']:.2f} on average, a real one {real_mean:.2f}"
    plt.title(title, pad=28)
    plt.show()
if exact is not None and len(compared):
    near = abs(real_mean - mean["one reader"]) < 0.05
    claim(near, "the demo's readers agree as well as the real ones, within 0.05", settings)

# %% [markdown]
# 'A real one' is a reader of VinDr-CXR's own table. Readers score low because each marks other
# findings, not because no box could agree with them: the exact boxes do far better. So a reader's score
# is no bound for a detector.
#
# ## An exercise in suspicion: the class that was dropped
#
# In the paper's public code the configuration says `Nodule_Mass` and the annotation file
# `Nodule/Mass`. A library that matches classes by name then drops the class without a word, and later
# classes shift by one number. (Whether the published table came from those files is not proven.) What
# would the metric say? We lose the class with the smallest boxes.

# %%
gone = data.class_names.index(smallest) + 1
dropped, shifted = [], []
for one in truths:
    keep = one["labels"] != gone
    kept = {key: values[keep] for key, values in one.items()}
    dropped.append(kept)
    shifted.append(kept | {"labels": kept["labels"] - (kept["labels"] > gone)})
said = pd.Series(dtype=float)
for name, one in {"as it is": truths, "dropped": dropped, "and shifted": shifted}.items():
    said[name] = dm.mean_average_precision(tables.match(found[ours], one, data))
style.plot_dots(said, xlabel="mAP50 (test)")
change = said["dropped"] - said["as it is"]
plt.title(f"mAP50 without {smallest}: {change:+.3f}")
plt.show()
claim(said["dropped"] > said["as it is"], "mAP50 rises when a class is lost", settings)

# %% [markdown]
# A mean over one class less, and a better number; no error says so. Shifted as well, the mean falls only a
# little where the classes that carry it come before the lost one. The course's own reader compares
# the names. Here one name of a file is changed.

# %%
ids = tuple(data.images.image_ids[row] for row in test)
sizes = np.full((len(test), 2), data.images.size)
annotations = coco_files.CocoTruth(ids, sizes, truths, data.class_names)
file = coco_files.write_coco(settings.runs / "detect" / "truth.json", annotations)
renamed = tuple(name + "_" * (name == smallest) for name in data.class_names)
try:
    coco_files.read_coco(file, class_names=renamed)
except coco_files.CocoError:
    print("refused: the file has other classes")

# %% [markdown]
# ## Your own figure
#
# **Exercise 4.7, half an hour.** Draw precision against recall, with numpy alone: one point after each
# detection, going down from the highest score. Add a second series, the best precision from each
# recall on, which average precision sums up. Label both axes. `right` says which detections are right,
# `scores` how sure they are, in no order; there are `boxes` boxes. To try it, `practice_detections()` of
# `cxr_helpers.course.exercises.ch04_scores` gives all three.


# %%
def precision_recall_figure(axis, right, scores, boxes):
    return ...  # your code


check("4.7", precision_recall_figure)

# %% [markdown]
# ## What this does not show
#
# One seed for each of your own arms, so the luck of training is not in its intervals. All of it is about
# these steps and this size: a detector that trains for hours may need no pretraining. VinDr-CXR names
# no patients, so two images of one patient may lie on either side of the split. On the demo the images
# are synthetic, small and few.
#
# ## The answer
#
# Does a detector that starts from the pretrained backbone find abnormalities better?

# %% tags=["nbval-ignore-output"]
print(f"Frozen, in boxes: AUROC {each} against random weights, each at its best stage.")
print(
    f"As a detector: mAP50 {span(difference)} against from scratch, {verdict(difference)}; one seed."
)
if stored is not None and len(stored.record["seeds"]) > 1:
    for row in means[(means["minus"] == "random") & (means["arm"] == ours)].itertuples():
        share = f"{row.fraction:.0%} of the images"
        print(f"Stored, {len(stored.record['seeds'])} seeds, {share}: {span(row)}, {verdict(row)}.")

# %% tags=["hide-input"]
text = "at the stage that validation chose, pretrained features know more of a box than random ones"
claim(gain.loc["chosen", "low"] > 0, text, settings)
results.add(
    box_probe={arm: one.macro for arm, one in probed.items()},
    box_probe_gain=gain.loc["chosen", ["value", "low", "high"]].to_dict(),
    map50={arm: map50[arm].as_dict() for arm in arms},
    map50_of_main_arm=map50[ours].as_dict(),
    map50_blind=map50["blind"].as_dict(),
    difference=difference.as_dict(),
    map50_by_truth=by_truth.to_dict(),
    map50_against_other_readers=mean.dropna().to_dict(),
    map50_per_class={arm: per_class[arm].dropna().to_dict() for arm in arms},
    sensitivity_at_1_fp=sensitivity,
)
print(results.save().name)

# %% [markdown]
# ## What you learned
#
# - A frozen network can be asked about places in seconds, beside pixels and random weights.
# - A detection is right when its IoU with a box of its class reaches a threshold; average precision
#   sums up all score thresholds.
# - Faster R-CNN is a backbone, a pyramid, a network that proposes and a head that names; a training
#   step adds up four losses and moves all weights a little.
# - A backbone has arrived when every tensor has a place and every place has a tensor.
# - Detectors are compared by recipes of their own, on the same resampled images,
#   and against one that does not look.
# - Only FROC on all images sees false alarms on normal ones. The truth is a choice, and it moves the
#   number. So does a class that was lost on the way.
#
# ## Questions to think about
#
# 1. The paper's code keeps the stem and the first stage frozen, in the random arm too. Whom does
#    that favor?
#
# <details><summary>An answer</summary>
#
# Every other arm: the random one keeps random filters where the others keep learned ones.
#
# </details>
#
# 2. You may add 100 normal images to the training part. What should happen to the FROC curve, and
#    what to mAP50 on abnormal images?
#
# <details><summary>An answer</summary>
#
# False alarms on normal images should fall, so FROC should rise where few are allowed. mAP50 never
# sees a normal image; it may stay, or fall a little if the detector becomes more timid.
#
# </details>
#
# Go on with [05 ablation_cam](05_ablation_cam.ipynb).
