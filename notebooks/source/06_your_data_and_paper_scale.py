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
# images of my own? And what does this course do otherwise than the paper?**
#
# So far everything ran on a laptop. The same functions run at the paper's scale: only the presets
# change, and the data. This notebook shows what to download, what changes and why, how long it will
# take on your machine, and what to do when something breaks after two days.
#
# ## What you will learn
#
# - What to download, how large it is, and how it is prepared.
# - Which settings change at the paper's scale, and the reason for each.
# - Why several processes must act as one, and what goes wrong when they do not.
# - To estimate memory, disk and hours from a trial of a minute.
# - To go on after a kill, and what each failure says.
# - To bring your own images, with three small functions.
# - To hand your weights to somebody who does not have this course.
# - To read the ledger: the paper, its code, and this course side by side.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores.

# %%
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from IPython.display import Markdown
from lightly.utils.lars import LARS
from safetensors.torch import load_file
from torch import nn

# %%
from cxr_helpers import barlow, hub, nih, plots
from cxr_helpers.course import (
    checkpoints,
    ledger,
    own_data,
    planning,
    pretraining,
    resuming,
    scaling,
    stages,
)
from cxr_helpers.course.compute import ComputeError, check_batch
from cxr_helpers.course.data import load_nih
from cxr_helpers.course.results import Results, claim, read_results
from cxr_helpers.course.settings import PRESETS, load_settings

# %%
plots.set_style()
settings = load_settings()
results = Results("06_your_data_and_paper_scale", settings)
work = tempfile.TemporaryDirectory()
folder = Path(work.name)

# %% [markdown]
# ## By hand: how long is 42 hours?
#
# The paper's one published training log has 800 epochs of 145 steps, in 42.1 hours. How long is a
# step? And how many images a second is that, at 768 images a step?

# %%
seconds_a_step = 42.1 * 3600 / (800 * 145)
images_a_second = 768 / seconds_a_step
print(f"{seconds_a_step:.2f} seconds a step, {images_a_second:.0f} images a second")

# %% [markdown]
# Each image is seen twice, once in each view, so the network worked through twice as many pictures.
# Keep the number of images a second in mind: at the end of this notebook you compare it with your
# own machine's.
#
# How many images does an epoch of 145 steps see?

# %%
seen = 145 * 768
print(f"{seen:,} images an epoch; all of NIH are 112,120, the official training list 86,524")

# %% [markdown]
# An epoch saw all images, those of the official test list included. That does no harm to the
# detector, which is tested on another hospital's images. It does harm to a linear evaluation on that
# test list. This course pretrains on the training list alone.

# %% [markdown]
# ## What to download
#
# | data | what | how large | who may have it |
# |---|---|---|---|
# | NIH ChestX-ray14 | 112,120 PNG files of 1024 x 1024 pixels, in twelve archives | about 42 to 45 GB | everybody |
# | the same, a sample of 5% on Kaggle | for a first try | about 2 GB | everybody with an account |
# | VinDr-CXR on Kaggle (VinBigData) | 15,000 DICOM files and `train.csv` | the site says | with an account, under its rules |
# | VinDr-CXR 1.0.0 on PhysioNet | the same images, and a test set with the consensus of five radiologists | the site says | credentialed users |
#
# Put both below one folder, in `nih` and `vindr`, and set `CXR_DATA` to that folder. VinDr-CXR's
# agreement forbids sharing its images. Without it, notebook 04 uses NIH's own boxes.
#
# Reading a PNG or a DICOM file costs far more than a training step needs of it. So each file is read
# once, scaled down, and packed into one array. Two scripts do that. They also download, go on after
# an interruption, and set broken files aside. Here is a trial of one of them on forty images.

# %%
command = [sys.executable, str(settings.project / "data_scripts" / "prepare_nih.py")]
options = ["--out", str(folder / "packed"), "--size", "64", "--limit", "40", "--quiet"]
done = subprocess.run([*command, str(settings.nih), *options], capture_output=True, text=True)
assert done.returncode == 0, done.stderr

# %% [markdown]
# What came out: an array of bytes, and beside it which image is which.

# %%
array = next((folder / "packed").rglob("pixels.npy"))
packed = np.load(array, mmap_mode="r")
print(packed.shape, packed.dtype, f"{packed.nbytes:,} bytes")

