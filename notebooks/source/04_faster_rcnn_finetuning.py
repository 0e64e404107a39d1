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
# A probe says whether something is in an image. Whoever checks its answer wants to know where. This
# is the second phase of the paper: the [backbone](../docs/glossary.md#backbone) of notebook 02
# moves into a detector, and the detector is trained on the boxes that radiologists drew. First we
# ask the backbone itself, which takes seconds: does it know what is in a box?
#
# ## What you will learn
#
# - What a frozen network knows of a place in the image, before any detector is trained.
# - What IoU, non-maximum suppression and average precision are, by hand.
# - How to move a backbone into a detector, and how to prove that all of it arrived.
# - How size decides what can be found, and on which pyramid level.
# - To choose a recipe for each arm alike, and to compare detectors with intervals over images and
#   over seeds.
# - Why a detector that never saw a normal image needs a second measure: FROC.
# - What goes wrong, and how much of the number is the choice of the truth.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. Training
# takes nearly all of the time, in 'The real run': two detectors. What is trained is kept, so a
# second run is short. If your time is short, leave out 'Anchors from the boxes' and 'The open
# track'.
#
# 'The stored figures' are a file of the course, with more seeds, arms and shares of the boxes than
# minutes allow.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision

from cxr_helpers.course.ch02.pretraining import ARM_NAMES
from cxr_helpers.course.ch04 import box_probe, experiment, readers, tables
from cxr_helpers.course.ch04.data import load_detection, load_nih_boxes
from cxr_helpers.course.ch04.training import step_count
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import RATES, load_settings
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
from cxr_helpers.detection.boxes import box_iou

# %%
style.set_style()
settings = load_settings()
results = Results("04_faster_rcnn_finetuning", settings)

# %% [markdown]
# ## The images and their boxes
#
# Three radiologists read each image. Their boxes were fused into one truth
# ([weighted box fusion](../docs/glossary.md#weighted-box-fusion)), as in notebook 01. The detection
# files of the paper's [public code](https://github.com/haooyuee/BarlowTwins-CXR) hold abnormal
# images only, for training and for testing, and so do we at first.
#
# 'Normal' means here: no reader drew a box of these classes. It does not mean that the person is
# healthy.
#
# On PhysioNet, VinDr-CXR is given to credentialed users only. Where only NIH ChestX-ray14 is at
# hand, this cell takes the boxes that come with it (BBox_List_2017.csv), split by patient, and all
# that follows is the same.

# %%
data = load_detection(settings)
parts = {part: data.rows(part, abnormal_only=True) for part in ("train", "val", "test")}
normal = {part: len(data.rows(part)) - len(rows) for part, rows in parts.items()}
pd.DataFrame({"abnormal": {p: len(r) for p, r in parts.items()}, "normal": normal})

# %%
train_truths = data.truths(parts["train"])
shown = [int(np.argmax([len(one["boxes"]) == n for one in train_truths])) for n in (2, 4, 6)]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
for axis, i in zip(axes, shown, strict=True):
    names = [data.class_names[label - 1] for label in train_truths[i]["labels"]]
    style.show_image(axis, data.images.pixels[parts["train"][i]])
    style.draw_boxes(axis, train_truths[i]["boxes"], names, **style.TRUTH)
plt.show()

# %% [markdown]
# Training images with two, four and six boxes. The left of each picture is the patient's right. A
# black strip at the right or below is no part of the radiograph: it fills the image up to a
# square. Boxes of one class may overlap, because readers' boxes are fused only where they share
# enough (an IoU of 0.5, of which more below).
#
# On the demo they are **synthetic**: phantoms with findings where anatomy puts them and with
# readers who disagree as the real ones do. What a detector reaches here says how the method works.
# It does not say what it reaches on patients.
#
# ## Before any detector: what does a frozen network know of a box?
#
# Take a box with a finding, and the same place in another abnormal image that has no such finding
# there. Which of the two is which? A frozen backbone turns each place into a few numbers, and a
# logistic regression for each class, a [linear probe](../docs/glossary.md#linear-probe), has to
# tell. Size and place cannot help, since both are the same. The network is asked at each of its
# stages; validation images choose the stage.

# %%
places = box_probe.draw_places(settings, data)
print(f"Places follow {places.truth}. Classes with enough:", ", ".join(places.class_names))

# %% tags=["nbval-ignore-output"]
judged, left_out = box_probe.measure(settings, data, places)
print("\n".join(left_out))

# %%
probed, blind = box_probe.chosen(judged), box_probe.GEOMETRY
claim(abs(probed[blind].macro - 0.5) < 0.02, "size and place alone tell nothing", settings)
ch04.plot_box_probe(box_probe.table(judged, places), names=ARM_NAMES)
plt.show()

# %% [markdown]
# Level lines need no network; a patch of pixels is a baseline that is seldom shown. A ring marks the
# stage that validation chose. Now the differences from random weights, stage by stage, on the same
# resampled test images. Look at how they change with depth.

# %% tags=["nbval-ignore-output"]
gains = box_probe.differences(judged)
gains = gains[gains["arm"].isin(ARM_NAMES)]
learned = [arm for arm in ("pretrained", "evening") if arm in probed]
best = max(learned, key=lambda arm: probed[arm].validation)
beyond = box_probe.difference(probed[best], probed[box_probe.PIXELS])
print(f"{ARM_NAMES[best]} minus a patch of pixels: {beyond}")

