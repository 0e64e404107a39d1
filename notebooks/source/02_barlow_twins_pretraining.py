# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 02 · Barlow Twins: learning without labels
#
# **The question: what can be learned without labels?**
#
# Take a radiograph. Crop it, change its contrast, blur it a little. It still shows the same
# patient. A network turns each such [view](../docs/glossary.md#view) into a row of numbers, its
# [features](../docs/glossary.md#feature). Two views of one image should give the same features; that is one half of
# [Barlow Twins](../docs/glossary.md#barlow-twins). The other half: no two features should say the same
# thing. No label is needed for either.
#
# Mind the word: to a radiologist a view is PA or AP. Here, 'view A' and 'view B' are two changed copies
# of one image, whatever its projection.
#
# ## What you will learn
#
# - To compute the loss by hand, to write it yourself, and to use lightly's.
# - Why the loss starts at the number of outputs, and what each of its two terms asks for.
# - Which views suit radiographs, and which augmentations do nothing on them.
# - What a whole training loop looks like, and how to read the log of a real run.
# - To check whether the features learned anything, against a network that learned nothing.
# - To recognize four ways in which a run fails, and to turn the knobs yourself.
#
# **Time and memory:** the [README](../README.md) lists both. Most of it goes into the real run and the
# labs. A finished real run of the same data and settings is read from `runs/`.

# %%
from dataclasses import asdict, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torchvision
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from torch.utils.data import DataLoader
from torchvision.transforms import RandomResizedCrop

from cxr_helpers.course.ch02 import knobs, labs, pretraining
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch02, style
from cxr_helpers.data import nih
from cxr_helpers.evaluation import probe, scoring
from cxr_helpers.pretraining import barlow, views
from cxr_helpers.pretraining.pairs import drawn_from

style.set_style()

# %% [markdown]
# `settings` holds the presets of every stage, `settings.pretrain` those of this one. `data` holds small
# copies of all images, a table with a row for each, and which rows are for training, validation and test:
# no patient is in two of them.

# %%
settings = load_settings()
results = Results("02_barlow_twins_pretraining", settings)  # collects what the ledger shows
preset = settings.pretrain
data = load_nih(settings)
print({part: len(data.rows(part)) for part in ("train", "val", "test")})
print("images:", data.images.pixels.shape, data.images.pixels.dtype)
data.entries.head(2)

# %% [markdown]
# ## The idea in one picture
#
# Follow the arrows. One image becomes two views. Both go through the same network, which gives
# features, and through a small [**projector**](../docs/glossary.md#projector), which gives the outputs
# $z_A$ and $z_B$: a row for each image of a batch, a column for each output. Then
# each column of $z_A$ is compared with each of $z_B$. (The colors are made up, the images are not.)
# `make_views` is lightly's `BYOLTransform` with the course's numbers.

# %%
picture = np.array(data.images.pixels[data.rows("train")[0]])
make_views = pretraining.two_views(replace(preset, min_crop=0.3))  # 30% of the image or more
with drawn_from(2):  # the same random views in every run
    view_a, view_b = make_views(picture)
ch02.plot_method(picture, views.view_to_image(view_a), views.view_to_image(view_b))
plt.show()

# %% [markdown]
# The matrix says how outputs of view A go together with outputs of view B. The aim is the identity:
# each output agrees with itself in the other view, and with no other output. After training only the
# network, the [backbone](../docs/glossary.md#backbone), is kept.
#
# ## By hand: four images, three outputs
#
# Suppose a network gave these numbers for four images: one row an image, one column an output.

# %%
z_a = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 2.0], [-1.0, -1.0, 1.0], [-1.0, -1.0, 3.0]])
z_b = torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 0.0], [-1.0, -1.0, 2.0], [-1.0, -1.0, 1.0]])

# %% [markdown]
# Output 1 is the same in both views: good. Output 2 is a copy of output 1: wasted. Output 3
# changes from view to view. The
# [**cross-correlation matrix**](../docs/glossary.md#cross-correlation-matrix) shows all three at once.
# Its entry in row i and column j is the correlation, over the images, of output i in view A with
# output j in view B: 1 where they go together, 0 where they have nothing in common, -1 where they are
# opposite. Look for the good output, the copy and the unsteady one.

# %%
c = barlow.cross_correlation(z_a, z_b)
ch02.plot_correlations({"one steady, one copy, one unsteady": c.numpy()})
plt.show()

