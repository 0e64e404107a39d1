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
# Take one radiograph. Crop it, change its contrast, blur it a little. It still shows the same
# patient. Two such views of one image should give the same features; that is one half of Barlow
# Twins. The other half: no two features should say the same thing. No label is needed for either.
#
# ## What you will learn
#
# - To compute the loss by hand, in ten lines of torch, and with lightly.
# - Which views suit radiographs.
# - To pretrain a network for real, and to read its log.
# - To check whether the features learned anything.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. The real run
# below takes most of the time.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from lightly.loss import BarlowTwinsLoss

from cxr_helpers import barlow, nih, plots, probe, views
from cxr_helpers.course import pretraining
from cxr_helpers.course.data import load_nih
from cxr_helpers.course.results import Results, claim
from cxr_helpers.course.settings import load_settings

plots.set_style()
settings = load_settings()
results = Results("02_barlow_twins_pretraining", settings)

# %% [markdown]
# ## By hand: four images, three features
#
# Suppose a network gave these outputs for four images: one row an image, one column a feature.
# `z_a` belongs to the first views, `z_b` to the second views of the same images.

# %%
z_a = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 2.0], [-1.0, -1.0, 1.0], [-1.0, -1.0, 3.0]])
z_b = torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 0.0], [-1.0, -1.0, 2.0], [-1.0, -1.0, 1.0]])

# %% [markdown]
# Feature 1 is the same in both views: good. Feature 2 is a copy of feature 1: wasted. Feature 3
# changes from view to view. The **cross-correlation matrix** shows all three at once. Its entry in
# row i and column j is the correlation, over the images, of feature i in view A with feature j in
# view B. Look for the good feature, the copy and the unsteady one.

# %%
c = barlow.cross_correlation(z_a, z_b)
figure, axis = plt.subplots(figsize=(3.6, 3))
plots.plot_matrix(c.numpy(), axis, title="by hand")
plt.show()

# %%
pd.DataFrame(c.numpy(), index=["A1", "A2", "A3"], columns=["B1", "B2", "B3"]).round(2)

# %% [markdown]
# The first two diagonal entries are 1: steady. The entries A1-B2 and A2-B1 are also 1: a copy. The
# third diagonal entry is far from 1: unsteady.
#
# The aim is the identity matrix: ones on the diagonal, zeros elsewhere. The loss is the distance to
# it:
#
# $$\mathcal{L} = \underbrace{\sum_i (1 - c_{ii})^2}_{\text{invariance}} +
# \lambda \underbrace{\sum_i \sum_{j \ne i} c_{ij}^2}_{\text{redundancy}}$$
#
# The weight $\lambda$ is small, because there are many more entries off the diagonal than on it.

# %%
invariance, redundancy = barlow.loss_terms(c)
print(f"invariance {invariance:.3f}, redundancy {redundancy:.3f}")

# %% [markdown]
# ## The loss in ten lines of torch
#
# Standardize each feature over the batch, multiply, divide by the number of images.


# %%
def barlow_twins_loss(z_a, z_b, weight):
    a = (z_a - z_a.mean(0)) / z_a.std(0, unbiased=False)  # (B, D)
    b = (z_b - z_b.mean(0)) / z_b.std(0, unbiased=False)  # (B, D)
    c = a.T @ b / len(a)  # (D, D)
    diagonal = torch.diagonal(c)
    invariance = (1 - diagonal).pow(2).sum()
    redundancy = (c - torch.diag(diagonal)).pow(2).sum()
    return invariance + weight * redundancy


# %% [markdown]
# The library's loss should give the same on random outputs.

# %%
generator = torch.Generator().manual_seed(0)
z_a, z_b = torch.randn(2, 256, 128, generator=generator)
ours = barlow_twins_loss(z_a, z_b, weight=5e-3)
lightlys = BarlowTwinsLoss(lambda_param=5e-3)(z_a, z_b)
assert torch.isclose(ours, lightlys, rtol=1e-5)
print("Ten lines of torch and lightly agree to five digits.")