# %% [markdown]
# The size of the whole is then a multiplication: images times side times side.

# %%
for side in (96, 256):
    print(f"112,120 images at {side} px: {112_120 * side**2 / 2**30:.1f} GB")

# %% [markdown]
# About seven gigabytes fit into memory, and the operating system keeps them there after the first epoch. No
# process has to decode anything while the GPU waits.

# %% [markdown]
# ## From the demo to real data, notebook by notebook
#
# Two switches, set before JupyterLab starts, and nothing else:
#
# ```sh
# CXR_DATA=/data/cxr CXR_SCALE=demo  make lab     # real images, a laptop's settings
# CXR_DATA=/data/cxr CXR_SCALE=paper make lab     # real images, the paper's settings
# ```
#
# | notebook | with real data |
# |---|---|
# | 01 | shows your own files; its tables of all 112,120 and 15,000 images are real already |
# | 02 | pretrains on the official training list, if `train_val_list.txt` lies beside the images |
# | 03 | scores on the official test list; patients are kept apart |
# | 04 | fine-tunes on VinDr-CXR, or on NIH's 984 boxes without it |
# | 05 | explains the detectors of 04 |
#
# What a cell *claims* about the demo is a finding on other data: it prints whether it holds. A run of
# days does not belong in a browser. The same stages run from a terminal, with the same presets and
# functions, and leave their files where the notebooks look for them:
#
# ```sh
# python -m cxr_helpers.course pretrain --data /data/cxr --scale paper --devices 4 --dry-run
# python -m cxr_helpers.course pretrain --data /data/cxr --scale paper --devices 4
# python -m cxr_helpers.course detect   --data /data/cxr --scale paper --seed 1
# torchrun --nnodes 2 --nproc-per-node 4 -m cxr_helpers.course pretrain --data /data/cxr --scale paper
# ```
#
# `--set field=value` changes one setting, and `python -m cxr_helpers.course --help` lists the rest.
# Beside its results every run leaves a record: settings, versions, commit, seed, and a digest of the
# data.

# %% [markdown]
# ## What changes at the paper's scale
#
# Look at the table. Which rows follow from the size of the network and the images, and which need an
# explanation of their own?

# %%
scaling.preset_changes("pretrain")

# %% [markdown]
# Five rows need one: the width of the projector, its redundancy weight, the learning rate, the
# optimizer, and the batch. We take them in turn.

# %% [markdown]
# ### The projector: D = 8192
#
# The loss compares every output with every other: D times D numbers. A curve of what that takes, in
# memory. Both axes are logarithmic.

# %%
widths = 2 ** np.arange(7, 14)
memory = pd.DataFrame([scaling.projector_bytes(int(d)) for d in widths], index=widths) / 2**20
axis = memory.plot(logx=True, logy=True, style=["o-", "s--"])
axis.set(xlabel="width D of the projector's output", ylabel="memory (MB), float32")
axis.axvline(8192, color="gray", lw=1)
plt.show()

# %% [markdown]
# Twice the width takes four times the memory: at the right the slope is 2. At D = 8192 the projector
# with its gradients takes more than a ResNet-50. The correlation matrix is the smaller part, as long
# as it is made once: this course computes it from two matrices (batch, D), in float32, and never
# builds anything of size (batch, D, D).
#
# What should the loss be before anything is learned? With outputs that have nothing to do with each
# other the diagonal is near zero, and each of D diagonal entries costs $(1 - 0)^2 = 1$:
#
# $$\sum_i (1 - c_{ii})^2 \approx D.$$

# %%
torch.manual_seed(0)
start = {}
for width in (512, 2048, 8192):
    z_a, z_b = torch.randn(768, width), torch.randn(768, width)
    invariance, _ = barlow.loss_terms(barlow.cross_correlation(z_a, z_b))
    start[width] = invariance.item()
print({width: f"{value / width:.2f} D" for width, value in start.items()})

# %% [markdown]
# So a first loss near 8192 is no bug. The published log's first epoch has 7471 on average.
#
# The second term sums over D (D - 1) entries, the first over D only. A wider output therefore takes a
# smaller weight. The preset's weight times D, at both scales:

# %%
for scale, stage in PRESETS.items():
    preset = stage["pretrain"]
    print(f"{scale}: {preset.redundancy_weight} x {preset.projector[-1]} = "
          f"{preset.redundancy_weight * preset.projector[-1]:.0f}")  # fmt: skip

# %% [markdown]
# ### The learning rate: 0.2, 0.6 or 0.0144?
#
# The published base rate is 0.2 *for 256 images*. A batch three times as large averages its gradient
# over three times as many images, so the gradient is less noisy, and the step may be longer. The rule
# is linear:
#
# $$\text{rate} = \text{base} \cdot \frac{\text{batch}}{256}.$$
#
# It holds for a start with a warm-up only. The curve: ten of the preset's epochs to rise, then half a
# cosine to fall.

# %%
preset = PRESETS["paper"]["pretrain"]
rate, epochs = preset.learning_rate * preset.batch_size / 256, np.arange(preset.epochs + 1)
shares = [barlow.warmup_cosine(int(e), 10, preset.epochs) for e in epochs]
plt.plot(epochs, rate * np.array(shares))
plt.gca().set(xlabel="epoch", ylabel="learning rate of the weights")
plt.show()

# %% [markdown]
# The top is 0.2 x 768 / 256 = 0.6 for the weights. Biases and norms have a base rate of 0.0048, and
# their top is 0.0144.

# %% [markdown]
# ### LARS: a step in proportion to the weights
#
# A rate of 0.6 would wreck most networks under plain SGD. LARS gives each layer a step of its own: it
# divides the gradient by its length and multiplies by the length of the weights. Two layers, the
# second with gradients a thousand times as large. Look at how far each moves, as a share of its
# weights.


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
}
pd.DataFrame(steps, index=["small gradients", "large gradients"]).round(4)

# %% [markdown]
# Under SGD the second layer becomes something else entirely. Under LARS both move by the same small
# share: the rate times 0.001, lightly's trust coefficient. lightly scales a step only where there is
# weight decay. Biases and norms have none, so they take plain steps, at a smaller rate of their own. The demo trains with AdamW, which gives each weight a step of its own size.

# %% [markdown]
# ### The batch: several processes must act as one
#
# 768 images do not fit one GPU, so several share them. Two parts of the method look at the *whole*
# batch: batch norm, and the correlation. If each process looks only at its own share, it solves
# another problem. First batch norm: eight numbers of one channel, normalized together, and in two
# halves.

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
# matrix is made. How far apart are the two, for 768 images on eight processes?

# %%
torch.manual_seed(1)
common = torch.randn(768, 64)
z_a, z_b = common + torch.randn(768, 64), common + torch.randn(768, 64)
whole = barlow.cross_correlation(z_a, z_b)
pairs = zip(z_a.chunk(8), z_b.chunk(8), strict=True)
averaged = torch.stack([barlow.cross_correlation(a, b) for a, b in pairs]).mean(dim=0)
print(f"largest difference of an entry: {(whole - averaged).abs().max():.3f}")

# %% [markdown]
# Here the images of a share are as mixed as the whole, so the difference is small. Change 8 to 192,
# four images each, and look again. The project's tests check for 2 and 4 processes that loss, gradients and running
# statistics are those of one process with the whole batch.
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
# **Exercise 6.1, two minutes.** Your GPUs hold 512 images a step. What is the top rate of the weights?

# %%
rate_of_512 = ...
check("6.1", rate_of_512)

# %% [markdown]
# **Exercise 6.2, five minutes.** What is the loss, about, before anything is learned, for outputs of
# these widths?

# %%
first_loss = {"D = 2048": ..., "D = 128": ...}
check("6.2", first_loss)


# %% [markdown]
# **Exercise 6.3, ten minutes.** Before a metric, the images are shared among processes. Return the
# rows that process number `rank` of `world` works on: each row once, none left out.


# %%
def share(rows, rank, world):
    return ...  # your code


check("6.3", share)

# %% [markdown]
# **Exercise 6.4, fifteen minutes.** Each process sends how many values it has, their sum, and the sum
# of their squares, as three arrays with one number for each process. Return mean and variance of all.


# %%
def whole_batch(counts, sums, squares):
    return ...  # np.array([mean, variance])


check("6.4", whole_batch)

# %% [markdown]
# ## Reading a scaling table
#
# Twice the machines, twice the speed? A table of that kind has three columns. Here is one that you
# make yourself: the forward pass of the demo's backbone on one thread and on two. Look at the last
# column.

