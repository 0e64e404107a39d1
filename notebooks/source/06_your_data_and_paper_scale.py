# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 06 · Your data and the paper's scale
#
# **The question: how do I run this on my data? And what would the paper's scale take?**
#
# So far everything ran on radiographs that this course had prepared. Now bring a folder of your own.
# Then the run gets long: it must survive a kill, it may need several GPUs, and it has a price that
# you want to know before. Last comes the account: where this course does otherwise than the paper's
# code, and why.
#
# ## What you will learn
#
# - To bring your own images: which files, how one is read, whose it is.
# - To hand your weights to somebody who does not have this course.
# - To go on after a kill, and to check that nothing was lost.
# - Why several processes must act as one, and what goes wrong when they do not.
# - To estimate memory and time from a short trial.
# - To read the ledger: what the paper claims, and its code and this course side by side.
#
# What one looks up stands on two pages: [real data](../docs/real_data.md) has the downloads, folders
# and switches, [the paper's scale](../docs/paper_scale.md) the commands for GPUs, the reasons for
# each setting, and what to do when something fails.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. A GB is 2^30
# bytes in every output here; download sites count 10^9.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np  # noqa: F401
import pandas as pd
import torch
import torchvision
from IPython.display import Markdown
from safetensors.torch import load_file
from torch import nn

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch06 import ledger, own_data, resuming, scaling
from cxr_helpers.course.cli import planning, stages
from cxr_helpers.course.core.compute import ComputeError, check_batch
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results, claim, read_results
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401
from cxr_helpers.course.plots import style
from cxr_helpers.data import nih
from cxr_helpers.pretraining import barlow, hub, weights

# %% [markdown]
# `settings` says which data and which scale are switched on. What this notebook writes goes into a
# folder that is deleted at its end.

# %%
style.set_style()
settings = load_settings()
results = Results("06_your_data_and_paper_scale", settings)
work = tempfile.TemporaryDirectory()
folder = Path(work.name)
print(f"data {settings.data}, scale {settings.scale}")

# %% [markdown]
# ## Your own images: a list, a reader, a patient
#
# Suppose you have a folder of PNG files, and no table at all. Only you know three things: which files
# there are, how one is read, and whose it is. Before you train on images of patients, three more:
#
# - **May you?** Do approval and data protection allow training, and passing on the weights? Names hide
#   in file names, and burnt into the picture.
# - **Are they chests, from the front?** Exports also hold lateral views (from the side), other body parts and copies.
#   The DICOM header's ViewPosition and BodyPartExamined help; your eye decides.
# - **Do they look right?** Look at packed images for negatives (MONOCHROME1), borders, and what is
#   upside down.
#
# The folder here is the demo's; put yours in its place. An image is named by its path below the
# folder, since exports often have an `IM0001` in every patient's folder.

# %%
mine = settings.nih
paths = sorted(mine.rglob("*.png"))[:300]  # the first 300, so that it is quick
files = {path.relative_to(mine).as_posix(): path for path in paths}
print(len(files), "files; the first is", next(iter(files)))


# %% [markdown]
# Whose is it? Here the file's name says so.


# %%
def patient(image_id):
    """The first eight digits of a file's name; with a folder a patient, `image_id.split("/")[0]`."""
    return Path(image_id).name.split("_")[0]


# %% [markdown]
# Reading is `nih.read_image`, since these are PNG files. For DICOM list `"*.dcm"`, save these lines as
# `my_reader.py` beside the notebook, `import my_reader`, and give `read=my_reader.read`:
#
# ```python
# from cxr_helpers.data import dicom
#
# def read(path):
#     return dicom.read_dicom(path).pixels
# ```
#
# (Several processes read, and they import the function: one that is typed into a cell is not found on
# every system.) Now each file is decoded once, scaled down and *packed* into one array of bytes, so that
# no training step has to wait for a decoder; and the patients are split. (`replace` gives a copy of
# `settings` that writes to this notebook's folder.)

