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
# **The question: how do I run all of this on real radiographs, on GPUs, on several machines, and on
# images of my own? And what does this course do otherwise than the paper's code?**
#
# So far everything ran on a laptop. The same functions run at the paper's scale, which is here that
# of its [published code](https://github.com/haooyuee/BarlowTwins-CXR): only the presets change (a
# *preset* is the settings of one scale), and the data. This notebook shows what to download,
# what changes and why, how long it will take on your machine, and what to do when something breaks
# after two days.
#
# ## What you will learn
#
# - What to download, how large it is, and how it is prepared.
# - Which settings change at the paper's scale, and the reason for the five that matter most.
# - Why several processes must act as one, and what goes wrong when they do not.
# - To estimate memory, disk and hours from a short trial.
# - To go on after a kill, what two failures say, and what to do about eight.
# - To bring your own images: which files, how one is read, whose it is.
# - To hand your weights to somebody who does not have this course.
# - To read the ledger: what the paper claims, and its code and this course side by side.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. A GB is 2^30
# bytes in every output here; download sites count 10^9.

# %%
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from IPython.display import Markdown
from lightly.utils.lars import LARS
from lightly.utils.scheduler import cosine_warmup_schedule
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from cxr_helpers.course.ch02 import labs as pretraining_labs
from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch06 import ledger, own_data, resuming, scaling
from cxr_helpers.course.cli import planning, stages
from cxr_helpers.course.core import checkpoints
from cxr_helpers.course.core.compute import ComputeError, check_batch
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results, claim, read_results
from cxr_helpers.course.core.settings import PRESETS, load_settings
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch02, style
from cxr_helpers.data import nih
from cxr_helpers.pretraining import barlow, hub, pairs, views, weights

# %%
style.set_style()
settings = load_settings()
results = Results("06_your_data_and_paper_scale", settings)
work = tempfile.TemporaryDirectory()
folder = Path(work.name)

# %% [markdown]
# ## By hand: how long is 42 hours?
#
# Beside the paper's code lies [one training
# log](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/LOG.TXT):
# 800 epochs of 145 steps, in 42.1 hours. How long is a step? And how many images a second is that, at
# 768 images a step, the code's default?

# %%
seconds_a_step = 42.1 * 3600 / (800 * 145)
images_a_second = 768 / seconds_a_step
print(f"{seconds_a_step:.2f} seconds a step, {images_a_second:.0f} images a second")

# %% [markdown]
# Each image is seen twice, once in each of its two augmented copies (its
# [views](../docs/glossary.md#view)), so the network worked through twice as many pictures. Further
# down you compare the images a second with your own machine's. The log ran for 800 epochs. The default
# of [main.py](https://github.com/haooyuee/BarlowTwins-CXR/blob/269264503280099691557c69babb7ce5e6c1098f/barlowtwins/main.py),
# which this course takes, is 600.
#
# Which images did an epoch of 145 steps see? The table of all images can be counted. The official
# training list, `train_val_list.txt` of the
# [NIH download](https://nihcc.app.box.com/v/ChestXray-NIHCC), has 86,524. How many full batches of 768
# does each give?

# %%
everything, official = len(nih.read_entries(packaged_table("nih_entries"))), 86_524
print(f"{everything // 768} full batches from all {everything:,} images, "
      f"{official // 768} from the training list")  # fmt: skip

# %% [markdown]
# So an epoch of the log drew from all images, those of the official test list included. That does no
# harm to the detector, which is tested on another hospital's images. It does harm to a
# [linear evaluation](../docs/glossary.md#linear-probe) on that test list. The code as it is published
# reads a training list (`train_val_list_NIH.txt`, line 128 of main.py); its configurations name two
# checkpoints, and which images the second one saw is not proven. This course pretrains on the training
# list alone, less an eighth of its patients for validation.

# %% [markdown]
# ## What to download
#
# | data | what | how large | who may have it |
# |---|---|---|---|
# | [NIH ChestX-ray14](https://nihcc.app.box.com/v/ChestXray-NIHCC), also [on Kaggle](https://www.kaggle.com/datasets/nih-chest-xrays/data) | 112,120 PNG files of 1024 x 1024 pixels | about 42 to 45 GB | everybody; on Kaggle with an account |
# | [a sample of 5%](https://www.kaggle.com/datasets/nih-chest-xrays/sample) on Kaggle | for a first try | about 2 GB | with an account |
# | [VinDr-CXR on Kaggle](https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection) (VinBigData) | 15,000 DICOM files and `train.csv` | not known here: see its page before you make room | with an account, under its rules |
# | [VinDr-CXR 1.0.0 on PhysioNet](https://physionet.org/content/vindr-cxr/1.0.0/) | the same images, and a test set with the consensus of five radiologists | not known here: see its page | credentialed users |
#
# Put both below one folder, in `nih` and `vindr`, and set `CXR_DATA` to that folder. The
# [README](../README.md#real-data) names every file that is read. VinDr-CXR's agreement forbids sharing
# its images. Without VinDr-CXR, notebook 04 uses NIH's own boxes: put `BBox_List_2017.csv` and
# `test_list.txt` beside the images. Notebook 05 and the command `explain` take the same boxes.
#
# To decode a PNG or a DICOM file takes longer than a training step can wait, and the step needs only
# a small copy of it. So each file is decoded once, scaled down, and packed into one array:
#
# ```sh
# python data_scripts/prepare_nih.py /data/cxr/nih
# python data_scripts/prepare_vindr.py /data/cxr/vindr
# ```
#
# With `--download nih` the first fetches the NIH's archives; `--download kaggle` and `physionet` say
# how to get the files from there with your account. They go on after an interruption, and set broken
# files aside. Here is a trial of the first on forty images.