# %% tags=["nbval-ignore-output"]
backbone = barlow.build_backbone("resnet18", seed=0).eval()
pictures, threads = torch.rand(64, 3, 96, 96), torch.get_num_threads()
with torch.inference_mode():
    table = scaling.scaling_table(
        lambda: backbone(pictures), (1, 2), torch.set_num_threads, items=len(pictures)
    )
torch.set_num_threads(threads)
table.round(2)

# %%
assert table["efficiency"].iloc[0] == 1 and (table["images a second"] > 0).all()
print("The first row is the measure of the others.")

# %% [markdown]
# An efficiency of 0.9 with two workers means that a tenth of what you paid for was lost: in waiting,
# in sending, or because somebody else used the machine. Three questions to any such table:
#
# - **Compared with what?** The first row must be the best that one worker can do, not a slow program.
# - **Was the batch per worker kept, or the whole batch?** If it is the whole, each worker has less to
#   do in each step, and the fixed costs weigh more.
# - **Is the result the same?** A larger batch needs another learning rate. Speed without the same
#   accuracy is no speed.

# %% [markdown]
# ## What will it cost on your machine?
#
# The trial takes a few steps at the paper's settings, ResNet-50 at 224 pixels with D = 8192, with four
# images and with eight. The difference is the cost of four images; the rest is the cost of a step
# whatever its images. (The demo's images are stored at 96 pixels; their views have 224 all the same.)

# %%
data = load_nih(settings)
paper = replace(settings, pretrain=replace(PRESETS["paper"]["pretrain"], batch_size=768))
small = replace(paper, pretrain=replace(paper.pretrain, batch_size=8))
cost = planning.pretrain_cost(stages.Run(small), data, images=4, seconds=1.0)

# %% tags=["nbval-ignore-output"]
step = cost.step_seconds(768)
print(f"a step of 768 images: {step:.0f} seconds, {768 / step:.1f} images a second")
print(f"activations of 768 images: {cost.step_bytes(768) / 2**30:.0f} GB")
print(f"600 epochs of {86_524 // 768} steps: {600 * (86_524 // 768) * step / 86_400:.0f} days")

# %%
claim(step > 0 and cost.bytes_per_image > 0, "the trial gives a time and a size", settings)

# %% [markdown]
# On a laptop that is weeks or months: the demo exists for a reason. On a GPU the same cell gives the plan of a
# real run, and so does `--dry-run` for each stage. Compare your images a second with those of the
# published log above.
#
# If the memory does not fit, half of the images on each device need half of the activations:
#
# | what to change | what it does to memory | what it does to the result |
# |---|---|---|
# | more `--devices` | each holds a smaller share | none, the batch is the same |
# | `--precision bf16-mixed` | activations take half | little |
# | `--set batch_size=384` | half | the rate is scaled with it; fewer images in each correlation |
# | `--set image_size=160` | half | other, coarser features |
# | `--set projector=2048,2048,2048` | less by the left end of the curve above | another loss; choose the weight anew |

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
# **Exercise 6.6, ten minutes.** A trial says: 5 GB whatever the images, and 0.075 GB for each image. The
# batch has 768 images, and you have four GPUs. How many images does each hold, and how many GB?

# %%
on_each = {"4 GPUs": ..., "GB on each": ...}
check("6.6", on_each)

# %% [markdown]
# A question. Choose, then unfold the answers.

# %%
quiz("6.A")

# %% [markdown]
# ## When it breaks
#
# A run of 42 hours will be interrupted. Here is a small one that we kill, without warning, as soon as
# it has written a checkpoint, and another that nobody disturbs.

# %%
epochs_done = resuming.kill_after_a_checkpoint(folder / "killed")
assert epochs_done < resuming.SMALL["epochs"]
print("Killed before the end.")

# %% [markdown]
# The same command again, nothing else. Are the weights those of the undisturbed run?

# %%
went_on = resuming.finish(folder / "killed")
unbroken = resuming.finish(folder / "unbroken")
assert all(torch.equal(went_on[name], unbroken[name]) for name in unbroken)
print(f"{len(unbroken)} tensors, every one equal to the last bit.")