# %%
single = gains[gains["stage"].str.startswith("layer")]
above = (single["low"] > 0).groupby(single["arm"]).sum()
claim(
    (above[learned] >= 2).all(),
    "at two of the four stages or more, pretrained features know more of a box than random ones",
    settings,
)
shown = gains.assign(name=gains["arm"].map(ARM_NAMES) + ", " + gains["stage"])
style.plot_estimates(shown, xlabel="macro AUROC in boxes (test) above random weights, 95% interval")
plt.show()

# %% [markdown]
# The first stage sees edges and grays, and random ones do for plain findings; deeper, where features
# have to mean something, training without labels shows. So it has taught the backbone something about
# places, without a label or a box. Whether a detector, which learns from boxes itself, still profits
# from it is the question of the rest.
#
# ## By hand: when is a box right?
#
# A box is written as (x_min, y_min, x_max, y_max). Two [boxes](../docs/glossary.md#bounding-box)
# are compared by their [**IoU**](../docs/glossary.md#iou): the area that they share, divided by the
# area that they cover together. Here one box is shifted by half its width.

# %%
truth, found = [0, 0, 10, 10], [5, 0, 15, 10]
shared = (10 - 5) * (10 - 0)
covered = 100 + 100 - shared
print(f"IoU = {shared} / {covered} = {shared / covered:.3f}")

# %% [markdown]
# Half a width off, and a third is left. At the usual threshold of 0.5 this would be a miss. The
# course's function and torchvision's agree:

# %%
own = box_iou([truth], [found])[0, 0]
theirs = torchvision.ops.box_iou(torch.tensor([truth]), torch.tensor([found]))[0, 0]
assert np.isclose(own, 1 / 3) and np.isclose(theirs, 1 / 3)

# %% [markdown]
# ## By hand: average precision
#
# Three detections, sorted by their score, and two boxes in the truth. The first detection is right,
# the second is not, the third is right. After each one, ask two things. What share of the truth has
# been found (recall)? What share of the detections was right (precision)?

# %%
right = np.array([True, False, True])
recall = np.cumsum(right) / 2
precision = np.cumsum(right) / np.arange(1, 4)
pd.DataFrame({"right": right, "recall": recall, "precision": precision.round(3)})

# %% [markdown]
# Average precision is the mean precision over 101 recall points. At each point the best precision
# that can be had from there on counts: 1 up to a recall of 0.50 (51 points), and 2/3 after that (50
# points).

# %%
by_hand = (51 * 1 + 50 * 2 / 3) / 101
boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
detections = [{"boxes": boxes, "labels": np.ones(3), "scores": np.array([0.9, 0.8, 0.7])}]
answers = [{"boxes": boxes[[0, 2]], "labels": np.ones(2)}]
print(f"by hand: {by_hand:.3f}")

# %% [markdown]
# The mean over the classes at IoU 0.5 is called [**mAP50**](../docs/glossary.md#map50). Two
# implementations, one answer: the first is torchmetrics with COCO's rules, the second is the
# course's, which can be resampled fast.

# %%
theirs = coco.coco_scores(detections, answers, class_names=["mass"]).mean("ap50")
fast = dm.mean_average_precision(dm.match_detections(detections, answers, class_names=["mass"]))
assert np.isclose(theirs, by_hand) and np.isclose(fast, by_hand)
print("By hand, torchmetrics and the course agree.")

# %% [markdown]
# ### Exercises
#
# Fill in the dots, run the cell, and `check` says what is wrong or that it is right. Stuck? In a new
# cell, `hint("4.1")` nudges, `hint("4.1", 2)` says more, `solution("4.1")` shows one way. Nothing below
# depends on your answers. What is done is remembered, and notebook 00 counts it.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

# %% [markdown]
# **Exercise 4.1, two minutes.** The detector of this example also draws ten wrong boxes, with scores
# below all others. Predict the average precision.

# %%
precision_with_ten_more = ...
check("4.1", precision_with_ten_more)

# %% [markdown]
# **Exercise 4.2, ten minutes.** The truth holds four boxes, A to D. The table says which of them each
# of six detections overlaps, by an IoU above 0.5. What is the average precision over 101 recall points?
# Work it out by hand or with numpy.
#
# | score | 0.9 | 0.8 | 0.7 | 0.6 | 0.5 | 0.4 |
# |---|---|---|---|---|---|---|
# | overlaps | A | A | B | none | C | none |

# %%
precision_of_six = ...
check("4.2", precision_of_six)

# %% [markdown]
# **Exercise 4.3, fifteen minutes.** Write the IoU of each of N boxes with each of M others, as an
# array (N, M), without a loop. Both inputs are numpy arrays, (N, 4) and (M, 4), each row
# (x_min, y_min, x_max, y_max).


# %%
def iou_of_all_pairs(first, second):
    return ...  # your code


check("4.3", iou_of_all_pairs)

# %% [markdown]
# ## In ten lines: one box for one finding
#
# A detector looks at many places, and around each finding many boxes get a high score.
# [Non-maximum suppression](../docs/glossary.md#non-maximum-suppression) keeps the best one, drops
# all that overlap it, and goes on with the next best.


# %%
def suppress(boxes, scores, threshold):
    order, kept = scores.argsort(descending=True), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        overlap = torchvision.ops.box_iou(boxes[best][None], boxes[rest])[0]
        order = rest[overlap <= threshold]
    return kept