# %% [markdown]
# A1-B1 and A2-B2 are 1: steady. A1-B2 and A2-B1 are 1 as well: a copy. A3-B3 is far from 1: unsteady.
# That A3 also goes a little against B1 and B2 is chance.
#
# The loss is the distance to the identity:
#
# $$\mathcal{L} = \underbrace{\sum_i (1 - c_{ii})^2}_{\text{invariance}} +
# \lambda \underbrace{\sum_i \sum_{j \ne i} c_{ij}^2}_{\text{redundancy}}$$
#
# The [invariance](../docs/glossary.md#invariance-term) term looks at the diagonal: it pulls two views of
# an image together. The [redundancy](../docs/glossary.md#redundancy-term) term looks at all the rest: it
# turns outputs away from each other. The weight $\lambda$ is small, because there are many more
# entries off the diagonal than on it: the more outputs, the smaller.

# %%
invariance, redundancy = barlow.loss_terms(c)
print(f"invariance {invariance:.3f}, redundancy {redundancy:.3f}")

# %% [markdown]
# All of the invariance term comes from output 3, as $(1 + 0.8)^2$. Of the redundancy term, 1 each comes
# from A1-B2 and A2-B1, and 0.2 each from A3-B1 and A3-B2.
#
# ## The loss in ten lines of torch
#
# **Exercise 2.1, twenty minutes.** Write the loss. Given are two tensors (B, D): B images in a batch, **D
# outputs that enter the loss**. Standardize each column over the batch, with `unbiased=False`; multiply
# the two; divide by B; then the formula.
#
# Fill in the dots and run the cell. Stuck? In a new cell, `hint("2.1")`, `hint("2.1", 2)` and
# `solution("2.1")` help. Nothing below depends on your answers.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401


def my_loss(z_a, z_b, weight):
    return ...  # your code


check("2.1", my_loss)

# %% [markdown]
# The next cell is folded: a click on the bar at its left opens it. It holds one solution, and compares
# it with lightly's loss on random outputs. Cells that only check what the text says are folded
# throughout; they print what holds, and stop the notebook where it does not.


# %% tags=["hide-input"]
def barlow_twins_loss(z_a, z_b, weight):
    a = (z_a - z_a.mean(0)) / z_a.std(0, unbiased=False)  # (B, D)
    b = (z_b - z_b.mean(0)) / z_b.std(0, unbiased=False)  # (B, D)
    c = a.T @ b / len(a)  # (D, D)
    diagonal = torch.diagonal(c)
    invariance = (1 - diagonal).pow(2).sum()
    redundancy = (c - torch.diag(diagonal)).pow(2).sum()
    return invariance + weight * redundancy


generator = torch.Generator().manual_seed(0)
z_a, z_b = torch.randn(2, 256, 128, generator=generator)
lightlys = BarlowTwinsLoss(lambda_param=5e-3)(z_a, z_b)
assert torch.isclose(barlow_twins_loss(z_a, z_b, weight=5e-3), lightlys, rtol=1e-5, atol=0)
print("Ten lines of torch and lightly agree to 1 part in 100,000.")

# %% [markdown]
# ### Where does the loss start?
#
# Outputs that do not correlate have a diagonal near 0. Each of its D entries then costs about 1.
# Compare the two numbers in each line.

# %%
for width in (32, 128, 512):
    z_a, z_b = torch.randn(2, 256, width, generator=generator)
    invariance, _ = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
    print(f"D = {width:3d}: invariance of random outputs = {invariance:.0f}")
quiz("2.A")

# %% [markdown]
# So the loss starts near D, and a loss that stays there has learned nothing. (Real networks start
# lower: two views are alike to random weights too.)
#
# ## The views
#
# What may change between two views of a radiograph? Position, size, exposure, sharpness. What may
# not: the finding must stay in the picture. Here is one radiograph under each
# [augmentation](../docs/glossary.md#augmentation) of the paper's code alone. Look for those that change
# nothing, and for those that no X-ray machine would make.

# %%
pictures = views.each_augmentation(picture, "paper", preset.image_size, seed=3)
useless = views.no_effect_on_gray(picture, "paper", preset.image_size)
figure = style.show_images(list(pictures.values()), list(pictures), columns=5, width=1.8)
title = (
    f"{len(useless)} of {len(pictures) - 1} can do nothing to a gray image: {', '.join(useless)}"
)
figure.suptitle(title)
plt.show()