# %%
command = [sys.executable, str(settings.project / "data_scripts" / "prepare_nih.py")]
options = ["--out", str(folder / "packed"), "--size", "64", "--limit", "40", "--quiet"]
done = subprocess.run([*command, str(settings.nih), *options], capture_output=True, text=True)
assert done.returncode == 0, done.stderr

# %% [markdown]
# What came out: an array of bytes, and beside it an index that says which image is which.

# %%
array = next((folder / "packed").rglob("pixels.npy"))
packed = np.load(array, mmap_mode="r")
print(sorted(file.name for file in array.parent.iterdir()))
print(packed.shape, packed.dtype, f"{packed.nbytes:,} bytes")

# %% [markdown]
# The size of the whole is then a multiplication: images times side times side.

# %%
for side in (96, 256):
    print(f"{everything:,} images at {side} px: {everything * side**2 / 2**30:.1f} GB")

# %% [markdown]
# That fits into the memory of most machines with a GPU, and the operating system keeps them there after
# the first epoch. No process has to decode anything while the GPU waits.
#
# The two views of each image are still made by the processor's cores. Beside a GPU other processes, the
# *workers*, make them while it computes. How many keep up with the published log? Here one core makes
# pairs at the paper's size.

# %% tags=["nbval-ignore-output"]
recipe = PRESETS["paper"]["pretrain"]
make_views = views.TwoViews(recipe.views, recipe.image_size)
picture = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
start = time.perf_counter()
for _ in range(100):
    make_views(picture)
pairs_a_second = 100 / (time.perf_counter() - start)
print(f"one core: {pairs_a_second:.0f} pairs of views a second; the log: {images_a_second:.0f}")
print(f"workers to keep up with the log: {np.ceil(images_a_second / pairs_a_second):.0f}")

# %% [markdown]
# That is for all GPUs of a run together, on cores as fast as this one. A run that is twice as fast needs
# twice as many. The course starts a worker for each core that a process can have, and none where there
# is no GPU, since the cores train. Seed, epoch and image decide a view, so a worker should make the same
# ones as this process.

# %%
images = pairs.ImagePairs(packed, range(4), make_views, seed=0)
places = [(0, 0), (0, 1), (0, 2), (0, 3)]  # epoch and image
(own,) = DataLoader(images, 4, sampler=places)
(made,) = DataLoader(images, 4, sampler=places, num_workers=1)
assert torch.equal(own[0], made[0]) and torch.equal(own[1], made[1])
print("A worker makes the same views.")

# %% [markdown]
# ## From the demo to real data, notebook by notebook
#
# Two switches, set before JupyterLab starts, and nothing else:
#
# ```sh
# CXR_DATA=/data/cxr CXR_SCALE=demo  make lab     # real images, a laptop's settings
# CXR_DATA=/data/cxr CXR_SCALE=paper make lab     # real images, the published code's settings
# ```
#
# (Windows, or no make: see the [README](../README.md#real-data).) With all of NIH, notebook 02 takes
# hours on a laptop even at the demo's settings: ask first, with `--scale demo --dry-run` as below.
#
# | notebook | with real data |
# |---|---|
# | 01 | shows your own files; its tables of all images of both data sets are real already |
# | 02 | pretrains on the patients who are not in `test_list.txt`, less an eighth for validation; without that file the split is drawn at random by patient, and 01 says so |
# | 03 | scores on the official test list; patients are kept apart |
# | 04 | fine-tunes on VinDr-CXR, or on NIH's own boxes without it |
# | 05 | explains the detectors of 04 |
#
# What a cell *claims* about the demo is a finding on other data: it prints whether it holds. A run of
# days does not belong in a browser. The same stages run from a terminal, with the same presets and
# functions, and leave their files where the notebooks look for them:
#
# ```sh
# python -m cxr_helpers.course pretrain --data /data/cxr --scale paper \
#     --accelerator gpu --devices 4 --dry-run     # the plan
# python -m cxr_helpers.course pretrain --data /data/cxr --scale paper \
#     --accelerator gpu --devices 4               # the run
# python -m cxr_helpers.course probe --data /data/cxr --scale paper
# python -m cxr_helpers.course detect --data /data/cxr --scale paper --accelerator gpu
# ```
#
# A *process* is one running copy of the program; here each has a GPU of its own, a *device*. Where no
# GPU is seen, `--accelerator gpu` makes the run refuse, instead of going on for months on the
# processor. `--seed`, 0 by default, is the seed of weights, order and draws: `detect --seed 1` takes the
# backbone of `pretrain --seed 1`, and where that is missing makes it first, on one device. The split into
# patients has a seed of its own, the same for every run.
#
# On two machines, start this same line on each. `FIRST` is the name of one of them, and both must see
# the same folder `runs`:
#
# ```sh
# export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1     # or a restart may wait for ever
# torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 3 \
#     --rdzv-backend c10d --rdzv-id cxr --rdzv-endpoint FIRST:29500 \
#     -m cxr_helpers.course pretrain --data /data/cxr --scale paper --accelerator gpu
# ```
#
# `--set field=value` changes one setting, and `python -m cxr_helpers.course --help` lists the rest.
# Beside its results every run leaves a record, in `runs/<data>/records`: settings, versions, commit,
# seed, and a digest of the data, a short code that changes when an image or the split does.