# %% [markdown]
# Four boxes: two around one place, two around another. Two should be left, as with torchvision's
# own function.

# %%
crowd = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 50, 50], [31, 28, 50, 52]])
scores = torch.tensor([0.6, 0.9, 0.7, 0.5])
assert suppress(crowd, scores, 0.5) == torchvision.ops.nms(crowd, scores, 0.5).tolist()
suppress(crowd, scores, 0.5)

# %% [markdown]
# ### Exercise: suppression, class by class
#
# **Exercise 4.4, twenty minutes.** One place may show two findings. Write non-maximum suppression
# so that a box drops only boxes of its own class, with an IoU above `threshold`. `boxes` is (N,
# 4), `labels` and `scores` are (N,), all numpy. Return the row numbers of the boxes that are kept,
# as a list, by falling score. `box_iou(a, b)` gives the IoU of all pairs.


# %%
def suppress_per_class(boxes, labels, scores, threshold):
    return ...  # your code


check("4.4", suppress_per_class)

# %% [markdown]
# ### Size decides
#
# How large is each finding, in pixels of the network's input? The first of the three sizes is the
# one of this run. Look at the smallest finding. `level` is the level of the feature pyramid
# ([FPN](../docs/glossary.md#fpn-feature-pyramid)) that most of its boxes are pooled from: level 2
# has one cell for 4 pixels, level 5 one for 32.

# %%
sizes = tables.size_table(data, parts["train"], settings)
sizes

# %%
smallest, share = sizes.index[0], sizes["under 8 at 224"].iloc[0]
print(f"{smallest}: {100 * share:.0f}% of its boxes are under 8 pixels wide or high at 224.")

# %% [markdown]
# A box of 8 pixels is two cells of the finest level, and half a cell of level 4. Shift it by three
# pixels and its IoU is below 0.5. At this run's size it is smaller still. So such a box is hard to
# hit for every detector; whether size alone decides is another question, for large findings may fail
# too ('Which findings?'). The paper's code has settings of 224 and of 640 pixels.
#
# ### Exercise: which level?
#
# **Exercise 4.5, five minutes.** The rule behind the column `level`: a box with the area of a
# square of `canonical` pixels a side goes to level 4. With half of that side it goes to level 3,
# with twice to level 5; in between, the lower level is taken. No box goes below level 2 or above
# level 5. In this run `canonical` is printed by the next cell.


# %%
print(f"canonical: {settings.detect.canonical_scale}")


def level_of_box(width, height, canonical):
    return ...  # your code


check("4.5", level_of_box)

# %% [markdown]
# ### Anchors from the boxes
#
# The detector starts from box shapes at each place, its [anchors](../docs/glossary.md#anchor), and
# learns how to move them. torchvision's own anchors are made for everyday photographs. Ours follow
# the training boxes: the centers of a k-means of their sizes and of their shapes.

# %%
all_boxes = np.concatenate([one["boxes"] for one in train_truths])
anchors = derive_anchors(all_boxes)
ch04.plot_box_shapes(all_boxes, anchors.sizes, anchors.ratios)
plt.show()

# %% [markdown]
# Each dot is a box, each cross an anchor shape. The boxes span about two orders of magnitude in
# width, and the anchors lie among them. How many boxes does some anchor fit, at an IoU of 0.5?

# %%
coverage = {
    "from the boxes": anchor_coverage(all_boxes, anchors),
    "torchvision's": anchor_coverage(all_boxes, Anchors()),
}
pd.Series(coverage).round(2).rename("share of boxes that an anchor fits")

# %% [markdown]
# Anchors made from the boxes fit far more of them than torchvision's do. They come from the
# training boxes alone, so the test part stays unseen.
#
# ## The hand-off, proven
#
# Loading weights with `strict=False` skips every name that does not match, without a word. The
# detector then trains from random weights, and the table still says 'pretrained'. So we count. An
# arm whose weights are not on this machine has none.

# %% tags=["nbval-ignore-output"]
handoff = experiment.handoff_table(settings)
handoff

# %%
assert {"random", "pretrained"} <= set(handoff.index[handoff["tensors"] > 0])
claim((handoff["placed"] == handoff["tensors"]).all(), "every tensor found its place", settings)

# %% [markdown]
# And if a name does not match? Here each one carries a prefix, as some training code leaves it.

# %%
state, _ = experiment.pretraining.arm_state(settings, "random", seed=settings.seed)
blank = det.build_detector(experiment.detector_settings(settings, data, "random"), seed=0)
try:
    place_backbone(blank, {f"module.{name}": tensor for name, tensor in state.items()})
except DetectorError as error:
    print(str(error)[:96], "...")

# %% [markdown]
# ### A question

# %%
quiz("4.A")

# %% [markdown]
# ## The real run
#
# Each [arm](../docs/glossary.md#arm) sees the same images for the same number of steps; only the
# backbone's start differs. How should it be trained? A high rate may wash out what pretraining has
# brought, a low one keeps a random backbone random. So for each arm the learning rate was chosen,
# and whether its backbone stays **frozen**, learns **slowly** (a tenth of the rate), or is
# **free**: from one grid, on the validation images of a demo of another seed. The figure shows what
# was found there, each at its best rate.

