# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 03 · Linear evaluation: how good are the features?
#
# **The question: how good are the features, and at how many labels?**
#
# Labels are what a hospital has least of. So the useful question is not 'how good are the
# features', but 'how good are they when I have labels for a hundredth, a tenth, or all of my
# images'. The answer is a curve. This notebook draws it, with intervals. Then it shows five ways
# that can make the curve look better than it is.
#
# The paper compares with a network that learned from photographs (ImageNet). Those weights do not
# come with the course: where they lie on your machine, they are one more line of each curve. Where
# not, the comparison is with random weights, with plain pixels and with training from scratch.
#
# ## What you will learn
#
# - What freezing a network means, and what a linear probe is.
# - To draw AUROC and average precision against the share of labels, for several initializations,
#   beside what needs no pretraining.
# - To put an interval on a curve and on a difference.
# - To check whether predicted probabilities mean what they say.
# - What remains of a result at another site.
# - Five traps that may flatter a score, how much each does here, and how to notice it.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. Networks
# that are trained end to end take most of the time: start Run All and read on meanwhile. If your
# time is short, leave out 'What remains at another site?'. The curve and the leakage lab are the
# core.

# %%
import copy
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from cxr_helpers.course.ch03 import end_to_end, leakage, linear, sites
from cxr_helpers.course.core.data import load_nih, load_vindr
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.stored import read_stored
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch03, style
from cxr_helpers.data import nih, splits
from cxr_helpers.evaluation import calibration, probe, scoring
from cxr_helpers.evaluation.feature_cache import backbone_key

style.set_style()
settings = load_settings()
results = Results("03_linear_evaluation", settings)

# %% [markdown]
# ## By hand: two scores
#
# Five images, two of them with a finding. For short we call these ill and the others healthy, here
# and below; a radiologist would only say with and without the finding. A model gives each image a
# score. Take each pair of one ill and one healthy image: how often has the ill one the higher
# score? That share is the area under the ROC curve, [**AUROC**](../docs/glossary.md#auroc). Chance
# is 0.5.

# %%
ill = np.array([0, 0, 1, 0, 1])
score = np.array([0.1, 0.4, 0.35, 0.2, 0.8])
wins = [score[i] > score[h] for i in np.flatnonzero(ill) for h in np.flatnonzero(ill == 0)]
print(f"{sum(wins)} of {len(wins)} pairs in the right order: AUROC {np.mean(wins):.3f}")

# %% [markdown]
# Now go down the list from the highest score. At each ill image, ask which share of the images so
# far is ill. The mean of these shares is the
# [**average precision**](../docs/glossary.md#average-precision-ap), AP.


# %%
def precision_of(ranked):
    shares = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return shares[ranked == 1].mean()


ranked = ill[np.argsort(-score)]
print(f"ranked {ranked.tolist()}: AP {precision_of(ranked):.3f}")

# %% [markdown]
# That the two scores are equal is a coincidence. And what does a score say that is mere noise? Two
# ill images can stand at any two of five places, all equally likely. Guess first: is the mean AP
# the share of ill images, two fifths?

# %%
places = list(combinations(range(5), 2))
by_noise = [precision_of(np.isin(range(5), pair)) for pair in places]
print(f"chance: {np.mean(by_noise):.3f}, the mean of {len(places)} orders; ill: {ill.mean():.1f}")

# %% [markdown]
# More than the share. With many ill images the chance level of AP comes near their share; with few
# it lies above it. So AP falls with a rare finding, but its chance level must be simulated.
#
# The course's functions and scikit-learn's must say the same as we by hand.

# %%
ours = scoring.auroc(ill[:, None], score[:, None])[0]
our_ap = scoring.average_precision(ill[:, None], score[:, None])[0]
assert np.isclose(ours, np.mean(wins)) and np.isclose(ours, roc_auc_score(ill, score))
assert np.isclose(our_ap, average_precision_score(ill, score))
print("By hand, scikit-learn and the course agree.")

# %% [markdown]
# ### Exercises
#
# Fill in the dots, run the cell, and `check` says what is wrong or that it is right. Stuck? In a new
# cell, `hint("3.1")` nudges, `hint("3.1", 2)` says more, `solution("3.1")` shows one way. Nothing below
# depends on your answers. What is done is remembered, and notebook 00 counts it.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

# %% [markdown]
# **Exercise 3.1, two minutes.** All five scores above are multiplied by 10, then the exponential of
# each is taken. Predict the AUROC.

# %%
auroc_afterwards = ...
check("3.1", auroc_afterwards)

