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
# - To compute the loss by hand, in ten lines of torch, and with lightly.
# - Why the loss starts at the number of features, and what each of its two terms pulls at.
# - Which views suit radiographs, and which augmentations do nothing on them.
# - To pretrain a network for real, to read its log, and to see how far its weights moved.
# - To check whether the features learned anything, against a network that learned nothing.
# - To recognize four ways in which a run fails.
#
# **Time and memory:** the [README](../README.md) lists both. Most of it goes into the real run and the
# collapse lab. A finished real run of the same data and settings is read from `runs/`.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from lightly.loss import BarlowTwinsLoss
from torchvision.transforms import RandomResizedCrop

from cxr_helpers.course.ch02 import labs, pretraining
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch02, style
from cxr_helpers.data import nih
from cxr_helpers.evaluation import scoring
from cxr_helpers.pretraining import barlow, views

style.set_style()
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
# changes from view to view. The
# [**cross-correlation matrix**](../docs/glossary.md#cross-correlation-matrix) shows all three at once.
# Its entry in row i and column j is the correlation, over the images, of feature i in view A with
# feature j in view B: 1 where they go together, 0 where they have nothing in common, -1 where they are
# opposite. Look for the good feature, the copy and the unsteady one.

# %%
c = barlow.cross_correlation(z_a, z_b)
ch02.plot_correlations({"by hand": c.numpy()})
plt.show()
pd.DataFrame(c.numpy(), index=["A1", "A2", "A3"], columns=["B1", "B2", "B3"]).round(2)

# %% [markdown]
# The first two diagonal entries are 1: steady. The entries A1-B2 and A2-B1 are also 1: a copy. The
# third diagonal entry is far from 1: unsteady. That A3 also goes a little against B1 and B2 is chance.
#
# The aim is the identity matrix: ones on the diagonal, zeros elsewhere. The loss is the distance to it:
#
# $$\mathcal{L} = \underbrace{\sum_i (1 - c_{ii})^2}_{\text{invariance}} +
# \lambda \underbrace{\sum_i \sum_{j \ne i} c_{ij}^2}_{\text{redundancy}}$$
#
# The [invariance](../docs/glossary.md#invariance-term) term looks at the diagonal, the
# [redundancy](../docs/glossary.md#redundancy-term) term at all the rest. The weight $\lambda$ is
# small, because there are many more entries off the diagonal than on it: the more outputs, the smaller.

# %%
invariance, redundancy = barlow.loss_terms(c)
print(f"invariance {invariance:.3f}, redundancy {redundancy:.3f}")

# %% [markdown]
# All of the invariance term comes from feature 3, as $(1 + 0.8)^2$. Of the redundancy term, 1 each comes
# from A1-B2 and A2-B1, and 0.2 each from A3-B1 and A3-B2.
#
# ## The loss in ten lines of torch
#
# Standardize each feature over the batch, multiply, divide by the number of images. B is the number of
# images in a batch and **D the number of features that enter the loss**. The library's loss should give
# the same on random outputs.


# %%
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
ours = barlow_twins_loss(z_a, z_b, weight=5e-3)
lightlys = BarlowTwinsLoss(lambda_param=5e-3)(z_a, z_b)
assert torch.isclose(ours, lightlys, rtol=1e-5, atol=0)
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

# %% [markdown]
# So the loss starts near D, and a loss that stays there has learned nothing. (Real networks start
# somewhat lower: two views of an image are alike even to random weights.)
#
# ### What does each term pull at?
#
# Take 24 images, one point each. The arrows show where a gradient step on one term alone would move
# each point. Left: one feature, in view A and in view B; it is noisy. Right: two features of view A
# that nearly copy each other, while view B is held still. Look at how the arrows stand to the gray line.

# %%
steady = torch.randn(24, 1, generator=generator)
views_ab = steady + 0.5 * torch.randn(24, 2, generator=generator)  # one feature in views A and B
z_a, z_b = views_ab.T[..., None].clone().requires_grad_()  # (24, 1) each
invariance, _ = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
pull = torch.cat(torch.autograd.grad(-invariance, [z_a, z_b]), dim=1)