# %% [markdown]
# ## What changes at the paper's scale
#
# Look at the table. Which rows follow from the size of the network and the images, and which need an
# explanation of their own?

# %%
scaling.preset_changes("pretrain")

# %% [markdown]
# Five rows need one: the width of the [projector](../docs/glossary.md#projector), its redundancy
# weight, the learning rate, the optimizer (the rule that turns gradients into a step), and the batch.
# We take them in turn.
#
# One more is easily passed over, `initial_weights`: the published code begins from weights learned on
# the photographs of ImageNet. `torchvision.models.resnet50(weights="IMAGENET1K_V2")` fetches them once;
# without them and without a network the run stops and says so.

# %% [markdown]
# ### The projector: D = 8192
#
# The loss compares every output with every other: D times D numbers. Two curves of what that takes, in
# memory; both axes are logarithmic. Look at where each crosses the dotted line.

# %%
backbone_bytes = scaling.trained_bytes(barlow.build_backbone("resnet50", seed=0))
scaling.plot_projector(2 ** np.arange(7, 14), backbone_bytes=backbone_bytes, published=8192)
plt.show()

# %%
widest, half, quarter = (scaling.projector_bytes(d)["projector"] for d in (8192, 4096, 2048))
print(f"projector at D = 8192: {widest / 2**30:.1f} GB, {widest / backbone_bytes:.0f} times a "
      f"ResNet-50, {widest / half:.1f} times as much as at 4096, {widest / quarter:.0f} times as "
      "much as at 2048")  # fmt: skip

# %% [markdown]
# Twice the width takes four times the memory for the correlation matrix: slope 2. The projector's line
# begins flatter, because its first layer has 2048 inputs whatever D is. The matrix is the smaller part,
# as long as it is made once: this course computes it from two matrices (batch, D), in float32 (numbers
# of four bytes), and never builds anything of size (batch, D, D).
#
# What should the first term of the loss, [invariance](../docs/glossary.md#invariance-term), be before
# anything is learned? With outputs that have nothing to do with each other the diagonal is near zero,
# and each of D diagonal entries costs $(1 - 0)^2 = 1$:
#
# $$\sum_i (1 - c_{ii})^2 \approx D.$$
#
# Random outputs for a batch of 768, and both terms of the loss, the second with the code's weight:

# %%
torch.manual_seed(0)
published_weight = PRESETS["paper"]["pretrain"].redundancy_weight
for width in (512, 2048, 8192):
    z_a, z_b = torch.randn(768, width), torch.randn(768, width)
    invariance, redundancy = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
    print(f"D = {width}: {invariance / width:.2f} D + "
          f"{published_weight * redundancy / width:.2f} D")  # fmt: skip

# %% [markdown]
# The second term is small beside the first. So a first loss near 8192 is no bug: the published log
# begins near it, as the curve in notebook 02 shows.
#
# The second term sums over D (D - 1) entries, the first over D only. A wider output therefore takes a
# smaller weight. Look at the preset's weight times D, at both scales:

# %%
for scale, stage in PRESETS.items():
    preset = stage["pretrain"]
    print(f"{scale}: {preset.redundancy_weight} x {preset.projector[-1]} = "
          f"{preset.redundancy_weight * preset.projector[-1]:.0f}")  # fmt: skip

# %% [markdown]
# Not equal, but nearer than the weights themselves. The rule says where to begin to look for a weight,
# not which one is best.

# %% [markdown]
# ### The learning rate: 0.2, 0.6 or 0.0144?
#
# The published base rate is 0.2 *for 256 images*. A batch three times as large averages its gradient
# over three times as many images, so the gradient is less noisy, and the step may be longer. The rule
# is linear:
#
# $$\text{rate} = \text{base} \cdot \frac{\text{batch}}{256}.$$
#
# The rule needs a slow rise of the rate at the start, the *warm-up*: the projector's weights are random
# then, and a full step can ruin the run. Afterwards the rate falls as half a cosine does. The curve of
# the whole run, and of its first thirty epochs:

# %%
preset = PRESETS["paper"]["pretrain"]
rate, epochs = preset.learning_rate * preset.batch_size / 256, np.arange(preset.epochs + 1)
warmup = round(preset.warmup_fraction * preset.epochs)
shares = [cosine_warmup_schedule(e, preset.epochs + 1, 1.0, 0.0, warmup, 0.0) for e in epochs]
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for axis, last in zip(axes, (preset.epochs, 30), strict=True):
    axis.plot(epochs[: last + 1], rate * np.array(shares)[: last + 1])
    axis.set_xlabel("epoch, from 0")
axes[0].set_ylabel("learning rate of the weights")
plt.show()

# %% [markdown]
# Ten epochs rise to 0.2 x 768 / 256 = 0.6, the rest fall to zero (in the published code to a thousandth
# of the top). The biases, and the *norms*, that is, the scales and offsets of
# [batch norm](../docs/glossary.md#batch-norm), have a rate of their own, because the optimizer does not
# scale their steps (next section): the base is 0.0048, the top 0.0048 x 3 = 0.0144.

# %%
print(f"top rates: weights {rate:g}, biases and norms {0.024 * rate:g}")

# %% [markdown]
# ### LARS: a step in proportion to the weights
#
# Under plain SGD a step is the rate times the gradient. So one rate cannot suit layers whose gradients
# differ a thousandfold. LARS gives each layer a step of its own: it divides the gradient by its length
# and multiplies by the length of the weights. AdamW, the demo's optimizer, scales the step of each
# single weight. Two layers, the second with gradients a thousand times as large. Look at how far each
# moves, as a share of its weights.


# %%
def moved(make_optimizer):
    """Relative change of two layers after one step on gradients of very different size."""
    torch.manual_seed(0)
    layers = [nn.Parameter(torch.randn(20, 20)) for _ in range(2)]
    for layer, size in zip(layers, (1.0, 1000.0), strict=True):
        layer.grad = size * torch.randn(20, 20)
    before = [layer.detach().clone() for layer in layers]
    make_optimizer(layers).step()
    return [((a - b).norm() / b.norm()).item() for a, b in zip(layers, before, strict=True)]


# %%
steps = {
    "SGD": moved(lambda layers: torch.optim.SGD(layers, lr=0.6)),
    "LARS": moved(lambda layers: LARS(layers, lr=0.6, weight_decay=1e-6)),
    "AdamW": moved(lambda layers: torch.optim.AdamW(layers, lr=1e-3)),
}
pd.DataFrame(steps, index=["small gradients", "large gradients"]).round(4)

# %% [markdown]
# Under SGD the first layer changes by more than half of its length in one step, and the second by
# hundreds of times its length. Under LARS both move by the same small share: the rate times a constant
# of 0.001, the trust coefficient. AdamW moves both alike, too. lightly's LARS scales a step only where
# there is weight decay (a pull of the weights towards zero). Biases and norms have none.

# %% [markdown]
# ### The batch: several processes must act as one
#
# 768 images do not fit most GPUs (a trial below says how much they take), so several share them. Two
# parts of the method look at the *whole* batch: batch norm, and the correlation. If each process looks
# only at its own share, it solves another problem. First batch norm: eight numbers of one
# [feature](../docs/glossary.md#feature), normalized together, and in two halves.

# %%
values = torch.tensor([1.0, 2, 3, 4, 11, 12, 13, 14])
together = (values - values.mean()) / values.std(correction=0)
halves = torch.cat([(h - h.mean()) / h.std(correction=0) for h in values.chunk(2)])
pd.DataFrame({"together": together, "in halves": halves}).round(2).T

# %% [markdown]
# In halves, the difference between the first four and the last four is gone: 1 and 11 became the same
# number. Statistics that the processes put together are those of the whole batch: send the sums.

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
# your answers. What is done is remembered, and notebook 00 counts it.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

# %% [markdown]
# **Exercise 6.1, two minutes.** Your GPUs hold 512 images a step. What is the top learning rate of the
# weights?

# %%
rate_of_512 = ...
check("6.1", rate_of_512)

# %% [markdown]
# **Exercise 6.2, five minutes.** What is the *invariance term*, about, before anything is learned, for
# outputs of these widths?

# %%
first_term = {"D = 2048": ..., "D = 128": ...}
check("6.2", first_term)


# %% [markdown]
# **Exercise 6.3, ten minutes.** To compute a score faster, the test images are shared among processes.
# Return the rows, of the array `rows`, that process number `rank` (from 0) of `world` works on: none
# twice, none left out, the shares as equal as can be.


# %%
def share(rows, rank, world):
    return ...  # your code


check("6.3", share)