# %% [markdown]
# **Exercise 3.2, ten minutes.** Write AUROC so that two equal scores count as half a pair.


# %%
def auroc(ill, scores):
    return ...  # your code


check("3.2", auroc)

# %% [markdown]
# ## Which labels can be scored?
#
# A label with fewer than five positives in one of the parts cannot be scored. It is named here,
# and not averaged in. Five are few: labels just above the bar will have wide intervals. The choice
# looks at counts only, never at a score.

# %%
data = load_nih(settings)
columns = linear.scorable_labels(data)
names = linear.label_names(columns)
print(f"{len(data.entries):,} images; labels with enough positives: {len(columns)} of 14")
print("left out:", ", ".join(name for name in nih.LABELS if name not in names) or "none")

# %% [markdown]
# The split comes next. No patient is in two parts. **Training** patients teach the probe,
# **validation** patients choose its settings, **test** patients are scored at the end.

# %%
train, val, test = (data.rows(part) for part in ("train", "val", "test"))
splits.check_split(data.split, data.patients)
labels, ids = data.labels[:, columns], np.array(data.images.image_ids)
parts = data.entries.assign(part=data.split).groupby("part", sort=False)
parts.agg(images=("image_id", "size"), patients=("patient_id", "nunique"))

# %% [markdown]
# An [interval](../docs/glossary.md#interval-95) is made of patients, so few test patients mean wide
# intervals, however many images they have.
#
# ## Freeze the network
#
# [Frozen](../docs/glossary.md#frozen) means: nothing in the network changes any more. That is more
# than 'no optimizer'. A network in training mode updates the running means of its [batch
# norms](../docs/glossary.md#batch-norm) whenever an image passes. Watch the fingerprint of weights
# and buffers. Each way to start the network, random or pretrained, is an
# [arm](../docs/glossary.md#arm). `pretrained` is what your minutes in notebook 02 made, `evening` what
# an hour makes: its weights come with the course. `pixels` is no network. Its features are the image
# itself, as 16 x 16 gray values; what these reach needs no network at all.

# %% tags=["nbval-ignore-output"]
checkpoints = {}  # your own: {"name": "path of a .safetensors or .pth file"}
arms, left_out = linear.load_arms(settings, data, checkpoints=checkpoints)
print(*[f"{name}: {arm.source}" for name, arm in arms.items()], *left_out, sep="\n")

# %%
assert {"random", "pretrained"} <= arms.keys()
network = copy.deepcopy(arms["random"].backbone).cpu()
before, images = backbone_key(network), torch.rand(8, 3, 64, 64)
for mode in (network.eval, network.train):
    mode()(images)
    print(f"{mode.__name__}: unchanged {backbone_key(network) == before}")

# %% [markdown]
# In `eval` mode nothing moves; in `train` mode the network has changed without a single training
# step. So features are extracted in `eval` mode.
#
# Each image goes through once and becomes a row of numbers, its features. They are kept on disk
# under a name made of that fingerprint, so that no other network's features can slip in.

# %%
features = {name: linear.frozen_features(settings, arm, data.images) for name, arm in arms.items()}
f = features["pretrained"].of(ids)
print(f"{f.shape[0]:,} images, {f.shape[1]} features each")

# %% [markdown]
# ## One linear probe, by hand
#
# A [linear probe](../docs/glossary.md#linear-probe) is a logistic regression on frozen features: a
# weighted sum for each label, and nothing else. Here is one for the most frequent label, in plain
# torch. The sign $s_n$ is +1 for an image with the label and -1 for one without. The squared
# weights are penalized; $C$ says how little:
#
# $$\min_{w, b} \sum_n \log\left(1 + e^{-s_n (w^\top x_n + b)}\right) + \frac{\lVert w
# \rVert^2}{2 C}, \qquad s_n = \pm 1$$

# %%
k, C = int(labels[train].sum(axis=0).argmax()), 1e-3
x = torch.tensor((f[train] - f[train].mean(0)) / (f[train].std(0) + 1e-6))
y = torch.tensor(labels[train][:, k], dtype=torch.float32)
layer = nn.Linear(x.shape[1], 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.005, momentum=0.9)
for _ in range(500):
    fit = nn.functional.binary_cross_entropy_with_logits(layer(x)[:, 0], y)
    optimizer.zero_grad()
    (fit + layer.weight.pow(2).sum() / (2 * C * len(x))).backward()
    optimizer.step()

# %% [markdown]
# The course's probe solves the same problem for all labels at once. Both must rank the training
# images alike.

