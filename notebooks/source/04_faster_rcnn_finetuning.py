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
# A probe says whether something is in an image. A radiologist wants to know where. This is the
# second phase of the paper: the backbone of notebook 02 moves into a detector, and the detector is
# trained on the boxes that radiologists drew.
#
# ## What you will learn
#
# - What IoU, non-maximum suppression and average precision are, by hand.
# - How to move a backbone into a detector, and how to prove that all of it arrived.
# - To compare two detectors on the same images, with an interval.
# - Why a detector that never saw a healthy image needs a second measure: FROC.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision

from cxr_helpers import detection_metrics as dm
from cxr_helpers import detection_plots, plots, vindr
from cxr_helpers import detector as det
from cxr_helpers.course import detection
from cxr_helpers.course.data import load_vindr
from cxr_helpers.course.results import Results, claim
from cxr_helpers.course.settings import load_settings

# %%
plots.set_style()
settings = load_settings()
results = Results("04_faster_rcnn_finetuning", settings)

# %% [markdown]
# ## By hand: when is a box right?
#
# A box is written as (x_min, y_min, x_max, y_max). Two boxes are compared by their **IoU**: the
# area that they share, divided by the area that they cover together. Here one box is shifted by
# half its width.

# %%
truth, found = [0, 0, 10, 10], [5, 0, 15, 10]
shared = (10 - 5) * (10 - 0)
covered = 100 + 100 - shared
print(f"IoU = {shared} / {covered} = {shared / covered:.3f}")

# %% [markdown]
# Half a width off, and a third is left. At the usual threshold of 0.5 this would be a miss. The
# course's function and torchvision's agree:

# %%
ours = dm.box_iou([truth], [found])[0, 0]
theirs = torchvision.ops.box_iou(torch.tensor([truth]), torch.tensor([found]))[0, 0]
assert np.isclose(ours, 1 / 3) and np.isclose(theirs, 1 / 3)

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
# The mean over the classes at IoU 0.5 is called **mAP50**. Two implementations, one answer: the
# first is torchmetrics with COCO's rules, the second is the course's, which can be resampled fast.

# %%
coco = dm.coco_average_precision(detections, answers, class_names=["mass"]).mean
fast = dm.mean_average_precision(dm.match_detections(detections, answers, class_names=["mass"]))
assert np.isclose(coco, by_hand) and np.isclose(fast, by_hand)
print("By hand, torchmetrics and the course agree.")

# %% [markdown]
# ## In ten lines: one box for one finding
#
# A detector looks at many places, and around each finding many boxes get a high score. Non-maximum
# suppression keeps the best one, drops all that overlap it, and goes on with the next best.


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
# ## The images and their boxes
#
# Three radiologists read each image. Their boxes were fused into one truth, as in notebook 01. The
# paper trains and tests on abnormal images only, and so do we at first.

# %%
data = load_vindr(settings)
parts = {part: data.rows(part, abnormal_only=True) for part in ("train", "val", "test")}
normal = {part: len(data.rows(part)) - len(rows) for part, rows in parts.items()}
pd.DataFrame({"abnormal": {p: len(r) for p, r in parts.items()}, "normal": normal})

# %%
train_boxes, train_labels = data.packed_boxes(parts["train"])
shown = [int(np.argmax([len(b) == n for b in train_boxes])) for n in (2, 4, 6)]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
for axis, i in zip(axes, shown, strict=True):
    names = [vindr.CLASSES[label - 1] for label in train_labels[i]]
    detection_plots.show_image(axis, data.images.pixels[parts["train"][i]])
    detection_plots.draw_boxes(axis, train_boxes[i], names, color="#E69F00", linestyle="--")
plt.show()

# %% [markdown]
# Training images with two, four and six boxes. On the demo they are **synthetic**: phantoms with
# findings where anatomy puts them and with readers who disagree as the real ones do. What a
# detector reaches here says how the method works. It does not say what it reaches on patients.

# %% [markdown]
# ### Anchors from the boxes
#
# The detector starts from box shapes at each place, its anchors, and learns how to move them.
# torchvision's own anchors are made for everyday photographs. Ours follow the training boxes: the
# centers of a k-means of their sizes and of their shapes.

# %%
all_boxes = np.concatenate(train_boxes)
anchors = det.derive_anchors(all_boxes)
detection_plots.plot_box_shapes(all_boxes, anchors.sizes, anchors.ratios)
plt.show()

# %% [markdown]
# Each dot is a box, each cross an anchor shape. The boxes span two orders of magnitude, and the
# anchors lie among them. How many boxes does some anchor fit, at an IoU of 0.5?

# %%
coverage = {
    "from the boxes": det.anchor_coverage(all_boxes, anchors),
    "torchvision's": det.anchor_coverage(all_boxes, det.Anchors()),
}
pd.Series(coverage).round(2).rename("share of boxes that an anchor fits")