# %% tags=["nbval-ignore-output"]
here = replace(settings, project=folder)
own, images = own_data.own_images(
    here, name="mine", files=files, read=nih.read_image, patient=patient
)

# %% [markdown]
# `own` is the settings for this data, with a folder of its own for results. `images` holds the pixels,
# a patient for each image, and the part (training, validation, test) that the patient fell into. Look
# at the split: no patient may stand on two sides.

# %%
parts = {part: set(images.patients[images.rows(part)]) for part in ("train", "val", "test")}
assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
print(images.images.pixels.shape, images.images.pixels.dtype)
print({part: len(images.rows(part)) for part in parts}, "images")
print({part: len(patients) for part, patients in parts.items()}, "patients")

# %% [markdown]
# Seven, one and two tenths of the *patients*. Images follow their patient, so their shares differ.
#
# Eight of the packed images. Is one a negative, upside down, or no chest?

# %%
first = images.rows("train")[:8]
figure = style.show_images(
    [images.images.pixels[row] for row in first],
    [f"patient {images.patients[row]}" for row in first],
)
whose, side = set(images.patients[first]), images.images.size
figure.suptitle(f"{len(first)} packed images of {len(whose)} patients, {side} pixels a side")
plt.show()

# %% [markdown]
# The air in the lungs is dark, so none is a negative, and all stand upright. Packing keeps the ratio of
# the sides; the rest of the square is black.
#
# Pretraining takes them as they are, without a label. `few` is a preset of seconds, with eight epochs at
# 32 pixels, to see that it runs; notebook 02 says how long is long enough. Look at the first and the last loss. (Row 0 of the log is measured
# before training, so it has no loss.)

# %%
few = replace(resuming.small_settings(folder).pretrain, batch_size=64, epochs=8)
own = replace(own, pretrain=few)
path = pretraining.pretrain(own, images, seed=0, progress=False)

# %% tags=["nbval-ignore-output"]
loss = pretraining.training_log(path)["loss"]
print(f"loss {loss.iloc[1]:.1f} in the first epoch, {loss.iloc[-1]:.1f} in the last")

# %% [markdown]
# The next cell is folded, as all are that only check a sentence of the text. Unfold it if you like.

# %% tags=["hide-input"]
claim(loss.iloc[-1] < loss.iloc[1], "the loss falls on images of your own", settings)

# %% [markdown]
# A falling loss says that the machinery works on your files, and no more: a network that fails can
# have one too (notebook 02, collapse lab). What the features are worth takes labels and a baseline
# (notebook 03).
#
# ## Hand your weights on
#
# Somebody else does not have this course. They need the weights in a format that everybody reads
# (safetensors, a file of numbers only), and a model card that says what they are and what they are not.
# One call writes both. `state` holds the weights, by the names that torchvision gives them. Read the agreement of the data first: VinDr-CXR's forbids sharing its images,
# and what it says of weights is for you to look up.

# %%
state, _ = weights.read_weights(path)
card = hub.ModelCard(
    name="A backbone of notebook 06",
    summary=f"ResNet-18, Barlow Twins, a few epochs on {len(images.rows('train'))} images of "
    f"{len(parts['train'])} patients: an example, not for use.",
    data="Synthetic radiographs of the demo." if settings.is_demo else "A folder of radiographs.",
    settings={"epochs": own.pretrain.epochs, "batch_size": own.pretrain.batch_size},
    metrics={"training loss": round(float(loss.iloc[-1]), 1)},
    measured_on="the training images themselves",
    limits=["Trained for seconds; nothing was measured on other patients."],
    license="mit",
    image_size=own.pretrain.image_size,
)

# %% [markdown]
# The card's end, as a stranger reads it:

# %%
written = hub.write_folder(state, folder / "share", card, arch="resnet18")
print([file.name for file in written])
print((folder / "share" / "README.md").read_text(encoding="utf-8").split("## Limits")[1])