# %%
closed = probe.fit_path(f[train], labels[train][:, [k]], [C])[0]
by_hand = layer(x)[:, 0].detach().numpy()
agreement = spearmanr(by_hand, closed.scores(f[train])[:, 0]).statistic
assert agreement > 0.98
print("Five hundred steps of gradient descent and the course's probe agree.")

# %% [markdown]
# ### Choose the regularization on validation patients
#
# With weak [regularization](../docs/glossary.md#regularization) (large $C$) the probe learns its
# training images by heart. Look at which way each curve goes to the right, and at the gap between
# them.

# %%
path = probe.fit_path(f[train], labels[train], probe.REGULARIZATION)
by_part = {
    part: [scoring.macro_auroc(labels[rows], one.scores(f[rows]), names).value for one in path]
    for part, rows in {"training": train, "validation": val}.items()
}
axis = pd.DataFrame(by_part, index=probe.REGULARIZATION).plot(logx=True, style=["o--", "s-"])
axis.set(xlabel="C (large: weak regularization)", ylabel="macro AUROC")
plt.show()

# %% [markdown]
# The training curve only shows how much is learned by heart. The validation curve decides; its best
# point is taken. Now, once, the test patients.

# %%
fitted = probe.fit_probe(f[train], labels[train], f[val], labels[val], class_names=names)
one = scoring.macro_auroc(labels[test], fitted.scores(f[test]), names)
per_class = pd.Series(one.per_class, index=names)
xlabel = "AUROC (test), pretrained features, all labels"
table = pd.DataFrame({"AUROC": per_class})
style.plot_dots(table, xlabel=xlabel, reference=(0.5, "chance"))
plt.show()

# %%
claim(one.value > 0.5, "a linear probe on pretrained features beats chance", settings)

# %% [markdown]
# Some findings are easy for a probe, others stay near 0.5. The
# [**macro**](../docs/glossary.md#macro) AUROC is their plain mean, over the labels that can be
# scored.
#
# Do not read this as a list of what is hard for a radiologist: labels are partly wrong, the images
# are small, and few test patients carry some findings. A value below 0.5 may then be chance, and is
# no reason to turn the probe around: 'Label by label' below gives the intervals.

# %% [markdown]
# ## The curve
#
# Now with fewer labels. Each share is drawn patient by patient, and the larger contain the smaller.
# The smallest takes a patient for each label first. Chance decides which, so the draw is repeated.

# %%
draws = linear.draw_labels(settings, data, columns)
print(*draws.left_out or ["Every draw can be used."], sep="\n")
draws.table(data, columns)

# %% [markdown]
# Look at the first row: one percent is a handful of images of even fewer patients, and not every
# label has a positive among them. A label without one gets no probe in that draw. It is left out
# for all arms alike. So the first points of a line average over fewer labels than the rest:
# compare the arms at one share, not one arm at two shares.

# %%
truth = labels[test], data.patients[test]
probes = {
    name: linear.fit_probes(data, frozen, labels, names, draws) for name, frozen in features.items()
}
scores = {
    name: linear.probe_scores(fitted, features[name], ids[test]) for name, fitted in probes.items()
}

# %% [markdown]
# One line is missing: what a hospital without any pretraining would do. It trains the whole network
# on its labels, **from scratch**. [**Fine-tuning**](../docs/glossary.md#fine-tuning) does the same
# from pretrained weights. The paper's code does both, after its linear evaluation.
#
# Four times in each run, the validation and the test patients are scored. The check that is best on
# validation counts. The test scores of the others choose nothing; they are kept for trap 4 below.
# Each share has one draw here, and fine-tuning leaves out the largest, for time. The next cell takes
# longest in this notebook.

# %%
few = end_to_end.few_draws(settings, draws)
small = linear.LabelDraws({s: few.rows[s] for s in few.rows if s < 1}, [])
runs = {
    "from scratch": end_to_end.train_runs(settings, data, arms["random"], columns, few),
    "fine-tuned": end_to_end.train_runs(settings, data, arms["pretrained"], columns, small),
}
scores["from scratch"] = end_to_end.chosen_scores(runs["from scratch"])

# %% [markdown]
# Each point is the mean over the draws. The bars are 95% intervals: test patients and draws are
# drawn again, with replacement, hundreds of times (the bootstrap). Look at the order of the lines at
# each share, and at the width of the bars.

# %%
drawn = linear.resampled_arms(settings, *truth, scores)
curve = linear.curve_table(settings, drawn, names)
means = linear.macro_of(curve)
ch03.plot_label_curve(means, names=linear.NAMES)
plt.show()