# %% [markdown]
# Those three are made for color photographs. Others change little in this draw: each changes by chance, now
# less, now more. The crop loses most of both lungs; solarization turns the
# brightest parts dark. The course's recipe leaves out what does nothing, and solarizes rarely.
#
# The crop matters more. If a finding is in view A and not in view B, the loss asks the network to
# ignore it. How often is at least half of a finding in both views? The real table of NIH boxes can
# tell, with a thousand pairs of crops.

# %%
boxes = nih.read_boxes(packaged_table("nih_boxes"))
boxes_xyxy = torch.tensor(boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy())
image = torch.empty(1, 1, 1).expand(1, 1024, 1024)  # only its size counts


def half_in_view(min_scale):
    options = {"scale": (min_scale, 1.0), "ratio": (3 / 4, 4 / 3)}
    crops = [RandomResizedCrop.get_params(image, **options) for _ in range(1000)]
    return views.share_in_view(boxes_xyxy, torch.tensor(crops)) >= 0.5  # (crops, boxes)


torch.manual_seed(0)
for scale in (0.08, 0.3, 0.8):
    both = half_in_view(scale) & half_in_view(scale)
    print(f"crops of {scale:.0%} or more of the image: {both.double().mean():.0%} in both views")

# %% [markdown]
# With crops of 8% or more, as in the paper's code, nearly half of the pairs lose most of a finding in one
# view at least. Larger crops keep it, at a price: two views that hardly differ are soon alike, and then
# teach little. Small crops teach more, to a run that has the steps for it.
#
# Now be the network. Above are views A of four images, below their views B in another order. Which
# belong together?

# %%
with drawn_from(1):
    pairs = [make_views(one) for one in data.images.pixels[data.rows("train")[40:44]]]
order = np.random.default_rng(2).permutation(4)
view_a = [views.view_to_image(first) for first, _ in pairs]
view_b = [views.view_to_image(pairs[i][1]) for i in order]
names = ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4"]
style.show_images([*view_a, *view_b], names, columns=4, width=1.8)
plt.show()

# %% [markdown]
# <details><summary>Which belong together?</summary>
#
# A1 and B3, A2 and B4, A3 and B2, A4 and B1. Contrast, place and side differ; the shape of the lungs and
# what lies in them tell.
#
# </details>
#
# A flip is among the changes, though it puts the heart on the right.
#
# **Exercise 2.2, fifteen minutes.** Write a random crop that lies in the image and holds the whole box of a
# finding; it need not be square. Given are its `box` (x_min,
# y_min, x_max, y_max), the `side` of the square image, the least `share` of the image's area that the
# crop must show, and a generator `rng` of numpy. Return the crop, again four corners.


# %%
def crop_around(box, side, share, rng):
    return ...  # your code


check("2.2", crop_around)

# %% [markdown]
# ## A training loop one can read
#
# Three things are needed. First, batches of pairs of views, here small and with large crops, to be quick.
# A gray image is given three times, since the network expects colors.


# %%
small_views = pretraining.two_views(replace(preset, min_crop=0.8, image_size=32))


def collate(images):
    pairs = [small_views(image) for image in images]
    return [torch.stack(side).expand(-1, 3, -1, -1) for side in zip(*pairs, strict=True)]


few = data.images.pixels[data.rows("train")[:512]]
loader = DataLoader(few, batch_size=64, shuffle=True, drop_last=True, collate_fn=collate)
view_a, view_b = next(iter(loader))
print("views A:", tuple(view_a.shape), "views B:", tuple(view_b.shape))

# %% [markdown]
# Second, the network with its loss. The backbone is torchvision's ResNet-18 without its last layer, which
# would name classes. Projector and loss are lightly's, and `training_step` is the picture of the idea, from
# left to right. Third, an optimizer.