# %% [markdown]
# That works because order, views and rates depend on seed and step alone, and because a checkpoint is
# written beside the last good one and takes its place when it is whole.
#
# Other bad days have their own sentence. Two examples. First a checkpoint of other data under the
# same name:

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
except barlow.WeightsError as error:
    print(str(error).replace(str(folder), "runs"))

# %% [markdown]
# And a loss that is not finite, here because of a learning rate that is absurd:

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
# | killed, power cut, node lost | the last good checkpoint stands; torchrun starts the workers again (several machines: see the [README](../README.md#from-a-terminal)) | the same command |
# | disk full | refuses to begin if two checkpoints do not fit; later, names the checkpoint that could not be written | make room, the same command |
# | loss not finite at epoch 300 | stops, with the step and what to lower | `--set learning_rate=...` makes a new run; the old checkpoint stays |
# | checkpoint of an older version | refuses, with both versions | finish with that version, or start anew |
# | two data roots of the same name | refuses, with both digests | rename a root |
# | GPU too small | stops, with the batch and the image size to halve | the table above |
# | no GPU seen | says so before anything is loaded | mend the driver, or the demo scale |
# | processes that do not divide the batch | refuses, with the numbers that would do | one of them |

# %% [markdown]
# ### A question

# %%
quiz("6.B")

# %% [markdown]
# ## Your own images, in three functions
#
# Suppose you have a folder of PNG files, and no table at all. Only you know three things: which files
# there are, how one is read, and whose it is. (The folder here is the demo's; take yours.)

# %%
mine = settings.nih
files = {path.stem: path for path in sorted(mine.rglob("*.png"))[:300]}


# %%
def patient(image_id):
    """The first eight digits of a name are the patient."""
    return image_id.split("_")[0]


# %% [markdown]
# Reading is `nih.read_image`, since these are PNG files. For DICOM write a function that returns
# `dicom.read_dicom(path).pixels`, in a module of yours: several processes read, and they import it.
# Look at the split: no patient on two sides.

# %% tags=["nbval-ignore-output"]
here = replace(settings, project=folder)
own, images = own_data.own_images(
    here, name="mine", files=files, read=nih.read_image, patient=patient
)

# %%
parts = {part: set(images.patients[images.rows(part)]) for part in ("train", "val", "test")}
assert not parts["train"] & parts["val"] and not parts["train"] & parts["test"]
print({part: len(images.rows(part)) for part in parts}, "images")

# %% [markdown]
# Pretraining takes them as they are. A few epochs, to see that it runs; notebook 02 says how long is
# long enough.

# %%
few = replace(resuming.small_settings(folder).pretrain, batch_size=64, epochs=8)
own = replace(own, pretrain=few)
path = pretraining.pretrain(own, images, seed=0, progress=False)
log = pretraining.training_log(path)
claim(log["loss"].iloc[-1] < log["loss"].iloc[1], "the loss falls on images of your own", settings)

# %% [markdown]
# What do such features say? Take four validation images, and for each the three training images whose
# features are nearest.

# %%
state, _ = barlow.read_weights(path)
network = barlow.build_backbone("resnet18", seed=0)
barlow.load_weights(network, state)
features = pretraining.features(own, network, np.array(images.images.pixels), "pretrained")
features /= np.linalg.norm(features, axis=1, keepdims=True)

# %%
asked, known = images.rows("val")[:4], images.rows("train")
nearest = known[np.argsort(-features[asked] @ features[known].T, axis=1)[:, :3]]
figure, axes = plt.subplots(4, 4, figsize=(6.3, 6.6))
for line, row in zip(axes, np.column_stack([asked, nearest]), strict=True):
    for axis, index in zip(line, row, strict=True):
        axis.imshow(images.images.pixels[index], cmap="gray")
        axis.set_axis_off()
for axis, title in zip(axes[0], ["asked", "nearest", "second", "third"], strict=True):
    axis.set_title(title, fontsize=9)
plt.show()

# %% [markdown]
# Compare exposure, borders and projection first, then findings. After so short a training, on so few
# images, do not expect the findings to agree.

# %% [markdown]
# ## Hand your weights on
#
# Somebody else does not have this course. They need the weights in a format that everybody reads, and
# a model card that says what they are and what they are not. One call writes both.