# %% [markdown]
# So how good are the features, and at how many labels? A line that lies higher says it twice: a
# better score with the same labels, or the same score with fewer.

# %% tags=["nbval-ignore-output"]
ours = {arm: drawn[arm] for arm in linear.OURS if arm in drawn}
print(*[linear.worth(means, arm) for arm in ours], sep="\n")

# %% [markdown]
# The same with average precision. A small value is no failure where a finding is rare, and chance
# is not the share of ill images, as the five images above showed. So one more arm joins: noise, on
# the same labels and the same resamples of the patients, without the labels that a draw could not
# train.

# %%
at = means.pivot(index="arm", columns="fraction", values="value").loc[list(ours)]
assert (at[1.0] > at[min(at)]).all() or not settings.is_demo  # more labels help
shown = {name: scores[name] for name in ("random", *ours)}
shown["noise"] = linear.noise_scores(scores["random"], seed=settings.seed)
curve_ap = linear.curves(settings, *truth, shown, names, metric=scoring.average_precision)
precisions = linear.macro_of(curve_ap)
ch03.plot_label_curve(precisions, ylabel="macro AP (test)", chance=None, names=linear.NAMES)
plt.show()

# %%
chance = precisions.set_index("arm")["value"]["noise"].iloc[-1]
claim(
    chance > 1.02 * labels[test].mean(),
    "chance of the macro AP lies above the share of ill images",
    settings,
)

# %% [markdown]
# Compare each arm with the noise below it, and not with the share of ill images.

# %% [markdown]
# ### Is the difference real?
#
# Two overlapping intervals do not mean that there is no difference. Both arms were scored on the
# same patients and learned from the same draws. So take the difference in each resample, and look
# at its interval ([paired difference](../docs/glossary.md#paired-difference)). Three comparisons:
# with the same network unlearned, with no network, and with training on the labels alone.

# %%
apart = {
    f"minus {linear.NAMES.get(other, other)}": linear.macro_of(
        linear.curve_table(settings, ours, names, minus=drawn[other])
    )
    for other in ("random", linear.PIXELS, "from scratch")
}
apart = pd.concat(apart, names=["minus"]).reset_index("minus")
apart["labels"] = [f"{share:.0%}" for share in apart["fraction"]]
style.plot_estimates(apart, rows="labels", groups="arm", panels="minus", size=(9.5, 3.2))
plt.show()

# %% [markdown]
# The lines are shares of the labels, the axes differences of the macro AUROC. An interval right of
# zero speaks for pretraining at that share. One that covers zero leaves it open. One left of zero
# speaks against. Many intervals are many looks: a single one that just misses zero is weaker than it
# seems.

# %%
gains = apart[apart["minus"] == f"minus {linear.NAMES['random']}"].set_index(["arm", "fraction"])
for arm in ours:
    least = gains.loc[arm].loc[[0.1, 1.0]]
    better = "above random weights at 10% and 100% of the labels, intervals above zero"
    claim((least["low"] > 0).all(), f"{linear.NAMES[arm]}: {better}", settings)
    if arm == "evening":
        claim(least["value"].min() > 0.04, "the evening adds more than 0.04 at both", settings)

# %% [markdown]
# ### Other seeds, and real radiographs
#
# These are one pretraining run and one random network, and the intervals know nothing of other
# seeds. The [benchmark](../benchmarks/README.md) ran several on the demo. Its curves come with the
# course; the rings are your run on the demo. Look how far they lie from the means.
#
# It also probed real NIH radiographs, of which none is in the course. No network learned from them:
# the weights are those of synthetic images, and each image is scored by probes of other patients.

# %%
own_runs = {"label_curves": means if settings.is_demo else None, "label_curves_real": None}
stored = {name: read_stored(name, settings) for name in own_runs}
for name, found in stored.items():
    if found is None:
        print(f"{name} is not stored here: benchmarks/linear_evaluation.py --store makes it.")
        continue
    print(found.origin)
    where = "real radiographs" if "real" in name else "test"
    lines, own = found.table[found.table["minus"] == ""], own_runs[name]
    ch03.plot_label_curve(lines, names=linear.NAMES, ylabel=f"macro AUROC ({where})", own=own)
    plt.show()

# %% [markdown]
# The first figure says what pretraining is worth where it learned from images of the kind that it is
# asked about. The second says what synthetic images are worth for real ones; compare its lines with
# that of the pixels before you call a network good.
#
# ### Label by label
#
# A mean hides which findings gain. Look for labels whose lines lie apart at all shares. Many labels at
# five shares are many comparisons: a few will look good by chance.