# %% [markdown]
# And the test of the weights: torchvision alone, no line of this course. Are its features the same?

# %%
theirs = torchvision.models.resnet18()
theirs.fc = nn.Identity()
theirs.load_state_dict(load_file(folder / "share" / "model.safetensors"))
ours = barlow.build_backbone("resnet18", seed=0)
weights.load_weights(ours, state)
batch = torch.rand(2, 3, 64, 64)
assert torch.equal(theirs.eval()(batch), ours.eval()(batch))
print("torchvision loads the file and computes the same features.")

# %% [markdown]
# The other way round, `weights.read_weights` takes torchvision's and the original Barlow Twins'
# ResNet-50, the checkpoint that the paper's authors published, and your own files. No code in a file is
# ever run.
#
# ## When it breaks
#
# A run of days may well be interrupted. Here is a small one that is killed, without warning, as soon
# as it has written a checkpoint.

# %%
epochs_done = resuming.kill_after_a_checkpoint(folder / "killed")
assert epochs_done < resuming.SMALL["epochs"]
print("Killed before the end.")

# %% [markdown]
# Now the same program again, with the same settings and nothing else (`finish` starts it), and another
# run that nobody disturbs. Guess: will the weights of the two be close, or equal to the last bit?

# %%
went_on = resuming.finish(folder / "killed")
unbroken = resuming.finish(folder / "unbroken")
assert all(torch.equal(went_on[name], unbroken[name]) for name in unbroken)
print(f"{len(unbroken)} tensors, every one equal to the last bit.")

# %% [markdown]
# So it is on this processor. It works because order, views and learning rates depend on seed and step
# alone; because a [checkpoint](../docs/glossary.md#checkpoint) holds the optimizer's values too; and
# because it is written beside the last good one and takes its place when it is whole. What else can
# break, what the course says then and what you do is a [table](../docs/paper_scale.md#when-it-breaks).
#
# ### A question

# %%
quiz("6.A")

# %% [markdown]
# ## Several processes must act as one
#
# A [process](../docs/glossary.md#process-rank-world) is one running copy of the program. The paper's
# code trains on 768 images a step, which do not fit most GPUs, so several share them, a process each.
# Two parts of the method look at the *whole* batch: [batch norm](../docs/glossary.md#batch-norm), and
# the correlation. If each process looks only at its own share, it solves another problem.
#
# First batch norm. Here are eight numbers of one [feature](../docs/glossary.md#feature), normalized
# together, and in two halves as two processes would. Compare 1 with 11.

# %%
values = torch.tensor([1.0, 2, 3, 4, 11, 12, 13, 14])
together = (values - values.mean()) / values.std(correction=0)
halves = torch.cat([(h - h.mean()) / h.std(correction=0) for h in values.chunk(2)])
pd.DataFrame({"together": together, "in halves": halves}, index=values.int().tolist()).round(2).T

# %% [markdown]
# In halves, the difference between the first four and the last four is gone: 1 and 11 became the same
# number. The cure is to send sums, from which each process has the mean and variance of all:

# %%
shares = values.chunk(2)
count = sum(len(part) for part in shares)
mean = sum(part.sum() for part in shares) / count
variance = sum(((part - mean) ** 2).sum() for part in shares) / count
assert torch.allclose((values - mean) / variance.sqrt(), together)
print("Sums that travel between the processes give the batch norm of the whole batch.")

# %% [markdown]
# The correlation has the same trap. lightly's own `gather_distributed` averages the matrices of the
# processes, and each was standardized by its own images. Here the *outputs* are gathered, and then one
# matrix is made. How far apart are the two, for 768 images on 8 processes, and on 192 with four images
# each?