copies = (steady + 0.5 * torch.randn(24, 2, generator=generator)).requires_grad_()  # two features
_, redundancy = barlow.loss_terms(barlow.cross_correlation(copies, copies.detach()))
(push,) = torch.autograd.grad(-redundancy, [copies])

# %%
panels = {
    "invariance: towards the line": (views_ab.numpy(), pull.numpy()),
    "redundancy: away from the line": (copies.detach().numpy(), push.numpy()),
}
axes = [("feature 1, view A", "feature 1, view B"), ("feature 1, view A", "feature 2, view A")]
ch02.plot_pull(panels, axes)
plt.show()

# %% [markdown]
# On the left most arrows point to the line: invariance pulls the two views of an image together. On
# the right they point away from it: redundancy spreads the points, so that knowing feature 1 no longer
# tells feature 2.
#
# ### Exercises
#
# Fill in the dots, run the cell, and `check` says what is wrong or that it is right. Stuck? In a new
# cell, `hint("2.1")` nudges, `hint("2.1", 2)` says more, `solution("2.1")` shows one way. Nothing below
# depends on your answers. What is done is remembered, and notebook 00 counts it.
#
# **Exercise 2.1, two minutes.** Let view B give exactly the negative of view A: `z_b = -z_a`, with
# D = 128 features. Predict the invariance term, without running it.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

invariance_of_opposites = ...
check("2.1", invariance_of_opposites)

# %%
quiz("2.A")

# %% [markdown]
# ## The views
#
# What may change between two views of a radiograph? Position, size, exposure, sharpness. What may
# not: the finding must stay in the picture. Here is one radiograph under each
# [augmentation](../docs/glossary.md#augmentation) of the recipe of the paper's code alone. Look for those
# that change nothing, and for those that no X-ray machine would make.

# %%
data = load_nih(settings)
preset = settings.pretrain
picture = np.array(data.images.pixels[data.rows("train")[0]])
pictures = views.each_augmentation(picture, "paper", preset.image_size, seed=3)
style.show_images(list(pictures.values()), list(pictures), columns=5, width=1.7)
plt.show()
print("on a gray image these do nothing:", views.no_effect_on_gray(picture, "paper", 96))

# %% [markdown]
# Saturation, hue and grayscale are made for color photographs. The crop leaves a shoulder and a corner
# of a lung; solarization turns the brightest parts dark. The demo's recipe leaves out the three that do
# nothing, and solarizes rarely.
#
# The crop matters more. If a finding is in view A and not in view B, the loss asks the network to
# ignore it. How often is at least half of a finding in both views? The real table of NIH boxes can
# tell, with a thousand pairs of crops. (The evening's run is a longer one that ships with the course.)

# %%
boxes = nih.read_boxes(packaged_table("nih_boxes"))
boxes_xyxy = torch.tensor(boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy())


def draw_crops(min_scale, count=1000):
    image = torch.empty(1, 1, 1).expand(1, 1024, 1024)  # only its size counts
    crops = [
        RandomResizedCrop.get_params(image, scale=(min_scale, 1.0), ratio=(3 / 4, 4 / 3))
        for _ in range(count)
    ]
    return torch.tensor(crops)


def seen_in_both(min_scale):
    first = views.share_in_view(boxes_xyxy, draw_crops(min_scale)) >= 0.5
    second = views.share_in_view(boxes_xyxy, draw_crops(min_scale)) >= 0.5
    return (first & second).double().mean()


# %%
print(f"{len(boxes)} findings with a box")
torch.manual_seed(0)
recipes = {name: PRESETS[name]["pretrain"] for name in ("paper", "evening")}
for name, recipe in {**recipes, "this run": preset}.items():
    scale = recipe.min_crop
    print(f"{name}: crops of {scale:.0%} or more, in both views {seen_in_both(scale):.0%}")