# %%
card = hub.ModelCard(
    name="A backbone of notebook 06",
    summary="ResNet-18, Barlow Twins, a few epochs on 300 images: an example, not for use.",
    data="Synthetic radiographs of the demo." if settings.is_demo else "A folder of radiographs.",
    settings={"epochs": own.pretrain.epochs, "batch_size": own.pretrain.batch_size},
    metrics={"training loss": round(float(log["loss"].iloc[-1]), 1)},
    measured_on="the training images themselves",
    limits=["Trained for seconds; nothing was measured on other patients."],
    license="mit",
    image_size=own.pretrain.image_size,
)

# %%
written = hub.write_folder(state, folder / "share", card, arch="resnet18")
print([file.name for file in written])

# %% [markdown]
# And the test of it: torchvision alone, no line of this course.

# %%
theirs = torchvision.models.resnet18()
theirs.fc = nn.Identity()
theirs.load_state_dict(load_file(folder / "share" / "model.safetensors"))
batch = torch.rand(2, 3, 64, 64)
assert torch.equal(theirs.eval()(batch), network.cpu().eval()(batch))
print("torchvision loads the file and computes the same features.")

# %% [markdown]
# The other way round, `barlow.read_weights` takes torchvision's and the original Barlow Twins'
# ResNet-50, the paper's published checkpoint, timm's names, and your own files; `hub.fetch` gets one
# from the Hugging Face hub. No code in a file is ever run.

# %% [markdown]
# ## The ledger
#
# Rebuilding a paper means to decide many things that it does not say. The ledger lists them all: the
# paper's value, what the published code does, what this course does, and why that differs. 'Not known'
# means that the source does not say, and nobody filled it in from memory. It is made from a file and
# from the presets, so that it cannot go stale.

# %%
book = ledger.read_ledger(settings.project / ledger.SOURCE)
rows = ledger.ledger_table(book)
for part, lines in rows.groupby("part", sort=False):
    shown = lines.drop(columns=["part", "command"])
    display(Markdown(f"**{part}**\n\n{ledger.markdown(shown)}"))  # noqa: F821

# %% [markdown]
# How many of these does the paper itself say, as far as this course knows it?

# %%
unknown = (rows["paper"] == ledger.NOT_KNOWN).sum()
differ = (rows["why"] != ledger.SAME).sum()
print(f"{len(rows)} rows: {unknown} not known from the paper, {differ} where this course differs")

# %% [markdown]
# Nearly everything comes from the published code. That is the usual state of a paper, and the reason
# to publish code: without it this rebuilding would have been guesswork.
#
# Some rows are measured. These are the ones that the notebooks have measured on this machine so far.

# %% tags=["nbval-ignore-output"]
found = ledger.ledger_table(book, read_results(settings.runs / "results"))
measured = found[found["ours"] != rows["ours"]][["what", "ours"]].set_index("what")
measured

# %%
assert set(measured.index) < set(rows["what"])
print("The other rows are settings, or wait for a run.")

# %% [markdown]
# Eleven points of the published protocol are worth a lesson each. Look at the last column: it says
# where in the course you met it. The same table with links is in [docs/ledger.md](../docs/ledger.md).

# %%
Markdown(ledger.markdown(ledger.points_table(book, base=None)))

# %%
results.add(
    ledger_rows=len(rows),
    not_known=int(unknown),
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
# the ideal beside it. Name both axes. To try it, `practice_scaling()` of
# `cxr_helpers.course.exercises.nb06` gives both arrays.


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
# - What to download, how large it is, and how it is prepared.
# - Which settings change at the paper's scale, and the reason for each.
# - Why several processes must act as one, and what goes wrong when they do not.
# - To estimate memory, disk and hours from a trial of a minute.
# - To go on after a kill, and what each failure says.
# - To bring your own images, with three small functions.
# - To hand your weights to somebody who does not have this course.
# - To read the ledger: the paper, its code, and this course side by side.
#
# ## Questions to think about
#
# 1. You have sixteen GPUs instead of eight, and keep 96 images on each. Name three settings that you
#    must think about again.
# 2. A colleague's program trains twice as fast on the same GPU. What do you ask before you believe it?
# 3. Your hospital's images have no patient number, only a date and a room. How do you split them, and
#    what do you write into the model card?
# 4. The ledger says 'not known' in many rows. Which of them would change what you conclude from the
#    paper, and whom would you ask?