# %% [markdown]
# **Exercise 6.4, fifteen minutes.** Each process sends how many values it has, their sum, and the sum
# of their squares, as three arrays with one number for each process. Return mean and variance of all.
# The variance divides by the number of values, as batch norm does, not by one less.


# %%
def whole_batch(counts, sums, squares):
    return ...  # np.array([mean, variance])


check("6.4", whole_batch)

# %% [markdown]
# ## Reading a scaling table
#
# Twice the machines, twice the speed? A table that answers has three columns beside the number of
# workers. Here is one that you make yourself, not of machines but of threads: the forward pass of the
# demo's backbone on one thread and on two. Look at the last column, the efficiency.

# %% tags=["nbval-ignore-output"]
backbone = barlow.build_backbone("resnet18", seed=0).eval()
pictures, threads = torch.rand(64, 3, 64, 64), torch.get_num_threads()
with torch.inference_mode():
    table = scaling.scaling_table(
        lambda: backbone(pictures), (1, 2), torch.set_num_threads, items=len(pictures)
    )
torch.set_num_threads(threads)
table.round(2)

# %%
with torch.inference_mode():
    outputs = []
    for count in (1, 2):
        torch.set_num_threads(count)
        outputs.append(backbone(pictures))
torch.set_num_threads(threads)
assert torch.allclose(*outputs, rtol=1e-3, atol=1e-4)
print("One thread and two give the same features, but for rounding.")

# %% [markdown]
# What your efficiency lacks to 1 was lost: in waiting, in sending, or because somebody else used the
# machine. Machines lose more than threads, because gradients travel through a network. Three questions
# to any such table:
#
# - **Compared with what?** The first row must be the best that one worker can do, not a slow program.
# - **Was the batch per worker kept, or the whole batch?** If it is the whole, each worker has less to
#   do in each step, and the fixed costs weigh more.
# - **Is the result the same?** A larger batch needs another learning rate. Speed without the same
#   accuracy is no speed.

# %% [markdown]
# ## What will it cost on your machine?
#
# The trial takes a few steps at the paper's scale, ResNet-50 at 224 pixels with D = 8192, with four
# images and with eight, and all of it twice. The difference is the cost of four images; the rest is the
# cost of a step whatever its images. (The demo's images are stored smaller than that; their views have
# 224 pixels all the same.) Look at the images a second beside those of the published log.

# %%
data = load_nih(settings)
paper = stages.Run(replace(settings, pretrain=PRESETS["paper"]["pretrain"]))
cost, again = (planning.pretrain_cost(paper, data, images=4, seconds=1.0) for _ in range(2))

# %% tags=["nbval-ignore-output"]
step = cost.step_seconds(768)
print(f"4 images {cost.step_seconds(4):.1f} s, 8 images {cost.step_seconds(8):.1f} s: so an image "
      f"takes {cost.seconds_per_image:.2f} s, and the rest {cost.seconds:.1f} s")  # fmt: skip
print(f"a step of 768 images: {step:.0f} s, {768 / step:.1f} images a second; the published log: "
      f"{images_a_second:.0f}, {images_a_second * step / 768:.0f} times as many")  # fmt: skip
print(f"activations of 768 images: {cost.step_bytes(768) / 2**30:.0f} GB")

# %%
both_views = 2 * 3 * PRESETS["paper"]["pretrain"].image_size ** 2 * 4  # bytes, three channels each
claim(
    cost.bytes_per_image > 20 * both_views,
    "what is kept of an image takes more than twenty times the memory of its two views",
    settings,
)

# %% [markdown]
# *Activations* are the intermediate results that are kept for the backward pass. Weights, gradients and
# the optimizer's values come on top. The whole plan, on one device. Look at memory, disk and time:

# %% tags=["nbval-ignore-output"]
plan = planning.plan_pretrain(paper, data, cost=cost, training_images=round(official * 7 / 8))
days = sorted(plan.steps * one.step_seconds(768) / 86_400 for one in (cost, again))
print(*plan.lines(), sep="\n")
print(f"by the two trials: between {days[0]:.0f} and {days[1]:.0f} days")