# %% [markdown]
# With the paper's crops, nearly half of the pairs lose most of a finding in one view at least. Larger
# crops keep it, but they have a price: two views that hardly differ are soon alike, and then teach
# little. Small crops teach more, to a run that has the steps for it.
#
# `BYOLView1Transform` and `BYOLView2Transform` of lightly make the views; `TwoViews` is the two of them
# with a recipe's numbers. These are the steps of the first:

# %%
make_views = pretraining.two_views(preset)
steps = make_views.transform.transforms[0].transform.transforms
print(" > ".join(type(step).__name__ for step in steps))
first, second = views.recipe(preset.views)
print(f"blurred: {first['gaussian_blur']:.0%} of views A, {second['gaussian_blur']:.0%} of views B")

# %% [markdown]
# Each column of the next figure is one image: above it is whole, below are its two views. Could you tell
# that both show the same patient?

# %%
torch.manual_seed(0)
np.random.seed(0)  # lightly's blur and solarization draw from numpy
images = data.images.pixels[data.rows("train")[:4]]
pairs = [make_views(image) for image in images]
view_a, view_b = ([views.view_to_image(pair[side]) for pair in pairs] for side in (0, 1))
names = ["image"] * 4 + ["view A"] * 4 + ["view B"] * 4
style.show_images([*images, *view_a, *view_b], names, columns=4, width=1.5)
plt.show()

# %% [markdown]
# A radiologist would take a flipped image for a mistake or, rarely, for a patient whose heart lies on the
# right; the network is told that it makes no difference.
#
# ### Exercise: what both views hold
#
# **Exercise 2.2, fifteen minutes.** A finding has a box, and each view is a crop; all three are
# `(x_min, y_min, x_max, y_max)` on the image. Which share of the finding's area lies in *both* crops?


# %%
def share_in_both(box, crop_a, crop_b):
    return ...  # your code


check("2.2", share_in_both)

# %% [markdown]
# ## The real run
#
# A ResNet, the [backbone](../docs/glossary.md#backbone), gives each image its features. A small network
# behind it, the [**projector**](../docs/glossary.md#projector), turns them into the outputs that enter
# the loss: the last of its widths is D. After training the projector is thrown away.

# %%
before = barlow.build_backbone(preset.arch, seed=settings.seed)
print(f"{preset.arch}: {barlow.feature_count(before)} features; projector {preset.projector}")
theirs = PRESETS["paper"]["pretrain"].redundancy_weight
print(f"redundancy weight {preset.redundancy_weight} (in the paper's code {theirs})")
print(f"{preset.phantoms or len(data.rows('train')):,} images; their labels stay unused")

# %% [markdown]
# The next cell pretrains with lightly's loss and projector, under PyTorch Lightning. In JupyterLab a
# bar shows how far it is. This is the cell to wait for; read on meanwhile, the stored figures show what
# to expect. Were it killed, it would go on from the last
# [checkpoint](../docs/glossary.md#checkpoint) and end with the same weights.

# %% tags=["nbval-ignore-output"]
path = pretraining.pretrain(settings, data, seed=settings.seed)

# %% [markdown]
# The log has a row for each epoch, and one from before training. Every few epochs the run also measured
# itself on validation patients, whom it never trained on. Look for these: the loss falls from about D.
# The mean of the diagonal rises towards 1, on new patients nearly as far as in training. The mean off
# the diagonal (without its sign) ends low.
#
# Compare training with validation only in the later part. Before training, the outputs of random weights
# on validation images all follow the brightness of the image: views are alike, so the diagonal is high,
# and outputs are copies, so the rest is high too. Training starts lower, because there
# [batch norm](../docs/glossary.md#batch-norm) takes out what all images of a batch share.
#
# The features spread out: the **spread** is 0 where all images have the same features, and near 1
# where they point in all directions. The **effective rank** says how many directions they use; mind how
# short its axis is. It is an alarm for [collapse](../docs/glossary.md#collapse), not a score: it may
# move a little either way, and must not drop to a few.