# %% [markdown]
# ### Where does the loss start?
#
# Random outputs do not correlate, so each diagonal entry is near 0 and costs about 1. With D
# features the loss starts near D. Compare the two numbers.

# %%
print(f"D = {z_a.shape[1]}, loss on random outputs = {lightlys:.0f}")

# %% [markdown]
# A loss that stays near D has learned nothing. The published run has D = 8192, and its mean over
# the first epoch was 7471.

# %% [markdown]
# ## The views
#
# What may change between two views of a radiograph? Position, size, exposure, sharpness. What may
# not: the finding must stay in view. So the demo recipe crops less than the paper's.

# %%
data = load_nih(settings)
preset = settings.pretrain
two_views = views.TwoViews(preset.views, preset.image_size)
print(f"{len(data.rows('train')):,} images to pretrain on; their labels stay unused")

# %% [markdown]
# Each column of the next figure is one image: above it is whole, below are its two views.

# %%
np.random.seed(0)
torch.manual_seed(0)
pictures = [np.array(data.images.pixels[row]) for row in data.rows("train")[:5]]
pairs = [two_views(picture) for picture in pictures]
shown = [views.view_to_image(pair[i]) for i in (0, 1) for pair in pairs]
plots.show_images([*pictures, *shown], ["image"] * 5 + ["view A"] * 5 + ["view B"] * 5, columns=5)
plt.show()

# %% [markdown]
# Some views are flipped, so the heart may lie on the wrong side. Some are blurred or solarized
# (bright values inverted). The paper's recipe also changes hue and saturation and drops color. On
# gray images these do nothing.

# %% [markdown]
# ## The network before training
#
# A ResNet gives each image its features. A small network behind it, the **projector**, turns them
# into the outputs that enter the loss. After training the projector is thrown away.

# %%
before = barlow.build_backbone(preset.arch, seed=settings.seed)
print(f"{preset.arch}: {barlow.feature_count(before)} features; projector {preset.projector}")

# %% [markdown]
# ## The real run
#
# The next cell pretrains with lightly's loss and projector, under PyTorch Lightning. Only the
# training part is used, and no label of it. In JupyterLab a bar shows how far it is.

# %% tags=["nbval-ignore-output"]
path = pretraining.pretrain(settings, data, seed=settings.seed)

# %%
log = pretraining.training_log(path)
assert len(log) == pretraining.epoch_count(preset, len(data.rows("train")))
print("The log has one row for each epoch.")

# %% [markdown]
# Look for three things in the log: the loss falls from about D; the mean
# of the diagonal rises towards 1; the mean off the diagonal stays small.

# %%
columns = {
    "loss": "loss (mean of the epoch)",
    "diagonal_mean": "mean of the diagonal",
    "offdiagonal_abs_mean": "mean |off the diagonal|",
}
plots.plot_training_log(log, columns)
plt.show()

# %% [markdown]
# The features became steady, without becoming copies of each other. The matrix itself, of 128 of
# the outputs, for random weights and for a batch of images after training:

# %%
after, _ = pretraining.arm_backbone(settings, "pretrained", seed=settings.seed)
trained = pretraining.feature_correlation(settings, after, data)
untrained = pretraining.feature_correlation(settings, before, data)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
plots.plot_matrix(untrained[:128, :128].numpy(), axes[0], title="features, random weights")
plots.plot_matrix(trained[:128, :128].numpy(), axes[1], title="features, pretrained")
plt.show()

# %% [markdown]
# These are the features of the backbone, before the projector: what notebooks 03 to 05 use. A
# random network's features are nearly all copies of each other. Pretraining told them apart.

# %%
last = log.iloc[-1]
claim(last["loss"] < 0.5 * preset.projector[-1], "the loss ends below half of D", settings)
claim(last["diagonal_mean"] > 0.5, "the outputs of two views became alike", settings)
claim(last["offdiagonal_abs_mean"] < 0.3, "the outputs did not become copies", settings)