# %%
per_label = curve[(curve["label"] != linear.MACRO) & curve["arm"].isin(["random", *ours])]
ch03.plot_class_curves(per_label, names=linear.NAMES)
plt.show()

# %% [markdown]
# A label that stays near chance even with all labels may have few positives. Where it has many, it is
# the features, the small images or the labels.
#
# ### A question

# %%
quiz("3.A")

# %% [markdown]
# ## Linear, nearest neighbors, or the whole network?
#
# A linear probe asks what the features hold. k-NN asks even less: which training images are most
# similar? The whole network, trained above, asks what the features can become.
#
# All methods below saw the same draws. Of the linear probe's draws only these are taken, so its
# points differ from the curve above.

# %%
same = {share: scores["pretrained"][share][: len(few.rows[share])] for share in few.rows}
methods = {
    "linear, pretrained": same,
    "k-NN, pretrained": linear.knn_scores(settings, data, features["pretrained"], columns, few),
    **{name: end_to_end.chosen_scores(run) for name, run in runs.items()},
}
compared = linear.macro_of(linear.curves(settings, *truth, methods, names))

# %%
ch03.plot_label_curve(compared, legend="method")
plt.show()

# %% [markdown]
# Does fine-tuning beat training from scratch, at few labels? And does it beat the linear probe, or
# is there too little data to move so many weights? With a single draw, do not explain one point; ask
# for more draws and seeds. The paired difference comes with the answers at the end.

# %%
tuned = linear.curves(
    settings, *truth, {"gain": methods["fine-tuned"]}, names, minus=methods["from scratch"]
)
tuned = linear.macro_of(tuned).set_index("fraction")

# %% [markdown]
# ## Do the probabilities mean what they say?
#
# Of all images that a probe calls '20% likely', a fifth should have the finding. Points on the
# diagonal keep that promise ([calibration](../docs/glossary.md#calibration)). All labels are pooled
# here. Look at the probes with the fewest labels.

# %%
share = min(draws.rows)
at = {
    part: features["pretrained"].of(ids[rows]) for part, rows in {"val": val, "test": test}.items()
}
predicted = {
    f"{s:.0%} of the labels": linear.pooled(probes["pretrained"][s], at["test"], labels[test])
    for s in (share, max(draws.rows))
}
tables = {name: calibration.reliability(y, expit(z)) for name, (y, z) in predicted.items()}

# %% [markdown]
# One reason for a bad start: the draw makes sure that rare labels are there, so in a small draw
# they are more frequent than among patients. **Platt scaling** repairs slope and offset with two
# numbers, learned on validation patients.

# %%
platt = calibration.fit_platt(*linear.pooled(probes["pretrained"][share], at["val"], labels[val]))
y, z = predicted[f"{share:.0%} of the labels"]
tables[f"{share:.0%}, after Platt scaling"] = calibration.reliability(
    y, calibration.apply_platt(platt, z)
)
errors = {name: calibration.expected_calibration_error(table) for name, table in tables.items()}
ch03.plot_reliability({f"{name} (off by {errors[name]:.2f})": t for name, t in tables.items()})
plt.show()

# %% [markdown]
# The flatter a curve, the less its promises mean: where the probe promises much, less is observed;
# where it promises nothing, some are ill all the same. Where its points crowd near the share of ill
# images after scaling, what it says is true on average, and so of little use for one patient.
#
# The legend gives the mean distance from the diagonal. Scaling changes no order, so it changes no
# AUROC: a model can rank well and still promise nonsense, and the other way round.

# %% [markdown]
# ### Exercises

# %%
quiz("3.B")

# %% [markdown]
# **Exercise 3.3, ten minutes.** A probe learned from patients of whom a share `trained` was ill.
# At your hospital the share is `real`. There the ill look like the ill of the first place, and the
# healthy like its healthy; only the share differs. Return what a well-calibrated probability `p`
# becomes, so that it is well calibrated at your hospital. A hint: work with odds, `p / (1 - p)`.


# %%
def at_other_prevalence(p, trained, real):
    return ...  # your code


check("3.3", at_other_prevalence)

# %% [markdown]
# ## What remains at another site?
#
# The paper pretrains on images of one country and detects on those of another. The counterpart
# here: probes trained on NIH-like images, scored on VinDr-like ones, for the labels that both have.
# Nothing is trained or chosen at the second site. On the demo one program draws the images of both
# sites, so the step between real hospitals may be larger.