# %%
log = pretraining.training_log(path)
assert log["step"].iloc[-1] >= preset.min_steps
panels = {
    "loss (mean of the epoch)": {"loss": "loss"},
    "mean of the diagonal": {"diagonal_mean": "training", "heldout_diagonal": "validation"},
    "mean |off the diagonal|": {
        "offdiagonal_abs_mean": "training",
        "heldout_offdiagonal": "validation",
    },
    "k-NN AUROC (validation)": {"knn_view": "AP or PA", "knn_findings": "findings"},
    "spread of the features": {"spread": "spread"},
    "effective rank of the features": {"effective_rank": "rank"},
}
ch02.plot_log(log, panels)
plt.show()

# %% [markdown]
# The loss falls, the diagonal rises, the features spread out. In the k-NN scores the most similar
# images vote. They tell AP from PA from the start: random filters see brightness and zoom. For findings
# the few validation patients make each point uncertain, so the question waits for the test patients
# below.
#
# The curve off the diagonal has a floor. The correlation of two *independent* features over N
# images is not 0; its mean size is about $\sqrt{2 / (\pi N)}$.

# %%
counts = {"a training batch": preset.batch_size, "validation": len(data.rows("val"))}
for name, count in counts.items():
    print(f"{name}: {count} images, floor {np.sqrt(2 / np.pi / count):.3f}")

# %% [markdown]
# The matrix itself, of the first 64 outputs, on validation patients. Look for the diagonal, and for
# color that goes away beside it.

# %%
matrices = pretraining.correlations(path)
titles = dict(zip(("before", "halfway", "after"), matrices.values(), strict=True))
ch02.plot_correlations(titles)
plt.show()

# %% [markdown]
# Before training, outputs copy each other: color everywhere. Afterwards the diagonal stands out.
# Validation patients are few, so their matrix is noisy. In numbers (before training no loss is taken):

# %% tags=["nbval-ignore-output"]
shown = ["loss", "diagonal_mean", "offdiagonal_abs_mean", "heldout_diagonal", "heldout_offdiagonal"]
shown += ["knn_view", "knn_findings"]
log.iloc[[0, -1]].set_index(pd.Index(["before", "last epoch"]))[shown].T.round(3)

# %%
last = log.iloc[-1]
claim(last["diagonal_mean"] > 0.6, "the outputs of two views became alike", settings)
claim(last["heldout_diagonal"] > 0.5, "they are alike for new patients too", settings)
claim(last["offdiagonal_abs_mean"] < 0.12, "the outputs did not become copies", settings)

# %% [markdown]
# ### Exercise: the batch for a floor
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
# A loss can fall while the backbone hardly changes: the projector behind it can do much alone, and it
# is thrown away. So the log also holds how far the kernels of each stage are from where they began, as
# a share of their length. Beside this run stands one that ships with the course: the same network, but
# an evening of pretraining on more phantoms, with smaller crops. Look at how far each goes. The last
# panel shows what it brought: the k-NN score of findings on validation patients, against the way of the
# last stage.

# %%
moved = {pretraining.ARM_NAMES["pretrained"]: log}
if pretraining.evening_path(settings).is_file():
    evening = pretraining.training_log(pretraining.evening_path(settings))
    moved[pretraining.ARM_NAMES["evening"]] = evening
else:
    print("The evening's run is left out: its weights are not in the folder of the course.")
ch02.plot_moved(moved)
plt.show()

# %%
stages = ["moved_layer1", "moved_layer2", "moved_layer3", "moved_layer4"]
claim(last[stages].min() > 0.02, "every stage moved", settings)
claim(last["moved_layer4"] > last["moved_layer1"], "layer4 moved more than layer1", settings)

