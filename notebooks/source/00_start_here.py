# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 00 · Start here
#
# **The question: does my machine work, what will I build, and where are my results?**
#
# A hospital has many chest radiographs (X-ray images) and few labels, that is, words for what they
# show. In this course you rebuild one paper that lives with that: BarlowTwins-CXR (Sheng et al. 2024,
# [doi 10.1186/s12911-024-02529-9](https://doi.org/10.1186/s12911-024-02529-9)). A network first
# learns from radiographs of one hospital without any label: this is
# [self-supervised](../docs/glossary.md#self-supervised) [pretraining](../docs/glossary.md#pretraining).
# Then it learns to find abnormalities in the radiographs of other hospitals, in another country. The
# paper's claim is that the first step helps the second, by about 3 percentage points of
# [mAP50](../docs/glossary.md#map50), a score of detectors, over weights learned on the photographs of
# ImageNet.
#
# Words that may be new to you are links, the first time they occur. They lead to the
# [glossary](../docs/glossary.md).
#
# ## What you will learn
#
# - What the course builds, and in which order.
# - Whether your machine can run it.
# - Where the data and your results lie, and how to switch to real data.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores. The first run
# takes longer, because it makes the demo data. People need longer than machines: the
# [plans](../docs/teaching/plans.md) propose minutes for a class and an order for self-study.

# %% [markdown]
# ## What you will build
#
# | notebook | the question |
# |---|---|
# | [01 data_exploration](01_data_exploration.ipynb) | What is in these two data sets, and how do they differ? |
# | [02 barlow_twins_pretraining](02_barlow_twins_pretraining.ipynb) | What can be learned without labels? |
# | [03 linear_evaluation](03_linear_evaluation.ipynb) | How good are the features, and at how many labels? |
# | [04 faster_rcnn_finetuning](04_faster_rcnn_finetuning.ipynb) | Does it find abnormalities better? |
# | [05 ablation_cam](05_ablation_cam.ipynb) | Where does it look? |
# | [06 your_data_and_paper_scale](06_your_data_and_paper_scale.ipynb) | How do I run this on my data, at the paper's scale? |
#
# Each notebook leaves what it made in the folder `runs/`, and the next one picks it up there. Where
# it is missing, a notebook makes it itself. So each one also runs alone; it then takes longer.

# %% [markdown]
# ## Is the course here?
#
# The next cell is for Colab and other places where the course is not installed: it fetches the course
# and installs it. Where you have installed it yourself, it does nothing.

# %%
import importlib.util
import os
import subprocess
import sys

ADDRESS = ""  # the course's repository; needed only where the course is not installed
if importlib.util.find_spec("cxr_helpers") is None:
    assert ADDRESS, "write the address of the course's repository into ADDRESS, then run again"
    pip = [sys.executable, "-m", "pip", "install", "-q", "-c", "cxr-course/constraints.txt"]
    subprocess.run(["git", "clone", "-q", "--depth", "1", ADDRESS, "cxr-course"], check=True)
    subprocess.run([*pip, "-e", "cxr-course"], check=True)
    sys.path.insert(0, os.path.abspath("cxr-course"))

# %% [markdown]
# ## Does my machine work?
#
# The next cell looks at processor, memory, disk and packages. Look at the column `ok`: a `False`
# comes with a reason.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.machine import machine_report

report = machine_report()
report

# %% [markdown]
# A graphics card is not needed. Next, a first small computation.

# %%
import torch
from torchvision.ops import nms

boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.5], [6.0, 6.0, 9.0, 9.0]])
kept = nms(boxes, scores=torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
assert kept.tolist() == [0, 2]
print("torch and torchvision work together.")

# %% [markdown]
# Three [boxes](../docs/glossary.md#bounding-box) went in, each with a score. The second overlaps the
# first almost completely and has the lower score, so it was dropped. You will meet this step,
# [non-maximum suppression](../docs/glossary.md#non-maximum-suppression), again in notebook 04.

# %% [markdown]
# ## One switch for data and scale
#
# Two environment variables steer all notebooks.
#
# - `CXR_DATA` is `demo`, or the root folder of a real download.
# - `CXR_SCALE` is `demo` for a laptop, or `paper` for GPUs.
#
# Set them before you start JupyterLab; the [README](../README.md#real-data) shows how. They are read
# in one place, by `load_settings`. For the demo there is nothing to set.

# %%
from cxr_helpers.course.settings import load_settings

settings = load_settings()
print(f"data: {settings.data}, scale: {settings.scale}")

# %% [markdown]
# The presets behind the scale are plain values. This is the one for pretraining. You need none of its
# names yet; notebook 02 explains those that matter.

# %%
settings.pretrain

# %% [markdown]
# ## The data
#
# By default you work with **demo data: synthetic radiographs**, drawn by a program. No patient is
# in them. They come in the very formats and folders of the real downloads, so that the same code
# reads both. They are good for learning how the methods work. They are no evidence about patients,
# and no clinical conclusion may be drawn from them.
#
# The next cell makes them where they are missing.

# %%
from cxr_helpers.course.data import ensure_demo

ensure_demo(settings)
folders = {"NIH ChestX-ray14": settings.nih, "VinDr-CXR": settings.vindr}
for name, folder in folders.items():
    print(name, "is here." if folder and folder.is_dir() else "is not in this data.")

# %% [markdown]
# Let us see four images. `nih.read_image` reads NIH's PNG files; notebook 01 shows how VinDr's
# [DICOM](../docs/glossary.md#dicom) files differ. Look for what is dark and what is bright.

# %%
import matplotlib.pyplot as plt

from cxr_helpers import nih, plots

plots.set_style()
first = dict(sorted(nih.find_images(settings.nih).items())[:4])
plots.show_images([nih.read_image(path) for path in first.values()], list(first))
plt.show()

# %% [markdown]
# Four frontal chest radiographs, in the demo synthetic ones: two dark lungs, the bright heart and
# spine between them, the bright abdomen below. Air is dark, because X-rays pass through it; fluid is
# bright, and bone and metal are brighter still. The patient faces you: **the left of the picture is
# the patient's right.** So most of the heart lies on the right of the picture. In the demo, the first
# patient has a round white shadow in the right lung, and the third a pacemaker with its lead.
#
# The first eight digits of a name are the patient, the last three count that patient's images.
# Remember this: one patient can have many images. Notebook 03 shows what goes wrong when one forgets.

# %% [markdown]
# ## Where are my results?
#
# Each notebook leaves its numbers in `runs/<data>/results`. The next cell shows them as one table;
# `low` and `high` are the ends of the [interval](../docs/glossary.md#interval-95). Right after a fresh
# start it is empty; come back after the other notebooks.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.results import results_table

table = results_table(settings.runs / "results")
table.round(3).astype(object).fillna("") if len(table) else "No results yet."

# %%
assert set(table.columns) >= {"notebook", "metric", "value", "low", "high"}
print("Each row is one metric of one notebook, with its interval where it has one.")

# %% [markdown]
# ## Which exercises are done?
#
# Notebooks 01 to 06 hold exercises and questions that check your answers. What you solved is kept
# in `runs/exercises.json`, and the next cell counts it.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.exercises import progress

done = progress()
done

# %%
assert set(done.columns) == {"done", "of", "still open"}
print("Each row is one notebook; what is still open has its number.")

# %% [markdown]
# ## What you learned
#
# - The course goes from unlabeled images to boxes and
#   [heatmaps](../docs/glossary.md#heatmap) in notebooks 01 to 05; 06 takes it to your own data.
# - Your machine runs it, or the table above says what to mend.
# - Data, models and results lie in `data/` and `runs/`; two environment variables switch to real
#   data and to the paper's scale.
#
# ## Questions to think about
#
# 1. Why might pretraining on radiographs help more than pretraining on photographs?
# 2. The demo is synthetic. Which of the paper's claims could it never confirm?
#
# Go on with [01 data_exploration](01_data_exploration.ipynb).