# %% [markdown]
# ## The hand-off, proven
#
# Loading weights with `strict=False` skips every name that does not match, without a word. The
# detector then trains from random weights, and the table still says 'pretrained'. So we count.

# %% tags=["nbval-ignore-output"]
handoff = detection.handoff_table(settings)
handoff

# %%
arms = [arm for arm, row in handoff.iterrows() if row["tensors"]]
assert {"random", "pretrained"} <= set(arms)
claim((handoff["placed"] == handoff["tensors"]).all(), "every tensor found its place", settings)

# %% [markdown]
# And if a name does not match? Here each one carries a prefix, as some training code leaves it.

# %%
state, _ = detection.pretraining.arm_state(settings, "random", seed=settings.seed)
blank = det.build_detector(detection.detector_settings(settings, data, "random"), seed=0)
try:
    det.place_backbone(blank, {f"module.{name}": tensor for name, tensor in state.items()})
except det.DetectorError as error:
    print(str(error)[:96], "...")

# %% [markdown]
# ## The real run
#
# Each arm is trained in the same way: same images, same order, same schedule, same number of
# steps. Only the backbone's start differs. Nothing is frozen, and batch norm keeps learning: a
# random backbone with a frozen stem would be a straw man. The schedule was chosen on validation
# images; the test images are used once, below.

# %%
preset = settings.detect
print(
    f"{preset.epochs} epochs, batches of {preset.batch_size} images of {preset.image_size} pixels"
)
print(f"batch norm: {preset.norm}; frozen stages: {preset.frozen_stages}; keep: {preset.keep}")

# %% tags=["nbval-ignore-output"]
trained = {
    arm: detection.train_or_load_detector(settings, data, arm, seed=settings.seed) for arm in arms
}
logs = {arm: detection.training_log(path) for arm, (_, path) in trained.items()}
pd.DataFrame({arm: log["loss"] for arm, log in logs.items()}).iloc[[0, -1]].round(2)

# %%
falls = [log["loss"].iloc[-1] < 0.8 * log["loss"].iloc[0] for log in logs.values()]
claim(all(falls), "the training loss of every arm falls by more than a fifth", settings)

# %%
detection_plots.plot_losses(logs)
plt.show()

# %% [markdown]
# A lower training loss is not yet a better detector: it may have learned its images by heart. For
# that there is the test part.

# %% [markdown]
# ## mAP50 on the test images
#
# First the detections, then the matching of each detection to the truth. All numbers below come
# from these matches. To know how sure a number is, the test images are drawn again, with
# replacement, a thousand times. That takes seconds, because no detector has to run again.

# %%
test = parts["test"]
truths = detection.truths(data, test)
found = {
    arm: detection.predictions(detector, path, data, test)
    for arm, (detector, path) in trained.items()
}

# %% [markdown]
# A baseline belongs beside them: a 'detector' that never looks at the image. It knows from the
# training boxes where each finding usually lies, and says that every time.

# %%
found["blind"] = detection.blind_predictions(data, parts["train"], len(test))
matches = {
    arm: dm.match_detections(f, truths, class_names=vindr.CLASSES) for arm, f in found.items()
}
map50 = {
    arm: dm.bootstrap_map(m, resamples=preset.resamples, seed=settings.seed)
    for arm, m in matches.items()
}

# %% tags=["nbval-ignore-output"]
pd.DataFrame({arm: interval.as_dict() for arm, interval in map50.items()}).T.round(3)

# %%
beaten = [map50[arm].value > map50["blind"].value for arm in arms]
claim(all(beaten), "every detector beats the one that does not look", settings)

# %%
rows = [{"name": arm, **interval.as_dict()} for arm, interval in map50.items()]
plots.plot_estimates(pd.DataFrame(rows), xlabel="mAP50 (test), 95% interval", zero=None)
plt.show()

# %% [markdown]
# The blind baseline is not at zero: anatomy alone says much about where a large heart or a wide
# aorta is. What lies to its right was learned from the image.
#
# Is this the number that everybody else computes? torchmetrics says:

# %%
check = dm.coco_average_precision(found["pretrained"], truths, class_names=vindr.CLASSES)
assert abs(check.mean - map50["pretrained"].value) < 1e-4
print("torchmetrics agrees. Classes without a test box:", ", ".join(check.absent) or "none")

# %% [markdown]
# ### The difference
#
# Both arms saw the same test images. So draw the images once, and take the difference each time.

# %%
difference = dm.bootstrap_map_difference(
    matches["random"], matches["pretrained"], resamples=preset.resamples, seed=settings.seed
)
row = pd.DataFrame([{"name": "pretrained - random", **difference.as_dict()}])
plots.plot_estimates(row, xlabel="difference of mAP50 (test), 95% interval")
plt.show()

# %% tags=["nbval-ignore-output"]
print(f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})")
if difference.low <= 0 <= difference.high:
    print("The interval covers zero: these test images leave it open.")