# %% [markdown]
# Movement is a diagnosis, not a score. Weights that stand still have learned nothing; weights that moved
# may have gone anywhere, and a higher learning rate alone takes them further. Nor has a stage learned
# more because it moved more: AdamW gives every weight steps of about the same size, and the kernels of
# conv1 and of the late stages start with the smallest numbers. What the way was worth, only a score on
# other patients says. In the last panel they are few, so one dot above its neighbor means little.
#
# ## Did the features learn anything?
#
# A test without any training: find the nearest images in feature space, and let their labels vote
# ([k-NN](../docs/glossary.md#k-nn)). The score is the [AUROC](../docs/glossary.md#auroc): 0.5 is
# chance, 1 is perfect. The baseline is the same network with random weights, and a real one: even random
# filters react to size, brightness and edges.

# %%
features = {}
for arm in ("random", "pretrained", "evening"):
    backbone, sentence = pretraining.arm_backbone(settings, arm, seed=settings.seed)
    if backbone is None:
        print(sentence)
    else:
        features[arm] = pretraining.features(settings, backbone, data.images.pixels, arm)

# %% [markdown]
# ### What nobody told them
#
# Was the patient X-rayed from the front (AP) or from behind (PA)? Is the patient female? Are two images
# of the same patient? And which findings are there? The table of the images says so; pretraining never
# saw it. The demo draws its findings larger and plainer than most real ones are, and nearly all of its
# labels are right; notebook 01 shows one finding both ways.

# %%
test, patients = data.rows("test"), data.patients
known = {"findings": data.labels, **labs.label_free_targets(data)}
same = "nearest is the same patient"
votes, scores = {}, {}
for arm, f in features.items():
    votes[arm] = {name: labs.knn_votes(settings, data, f, y) for name, y in known.items()}
    scores[arm] = {
        name: float(np.nanmean(scoring.auroc(known[name][test], v)))
        for name, v in votes[arm].items()
    }
    scores[arm][same], chance = labs.same_patient_share(f[test], patients[test])
scores["chance"] = dict.fromkeys(known, 0.5) | {same: chance}

# %% tags=["nbval-ignore-output"]
pd.DataFrame(scores).rename(columns=pretraining.ARM_NAMES).round(3)

# %%
claim(scores["pretrained"]["AP view"] > 0.65, "the features tell AP from PA, untold", settings)
claim(scores["pretrained"][same] > 2 * chance, "they recognize patients far above chance", settings)

# %% [markdown]
# The first rows are AUROC on test patients, the last is a share. Read the column of random weights first:
# all tell AP from PA. Only a difference between the columns can speak for pretraining. Features that
# recognize patients are a warning too: if a patient is in training and in test, recognizing is enough to
# score. Notebook 03 measures that.
#
# ### Nearest neighbors
#
# The test image with the most labels, and the four training images that each network holds nearest to
# it. Above each stands its view and the patient's sex. Look at what the neighbors share with the query.

# %%
query = test[data.labels[test].sum(axis=1).argmax()]
neighbors = {}
for arm, f in features.items():
    near = labs.nearest(f, query, data.rows("train"), count=4)
    lines = [f"{data.entries['view'][r]}, {data.entries['sex'][r]}" for r in near]
    shown_near = [np.array(data.images.pixels[r]) for r in near]
    neighbors[pretraining.ARM_NAMES[arm]] = (shown_near, lines)
about = f"query: {data.entries['view'][query]}, {data.entries['sex'][query]}"
ch02.plot_neighbors(np.array(data.images.pixels[query]), neighbors, title=about)
plt.show()

# %% [markdown]
# One query is an anecdote; the table above counted. Pictures like this are for finding out what went
# wrong: neighbors that share only a border, a marker or their brightness are a bad sign.
#
# ### Is the difference more than luck?
#
# Draw the test patients again, with replacement, many times
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
style.plot_estimates(gains, groups="arm", xlabel="k-NN AUROC minus random weights' (test)")
plt.show()