# %%
site = None
if settings.vindr is None:
    print("This data has no VinDr-CXR folder: the other site is left out.")
else:
    site = sites.site_change(settings, data, load_vindr(settings), arms, features)
    print("labels of both sites:", ", ".join(site.labels))
    print("too few positives at one of them:", ", ".join(site.left_out) or "none")
    macro = site.scores[site.scores["label"] == linear.MACRO].set_index(["arm", "site"])

# %% [markdown]
# Compare the two points of each label. A shift to the left is what the change of site costs, a
# shift to the right what it seems to bring. Look whether the two intervals overlap.

# %%
if site is not None:
    shown = site.scores[site.scores["arm"] == "pretrained"]
    xlabel = "AUROC, pretrained features, all labels"
    style.plot_estimates(shown, rows="label", groups="site", xlabel=xlabel, zero=0.5)
    plt.show()

# %% [markdown]
# How many shift which way, and of which does nothing remain that differs from chance?

# %% tags=["nbval-ignore-output"]
if site is not None:
    print(sites.shift_of(shown))

# %%
if site is not None:
    claim(
        macro.loc[("pretrained", sites.OTHER_SITE), "value"] > 0.5,
        "at the other site the probes still beat chance in the mean",
        settings,
    )

# %% [markdown]
# A score that rises is no gain from moving. The patients are others, and the sites differ in more
# than pixels. At the second, a label is what at least one of three readers drew; at the first, what a
# text miner found in a report. So part of a shift is a change of what the label means. And the black
# bars beside VinDr's images, which notebook 01 cut away, go into the network here.
#
# What pretraining adds at each site, with all labels of training, over the labels that both sites
# have (others than in the curve, so the numbers differ):

# %%
if site is not None:
    xlabel = "minus random weights: macro AUROC"
    style.plot_estimates(site.gains, rows="site", groups="arm", xlabel=xlabel)
    plt.show()

# %% [markdown]
# An interval that excludes zero at one site and covers it at the other does not yet mean that
# pretraining adds more at the one: the second site has more images, and as its files name no
# patient, each counts as one, which makes the interval narrower.
#
# ## Leakage lab: five traps
#
# Each trap is in the paper's public code, in
# [evaluate.py](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/evaluate.py)
# or the [dataset.py](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/dataset.py)
# that it reads with. Switch it on, switch it off, and measure what it adds, on the same images. The
# probe is right, the images are right; only the bookkeeping is wrong.
#
# ### Trap 1: split by image
#
# Deal the images to five folds, without looking at patients. Score each image by the other four
# folds, with k-NN, which looks for the most similar images. Often the most similar one is of the
# same patient: a sibling, in the words of the next cell. That is a
# [data leak](../docs/glossary.md#data-leak). Then deal patients instead.

# %%
lab = leakage.Lab(settings, data, f, columns)
leak, overlap = leakage.leak(lab)
print({kind: f"{share:.0%} with a sibling in training" for kind, share in overlap.items()})

# %%
claim(
    overlap["by patient"] == 0 and overlap["by image"] > 0.3,
    "only the split by image leaks",
    settings,
)
claim(leak.flatters.value > 0, "the leak flatters", settings)

# %% [markdown]
# How large is the opportunity in the real data? Draw a random fifth of all images of the real table
# as a test part, ten times, and count the test images whose patient is in training too. The paper's
# code splits the images of the official test list, whose patients have more images each: with the
# [official lists](https://nihcc.app.box.com/v/ChestXray-NIHCC) beside your images the last line
# counts that; on the demo, it counts the demo's own list.

# %%
entries = nih.read_entries(packaged_table("nih_entries"))
real = [leakage.image_overlap(entries["patient_id"], test_share=0.2, seed=s) for s in range(10)]
print(
    f"{min(real):.1%} to {max(real):.1%} of {len(entries):,} images share a patient with training"
)
found = leakage.official_overlap(settings, data.entries)
if found is not None:
    print(f"{found[1]:.1%} of a fifth of the {found[0]:,} images of the official list do")

# %% [markdown]
# ### Trap 2: the same image on both sides
#
# In the paper's code, a program that balances the labels deals the images into two parts. It is
# called twice without a seed, once for the training part and once for the evaluation part. The two
# calls do not deal alike, so some evaluation images are in the training part too. Copy as large a
# share of the test images into training.

# %%
twice = leakage.duplicates(lab)
print(f"copied: {leakage.PUBLISHED_DUPLICATES:.1%} of the test images")