# %%
tried = read_stored("detector_recipes", settings)
if tried is not None:
    print(tried.origin)
    best = tried.table.groupby(["arm", "backbone_rate"])["value"].max().unstack()
    best = best.rename(index=ARM_NAMES, columns={0.0: "frozen", 0.1: "slow", 1.0: "free"})
    style.plot_dots(best, xlabel="mAP50 on validation images, best learning rate")
    plt.show()

# %%
preset, arms = settings.detect, list(reversed(experiment.arms_here(settings)))
ours = arms[0]
steps = step_count(settings, data)
print(f"{steps} steps of {preset.batch_size} images, {preset.image_size} pixels wide")
recipes = {arm: experiment.with_recipe(settings, arm).detect for arm in arms}
pd.DataFrame({a: [r.learning_rate, r.backbone_rate] for a, r in recipes.items()}, index=RATES)

# %% [markdown]
# A `backbone_rate` of 0 stands for frozen. Random weights had the same choice: what is chosen for one
# arm alone is a straw man for the other.
#
# Two arms are trained here with all boxes: from scratch, and from an evening's weights, if these are
# there. Other arms, shares and seeds would take hours; the stored figures hold them.

# %% tags=["nbval-ignore-output"]
trained = {
    arm: experiment.train_or_load_detector(settings, data, arm, seed=settings.seed) for arm in arms
}
logs = {arm: experiment.training_log(path) for arm, (_, path) in trained.items()}
pd.DataFrame({arm: log.set_index("epoch")["loss"] for arm, log in logs.items()}).round(2)

# %%
falls = [log["loss"].iloc[-1] < log["loss"].iloc[0] for log in logs.values()]
claim(all(falls), "the training loss of every arm falls", settings)

# %% [markdown]
# The loss is the sum of four: does an anchor hold anything, how must it be moved, which class is a
# proposal, how must it be moved. A lower training loss is not yet a better detector: it may have
# learned its images by heart. For that there is the test part.
#
# Augmentation shifts and turns images, and a box that leaves its image is lost. How many are?

# %%
lost = experiment.lost_boxes(trained[ours][1])[["seen", "lost"]].sum()
claim(lost["lost"] < 0.05 * lost["seen"], "augmentation loses less than 5% of the boxes", settings)

# %% [markdown]
# ## From anchors to boxes, on one image
#
# What happens inside? The image is one of the validation part. Anchors lie all over it. The region
# proposal network scores them and keeps some, of which the first panel shows the best. To look at
# a proposal, the detector cuts it out of one level of the pyramid and scales it to 7 x 7 cells: it
# is *pooled* from there. The box head gives it names, several if need be, so the second panel may
# hold more boxes than the first. Non-maximum suppression works class by class, so some overlap is
# left. Only the places are drawn, not the names.

# %%
detector, row = trained[ours][0], int(parts["val"][0])
image = data.images.pixels[row]
step = tables.stages(detector, image)
strong = step.found["boxes"][step.found["scores"] > 0.3]

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
panels = {f"best 30 of {len(step.proposals)} proposals": step.proposals[:30]}
panels[f"all {len(step.found['boxes'])} detections"] = step.found["boxes"]
panels[f"{len(strong)} with a score above 0.3"] = strong
for axis, (name, boxes) in zip(axes, panels.items(), strict=True):
    style.show_image(axis, image, name)
    style.draw_boxes(axis, boxes)
plt.show()

# %%
claim(len(strong) < len(step.proposals) < step.anchors / 10, "each stage keeps fewer", settings)

# %% [markdown]
# Most detections have a low score. They are kept: average precision looks at all thresholds.
#
# A wide and flat box across the heart? In VinDr-CXR's real table most boxes of
# [cardiomegaly](../docs/glossary.md#cardiomegaly) mark the heart's width, not its whole outline.
#
# ## mAP50 on the test images
#
# First the detections, in all test images once, then the matching of each detection to the truth.
# All numbers below come from these matches. To know how sure a number is, the test images are drawn
# again, with replacement, many times. That takes seconds, because no detector has to run again.

# %%
test, everyone = parts["test"], data.rows("test")
truths = data.truths(test)
found_in_all = {
    arm: experiment.predictions(detector, path, data, everyone)
    for arm, (detector, path) in trained.items()
}
abnormal = np.flatnonzero(np.isin(everyone, test))
found = {arm: [one[i] for i in abnormal] for arm, one in found_in_all.items()}

# %% [markdown]
# A baseline belongs beside them: a 'detector' that never looks at the image. It knows from the
# training boxes where each finding usually lies, and says that every time.

# %%
found["blind"] = experiment.blind_predictions(data, parts["train"], len(test))
matches = {arm: tables.match(f, truths, data) for arm, f in found.items()}
options = {"resamples": preset.resamples, "seed": settings.seed}
map50 = {arm: tables.bootstrap_map(m, **options) for arm, m in matches.items()}

# %% tags=["nbval-ignore-output"]
pd.DataFrame({arm: interval.as_dict() for arm, interval in map50.items()}).T.round(3)

# %%
beaten = [map50[arm].value > map50["blind"].value for arm in arms]
claim(all(beaten), "every detector beats the one that does not look", settings)

# %%
rows = [{"name": arm, **interval.as_dict()} for arm, interval in map50.items()]
style.plot_estimates(pd.DataFrame(rows), xlabel="mAP50 (test), 95% interval", zero=None)
plt.show()