# %% tags=["nbval-ignore-output"]
for row in gains.itertuples():
    verdict = "for pretraining" if row.low > 0 else "open" if row.high > 0 else "against it"
    print(f"{row.arm}, {row.name}: {row.value:+.3f} ({row.low:+.3f} to {row.high:+.3f}), {verdict}")

# %%
own = gains[gains["arm"] == pretraining.ARM_NAMES["pretrained"]].set_index("name")
claim(own["value"].mean() > 0, "over the three questions the mean gain is above zero", settings)

# %% [markdown]
# One run, one seed, and a coarse question. Notebook 03 asks for the findings with better probes and few
# labels; the [benchmarks](../benchmarks/README.md) repeat this with several seeds.
#
# ### Exercise: a vote of neighbors
#
# **Exercise 2.4, fifteen minutes.** Given training `features` (images, features), their `labels`, and
# one `query`: return the mean label of the `k` training images with the highest cosine similarity.


# %%
def knn_vote(features, labels, query, k):
    return ...  # your code


check("2.4", knn_vote)

# %% [markdown]
# ## Is my loss normal?
#
# Losses start near D, and D differs between runs. Divided by D they can be compared at their start and in
# their shape; the level that they reach also depends on the redundancy weight and the batch. The one run
# whose log lies beside the paper's code had D = 8192 and 800 epochs. These are means over an epoch, from
# that [log](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/LOG.TXT).

# %%
published = {0: 7471, 9: 1721, 49: 861, 99: 687, 199: 573, 399: 487, 799: 449}
theirs = ([(e + 1) / 800 for e in published], [v / 8192 for v in published.values()])
trained, width = log.dropna(subset="loss"), preset.projector[-1]
ours = (trained["epoch"] / last["epoch"], trained["loss"] / width)
ch02.plot_losses_by_width({"published, D = 8192": theirs, "this run": ours})
plt.show()
start, end = trained["loss"].iloc[[0, -1]]
claim(0.5 < start / width < 1.5, "the loss starts near D", settings)
claim(end < 0.6 * start, "it falls by at least 40%", settings)

# %% [markdown]
# Both fall steeply first and slowly later; that shape is normal. The published run had all of NIH's
# images, two days and ImageNet weights to start from, this one has few images, minutes and random
# weights.
#
# ## Collapse lab: four runs that fail
#
# Five short runs at 32 pixels: one healthy, and four that lack one thing each. Before you look:
# what would the log of each show?
#
# 1. no redundancy term: only 'two views alike' is asked;
# 2. no invariance term: only 'no copies' is asked;
# 3. no augmentation: both views are the same image;
# 4. batch of 4: the correlation is taken over four images.

# %%
small = replace(settings, pretrain=replace(preset, image_size=32, batch_size=96))
runs = labs.collapse_lab(small, data, steps=40)
logs = {name: run.log for name, run in runs.items()}
metrics = {
    "loss": "loss",
    "diagonal_mean": "mean of the diagonal",
    "offdiagonal_abs_mean": "mean |off the diagonal|",
}
ch02.plot_runs(logs, metrics)
plt.show()

# %% [markdown]
# Only the healthy run has a diagonal that rises while the off-diagonal stays low; the table below says
# what the others show. The next figure has the matrices of the outputs on validation patients, at the
# end of each run. Which has a diagonal on a pale ground?

# %%
ends = {name.replace(" term", ""): run.correlation.numpy() for name, run in runs.items()}
ch02.plot_correlations(ends, shown=32)
plt.show()

# %% [markdown]
# Only the healthy run has one. Now in numbers: the first two rows are of the outputs on validation
# patients, the others of the backbone's features. Look for the rows that sound the alarm.

# %% tags=["nbval-ignore-output"]
figures = pd.DataFrame({name: run.figures for name, run in runs.items()})
figures.loc[["heldout_diagonal", "heldout_offdiagonal", "effective_rank", "knn_view"]].round(2)