else:
    print(f"These test images speak for {'pretrained' if difference.value > 0 else 'random'}.")

# %%
claim(
    difference.low <= difference.value <= difference.high, "the interval holds its value", settings
)

# %% [markdown]
# The paper reports about 3 percentage points for its pretraining over ImageNet's. Whatever this
# cell says, it is one training of each arm: another seed gives another number, and the interval
# knows only about other test images. Do not stop at the sign.

# %% [markdown]
# ### Which findings?
#
# The mean hides a lot. In brackets: how many boxes the test truth has. A class with a handful of
# boxes gives a number that another handful would overturn.

# %%
per_class = {
    arm: {n: float(v) for n, v in zip(vindr.CLASSES, dm.average_precision(m), strict=True)}
    for arm, m in matches.items()
    if arm in arms
}
counts = pd.Series(matches["random"].truths.sum(axis=0), index=vindr.CLASSES)
detection_plots.plot_per_class(per_class, counts[counts > 0].sort_values(ascending=False))
plt.show()

# %% [markdown]
# Large findings in a fixed place come first. Small ones, and ones that readers themselves dispute,
# stay far behind: where one reader in three drew a box, no detector can agree with all of them.

# %% [markdown]
# ## The images that the paper leaves out
#
# In practice most radiographs are normal, and a false alarm in a healthy person costs time and
# worry. mAP50 on abnormal images never sees them. The FROC curve does: it shows what share of the
# boxes is found when so many false alarms an image are allowed, **normal images included**.

# %%
everyone = data.rows("test")
all_truths = detection.truths(data, everyone)
all_matches = {
    arm: dm.match_detections(
        detection.predictions(detector, path, data, everyone),
        all_truths,
        class_names=vindr.CLASSES,
    )
    for arm, (detector, path) in trained.items()
}

# %%
detection_plots.plot_froc({arm: dm.froc_curve(m) for arm, m in all_matches.items()})
plt.show()

# %% tags=["nbval-ignore-output"]
sensitivity = {arm: float(dm.sensitivity_at(m, [1.0])[0]) for arm, m in all_matches.items()}
with_normal = {arm: dm.mean_average_precision(m) for arm, m in all_matches.items()}
pd.DataFrame(
    {
        "sensitivity at 1 false alarm an image": sensitivity,
        "mAP50, abnormal only": {arm: map50[arm].value for arm in arms},
        "mAP50, normal images included": with_normal,
    }
).round(3)

# %%
lower = [with_normal[arm] < map50[arm].value for arm in arms]
claim(all(lower), "with normal images included, mAP50 falls for every arm", settings)

# %% [markdown]
# Same detectors, same truth: only healthy people joined. A detector that never met one during
# training finds something in them too.

# %% [markdown]
# ## Look at them
#
# Numbers first, then pictures, and not only the nice ones. Dashed: the readers. Solid: the
# pretrained arm's detections with a score of at least 0.3. Left the image with the most boxes
# found, right the one with the most confident false alarm.

# %%
m = matches["pretrained"]
best = int(np.bincount(m.image[m.hit & (m.score > 0.3)], minlength=len(test)).argmax())
worst = int(m.image[~m.hit][m.score[~m.hit].argmax()])
missed = int(np.argmax(m.truths.sum(1) - np.bincount(m.image[m.hit], minlength=len(test))))
chosen = [best, missed, worst]

# %%
detection_plots.gallery(
    [data.images.pixels[test[i]] for i in chosen],
    [truths[i] for i in chosen],
    [found["pretrained"][i] for i in chosen],
    vindr.CLASSES,
    ["most found", "most missed", "most confident false alarm"],
)
plt.show()

# %% [markdown]
# In the middle is the image with the most boxes missed. Ask of each error: would a second reader
# have agreed with the detector or with the truth?

# %%
results.add(
    map50={arm: map50[arm].as_dict() for arm in arms},
    map50_blind=map50["blind"].as_dict(),
    difference=difference.as_dict(),
    map50_per_class={
        arm: {n: v for n, v in values.items() if not np.isnan(v)}
        for arm, values in per_class.items()
    },
    sensitivity_at_1_fp=sensitivity,
)
results.save().name

# %% [markdown]
# ## What this does not show
#
# One seed for each arm, so the luck of training is not in the intervals. The test truth is fused
# from readers who disagree. VinDr-CXR names no patients, so the split is by image, and two images
# of one patient may lie on either side. On the demo the images are synthetic, small and few, and
# the detector is narrower than the paper's.
#
# ## What you learned
#
# - A detection is right when its IoU with a box of its class reaches a threshold; average precision
#   sums up all score thresholds.
# - A backbone has arrived when every tensor has a place and every place has a tensor.
# - Two detectors are compared on the same resampled images, and against one that does not look.
# - mAP on abnormal images says nothing about false alarms in healthy people; FROC does.
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