# %%
class Twins(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = torch.nn.Identity()  # (B, 3, H, W) to (B, 512) features
        self.projector = BarlowTwinsProjectionHead(512, 256, 64)  # to (B, 64) outputs
        self.loss = BarlowTwinsLoss(lambda_param=0.2)
        self.losses = []

    def training_step(self, batch, batch_idx):
        z_a, z_b = (self.projector(self.backbone(view)) for view in batch)  # (B, 64) each
        loss = self.loss(z_a, z_b)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


# %% [markdown]
# Lightning's trainer does the rest: for each batch it calls `training_step`, computes the gradients and
# lets the optimizer step. That takes less than half a minute.

# %%
torch.manual_seed(0)
np.random.seed(0)  # lightly's views draw from both
twins = Twins()
with quiet_lightning():  # no notes on the machine
    trainer = pl.Trainer(
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(twins, loader)

# %% [markdown]
# Does the loss fall from its start?

# %%
begin, finish = np.mean(twins.losses[:4]), np.mean(twins.losses[-4:])
figure, axis = plt.subplots(figsize=(6, 2.8))
axis.plot(range(1, len(twins.losses) + 1), twins.losses)
axis.axhline(64, color="0.4", ls=":")
axis.annotate("D = 64", (len(twins.losses), 64), color="0.4", ha="right", va="bottom")
axis.set(xlabel="step", ylabel="loss")
axis.set_title(f"In {len(twins.losses)} steps the loss falls from {begin:.0f} to {finish:.0f}")
style.tidy(figure)
plt.show()

# %% tags=["hide-input"]
claim(finish < 0.9 * begin, "the loss of the readable loop falls by more than 10%", settings)

# %% [markdown]
# It falls: that is all of Barlow Twins. The real run is the same with all training images, more steps, a
# learning rate that rises and then falls, a log, and checkpoints to go on from.
#
# ## The real run
#
# Its settings, beside those of the paper's code:

# %%
shown = ["arch", "image_size", "min_crop", "batch_size", "epochs", "projector", "redundancy_weight"]
both = {"this run": asdict(preset), "paper's code": asdict(PRESETS["paper"]["pretrain"])}
pd.DataFrame(both).loc[shown]

# %% [markdown]
# The next cell pretrains; in JupyterLab a bar shows how far it is. This is the cell to wait for: read on
# meanwhile, the stored figures show what to expect. A finished run is read and not made again; one that was
# killed goes on from its last [checkpoint](../docs/glossary.md#checkpoint). (A small data set gets more
# epochs than the table says, until it has had enough steps.)

# %% tags=["nbval-ignore-output"]
path = pretraining.pretrain_once(settings, data, seed=settings.seed)

# %% [markdown]
# The log has a row for each epoch, and one from before training. Every few epochs the run also measured
# itself on validation patients, whom it never trained on. Look for three things: the loss falls from
# about D; the mean of the diagonal rises towards 1, on new patients too; the mean off the diagonal
# (without its sign) ends low.
#
# Off the diagonal there is a floor. The correlation of two *independent* outputs over N images is not 0;
# its mean size is about $\sqrt{2 / (\pi N)}$ (for a handful of images it is larger: 1/2 for four). The
# dotted line is that of a training batch.

# %%
log = pretraining.training_log(path)
assert log["step"].iloc[-1] >= preset.min_steps
first, last = log.iloc[0], log.iloc[-1]
off = "mean |off the diagonal|"
panels = {
    "loss (mean of the epoch)": {"loss": "loss"},
    "mean of the diagonal": {"diagonal_mean": "training", "heldout_diagonal": "validation"},
    off: {"offdiagonal_abs_mean": "training", "heldout_offdiagonal": "validation"},
    "k-NN AUROC (validation)": {"knn_view": "AP or PA", "knn_findings": "findings"},
}
figure = ch02.plot_log(log, panels, floors={off: np.sqrt(2 / np.pi / preset.batch_size)})
before, after = first["heldout_diagonal"], last["heldout_diagonal"]
figure.suptitle(f"Views of new patients became alike: diagonal {before:.2f}, then {after:.2f}")
plt.show()

# %% [markdown]
# Before training, the outputs of random weights on validation images mostly follow the brightness of the
# image: views are alike, and outputs are copies. Training starts lower, because there
# [batch norm](../docs/glossary.md#batch-norm) takes out what all images of a batch share.
#
# In the k-NN scores the most similar training images vote (0.5 is chance). They tell AP from PA from the
# start: random filters see brightness and zoom. For findings these patients are few and each point is
# uncertain; the test patients below will tell.
#
# Now the matrix itself, of the first 64 outputs, on validation patients. Look for the diagonal, and for
# color that goes away beside it.

# %%
matrices = pretraining.correlations(path)
titled = dict(zip(("before", "halfway", "after"), matrices.values(), strict=True))
figure = ch02.plot_correlations(titled)
before, after = first["heldout_offdiagonal"], last["heldout_offdiagonal"]
figure.suptitle(f"Copies go away: mean off the diagonal {before:.2f}, then {after:.2f}")
plt.show()

# %% tags=["hide-input"]
claim(last["diagonal_mean"] > 0.6, "the outputs of two views became alike", settings)
claim(last["heldout_diagonal"] > 0.5, "they are alike for new patients too", settings)
claim(last["offdiagonal_abs_mean"] < 0.12, "the outputs did not become copies", settings)

# %% [markdown]
# Before training, color everywhere; afterwards the diagonal stands out. Validation patients are few, so
# their matrix is noisy.
#
# **Exercise 2.3, five minutes.** How many images must a batch have so that the floor of the
# off-diagonal, $\sqrt{2 / (\pi N)}$, is not above a given value? Return the smallest whole number.


# %%
def batch_for_floor(floor):
    return ...  # your code


check("2.3", batch_for_floor)

# %% [markdown]
# ## Did it move at all?
#
# A loss can fall while the backbone hardly changes: the projector can do much alone, and it is thrown
# away. So the log also holds how far the kernels of each stage are from where they began, as a share of
# their length. Beside this run stands one that ships with the course: an evening on more phantoms, with
# smaller crops.

# %%
moved = {pretraining.ARM_NAMES["pretrained"]: log}
if pretraining.evening_path(settings).is_file():
    evening = pretraining.training_log(pretraining.evening_path(settings))
    moved[pretraining.ARM_NAMES["evening"]] = evening
stages = ["moved_layer1", "moved_layer2", "moved_layer3", "moved_layer4"]
figure = ch02.plot_moved(moved)
figure.suptitle(f"Here the stages moved by {last[stages].min():.0%} to {last[stages].max():.0%}")
plt.show()

# %% [markdown]
# Movement is a diagnosis, not a score: weights that moved may have gone anywhere. The last panel shows the
# score along the way. A longer way may go down before it goes up; validation patients are few, so do not
# explain single dots.
#
# ## Did the features learn anything?
#
# A test without training: find the nearest images in feature space, and let their labels vote
# ([k-NN](../docs/glossary.md#k-nn)). Write the vote first.
#
# **Exercise 2.4, fifteen minutes.** Given training `features` (images, features), their `labels`, and
# one `query`: return the mean label of the `k` training images with the highest cosine similarity.


# %%
def knn_vote(features, labels, query, k):
    return ...  # your code


check("2.4", knn_vote)

# %% [markdown]
# The baseline is the same network with random weights, and a real one: even random filters react to
# size, brightness and edges. `arm_backbone` makes the random one and reads the others from their files.

# %%
features = {}
for arm in ("random", "pretrained", "evening"):
    backbone, sentence = pretraining.arm_backbone(settings, arm, seed=settings.seed)
    if backbone is None:
        print(sentence)
    else:
        features[arm] = pretraining.features(settings, backbone, data.images.pixels, arm)
print("images and features:", features["random"].shape)

# %% [markdown]
# Nobody told pretraining which findings there are, whether the patient was X-rayed from the front (AP) or
# from behind (PA), or is female. The neighbors' vote is scored on test patients by
# [AUROC](../docs/glossary.md#auroc): of all pairs of an image with the finding and one without, the share
# in which the first gets the higher score. 0.5 is chance, 1 is perfect. And how often is the nearest image of
# the same patient?

# %%
train, test = data.rows("train"), data.rows("test")
known = {"findings": data.labels, **labs.label_free_targets(data)}
same, votes, scores = "nearest is the same patient", {}, {}
for arm, f in features.items():
    votes[arm], scores[arm] = {}, {}
    for name, y in known.items():
        vote = probe.knn_scores(f[train], y[train], f[test], neighbors=settings.probe.neighbors)
        votes[arm][name] = vote  # (test images, labels)
        scores[arm][name] = float(np.nanmean(scoring.auroc(y[test], vote)))
    scores[arm][same], chance = labs.same_patient_share(f[test], data.patients[test])
scores["chance"] = dict.fromkeys(known, 0.5) | {same: chance}

# %% tags=["nbval-ignore-output"]
pd.DataFrame(scores).rename(columns=pretraining.ARM_NAMES).round(3)

# %% tags=["hide-input"]
claim(scores["pretrained"]["AP view"] > 0.65, "the features tell AP from PA, untold", settings)
claim(scores["pretrained"][same] > 2 * chance, "they recognize patients far above chance", settings)

# %% [markdown]
# Read the column of random weights first: only a difference to it can speak for pretraining. Features
# that recognize patients are a warning too: if a patient is in training and in test, recognizing is
# enough to score. Notebook 03 measures that.
#
# Is the difference more than luck? Draw the test patients again, with replacement, many times
# ([bootstrap](../docs/glossary.md#bootstrap)), and take the difference to random weights each time. The
# interval holds the middle 95% of the differences. One right of zero speaks for pretraining, one that
# covers zero leaves it open.

# %%
rows = []
for arm in [arm for arm in features if arm != "random"]:
    for name, y in known.items():
        gain = labs.paired_gain(settings, data, y, votes[arm][name], votes["random"][name])
        rows.append({"arm": pretraining.ARM_NAMES[arm], "name": name, **gain.as_dict()})
gains = pd.DataFrame(rows)
figure = style.plot_estimates(gains, groups="arm", xlabel="k-NN AUROC minus random weights' (test)")
clear = (gains["low"] > 0).sum()
unsure = gains[(gains["low"] <= 0) & (gains["high"] >= 0)]
told = "; ".join(unsure["arm"] + ", " + unsure["name"]) or "none"
figure.suptitle(f"Better than random weights, beyond luck: {clear} of {len(gains)}\nopen: {told}")
plt.show()

# %% [markdown]
# One run and one seed; the [benchmarks](../benchmarks/README.md) repeat this with several. The demo also
# draws its findings larger and plainer than most real ones are; notebook 01 shows one finding both ways.
#
# Here are neighbors: the test image with the most labels, and the four training images that each network
# holds nearest to it. Above each stands its view and the patient's sex. What do they share with the query?

# %%
query = test[data.labels[test].sum(axis=1).argmax()]
neighbors, share = {}, {}
for arm, f in features.items():
    near, name = labs.nearest(f, query, train, count=4), pretraining.ARM_NAMES[arm]
    lines = [f"{data.entries['view'][r]}, {data.entries['sex'][r]}" for r in near]
    neighbors[name] = ([data.images.pixels[r] for r in near], lines)
    share[name] = int((data.labels[near] * data.labels[query]).any(axis=1).sum())
about = f"query: {data.entries['view'][query]}, {data.entries['sex'][query]}"
figure = ch02.plot_neighbors(data.images.pixels[query], neighbors, title=about)
said = ", ".join(f"{name} {count}" for name, count in share.items())
figure.suptitle(f"Of four neighbors so many share a finding with the query:\n{said}")
plt.show()

# %% [markdown]
# One query is an anecdote; the table counted. Pictures like this are for finding out what went wrong:
# neighbors that share only a border, a marker or their brightness are a bad sign.
#
# ## Is my loss normal?
#
# Divided by D, losses can be compared at their start and in their shape; the level that they reach also
# depends on the redundancy weight and the batch. The one log beside the paper's code is of a longer
# run than its settings say: 800 epochs
# ([log](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/LOG.TXT)).

# %%
published = {0: 7471, 9: 1721, 49: 861, 99: 687, 199: 573, 399: 487, 799: 449}  # mean of the epoch
theirs = ([(e + 1) / 800 for e in published], [v / 8192 for v in published.values()])
trained, width = log.dropna(subset="loss"), preset.projector[-1]
ours = (trained["epoch"] / last["epoch"], trained["loss"] / width)
figure = ch02.plot_losses_by_width({"published, D = 8192": theirs, f"this run, D = {width}": ours})
figure.suptitle("Both losses fall steeply first and slowly later")
plt.show()
start, end = trained["loss"].iloc[[0, -1]]
claim(0.5 < start / width < 1.5, "the loss starts near D", settings)
claim(end < 0.6 * start, "it falls by at least 40%", settings)

# %% [markdown]
# That shape is normal. The published run had all of NIH's images, two days and ImageNet weights to start
# from.
#
# ## Collapse lab: four runs that fail
#
# Five short runs at 32 pixels: one healthy, and four that lack one thing each. Guess before you look: what
# would each log show?
#
# 1. no redundancy term: only 'two views alike' is asked;
# 2. no invariance term: only 'no copies' is asked;
# 3. no augmentation: both views are the same image;
# 4. batch of 4: the correlation is taken over four images.

# %%
small = replace(settings, pretrain=replace(preset, image_size=32, batch_size=96))
runs = labs.collapse_lab(small, data, steps=24)
logs = {name: run.log for name, run in runs.items()}
metrics = {
    "loss": "loss",
    "diagonal_mean": "mean of the diagonal",
    "offdiagonal_abs_mean": "mean |off the diagonal|",
}
lowest = min(logs, key=lambda name: logs[name]["loss"].iloc[-1])
ch02.plot_runs(logs, metrics).suptitle(f"The lowest loss is that of: {lowest}")
plt.show()

# %% [markdown]
# What are the outputs of each run good for? Take view A of a validation image and ten views B, its own and
# nine of other images: is its own the most similar? The figure has the matrices of the outputs, and above
# each how often the image is found again. The table adds the means of the matrices, and the k-NN AUROC
# for AP against PA.

# %%
found = {name: run.figures["found_again"] for name, run in runs.items()}
titled = {f"{name}\nfound {found[name]:.0%}": run.correlation for name, run in runs.items()}
figure = ch02.plot_correlations(titled, shown=32)
best = max(found, key=found.get)
figure.suptitle(f"The {best} run finds most images again; chance is 10%")
plt.show()

# %% tags=["nbval-ignore-output"]
figures = pd.DataFrame({name: run.figures for name, run in runs.items()})
figures.loc[["heldout_diagonal", "heldout_offdiagonal", "found_again", "knn_view"]].round(2)

# %% tags=["hide-input"]
ends = {name: one.iloc[-1] for name, one in logs.items()}
copied, healthy = (ends[n]["offdiagonal_abs_mean"] for n in ("no redundancy term", "healthy"))
unsteady = figures["no invariance term"]["heldout_diagonal"]
claim(copied > 1.5 * healthy, "no redundancy term: copies", settings)
claim(unsteady < ends["healthy"]["diagonal_mean"] - 0.1, "no invariance term: unsteady", settings)
solved = logs["no augmentation"]["diagonal_mean"].iloc[0]
claim(solved > 0.99, "no augmentation: solved at once", settings)
stuck = ends["batch of 4"]["offdiagonal_abs_mean"]
claim(stuck > 0.3, "batch of 4: the off-diagonal stays high", settings)
lost = found["healthy"] - found["no redundancy term"]
claim(lost > 0, "copies find fewer images again than healthy outputs", settings)

# %% [markdown]
# Only the healthy run has a diagonal on a pale ground. The last row of the table would not have warned you:
# random weights tell AP from PA, and so can a sick run.
#
# How each would be noticed in a real log:
#
# | what is missing | what the log shows | what looks fine all the same |
# |---|---|---|
# | redundancy term | off-diagonal high and rising, matrix in two colors | the loss, the lowest of all, and the diagonal |
# | invariance term | the diagonal does not rise | the off-diagonal, and a loss far below D |
# | augmentation | diagonal 1 from the first step; the loss starts far below D; on augmented validation images the diagonal is low | diagonal and loss in training |
# | a large batch | off-diagonal stuck at its floor, loss far above D | the diagonal on validation images |
#
# So never watch the loss alone. Watch the diagonal and the off-diagonal with its floor, and both on
# images that training does not see.
#
# **Exercise 2.5, five minutes.** Four runs, of which you see only the last line of their logs. Nothing
# was trained for this table: its outputs are random numbers, made as each fault leaves them. Give each
# run its name: `"healthy"`, `"copies"`, `"unsteady"` or `"small batch"`.

# %%
from IPython.display import display

from cxr_helpers.course.exercises import ch02 as nb02

display(nb02.mystery_runs())
diagnosis = {"run 1": ..., "run 2": ..., "run 3": ..., "run 4": ...}
check("2.5", diagnosis)

# %%
quiz("2.B")

# %% [markdown]
# ## A lab of knobs
#
# Now break it yourself, or make it better. Turn one knob at a time: the redundancy weight; the least
# share that a crop shows; the batch; the width D. Guess before you run: what becomes of the diagonal,
# of the rest, of the images found? Beside yours stands the untouched run, with as many steps, measured on
# the same views.

# %%
untouched = {24: runs["healthy"]}  # steps to run


def try_knobs(mine):
    steps = mine["steps"]
    if steps not in untouched:
        untouched[steps] = knobs.with_knobs(small, data, {"steps": steps})
    titled = {}
    both = {"untouched": untouched[steps], "mine": knobs.with_knobs(small, data, mine)}
    for name, run in both.items():
        again, auroc = run.figures["found_again"], run.figures["knn_findings"]
        titled[f"{name}: found {again:.0%}\nfindings {auroc:.2f}"] = run.correlation
    return ch02.plot_correlations(titled, shown=32)


# %% [markdown]
# The title of each matrix also has the k-NN AUROC of the findings, on validation patients. So few
# steps show the direction; for a few minutes write `steps` of 240.

# %%
mine = {"redundancy_weight": 0.01, "min_crop": 0.8, "batch_size": 96, "width": 128, "steps": 24}
try_knobs(mine)
plt.show()

# %% [markdown]
# With sliders, where your JupyterLab shows widgets:

# %%
knobs.knob_panel(try_knobs, mine)

# %% [markdown]
# Color comes back beside the diagonal: with a small weight outputs may become copies. The findings' AUROC
# moves by chance as well, up or down, for validation patients are few: compare neither with the real run
# above, which the test patients judged.
#
# <details><summary>What to expect of the other knobs</summary>
#
# A large weight keeps the outputs apart and the
# views unlike. Smaller crops make the task harder, so the diagonal stays lower. A small batch has a
# high floor.
#
# </details>
#
# ## Your own figure
#
# **Exercise 2.6, half an hour.** Does the floor hold? For batches of 4, 8, 16, 32, 64, 128, 256 and
# 512 images draw two curves: the formula, and the mean size of the off-diagonal entries that you
# measure between two independent tables of random numbers, each with 64 columns and a row for each image. Logarithmic axes help; name both.


# %%
def floor_figure(axis):
    return ...  # your code


check("2.6", floor_figure)

# %% [markdown]
# ## The answer
#
# What can be learned without labels?

# %% tags=["nbval-ignore-output"]
own = gains[gains["arm"] == pretraining.ARM_NAMES["pretrained"]].set_index("name")
auroc, by = scores["pretrained"], own["value"]
print(f"From {preset.phantoms or len(train):,} images and not one label the features learned")
print(
    f"to vote on findings with an AUROC of {auroc['findings']:.3f}, {by['findings']:+.3f} against"
)
print(f"random weights, and to tell AP from PA with {auroc['AP view']:.3f}, {by['AP view']:+.3f}.")
covers = own.index[(own["low"] <= 0) & (own["high"] >= 0)].tolist()
print(f"Open, since the interval covers zero: {', '.join(covers) or 'none'}.")

# %% tags=["hide-input"]
claim(own["value"].mean() > 0, "over the three questions the mean gain is above zero", settings)
claim(last[stages].min() > 0.02, "every stage moved", settings)
results.add(
    diagonal_mean=last["diagonal_mean"],
    offdiagonal_abs_mean=last["offdiagonal_abs_mean"],
    heldout_diagonal=last["heldout_diagonal"],
    heldout_offdiagonal=last["heldout_offdiagonal"],
    loss_start=start,
    loss_end=end,
    moved={stage.removeprefix("moved_"): last[stage] for stage in stages},
    knn_auroc={arm: {k: scores[arm][k] for k in known} for arm in features},
    knn_difference=own[["value", "low", "high"]].to_dict("index"),
    same_patient_share={arm: by_name[same] for arm, by_name in scores.items()},
)
results.save().name

# %% [markdown]
# One seed, one small network, one small data set of synthetic images: this shows how the method works, not
# how well it works on patients. k-NN shows what the features hold, not what a detector can make of them.
#
# ## What you learned
#
# - The loss compares the cross-correlation of two views with the identity, and starts near D.
# - Invariance pulls two views of an image together; redundancy turns outputs away from each other.
# - Views may change what does not matter: color augmentations do nothing on radiographs.
# - A training loop is views, network, loss and optimizer; the rest is bookkeeping.
# - A log is read by its two halves, diagonal and off-diagonal, and the second has a floor.
# - A random network is a baseline to beat, not a zero.
# - A falling loss alone proves nothing: failed runs have one too. Ask what the outputs are good for.
#
# ## Questions to think about
#
# 1. By the formula a batch of 4 has a floor of 0.40. At which batch would the floor be 0.05?
# 2. Flipping puts the heart on the right. Which finding could that hurt?
# 3. The features recognize patients. For which use is that good, and for which is it a danger?
#
# <details><summary>Answers</summary>
#
# First: N = 2 / (pi 0.05²) = 254.6, so 255; half the floor costs four times the batch. Second: whatever
# depends on the side, such as an aorta, or is judged against the other side. Third: good for finding
# mixed-up files; a danger for splits by image, and for privacy, since an image without a name can be
# matched to one with a name.
#
# </details>
#
# Go on with [03 linear_evaluation](03_linear_evaluation.ipynb).