# %% [markdown]
# The blind baseline is not at zero: anatomy says roughly where a large heart or a wide aorta is, but
# that is seldom enough for an IoU of 0.5. What lies to its right was learned from the image.
#
# ### Other thresholds, other sizes
#
# mAP50 is one of many. Kaggle, where a competition was held on VinDr-CXR, counts a box at IoU 0.4.
# COCO, a data set of photographs whose rules became the standard, averages over 0.5 to 0.95. The
# last three columns are mAP50 of small, medium and large boxes (under 32 and over 96 pixels a
# side, at the paper's 640 pixels). All come from torchmetrics.

# %% tags=["nbval-ignore-output"]
by_size, _ = tables.score_table({arm: found[arm] for arm in arms}, truths, data)
by_size.round(3)

# %%
assert all(abs(by_size.loc[arm, "ap50"] - map50[arm].value) < 1e-4 for arm in arms)
claim(all(by_size["ap50_large"] > by_size["ap50_small"]), "large boxes are found better", settings)

# %% [markdown]
# The same detections, several headline numbers. Two papers that quote different ones cannot be
# compared. And in the columns of sizes a class with one box counts as much as one with a hundred.
#
# ### The difference
#
# Both arms saw the same test images. So in each resample the images are drawn once for both, and
# the difference is taken: against the readers' truth, and on the demo against the exact one, which
# no hospital has. Look whether the intervals cover zero.

# %%
difference = tables.bootstrap_map_difference(matches["random"], matches[ours], **options)
rows = [{"name": "readers' truth", **difference.as_dict()}]
if data.exact is not None:
    exact_truths = data.truths(test, data.exact)
    exactly = [tables.match(found[arm], exact_truths, data) for arm in ("random", ours)]
    by_exact = tables.bootstrap_map_difference(*exactly, **options)
    rows.append({"name": "exact truth", **by_exact.as_dict()})
style.plot_estimates(pd.DataFrame(rows), xlabel=f"mAP50 (test), {ours} - random, 95% interval")
plt.show()

# %% tags=["nbval-ignore-output"]
print(f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})")
if difference.low <= 0 <= difference.high:
    print("The interval covers zero: these test images leave it open.")
else:
    print(f"These test images speak for {ours if difference.value > 0 else 'random'}.")

# %%
apart = np.hypot(*[map50[arm].high - map50[arm].low for arm in arms])
width = difference.high - difference.low
claim(width < 1.1 * apart, "pairing does not widen the interval of the difference", settings)

# %% [markdown]
# The paper reports about 3 percentage points for its pretraining over ImageNet's. That is another
# comparison than this one, over random weights. And whatever this says, it is one training of each
# arm: the interval knows only about other test images. Five seeds stand under 'Fewer boxes'.
#
# ### Which findings?
#
# The mean hides a lot. In brackets: how many boxes the test truth has. A class with a handful of
# boxes gives a number that another handful would overturn.

# %%
per_class = {
    arm: {n: float(v) for n, v in zip(data.class_names, dm.average_precision(m), strict=True)}
    for arm, m in matches.items()
    if arm in arms
}
counts = pd.Series(matches["random"].truths.sum(axis=0), index=data.class_names)
ch04.plot_per_class(per_class, counts[counts > 0].sort_values(ascending=False))
plt.show()

# %% [markdown]
# Look where the two findings with a fixed place lie on which readers agree best (notebook 01), the
# enlarged heart and the wide aorta. A gap on a class with few boxes is not yet a difference.

# %%
plain = ["Cardiomegaly", "Aortic enlargement"]
if set(plain) <= set(data.class_names):
    others = [n for n in data.class_names if n not in plain and counts[n] > 0]
    best = [min(v[n] for n in plain) > np.mean([v[n] for n in others]) for v in per_class.values()]
    claim(all(best), "heart and aorta are found better than the mean of the others", settings)

# %% [markdown]
# ### Exercises

# %%
quiz("4.B")

# %% [markdown]
# **Exercise 4.6, fifteen minutes.** A paired bootstrap of a simpler measure, the share of boxes
# that is found. For each image: how many of its boxes detector A found (`hits_a`), how many B
# found (`hits_b`), and how many there are (`boxes`). Each row of `draws` lists the images of one
# resample by their place in these arrays, from 0; an image may occur several times. Return one
# number for each row: the share of the boxes that B finds in it minus the share that A finds.


# %%
def paired_differences(hits_a, hits_b, boxes, draws):
    return ...  # your code


check("4.6", paired_differences)

# %% [markdown]
# ## Fewer boxes
#
# Labels are what pretraining is meant to save. The stored figures give each arm a tenth, three
# tenths and all of the training images, the same ones for all arms, and **equal steps** to within
# half an epoch: a share is seen more often, not trained less. So the curve is about images. The
# lines are means over seeds, the intervals cover other images and seeds. Rings are your own run.

# %%
stored = read_stored("detectors", settings)
if stored is None:
    print("No stored figures yet: `python benchmarks/detection.py --store` makes them in hours.")
else:
    print(stored.origin)
    print(f"{stored.record['steps']} steps each; demo of seed {stored.record['demo']['seed']}.")
    means = stored.table.query("seed == 'all' and truth == 'readers' and classes == 'all'")
    own = pd.DataFrame([{"arm": a, "fraction": 1.0, "value": map50[a].value} for a in arms])
    curve = means[means["minus"] == ""]
    ch03.plot_label_curve(curve, ylabel="mAP50 (test)", chance=None, names=ARM_NAMES, own=own)
    plt.show()