# %%
torch.manual_seed(1)
common = torch.randn(768, 64)
z_a, z_b = common + torch.randn(768, 64), common + torch.randn(768, 64)
whole = barlow.cross_correlation(z_a, z_b)
print(f"one matrix: diagonal {whole.diag().mean():.3f}")
for count in (8, 192):
    pairs = zip(z_a.chunk(count), z_b.chunk(count), strict=True)
    averaged = torch.stack([barlow.cross_correlation(a, b) for a, b in pairs]).mean(dim=0)
    print(f"{count} averaged: diagonal {averaged.diag().mean():.3f}, "
          f"largest difference {(whole - averaged).abs().max():.3f}")  # fmt: skip

# %% [markdown]
# Eight shares of 96 images are as mixed as the whole, and the difference is small. Four images cannot
# show how alike two views are: the diagonal comes out too small. The project's tests check for 2 and 4
# processes that loss, gradients and batch norm's running means are those of one process.
#
# And each share must have the same number of images. What if it cannot?

# %%
try:
    check_batch(768, 7)
except ComputeError as error:
    print(error)

# %% [markdown]
# ### Exercises
#
# Fill in, then run the cell. `hint("6.1")` helps, `solution("6.1")` shows one. Nothing below depends on
# your answers.
#
# **Exercise 6.1, ten minutes.** To compute a score faster, the test images are shared among processes.
# Given the array `rows`, return the part that process number `rank` (from 0) of `world` works on: no row
# twice, none left out, the parts as equal as can be.


# %%
def share(rows, rank, world):
    return ...  # your code


check("6.1", share)

# %% [markdown]
# **Exercise 6.2, fifteen minutes.** Each process sends how many values it has, their sum, and the sum
# of their squares, as three arrays with one number for each process. Return mean and variance of all.
# The variance divides by the number of values, as batch norm does, not by one less.


# %%
def whole_batch(counts, sums, squares):
    return ...  # np.array([mean, variance])


check("6.2", whole_batch)

# %% [markdown]
# ## What changes at the paper's scale
#
# The paper's scale is here that of its [published
# code](https://github.com/haooyuee/BarlowTwins-CXR). The functions stay; the *preset*, the settings of
# one scale, changes. Which rows of the table follow from the size of network and images, and which
# would you want to have explained?

# %%
scaling.preset_changes("pretrain")

# %% [markdown]
# Five rows have a reason of their own, each a paragraph on the page about
# [the paper's scale](../docs/paper_scale.md#what-changes-and-why): the width of the projector, its
# redundancy weight, the learning rate, the optimizer, and the batch. One in short: the published rate of
# 0.2 is for 256 images. A batch three times as large averages its gradient over three times as many
# images, so the gradient is less noisy, and the step may be longer:
#
# $$\text{rate} = \text{base} \cdot \frac{\text{batch}}{256}.$$
#
# **Exercise 6.3, two minutes.** Your GPUs hold 512 images a step. What is the top learning rate?

# %%
rate_of_512 = ...
check("6.3", rate_of_512)

# %% [markdown]
# ## What will it cost?
#
# By hand first. Beside the paper's code lies [one training
# log](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/LOG.TXT):
# 800 epochs of 145 steps, in 42.1 hours, on all 112,120 images. (The plan below has the 600 epochs of the
# code, and the training patients alone.) How long is a step? And how many images a second is that, at
# 768 images a step, the code's default?

# %%
seconds_a_step = 42.1 * 3600 / (800 * 145)
images_a_second = 768 / seconds_a_step
print(f"{seconds_a_step:.2f} seconds a step, {images_a_second:.0f} images a second")

# %% [markdown]
# Now this machine. The trial takes a few steps at the paper's scale, ResNet-50 at 224 pixels with
# D = 8192, once with four images and once with eight. The difference is the cost of four images; the
# rest is the cost of a step whatever its images. `paper` says what would run: these settings with the
# paper's preset. (On which GPUs the published log was made is not known
# here: its figure compares set-ups, not programs.)