# %% [markdown]
# The two rows of the outputs do. The effective rank need not in so short a run: outputs can be copies
# while the features behind them are not yet. Nor need the last row: random weights tell AP from PA, and a
# sick run can as well. The small batch learned to make views alike, but not to remove copies; it also saw
# far fewer images in as many steps.

# %%
ends = {name: one.iloc[-1] for name, one in logs.items()}
copied, healthy = (ends[n]["offdiagonal_abs_mean"] for n in ("no redundancy term", "healthy"))
unsteady = figures["no invariance term"]["heldout_diagonal"]
claim(copied > 1.5 * healthy, "no redundancy term: copies", settings)
claim(unsteady < ends["healthy"]["diagonal_mean"] - 0.1, "no invariance term: unsteady", settings)
solved = logs["no augmentation"]["diagonal_mean"].iloc[0]
claim(solved > 0.99, "no augmentation: solved at once", settings)
stuck = ends["batch of 4"]["offdiagonal_abs_mean"]
claim(stuck > 0.3, "batch of 4: the off-diagonal stays high", settings)

# %% [markdown]
# How each would be noticed in a real log:
#
# | what is missing | what the log shows | what looks fine all the same |
# |---|---|---|
# | redundancy term | off-diagonal high and rising, matrix in two colors | the loss, the lowest of all, and the diagonal |
# | invariance term | the diagonal does not rise | the off-diagonal, and a loss far below D |
# | augmentation | diagonal 1 from the first step; the loss starts far below D; on augmented validation images the diagonal is low | diagonal and loss in training |
# | a large batch | off-diagonal stuck at its floor, loss far above D | the diagonal on validation images; no curve says why the rest is wrong |
#
# So never watch the loss alone. Watch the diagonal and the off-diagonal with its floor, and both on
# images that training does not see.
#
# ### Exercises
#
# **Exercise 2.5, five minutes.** Four runs, of which you see only the last line of their logs. Nothing
# was trained for this table: its outputs are random numbers, made as each fault leaves them.

# %%
from cxr_helpers.course.exercises import ch02 as nb02

nb02.mystery_runs()

# %% [markdown]
# Give each run its name: `"healthy"`, `"copies"`, `"unsteady"` or `"small batch"`.

# %%
diagnosis = {"run 1": ..., "run 2": ..., "run 3": ..., "run 4": ...}
check("2.5", diagnosis)

# %%
quiz("2.B")

# %% [markdown]
# ## Your own figure
#
# **Exercise 2.6, half an hour.** Does the floor hold? For batches of 4, 8, 16, 32, 64, 128, 256 and
# 512 images draw two curves: the formula, and the mean size of the off-diagonal entries that you
# measure on independent random outputs with 64 features. Logarithmic axes help; name both.


# %%
def floor_figure(axis):
    return ...  # your code


check("2.6", floor_figure)

# %% [markdown]
# The figures of this run go into a file, which the ledger and the README read.

# %%
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
# ## What this does not show
#
# One seed, one small network, one small data set of synthetic images: how the method works, not how well
# it works on patients. k-NN shows what the features hold, not what a detector can make of them. The
# collapse lab shows how failures look, not how large they become.
#
# ## What you learned
#
# - The loss compares the cross-correlation of two views with the identity, and starts near D.
# - Invariance pulls two views of an image together; redundancy turns features away from each other.
# - Views may change what does not matter: color augmentations do nothing on radiographs.
# - A log is read by its two halves, diagonal and off-diagonal, and the second has a floor.
# - How far the weights moved tells whether training did anything, not whether it did good.
# - A random network is a baseline to beat, not a zero.
# - A falling loss alone proves nothing: failed runs have one too. Losses are compared after division by D.
#
# ## Questions to think about
#
# 1. By the formula a batch of 4 has a floor of 0.40. At which batch would the floor be 0.05?
# 2. Flipping puts the heart on the right. Which finding could that hurt?
# 3. The features recognize patients. For which use is that good, and for which is it a danger?
#
# Go on with [03 linear_evaluation](03_linear_evaluation.ipynb).