# %% [markdown]
# Now what each arm is above random weights: against the readers' truth and the exact one; on all
# classes, and on those that any arm finds at all. A class that nobody finds pulls every difference
# toward zero. Which classes are found was asked of validation images.

# %%
if stored is not None:
    print(f"found on validation (average precision of {stored.record['least']} and more):")
    print(", ".join(stored.record["found"]))
    above = stored.table[(stored.table["seed"] == "all") & (stored.table["minus"] == "random")]
    shares = [f"{fraction:.0%}" for fraction in above["fraction"]]
    above = above.assign(share=shares, panel=above["truth"] + ", " + above["classes"])
    style.plot_estimates(above, rows="share", groups="arm", panels="panel", size=(12, 3))
    plt.show()

# %%
if stored is not None:
    for row in means[means["minus"] == "random"].itertuples():
        verdict = "above" if row.low > 0 else "below" if row.high < 0 else "open"
        interval = f"{row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
        print(f"{ARM_NAMES[row.arm]}, {row.fraction:.0%} of the images: {interval}, {verdict}")

# %% [markdown]
# 'Above' means that the whole interval lies above zero, 'open' that it covers zero. Rounding alone
# sends a training elsewhere, so a single seed, yours too, may lie beside the line.
#
# ## The images that the paper's code leaves out
#
# How many of VinDr-CXR's images have no box? The real table is at hand; the detection files of the
# paper's code leave them out.

# %%
real_table = vindr.read_readings(packaged_table("vinbigdata"))
n_images = real_table.readings["image_id"].nunique()
n_boxed = real_table.boxes["image_id"].nunique()
print(f"{n_images - n_boxed:,} of {n_images:,} images are normal")

# %% [markdown]
# A false alarm on a normal image costs a reader's time, and may cost a person worry and further
# tests. mAP50 on abnormal images never sees them. The [FROC](../docs/glossary.md#froc) curve does:
# it shows what share of the boxes is found when so many false alarms an image are allowed, **normal
# images included**.

# %%
all_truths = data.truths(everyone)
all_matches = {arm: tables.match(one, all_truths, data) for arm, one in found_in_all.items()}

# %%
ch04.plot_froc({arm: froc.froc_curve(m) for arm, m in all_matches.items()})
plt.show()

# %% tags=["nbval-ignore-output"]
sensitivity = {arm: float(froc.sensitivity_at(m, [1.0])[0]) for arm, m in all_matches.items()}
with_normal = {arm: dm.mean_average_precision(m) for arm, m in all_matches.items()}
columns = {"sensitivity at 1 false alarm an image": sensitivity}
columns["mAP50, abnormal only"] = {arm: map50[arm].value for arm in arms}
columns["mAP50, normal images included"] = with_normal
pd.DataFrame(columns).round(3)

# %%
lower = [with_normal[arm] < map50[arm].value for arm in arms]
claim(all(lower), "with normal images included, mAP50 falls for every arm", settings)

# %% [markdown]
# Same detectors, same truth, only normal images joined: a detector that never met one during
# training finds something in them too.
#
# ### Exercises

# %%
quiz("4.C")

# %% [markdown]
# **Exercise 4.7, ten minutes.** One point of the FROC curve. `hit` says of each detection, by
# falling score, whether it is right (numpy, bool). There are `boxes` boxes in `images` images.
# Which share of the boxes is found if at most `allowed` false alarms an image, on average over all
# images, are accepted?


# %%
def share_found(hit, boxes, images, allowed):
    return ...  # your code


check("4.7", share_found)

# %% [markdown]
# ## What goes wrong?
#
# Each detection with a score of at least 0.3 gets one verdict. It is a *hit*; or a *duplicate* of
# one; or it lies on a finding under the *wrong class*; or it is *badly placed* (IoU from 0.1 to
# 0.5); or it is *background*: none of these. And each box of the truth is found or *missed*. Read
# the figure line by line: how many boxes a class has, how many are missed, and what our arm's
# detections are.

# %%
errors = {
    arm: error_breakdown.error_table(found[arm], truths, class_names=data.class_names)
    for arm in arms
}
assert all((t["hit"] + t["missed"] == t["truth"]).all() for t in errors.values())
ch04.plot_table(errors[ours], xlabel="boxes of the truth, then detections", ylabel="")
plt.show()

# %%
wrong = ["duplicate", "wrong class", "badly placed", "background"]
missed = [t["missed"].sum() > t[wrong].sum(axis=None) for t in errors.values()]
claim(all(missed), "more boxes are missed than wrong ones are drawn, in every arm", settings)

# %% [markdown]
# And what is a missed box called, if anything? Rows are the truth, columns the detector's name for
# the box at that place. Scores down to 0.1 count here. The last column holds the boxes that no
# detection reaches with an IoU of 0.5, the last row the detections that reach no box, or only one
# that a surer detection has taken.

# %%
confusion = error_breakdown.confusion_matrix(
    found[ours], truths, class_names=data.class_names, min_score=0.1
)
ch04.plot_table(confusion, xlabel="the detector says", ylabel="the truth says")
plt.show()

# %% [markdown]
# Look which wrong names stand out, such as lung opacity where readers drew infiltration or
# consolidation: for a radiologist these words overlap.
#
# ## Look at them
#
# Numbers first, then pictures, and not only the nice ones: the image with the most boxes found,
# the one with the most missed, and the one with the surest error. Dashed: the readers, named below
# the box. Solid: our arm's detections with a score of at least 0.3, named above it.