# %%
data = load_nih(settings)
paper = stages.Run(replace(settings, pretrain=PRESETS["paper"]["pretrain"]))
cost = planning.pretrain_cost(paper, data, images=4, seconds=1.0)

# %% tags=["nbval-ignore-output"]
print(f"4 images {cost.step_seconds(4):.1f} s, 8 images {cost.step_seconds(8):.1f} s")
print(f"768 images: about {768 / cost.step_seconds(768):.0f} a second; the published log: "
      f"{images_a_second:.0f}")  # fmt: skip
print(f"memory for their activations: {cost.step_bytes(768) / 2**30:.0f} GB")

# %% tags=["hide-input"]
both_views = 2 * 3 * PRESETS["paper"]["pretrain"].image_size ** 2 * 4  # bytes, three channels each
claim(
    cost.bytes_per_image > 20 * both_views,
    "what is kept of an image takes more than twenty times the memory of its two views",
    settings,
)

# %% [markdown]
# *Activations* are the intermediate results that are kept for the backward pass. Weights, gradients and
# the optimizer's values come on top. So a batch of 768 needs several large GPUs, or smaller numbers (the
# page has a [table](../docs/paper_scale.md#if-the-memory-does-not-fit) of what each remedy costs).
#
# The whole run, on one device. NIH's official training list has 86,524 images, and an eighth of its
# patients is kept for validation. A trial of seconds is stretched far here, so trust one digit of the
# time.

# %% tags=["nbval-ignore-output"]
training_images = round(86_524 * 7 / 8)
plan = planning.plan_pretrain(paper, data, cost=cost, training_images=training_images)
print(*plan.lines(), sep="\n")