# %%
assert plan.steps == 600 * (round(official * 7 / 8) // 768)
print("The plan has the steps of 600 epochs.")

# %% [markdown]
# Trials of some seconds are stretched far here; the last line shows how far the days move when they are
# made again, and more trials would show a wider range. On a processor it is far too long anyhow: the demo
# exists for a reason. For a plan that counts, use `--dry-run` on the GPU, for both stages that train. On
# which GPUs, and how many, the published log was made is not known here, so its images a second compare
# set-ups, not programs.
#
# If the memory does not fit:
#
# | what to change | what it does to memory | what it does to the result |
# |---|---|---|
# | more `--devices` | each holds the activations of a smaller share; weights stay | none, the batch is the same |
# | `--precision bf16-mixed` (numbers of two bytes instead of four) | half of the backbone's activations, where the run is in float32; it is the default where the GPU has it | little |
# | `--set batch_size=384` | half of the activations | the learning rate is scaled with it; fewer images in each correlation |
# | `--set image_size=160` | half of the activations | other, coarser features |
# | `--set projector=2048,2048,2048` | a small part of the projector's, as printed below the first figure | another loss; choose the weight anew |

# %% [markdown]
# ### Exercises
#
# **Exercise 6.5, ten minutes.** How many hours does a run take? Images that do not fill a last batch
# make no step.


# %%
def hours(images, epochs, batch_size, seconds_a_step):
    return ...  # your code


check("6.5", hours)

# %% [markdown]
# **Exercise 6.6, ten minutes.** A trial says: each GPU needs 5 GB for weights and matrices, however few
# images it holds, and 0.075 GB more for each image. The batch has 768 images, and you have four GPUs.
# How many images does each hold, and how many GB?

# %%
on_each = {"images on each": ..., "GB on each": ...}
check("6.6", on_each)

# %% [markdown]
# A question. Choose, then unfold the answers.

# %%
quiz("6.A")

# %% [markdown]
# ## When it breaks
#
# A run of days may well be interrupted. Here is a small one that we kill, without warning, as soon
# as it has written a checkpoint, and another that nobody disturbs.

# %%
epochs_done = resuming.kill_after_a_checkpoint(folder / "killed")
assert epochs_done < resuming.SMALL["epochs"]
print("Killed before the end.")

# %% [markdown]
# Now the same program again, with the same settings and nothing else (`finish` starts it). Are the
# weights those of the undisturbed run?

# %%
went_on = resuming.finish(folder / "killed")
unbroken = resuming.finish(folder / "unbroken")
assert all(torch.equal(went_on[name], unbroken[name]) for name in unbroken)
print(f"{len(unbroken)} tensors, every one equal to the last bit.")

# %% [markdown]
# So it is on this processor. It works because order, views and learning rates depend on seed and step
# alone, and because a [checkpoint](../docs/glossary.md#checkpoint) is written beside the last good one
# and takes its place when it is whole. Here it holds the optimizer's values too.
#
# Other failures have a message of their own. Two examples. First a checkpoint of other data under
# the same name. The next cell forges one: it says that it is of data with the digest 9a3e, where
# the data here has 1f0c.

# %%
told = {"data": "nih", "images": 86_524, "digest": "1f0c"}
callbacks = {checkpoints.Identity.state_key: checkpoints.identity(told | {"digest": "9a3e"})}
run_folder = folder / "run"
checkpoints.AtomicCheckpointIO().save_checkpoint(
    {"callbacks": callbacks}, run_folder / checkpoints.NAME
)

# %%
try:
    checkpoints.checkpoint_to_resume(run_folder, told)
except checkpoints.CheckpointError as error:
    print(str(error).replace(str(folder), "runs"))

# %% [markdown]
# And a loss that is not finite, here because of a learning rate that is absurd. (The text is
# shortened: the step differs from machine to machine.)

# %%
wild = resuming.small_settings(folder / "wild")
wild = replace(wild, pretrain=replace(wild.pretrain, learning_rate=1e30, warmup_fraction=0.0))
try:
    pretraining.pretrain(wild, data, seed=0, progress=False)
except FloatingPointError as error:
    print(str(error).split(" at step")[0], "...", str(error).split("; ")[1])

# %% [markdown]
# | what happened | what the course says or does | what you do |
# |---|---|---|
# | killed, power cut, machine lost | the last good checkpoint stands; torchrun with `--max-restarts 3` starts the workers again | else the same command |
# | disk full | refuses to begin if two checkpoints do not fit; later, names the checkpoint that could not be written | make room, the same command |
# | loss not finite at epoch 300 | stops, with the step and what to lower | look at the log; then first `--precision 32-true`: the same run goes on from its last good checkpoint |
# | checkpoint of an older version | refuses, with both versions | finish with that version, or start anew |
# | two folders of data with the same name | refuses, with both digests | rename one |
# | GPU too small | stops, with the batch and the image size to halve | the table above |
# | no GPU seen | with `--accelerator gpu` refuses; without it the run goes on, on the processor | mend the driver, or take the demo scale |
# | processes that do not divide the batch | refuses, with the numbers that would do | one of them |
#
# Any `--set`, such as another learning rate, makes another run, in a folder of its own, and that begins
# at epoch 0. The old checkpoint stays, and `--set initial_weights=PATH/last.ckpt` lets the new run
# start from the backbone in it.

# %% [markdown]
# ### A question

# %%
quiz("6.B")

# %% [markdown]
# ## Your own images: a list, a reader, a patient
#
# Suppose you have a folder of PNG files, and no table at all. Only you know three things: which files
# there are, how one is read, and whose it is. Before you train on images of patients, three more:
#
# - **May you?** Do approval and data protection allow training, and passing on the weights? Names hide
#   in file names, and burnt into the picture.
# - **Are they chests, from the front?** Exports also hold lateral views, other body parts and copies.
#   The DICOM header's ViewPosition and BodyPartExamined help; your eye decides.
# - **Do they look right?** Look at twenty packed images for negatives (MONOCHROME1), borders, and what
#   is upside down. Packing keeps the ratio of the sides; the rest of the square is black.
#
# The folder here is the demo's; take yours. An image is named by its path below the folder, since
# exports often have an `IM0001` in every patient's folder.

# %%
mine = settings.nih
paths = sorted(mine.rglob("*.png"))[:300]  # the first 300, so that it is quick
files = {path.relative_to(mine).as_posix(): path for path in paths}


# %%
def patient(image_id):
    """The first eight digits of a file's name; with a folder a patient, `image_id.split("/")[0]`."""
    return Path(image_id).name.split("_")[0]


# %% [markdown]
# Reading is `nih.read_image`, since these are PNG files. For DICOM list `"*.dcm"`, save these lines as
# `my_reader.py` beside the notebook, `import my_reader`, and give `read=my_reader.read`:
#
# ```python
# from cxr_helpers import dicom
#
# def read(path):
#     return dicom.read_dicom(path).pixels
# ```
#
# Several processes read, and they import the function: one that is typed into a cell is not found on
# every system. Look at the split: no patient on two sides.

# %% tags=["nbval-ignore-output"]
here = replace(settings, project=folder)
own, images = own_data.own_images(
    here, name="mine", files=files, read=nih.read_image, patient=patient
)

# %%
parts = {part: set(images.patients[images.rows(part)]) for part in ("train", "val", "test")}
assert sum(map(len, parts.values())) == len(set.union(*parts.values()))
print({part: len(images.rows(part)) for part in parts}, "images")
print({part: len(patients) for part, patients in parts.items()}, "patients")

# %% [markdown]
# Seven, one and two tenths of the *patients*. Images follow their patient, so their shares differ
# from that.
#
# Pretraining takes them as they are. A few epochs, to see that it runs; notebook 02 says how long is
# long enough. Look at the first and the last loss. (Row 0 of the log is measured before training, so
# it has no loss.)

# %%
few = replace(resuming.small_settings(folder).pretrain, batch_size=64, epochs=8)
own = replace(own, pretrain=few)
path = pretraining.pretrain(own, images, seed=0, progress=False)

# %% tags=["nbval-ignore-output"]
loss = pretraining.training_log(path)["loss"]
print(f"loss {loss.iloc[1]:.1f} in the first epoch, {loss.iloc[-1]:.1f} in the last")

# %%
claim(loss.iloc[-1] < loss.iloc[1], "the loss falls on images of your own", settings)

# %% [markdown]
# What do such features say? Take a validation image, the query, and the four training images whose
# features are nearest; below, the same with a network that was never trained. Above each stands its
# view, from the demo's table. The network saw 32 x 32 pixels, in which no nodule survives. Look at
# brightness, borders, size of the body and view, then compare the rows.

# %%
state, _ = weights.read_weights(path)
networks = {name: barlow.build_backbone("resnet18", seed=0) for name in ("trained", "untrained")}
weights.load_weights(networks["trained"], state)
pixels, known = np.array(images.images.pixels), data.entries.set_index("image_id")["view"]
views = [known.get(Path(image_id).name, "") for image_id in images.images.image_ids]

# %%
query, neighbors = images.rows("val")[0], {}
for name, network in networks.items():
    features = pretraining.features(own, network, pixels, "pretrained")
    near = pretraining_labs.nearest(features, query, images.rows("train"), count=4)
    neighbors[name] = ([pixels[row] for row in near], [views[row] for row in near])
ch02.plot_neighbors(pixels[query], neighbors, title=f"query: {views[query]}")
plt.show()

# %% [markdown]
# Count in each row how many of the four share the query's view. But four neighbors of one image are an
# anecdote, and no evidence that a training of seconds taught anything. Always ask what a network
# without training would have found: that is the other row.

# %% [markdown]
# ## Hand your weights on
#
# Somebody else does not have this course. They need the weights in a format that everybody reads
# (safetensors, a file of numbers only), and a model card that says what they are and what they are not.
# One call writes both. Read the agreement of the data first: VinDr-CXR's forbids sharing its images,
# and what it says of weights is for you to look up. For NIH, name the source in the card.

# %%
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

# %%
written = hub.write_folder(state, folder / "share", card, arch="resnet18")
print([file.name for file in written])

# %% [markdown]
# The card's end, as a stranger reads it:

# %%
print((folder / "share" / "README.md").read_text(encoding="utf-8").split("## Limits")[1])

# %% [markdown]
# And the test of the weights: torchvision alone, no line of this course.

# %%
theirs = torchvision.models.resnet18()
theirs.fc = nn.Identity()
theirs.load_state_dict(load_file(folder / "share" / "model.safetensors"))
batch = torch.rand(2, 3, 64, 64)
assert torch.equal(theirs.eval()(batch), networks["trained"].cpu().eval()(batch))
print("torchvision loads the file and computes the same features.")

# %% [markdown]
# The other way round, `weights.read_weights` takes torchvision's and the original Barlow Twins'
# ResNet-50, the checkpoint that the paper's authors published, those of the library timm, and your own
# files; `hub.fetch` gets one from the Hugging Face hub. No code in a file is ever run.
# `hub.push(folder / "share", "owner/name")` would upload your folder there, private unless you
# say otherwise; this notebook does not do it.

# %% [markdown]
# ## The ledger
#
# Rebuilding a paper means to decide many things. The ledger has two tables. The first is short: what the
# paper's abstract claims, and what this course has on it. For which of these claims is there a figure?

# %%
book = ledger.read_ledger(settings.project / ledger.SOURCE)
claims = ledger.claims_table(book)
Markdown(ledger.markdown(claims))

# %% [markdown]
# The second is long: what the published code does, what this course does at its scale, and why that
# differs. It is made from a file and from the presets, so that it cannot go stale. A '-' under 'code'
# marks a result. Find the row that you think matters most for the gain that the paper claims, and read
# its 'why', if it has one.

# %%
rows = ledger.ledger_table(book)
for part, lines in rows.groupby("part", sort=False):
    shown = lines.drop(columns=["part", "command"])
    display(Markdown(f"**{part}**\n\n{ledger.markdown(shown)}"))  # noqa: F821

# %%
remarks = (rows["why"] != ledger.SAME).sum()
print(f"{len(rows)} rows, {remarks} with a remark in 'why'")

# %% [markdown]
# A setting of the code is not yet a statement of the paper: code can be read line by line, and this
# course has the paper's abstract, not the tables of its text. Whether the paper says the same is for you
# to look up: take three rows and do it.
#
# Some entries are measured. These are the ones that the notebooks have measured on this machine so far.
# Look at the brackets, which are 95% [intervals](../docs/glossary.md#interval-95): where does one hold
# zero?

# %% tags=["nbval-ignore-output"]
found = ledger.ledger_table(book, read_results(settings.runs / "results"))
measured = found[(rows["ours"] == ledger.TO_MEASURE) & (found["ours"] != ledger.NOT_MEASURED)]
measured.set_index("what")[["ours"]]

# %%
where = f"data {settings.data}, scale {settings.scale}"
assert len(measured), "no result of the last run is in the ledger"
claim(measured["ours"].str.endswith(where).all(), "they are of this data and this scale", settings)

# %% [markdown]
# Where the interval of a difference holds zero, the demo does not show that pretraining helps, nor the
# contrary. These are synthetic images: nothing follows for patients. To compare a loss with the log's,
# divide each by its D, the last width of the projector.
#
# Some points of the published protocol are worth a lesson each. The last column says where the course
# shows it, in a notebook or in its code. The same table with links is in
# [docs/ledger.md](../docs/ledger.md).

# %%
Markdown(ledger.markdown(ledger.points_table(book, base=None)))

# %%
results.add(
    ledger_rows=len(rows),
    ledger_remarks=int(remarks),
    paper_step_seconds=step,
    paper_bytes_per_image=cost.bytes_per_image,
)
work.cleanup()
results.save().name

# %% [markdown]
# ## Your own figure
#
# **Exercise 6.7, half an hour.** Draw a scaling curve. `workers` is an array such as 1, 2, 4, 8, 16;
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


check("6.7", scaling_figure)

# %% [markdown]
# ## What this does not show
#
# Nothing here ran at the paper's scale: the trial took a few steps, and its plan assumes that data is
# never waited for and that machines add up. Two processes on one machine show that the arithmetic is
# right, not that a network between machines is fast. And whether the paper's claim holds on real data
# is for those to say who have both data sets, with several seeds and an interval.
#
# ## What you learned
#
# - The data, its folders and two commands that pack it; the sizes that are known.
# - Five settings change with a reason of their own: the width of the projector, its redundancy weight,
#   the learning rate, the optimizer and the batch.
# - Processes must share batch norm and correlation, or each solves another problem.
# - A short trial gives memory, disk and hours, before anything is rented.
# - A killed run goes on to the last bit; a failure has a message that says what to do.
# - Your own images need a list, a reader, and a patient for each.
# - Weights travel as numbers with a card that says what they are not.
# - A ledger shows what a paper claims, what its code does, and where this course differs and why.
#
# ## Questions to think about
#
# Answers to think against are in the [teacher's notes](../docs/teaching/notebooks.md).
#
# 1. A run with 768 images has eight GPUs with 96 on each. You get sixteen, and keep 96 on each. Name
#    three settings that you must think about again.
# 2. A colleague's program trains twice as fast on the same GPU. What do you ask before you believe it?
# 3. Your hospital's images have no patient number, only a date and a room. How do you split them, and
#    what do you write into the model card?
# 4. The ledger's settings are those of the published code. Look three of them up in the paper. Which of
#    the others would change what you conclude from it, and whom would you ask?