# %%
chosen = tables.gallery_rows(matches[ours])
figure, axes = style.grid(len(chosen), 2, width=5)
for axis, (title, i) in zip(axes, chosen.items(), strict=True):
    picture, drawn = data.images.pixels[test[i]], found[ours][i]
    ch04.show_detections(axis, picture, truths[i], drawn, data.class_names, title=title)
plt.show()

# %% [markdown]
# Ask of each error: would a second reader have agreed with the detector or with the truth?
#
# ## Which truth?
#
# So the detectors stay as they are, and the truth changes: the fused boxes, which are the
# [consensus](../docs/glossary.md#consensus); of these only what at least two readers drew; what a
# single reader of each image drew, the first by name of those who drew any; every box of every
# reader.
#
# On the demo the exact boxes that the phantoms were drawn with are one more truth. As detections
# they show what a perfect detector reaches against each of them. Guess first: how far from 1 do the
# readers' mistakes push it?

# %%
exact = readers.exact_detections(data, test)
if exact is None:
    print("These are no phantoms: nobody knows their exact boxes.")
known = {} if exact is None else {"exact boxes": exact}
by_truth = readers.truth_table({arm: found[arm] for arm in arms} | known, data, test)
style.plot_dots(by_truth.drop(columns="boxes"), xlabel="mAP50 against each truth")
plt.show()

# %%
if exact is not None:
    ceiling = by_truth.loc["fused", "exact boxes"]
    print(f"exact boxes against the fused truth: {ceiling:.2f}")
    claim(
        ceiling > 1.5 * by_truth.loc["fused", arms].max(),
        "a perfect detector scores more than half again as much as ours against the same truth",
        settings,
    )

# %%
moved_by = by_truth[arms].max() - by_truth[arms].min()
claim(
    (moved_by > 0.1 * by_truth.loc["fused", arms]).all(),
    "the choice of the truth moves the mAP50 of each arm by more than a tenth of it",
    settings,
)

# %% [markdown]
# Nothing was trained anew. With every box of every reader the same heart counts up to three times,
# and a detector that draws it once misses the rest. With two readers' boxes most boxes go, but
# hardly those of aorta and heart; exact boxes can then lose, since they hold what most readers
# overlooked. Before two numbers are compared, ask which boxes they count. And readers' disagreement
# is no excuse: it takes something from a perfect detector, but leaves it far above ours.
#
# ### How well would a reader do?
#
# Readers disagree. So how well does one of them do in this contest? Leave one reader of each image
# out, fuse the boxes of the others, and score the reader against them; then the next one. The
# detectors get the same truth, and so do the exact boxes. Readers give no scores, so precision times
# recall takes the place of their average precision. Guess first: how far from 1 is a radiologist?

# %%
compared = readers.against_other_readers({arm: found[arm] for arm in arms} | known, data, test)
if len(compared):
    with_mean = pd.concat([compared, compared.mean().to_frame("mean of the classes").T])
    xlabel = "average precision against the other readers' fused boxes"
    style.plot_dots(with_mean, xlabel=xlabel)
    plt.show()

# %%
if exact is not None and len(compared):
    mean = compared.mean()
    print(f"one reader {mean['one reader']:.2f}, exact boxes {mean['exact boxes']:.2f}")
    claim(
        mean["exact boxes"] > 2 * mean["one reader"],
        "exact boxes agree with two readers more than twice as well as a third reader does",
        settings,
    )

# %% [markdown]
# Readers score low because each marks other findings, not because no box could agree with them.
# Average precision counts all thresholds of a detector, a reader has one point. The demo's readers
# were made to disagree as the real ones do. Do they?

# %%
real = readers.score_readers(real_table, vindr.CLASSES)
print(f"one of VinDr-CXR's real readers against the two others: {real.mean():.2f}, as a mean")
if exact is not None and len(compared):
    claim(
        abs(real.mean() - compared["one reader"].mean()) < 0.05,
        "the demo's readers agree as well as the real ones, within 0.05",
        settings,
    )

# %% [markdown]
# So a reader's score against such boxes is no bound for a detector: what several agree on can be
# learned from many images. How high a detector could get on the real images nobody knows, since
# nobody knows their exact boxes.
#
# ## An exercise in suspicion: the class that was dropped
#
# In the paper's public code the configuration says `Nodule_Mass` and the annotation file
# `Nodule/Mass`. A library that matches classes by name then drops the class without a word. Whether
# the published table came from those files is not proven. What would the metric say? Here the
# annotations are written to a file, and read with one name changed.

# %%
ids = tuple(data.images.image_ids[row] for row in test)
sides = np.full((len(test), 2), data.images.size)
file = coco_files.write_coco(
    settings.runs / "detect" / "truth.json",
    coco_files.CocoTruth(ids, sides, truths, data.class_names),
)
other = smallest.replace("/", "_") if "/" in smallest else smallest.lower()
renamed = tuple(other if name == smallest else name for name in data.class_names)
try:
    coco_files.read_coco(file, class_names=renamed)
except coco_files.CocoError:
    print("refused: the file has other classes")

# %% [markdown]
# Our reader refuses. Now do what a careless one does: leave the class out of the truth.

