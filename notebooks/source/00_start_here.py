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
# A hospital has many chest radiographs (X-ray images) and few reliable labels, that is, words for what
# they show. In this course you rebuild one paper that lives with that: BarlowTwins-CXR (Sheng et al. 2024,
# [doi 10.1186/s12911-024-02529-9](https://doi.org/10.1186/s12911-024-02529-9)). A network first
# learns from radiographs of one hospital without any label: this is
# [self-supervised](../docs/glossary.md#self-supervised) [pretraining](../docs/glossary.md#pretraining).
# Then it learns to find abnormalities in the radiographs of other hospitals, in another country. The
# paper's claim is that the first step helps the second, by about 3 percentage points of
# [mAP50](../docs/glossary.md#map50), a score of detectors, over a start from ImageNet: weights (the
# numbers that a network learns) from a large collection of everyday photographs. What else it claims,
# and what this course has on it, stands in the [ledger](../docs/ledger.md).
#
# Words that may be new to you are links or are explained, the first time they occur. The links lead to
# the [glossary](../docs/glossary.md). What you see below a cell before you run it came out on the
# authors' machine; yours takes its place.
#
# ## What you will learn
#
# - What the course builds, and in which order.
# - Whether your machine can run it.
# - Where the data and your results lie, and how to switch to real data.
#
# **Time:** seconds, and about a minute more the first time, when it makes the demo data. The
# [README](../README.md) lists time and memory of the other notebooks, as measured on two cores. People
# need longer than machines: the [plans](../docs/teaching/plans.md) propose minutes for a class and an
# order for self-study.

# %% [markdown]
# ## What you will build
#
# | notebook | the question |
# |---|---|
# | [01 data_exploration](01_data_exploration.ipynb) | What is in these two data sets, and how do they differ? |
# | [02 barlow_twins_pretraining](02_barlow_twins_pretraining.ipynb) | What can be learned without labels? |
# | [03 linear_evaluation](03_linear_evaluation.ipynb) | How good are the [features](../docs/glossary.md#feature), and at how many labels? |
# | [04 faster_rcnn_finetuning](04_faster_rcnn_finetuning.ipynb) | Does it find abnormalities better? |
# | [05 ablation_cam](05_ablation_cam.ipynb) | Where does it look? |
# | [06 your_data_and_paper_scale](06_your_data_and_paper_scale.ipynb) | How do I run this on my data, at the paper's scale? |
#
# Each notebook leaves what it made in the folder `runs/`, and the next one picks it up there. Where
# it is missing, a notebook makes it itself. So each one also runs alone; it then takes longer.

# %% [markdown]
# ## Is the course here?
#
# To run a cell, click into it and press Shift+Enter; go on so down the page.
#
# The next cell does nothing where the course is installed. In Colab (notebooks on Google's machines)
# it is not. There write the address of the course's repository, the one that you opened this notebook
# from, such as `https://github.com/NAME/REPOSITORY`, between the quotes. The cell then fetches the
# course and installs it.

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
# The next cell looks at processor, memory, disk and packages. Look at the column `ok`. Beside it, `why`
# says what the item is needed for, or, beside a `False`, what to do.

# %% tags=["nbval-ignore-output"]
import pandas as pd

from cxr_helpers.course.core.machine import machine_report

report = machine_report()
with pd.option_context("display.max_colwidth", None):
    display(report)  # noqa: F821

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
# Three [boxes](../docs/glossary.md#bounding-box) went in, each with a score, which says how sure a
# detector is. The first two share more than half of the area that they cover together
# (`iou_threshold=0.5`), so the one with the lower score was dropped. You will meet this step,
# [non-maximum suppression](../docs/glossary.md#non-maximum-suppression), again in notebook 04.

# %% [markdown]
# ## One switch for data and scale
#
# Two environment variables (settings that a program reads when it starts) steer all notebooks.
#
# - `CXR_DATA` is `demo`, or the root folder of a real download.
# - `CXR_SCALE` is `demo` for a laptop, or `paper` for GPUs.
#
# Set them before you start JupyterLab; the [README](../README.md#real-data) shows how. They are read
# in one place, by `load_settings`. For the demo there is nothing to set.

# %%
from cxr_helpers.course.core.settings import load_settings

settings = load_settings()
print(f"data: {settings.data}, scale: {settings.scale}")

# %% [markdown]
# Behind each scale stand presets, sets of plain values. This is the one for pretraining. You need none
# of its names yet; notebook 02 explains those that matter. Two belong together: a small data set, such
# as the demo, trains for more than `epochs`, until it has had `min_steps` steps.

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
# The next cell makes them where they are missing, which takes about a minute.

# %%
from cxr_helpers.course.core.data import ensure_demo

ensure_demo(settings)
folders = {"NIH ChestX-ray14": settings.nih, "VinDr-CXR": settings.vindr}
for name, folder in folders.items():
    print(name, "is here." if folder and folder.is_dir() else "is not in this data.")