# %% [markdown]
# ### Trap 3: 'No Finding' in the mean
#
# The macro AUC of the paper's code has fifteen classes: fourteen findings and 'No Finding', which means that
# the report named none of them. Whether that raises or lowers the mean depends on how easy
# 'nothing' is.

# %%
fifteenth = leakage.no_finding(lab)

# %% [markdown]
# ### Trap 4: the best epoch, chosen on the test set
#
# Of the checks of each run above, report the one that is best on the test patients, instead of the
# one that is best on validation. This cannot flatter by less than nothing.

# %%
all_runs = [run for by_share in runs.values() for drawn in by_share.values() for run in drawn]
best = leakage.best_epoch(lab, all_runs)

# %% [markdown]
# ### Trap 5: as many labels, from few patients
#
# '1% of the labels' does not say of how many patients. Here: as many images as a tenth of the training
# part, once from patients with many images, once one from each of many patients.

# %%
n_images = len(draws.rows[0.1][0])
clustered, spread = leakage.few_patients(lab, n_images=n_images)
spread[["patients", "positive labels"]].round(1)

# %% [markdown]
# Those with many images are others than those with one, often sicker: similar images teach less, more
# positives teach more. Which patients are drawn is luck, too: how far does a draw alone move the
# score?

# %% tags=["nbval-ignore-output"]
spread[["mean macro AUROC", "spread over draws"]].round(3)

# %%
claim(
    (spread["spread over draws"] > abs(clustered.flatters.value) / 2).all(),
    "single draws differ by more than half of what the trap seems to add",
    settings,
)

# %% [markdown]
# ### What the traps do
#
# For each trap: the score with it, the score without, and the difference with its interval over
# patients, and over draws where there are several (traps 1, 2 and 5). Compare within a row only: each
# trap needs its own method. Look for those whose interval excludes zero; that of trap 4 must, so it
# says how much, not whether. A score that is too low for a wrong reason is wrong too.

# %%
notices = {
    leakage.LEAK: "count patients on both sides; ask for the split's code",
    leakage.DUPLICATES: "count image ids (or hashes) on both sides",
    leakage.NO_FINDING: "count the classes; ask for each one's score",
    leakage.BEST_EPOCH: "look for a validation set; ask which epoch, and who chose it",
    leakage.FEW_PATIENTS: "ask for patients next to images; ask for several draws",
}

# %% tags=["nbval-ignore-output"]
traps = [leak, twice, fifteenth, best, clustered]
pd.set_option("display.max_colwidth", None)
leakage.traps_table(traps, notices)

# %%
assert {trap.name for trap in traps} == set(notices)
claim(twice.flatters.value > 0, "copies of test images in training flatter", settings)

# %% [markdown]
# A trap whose interval covers zero stays open here. One protocol can hold several traps at once; what
# they do together was not measured here. None is visible in the final number.

# %% [markdown]
# ### Exercises
#
# **Exercise 3.4, five minutes.** Two arrays name the patient of each training and of each test image.
# Which share of the test images has its patient in training?


# %%
def leaked_share(train_patients, test_patients):
    return ...  # your code


check("3.4", leaked_share)

# %% [markdown]
# **Exercise 3.5, twenty minutes.** One resample for an interval: draw as many patients as there are,
# with replacement, and return the rows of all their images. `patients` names the patient of each row;
# `rng` is a numpy generator.


# %%
def resample_patients(patients, rng):
    return ...  # your code


check("3.5", resample_patients)

# %% [markdown]
# ## Ask for the impossible
#
# Good tools say no. Each of these requests has no honest answer; look at what is named, and at what
# to do instead.

# %%
none = np.zeros((len(train), 1), int)
impossible = {
    "a class without positives": lambda: probe.fit_probe(
        f[train], none, f[val], labels[val][:, :1], class_names=["Hernia"]
    ),
    "features of other images": lambda: features["random"].of(["someone_else.png"]),
    "a fraction of 2": lambda: splits.nested_fractions(
        labels, data.patients, fractions=[2], seed=0
    ),
}

# %%
for request, ask in impossible.items():
    try:
        ask()
    except ValueError as error:
        print(f"{request}:\n    {error}")

# %% [markdown]
# ## What of the paper does this reproduce?
#
# The paper's code evaluates a frozen ResNet-50 on 1%, 10% and 100% of the labels, and then trains
# end to end. Its tables' values are not known here. Each row below is one of its questions, with the
# answer of this run: better, worse, or open where the interval covers zero.