# %% tags=["hide-input"]
assert plan.steps == 600 * (training_images // 768)
print("The plan has the steps of 600 epochs.")

# %% [markdown]
# On a processor it is far too long: the demo exists for a reason. For a plan that counts, run
# `python -m cxr_helpers.course pretrain --scale paper --dry-run` on the GPU that you would use.
#
# ### Exercises
#
# **Exercise 6.4, ten minutes.** How many hours does a run take? Images that do not fill a last batch
# make no step.


# %%
def hours(images, epochs, batch_size, seconds_a_step):
    return ...  # your code


check("6.4", hours)

# %% [markdown]
# Twice the machines, twice the speed? A question. Choose, then unfold the answers.

# %%
quiz("6.B")

# %% [markdown]
# ## The ledger
#
# Rebuilding a paper means to decide many things. The ledger has two tables. The first is short: what the
# paper's abstract claims, and what this course has on it. For which of these claims could a laptop find a
# figure? (Where it says 'measured', the last table of this notebook has the number, if your notebooks made
# it; heatmaps are in notebook 05.)

# %%
book = ledger.read_ledger(settings.project / ledger.SOURCE)
Markdown(ledger.markdown(ledger.claims_table(book)))

# %% [markdown]
# The second is long: what the published code does, what this course does at its scale, and why that
# differs. It is made from a file and from the presets, so that it cannot go stale. Here is one part of
# it; put another in its place, or read [all of it](../docs/ledger.md). Find the row that you think
# matters most for the gain that the paper claims, and read its 'why'.

# %%
rows = ledger.ledger_table(book)
print(
    rows["part"].value_counts(sort=False).to_dict(),
    "rows; with a 'why':",
    (rows["why"] != "").sum(),
)
shown = rows[rows["part"] == "Detection"]
Markdown(ledger.markdown(shown[["what", "code", "ours", "why"]]))

# %% [markdown]
# A setting of the code is not yet a statement of the paper: code can be read line by line, and this
# course has the paper's abstract, not the tables of its text.
#
# Some entries are measured. These are the ones that the notebooks have measured on this machine so far
# (the table is empty where none has run). Brackets are 95% [intervals](../docs/glossary.md#interval-95): where does one hold zero?

# %% tags=["nbval-ignore-output"]
pd.set_option("display.max_colwidth", None)
found = ledger.ledger_table(book, read_results(settings.runs / "results"))
measured = found[(rows["ours"] == ledger.TO_MEASURE) & (found["ours"] != ledger.NOT_MEASURED)]
measured.set_index("what")[["ours"]]

# %% tags=["hide-input"]
where = f"data {settings.data}, scale {settings.scale}"
claim(measured["ours"].str.endswith(where).all(), "they are of this data and this scale", settings)

# %% [markdown]
# Where the interval of a difference holds zero, the demo does not show that pretraining helps, nor the
# contrary. These are synthetic images: nothing follows for patients.
#
# ## The answer
#
# How do I run this on my data, and what would the paper's scale take?

# %%
print(
    f"With a list, a reader and a patient for each: {len(files)} files of "
    f"{len(set(images.patients))} patients went in, and came out as weights that torchvision loads. "
    f"A run that is killed goes on, with all {len(unbroken)} tensors equal to the last bit. "
    f"The paper's scale is {plan.steps:,} steps of 768 images; a trial says what they take here."
)

# %%
results.add(own_files=len(files), resumed_tensors=len(unbroken), paper_steps=plan.steps)
work.cleanup()
results.save().name

# %% [markdown]
# ## What you learned
#
# - Your own images need a list, a reader, and a patient for each.
# - Weights travel as numbers, with a card that says what they are not.
# - A killed run goes on to the last bit, because seed and step decide everything (and threads of one number
#   round alike).
# - Processes must share batch norm and correlation, or each solves another problem.
# - A short trial gives memory, and one digit of the time, before anything is rented.
# - A ledger shows what a paper claims, what its code does, and where this course differs and why.
#
# ## What this does not show
#
# Nothing here ran at the paper's scale: the trial took a few steps, and its plan assumes that data is
# never waited for. Two processes on one machine show that the arithmetic is right, not that a network
# between machines is fast. And whether the paper's claim holds on real data is for those to say who
# have both data sets, with several seeds and an interval.
#
# ## Your own figure
#
# **Exercise 6.5, half an hour.** Draw a scaling curve. `workers` is an array such as 1, 2, 4, 8, 16;
# `rates` are the images a second with so many. Draw how many times faster than one worker each is, and
# the ideal, n times faster with n workers, beside it. Name both axes. To try it on numbers that are
# invented:
#
# ```python
# from cxr_helpers.course.exercises.ch06 import practice_scaling
# scaling_figure(plt.gca(), *practice_scaling())
# ```


# %%
def scaling_figure(axis, workers, rates):
    return ...  # your code


check("6.5", scaling_figure)

# %% [markdown]
# ## Questions to think about
#
# Think first, then unfold. The answers are arguments, not the only ones.
#
# 1. A run with 768 images has eight GPUs with 96 on each. You get sixteen, and keep 96 on each. Name
#    three settings that you must think about again.
# 2. A colleague's program trains twice as fast on the same GPU. What do you ask before you believe it?
# 3. Your hospital's images have no patient number, only a date and a room. How do you split them, and
#    what do you write into the model card?
# 4. The ledger's settings are those of the published code. Look three of them up in the paper. Which of
#    the others would change what you conclude from it, and whom would you ask?
#
# <details><summary>Answers</summary>
#
# 1. The batch is 1,536. The learning rate follows it; warm-up and epochs are counted in steps that are
#    half as many; and the correlation is over more images. Also how the processes talk across machines,
#    and whether memory for the gathered outputs still fits.
# 2. The same images, size, batch, precision and number of steps? From what to what was measured, and was
#    the device done? And the same result, with an interval?
# 3. Images of one day and room may be one patient's, so keep them together: split by day or week. The
#    card says so, and that a patient who came back may be on both sides.
# 4. First look into the paper. Then what moves the comparison: how the baselines were started, which
#    images each arm saw, how the intervals were made. The authors first; their code second.
#
# </details>