# %% [markdown]
# Let us see four images. `nih.read_image` reads NIH's PNG files; notebook 01 shows how VinDr's
# [DICOM](../docs/glossary.md#dicom) files differ. Look for what is dark and what is bright. Above each
# stands its name and its label. In the names the first eight digits are the patient: which two pictures
# are of one patient?

# %%
import matplotlib.pyplot as plt

from cxr_helpers.course.core.data import nih_table
from cxr_helpers.course.plots import style
from cxr_helpers.data import nih

style.set_style()
images = sorted(nih.find_images(settings.nih).items())
four = dict(images[i] for i in (0, 2, 3, 4))
labels = nih.read_entries(nih_table(settings.nih)).set_index("image_id")["findings"]
note = ", synthetic" if settings.data == "demo" else ""
titles = [f"{name}{note}\n{labels[name]}" for name in four]
style.show_images([nih.read_image(path) for path in four.values()], titles)
plt.show()

# %% [markdown]
# Four frontal chest radiographs, in the demo synthetic ones: two dark lungs, the bright heart and
# spine between them, the bright abdomen below. For the same thickness, air weakens X-rays least and is
# dark; soft tissue and fluid weaken them more, bone and metal most. But thickness counts too: the
# abdomen is so thick that it is brighter than a rib. The patient faces you: **the left of the picture
# is the patient's right.** So most of the heart lies on the right of the picture.
#
# In the demo, the first patient has a white shadow at the outer edge of the right lung (left in
# the picture, below the middle). The label above it says 'No Finding' all the same. The program that
# draws the demo does that on purpose: labels can be wrong, and notebook 01 asks how often. The second
# picture shows a pacemaker with its lead, the wire to the heart. The dark oval below the heart is
# gas in the stomach, and normal. White letters, and a dot in a corner, are markers beside the
# patient; faint dots on the chest are electrodes. At the sharp black edges the picture ends.
#
# In the demo, the last two are of one patient, though they look different: the first eight digits are
# the same, and the last three count that patient's images. Remember this. Notebook 03 shows what goes
# wrong when one forgets.

# %% [markdown]
# ## Where are my results?
#
# Each notebook leaves its figures in `runs/<data>/results`, where `<data>` is `demo` or the name
# of your folder. The next cell shows one of each of 01 to 05; `low` and `high` are the ends of the
# [interval](../docs/glossary.md#interval-95). Right after a fresh start it is empty; come back
# after the other notebooks.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.core.results import results_table

main = {
    "no_finding_with_finding_percent": "'No Finding' images in which radiologists saw one of four, %",
    "knn_difference / findings": "k-NN AUROC, pretrained minus random",
    "difference / 0.1": "AUROC at a tenth of the labels, pretrained minus random",
    "difference": "mAP50, pretrained minus random",
    "difference / energy in the box": "share of a heatmap inside the box, pretrained minus random",
}
table = results_table(settings.runs / "results")
chosen = table[table["metric"].isin(list(main))].assign(metric=table["metric"].map(main))
shown = chosen[["notebook", "metric", "value", "low", "high"]].round(3).astype(object).fillna("")
with pd.option_context("display.max_colwidth", None):
    display(shown if len(shown) else "No results yet.")  # noqa: F821

# %%
differences = chosen[chosen["metric"].str.contains("minus")]
assert differences[["low", "high"]].notna().all(axis=None)
print("Every difference that is shown has its interval.")

# %% [markdown]
# All figures are in `table`, with the minutes and the memory of their whole notebook. Those of one
# notebook: `table[table["notebook"] == "04_faster_rcnn_finetuning"]`.

# %% [markdown]
# ## Which exercises are done?
#
# Notebooks 01 to 06 hold exercises and questions that check your answers. A question counts when you
# have pressed the button of the right answer. What you solved is kept in `runs/exercises.json`, whatever
# the data, and the next cell counts it.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.exercises import progress

done = progress()
done

# %%
assert done.index.tolist() == ["01", "02", "03", "04", "05", "06"]
print("Each row is one notebook; what is still open has its number.")

# %% [markdown]
# ## What you learned
#
# - The course goes from unlabeled images to boxes and
#   [heatmaps](../docs/glossary.md#heatmap) in notebooks 01 to 05; 06 takes it to your own data and to
#   GPUs.
# - Your machine runs it, or the machine's report near the top says what to mend.
# - Data, models and results lie in `data/` and `runs/`; two environment variables switch to real
#   data and to the paper's scale.
#
# ## Questions to think about
#
# Answers to think against are in the [teacher's notes](../docs/teaching/notebooks.md).
#
# 1. Why might pretraining on radiographs help more than pretraining on photographs?
# 2. The demo is synthetic. Which of the paper's claims could it never confirm?
#
# Go on with [01 data_exploration](01_data_exploration.ipynb).