# %%
gone = data.class_names.index(smallest) + 1
keep = [one["labels"] != gone for one in truths]
careless = [{k: v[ok] for k, v in one.items()} for one, ok in zip(truths, keep, strict=True)]
dropped = dm.mean_average_precision(tables.match(found[ours], careless, data))
absent = tables.match(found[ours], careless, data).absent
claim(smallest in absent, "the class is absent from the truth, and no error says so", settings)
claim(
    dropped > map50[ours].value,
    "mAP50 rises when a class that is hardly found is lost",
    settings,
)

# %% [markdown]
# A mean over one class less, and a better number. If each later class also takes the number before
# its own, every label from there on means another finding:

# %%
shifted = [{**o, "labels": o["labels"] - (o["labels"] > gone)} for o in careless]
moved = dm.mean_average_precision(tables.match(found[ours], shifted, data))
claim(moved < dropped, "shifted labels cost mAP50, but still give a number", settings)

# %% [markdown]
# So count the classes in the table, and compare the names in every file, before you believe a mean.
#
# ### Exercise: what does the mean say?
#
# **Exercise 4.8, five minutes.** Three classes, in this order, with their average precision:
# Cardiomegaly 0.6, Nodule/Mass 0.1, Pleural effusion 0.5. Predict mAP when the truth loses
# Nodule/Mass, and when Pleural effusion, once third, also takes the number of the lost class. The
# detector stays as it is; its nodules lie on no effusion.

# %%
map_with_a_lost_class = {"dropped": ..., "shifted too": ...}
check("4.8", map_with_a_lost_class)

# %% [markdown]
# ## The open track: NIH's own boxes
#
# Nobody needs credentials for BBox_List_2017.csv. Its images are of the official test list, whose
# patients pretraining never saw. With an NIH root alone (`CXR_DATA`), this whole notebook runs on
# them. Here is what it would train on:

# %%
open_data = load_nih_boxes(settings) if settings.nih else data
table = pd.DataFrame({"part": open_data.split, "patient": open_data.patients})
table.groupby("part")["patient"].agg(images="size", patients="nunique")

# %%
of_part = {part: set(rows["patient"]) for part, rows in table.groupby("part")}
assert not of_part["train"] & of_part["test"]
print(f"{len(open_data.class_names)} findings:", ", ".join(open_data.class_names))

# %% [markdown]
# No patient lies on both sides, and no normal image is among them: FROC needs some from elsewhere.

# %%
results.add(
    box_probe={arm: one.macro for arm, one in probed.items()},
    box_probe_gains={
        arm: part.set_index("stage")[["value", "low", "high"]].T.to_dict()
        for arm, part in gains.groupby("arm")
    },
)

# %%
results.add(
    map50={arm: map50[arm].as_dict() for arm in arms},
    map50_blind=map50["blind"].as_dict(),
    difference=difference.as_dict(),
    map50_by_truth={arm: by_truth[arm].to_dict() for arm in arms},
    map50_against_other_readers=compared.mean().dropna().to_dict(),
    map50_per_class={
        arm: {n: v for n, v in values.items() if not np.isnan(v)}
        for arm, values in per_class.items()
    },
    sensitivity_at_1_fp=sensitivity,
)
results.save().name

# %% [markdown]
# ## Your own figure
#
# **Exercise 4.9, half an hour.** Draw precision against recall, with numpy alone: one point after
# each detection, going down from the highest score. Add a second series, the best precision from
# each recall on, which is what average precision sums up. Label both axes. `right` says which
# detections are right, `scores` how sure they are, in no order; there are `boxes` boxes. To try
# it, `practice_detections()` of `cxr_helpers.course.exercises.ch04_scores` gives all three.


# %%
def precision_recall_figure(axis, right, scores, boxes):
    return ...  # your code


check("4.9", precision_recall_figure)

# %% [markdown]
# ## What this does not show
#
# One seed for each of your own arms, so the luck of training is not in its intervals; in the stored
# ones it is. Recipes, and the classes that count as found, were chosen on validation images, the
# recipes on a demo of another seed. All of it is about these steps and this size: a detector that
# trains for hours may need no pretraining, and forget it.
#
# The test truth is fused from readers who disagree. VinDr-CXR names no patients, so the split is by
# image, and two images of one patient may lie on either side. On the demo the images are synthetic,
# small and few, and the detector is narrower than the paper's.
#
# ## What you learned
#
# - A frozen network can be asked about places in seconds, beside pixels and random weights.
# - A detection is right when its IoU with a box of its class reaches a threshold; average precision
#   sums up all score thresholds.
# - A backbone has arrived when every tensor has a place and every place has a tensor.
# - Recipes are chosen for each arm alike; detectors are compared on the same resampled images, at
#   equal steps, over several seeds, and against one that does not look.
# - A finding of a few pixels is out of reach before training begins.
# - mAP on abnormal images says nothing about false alarms on normal images; FROC does.
# - The truth is a choice, and it moves the number. So does a class that was lost on the way.
#
# ## Questions to think about
#
# 1. The paper's code keeps the stem and the first stage frozen, in the random arm too. Whom does
#    that favor?
# 2. Nodule/Mass boxes are a few pixels wide here. What would you change first: image size, anchors
#    or the pyramid level that they are pooled from?
# 3. You may add 100 normal images to the training part. What should happen to the FROC curve, and
#    what to mAP50 on abnormal images?
#
# Go on with [05 ablation_cam](05_ablation_cam.ipynb).