# %% [markdown]
# ## Did the features learn anything?
#
# A test without any training: find the nearest images in feature space, and let their labels vote.
# The score is the AUROC: 0.5 is chance, 1 is perfect. The baseline is the same network with random
# weights. It is a real baseline: even random filters react to size, brightness and edges.

# %%
arms = {"random": before, "pretrained": after}
features = {
    arm: pretraining.features(settings, backbone, data.images.pixels, arm)
    for arm, backbone in arms.items()
}

# %%
train, test = data.rows("train"), data.rows("test")
knn = {
    arm: probe.knn_scores(f[train], data.labels[train], f[test], neighbors=settings.probe.neighbors)
    for arm, f in features.items()
}
scored = {arm: probe.macro_auroc(data.labels[test], s, nih.LABELS) for arm, s in knn.items()}

# %% tags=["nbval-ignore-output"]
pd.DataFrame({"k-NN macro AUROC (test)": {arm: s.value for arm, s in scored.items()}}).round(3)

# %% [markdown]
# Findings are hard for so small a network. So ask for something easier that nobody told it either:
# was the patient X-rayed from the front (AP) or from behind (PA)? The table gives the view; the
# training never saw it.

# %%
is_ap = (data.entries["view"] == "AP").to_numpy(int)[:, None]
votes = probe.knn_scores(
    features["pretrained"][train],
    is_ap[train],
    features["pretrained"][test],
    neighbors=settings.probe.neighbors,
)
view_auroc = probe.auroc(is_ap[test], votes)[0]
claim(view_auroc > 0.65, "the features tell AP from PA, without ever being told", settings)

# %% [markdown]
# Back to the findings, and to the comparison with random weights.
#
# How sure is the difference? Draw the test patients again, with replacement, many times. The
# interval holds the middle 95% of the differences.

# %%
gain = probe.macro_auroc_interval(
    data.labels[test],
    [knn["pretrained"]],
    data.patients[test],
    minus=[knn["random"]],
    resamples=settings.probe.resamples,
    seed=settings.seed,
)
plots.plot_estimates(
    pd.DataFrame([{"name": "pretrained - random", **gain.as_dict()}]),
    xlabel="difference of k-NN macro AUROC (test)",
)
plt.show()

# %% [markdown]
# Read the figure like this: an interval right of zero speaks for pretraining, one that covers zero
# leaves it open. It is one run with one seed. Notebook 03 asks the same with better probes and
# few labels.

# %%
results.add(
    diagonal_mean=last["diagonal_mean"],
    offdiagonal_abs_mean=last["offdiagonal_abs_mean"],
    knn_auroc={arm: s.value for arm, s in scored.items()},
    knn_difference=gain.as_dict(),
    knn_view_auroc=view_auroc,
    loss_start=log["loss"].iloc[0],
    loss_end=last["loss"],
)
results.save().name

# %% [markdown]
# ## What this does not show
#
# One seed, one small network, one small data set. In the demo the images are synthetic: the run
# shows how the method works, not how well it works on patients. And k-NN shows what the features
# hold, not what a detector can make of them.
#
# ## What you learned
#
# - The loss compares the cross-correlation of two views with the identity, and starts near D.
# - Views may change what does not matter; for radiographs that is less than for photographs.
# - A log is read by its two halves: diagonal and off-diagonal.
# - A random network is a baseline to beat, not a zero.
#
# ## Questions to think about
#
# 1. What would the loss do if both views were the same image, unchanged?
# 2. The batch has 128 images and the matrix 512 x 512 entries. How noisy is one entry of random
#    features? Compare with the off-diagonal mean of the log.
# 3. Flipping puts the heart on the right. Which finding could that hurt?
#
# Go on with [03 linear_evaluation](03_linear_evaluation.ipynb).