# %%
asked = {
    f"linear probe, {s:.0%} of the labels: {linear.NAMES[arm]} against random": gains.loc[(arm, s)]
    for arm, s in gains.index
} | {
    f"end to end, {s:.0%} of the labels: fine-tuned against from scratch": tuned.loc[s]
    for s in tuned.index
}
if site is not None:
    elsewhere = site.gains[site.gains["site"] == sites.OTHER_SITE].set_index("arm")
    for arm in elsewhere.index:
        asked[f"linear probe at another site: {arm} against random"] = elsewhere.loc[arm]

# %% tags=["nbval-ignore-output"]
answers = pd.DataFrame({q: [linear.verdict(e), f"{e['value']:+.3f}"] for q, e in asked.items()})
answers.T.set_axis(["answer", "difference"], axis=1)

# %%
assert "better" in set(answers.iloc[0]) or not settings.is_demo

# %%
preset = settings.pretrain
print(
    f"here: {preset.arch}, {preset.image_size} px, {len(train):,} images, batch {preset.batch_size}"
)
print("the paper: 112,120 images; its code: resnet50, 224 px, batch 768")

# %% [markdown]
# So this is the protocol of the paper's code, with its traps removed, at a far smaller scale. Three
# things it does not reproduce at all: the comparison with ImageNet weights, where they are not at hand; the
# gain in detection, which is notebook 04's subject; and anything about patients, as long as the
# images are synthetic.

# %%
figures = ["value", "low", "high"]
results.add(
    macro_auroc={
        arm: dict(zip(p["fraction"], p["value"], strict=True)) for arm, p in means.groupby("arm")
    },
    macro_ap={
        arm: dict(zip(p["fraction"], p["value"], strict=True))
        for arm, p in precisions.groupby("arm")
    },
    difference=gains.loc["pretrained", figures].to_dict("index"),
    fine_tuned_minus_scratch=tuned[figures].to_dict("index"),
)
if "evening" in ours:
    results.add(difference_of_an_evening=gains.loc["evening", figures].to_dict("index"))

# %%
results.add(
    calibration_error=errors,
    leakage_inflation=leak.flatters.as_dict(),
    traps={trap.name: trap.flatters.as_dict() for trap in traps},
    real_overlap_of_a_split_by_image=float(np.mean(real)),
)
if site is not None:
    here = site.gains[site.gains["arm"] == "pretrained"].set_index("site")
    results.add(site_difference=here[figures].to_dict("index"))
results.save().name

# %% [markdown]
# ## Your own figure
#
# **Exercise 3.6, half an hour.** Draw an ROC curve, with numpy alone. Go down the list from the
# highest score: how many of the ill are found so far (y), how many of the healthy are called ill (x)?
# Begin at (0, 0), add the line of chance, name both axes. `ill` and `scores` are arrays; to try it,
# `practice_scores()` of `cxr_helpers.course.exercises.ch03` gives both.


# %%
def roc_figure(axis, ill, scores):
    return ...  # your code


check("3.6", roc_figure)

# %% [markdown]
# ## What this does not show
#
# - The intervals of your run cover the choice of test patients and of the drawn labels. They do not
#   cover the seed of pretraining; the stored curves do, but for the evening's single network.
# - Regularization and epochs are chosen on all validation labels, even where training has 1%. A
#   hospital with that few labels would have fewer for validation too.
# - The networks trained end to end had one recipe and a single draw at each share. More training may
#   lift either of them, and training from scratch needs it more.
# - On the demo the images are synthetic: a gain here is no gain on patients.
# - A linear probe says nothing yet about finding *where* something is.
#
# ## What you learned
#
# - Frozen means: no weight and no buffer changes. A linear probe measures such features; its settings
#   are chosen on validation patients.
# - A curve over label shares says more than one number, and a paired difference more than two
#   intervals.
# - AUROC and AP are about order; calibration is about promises.
# - Labels that cannot be scored are named.
# - Another site is another test, of pixels and of what labels mean.
# - A split by image, copies, a fifteenth class, a well-chosen epoch and few patients: each is
#   invisible in the final number, and each can be counted.
#
# ## Questions to think about
#
# 1. Trap 1 was measured with k-NN. Would you expect more or less with a linear probe?
# 2. Why can trap 4 never flatter by less than nothing, and what would an honest interval of it need?
# 3. You have 200 labeled images. Would you rather have 200 patients or 50 patients with 4 each?
#
# Go on with [04 faster_rcnn_finetuning](04_faster_rcnn_finetuning.ipynb).
