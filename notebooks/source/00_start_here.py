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
# [mAP50](../docs/glossary.md#map50), a score of detectors, over a start from a large collection of
# everyday photographs. What else it claims, and what this course has on it, stands in the
# [ledger](../docs/ledger.md).
#
# Words that may be new to you are links into the [glossary](../docs/glossary.md). What you see below a
# cell before you run it came out on the authors' machine; yours takes its place.
#
# ## What you will learn
#
# - What a network knows of radiographs that was never told what they show.
# - What the course builds, in which order, and whether your machine can run it.
# - Where the data and your results lie, and how to switch to real data.
#
# **Time:** a minute or two, and as much again the first time, when it makes the demo data. The
# [README](../README.md) lists time and memory of the other notebooks. People need longer than
# machines: the [plans](../docs/teaching/plans.md) propose minutes for a class and for self-study.

# %% [markdown]
# ## Is the course here?
#
# To run a cell, click into it and press Shift+Enter; go on so down the page.
#
# The next cell does nothing where the course is installed. In Colab (notebooks on Google's machines)
# it is not. There write the address of the course's repository, the one that you opened this notebook
# from, such as `https://github.com/NAME/REPOSITORY`, between the quotes.

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
# ## A first win: which radiographs look alike?
#
# By default you work with **demo data: synthetic radiographs**, drawn by a program, in the files and
# folders of the real downloads. No patient is in them, and no clinical conclusion may be drawn from
# them. The next cell makes them where they are missing, in about two minutes, and reads them.

# %%
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings

settings = load_settings()
results = Results("00_start_here", settings)
data = load_nih(settings)
print(f"{len(data.entries):,} radiographs of {data.entries['patient_id'].nunique()} patients")

# %% [markdown]
# A network turns each image into a list of numbers, its [features](../docs/glossary.md#feature). Images
# with similar features look alike to it. Two networks of the same build: one has random weights (the
# numbers that a network learns), as every network before it learns. The other was
# [pretrained for an evening](../docs/glossary.md#evening-weights) with the paper's method, on synthetic
# radiographs of other patients; nobody told it what they show. Where its file is not there,
# a line below says so and how to make it, and the random network is shown alone.

# %%
from cxr_helpers.course.ch02 import labs, neighbors, pretraining

features, pixels = {}, data.images.pixels[:2500]  # of a large download only the first images
for arm in ("random", "evening"):
    backbone, sentence = pretraining.arm_backbone(settings, arm, seed=settings.seed)
    print(sentence)
    if backbone is not None:
        name = pretraining.ARM_NAMES[arm]
        features[name] = pretraining.features(settings, backbone, pixels, arm)

# %% [markdown]
# Pick an image, by its row, and look up the four that are nearest to it, for each network. The
# titles are their labels; the networks saw none of them.

# %%
import matplotlib.pyplot as plt
import numpy as np

from cxr_helpers.course.plots import style

style.set_style()
everyone = np.arange(len(pixels))
patients, labels = data.patients[everyone], data.entries["findings"][everyone]
query = int(np.flatnonzero(labels == "Effusion")[0])  # another one: write its row here

# %%
shown, titles = [], []
for name, found in features.items():
    rows = [query, *labs.nearest(found, query, everyone, count=4)]
    shown += [pixels[row] for row in rows]
    titles += [labels[row].replace("|", "\n") for row in rows]
    titles[-5] = f"{name}:\n{titles[-5]}"
style.show_images(shown, titles, columns=5)
plt.show()

# %% [markdown]
# In each row the first image is the one that was picked. It may be lucky. So ask all images two
# questions. Is another image of the same *patient* closer than one of somebody else? And of the five
# nearest images of *other* patients, how many share a finding? The last row says what chance gives.

# %% tags=["nbval-ignore-output"]
import pandas as pd

found = data.labels[everyone]
closer, sharing = {}, {}
for name, these in features.items():
    closer[name] = neighbors.same_patient_closer(these, patients)
    near = neighbors.of_other_patients(these, patients, count=5)
    sharing[name] = neighbors.sharing_a_finding(found, near)
table = pd.DataFrame({"patient": closer, "finding": sharing}).map(np.nanmean)
table.loc["chance"] = [0.5, neighbors.by_chance(found, patients)]
(100 * table).round(1).rename(columns=lambda column: f"same {column} (%)")

# %%
assert (table.loc[list(features), "patient"] > 0.5).all()
print("Even random features hold images of one patient closer than chance would.")

# %% tags=["nbval-ignore-output"]
gains = {}
if len(features) == 2:
    for question, shares in {"patient": closer, "finding": sharing}.items():
        pair = [shares[pretraining.ARM_NAMES[arm]] for arm in ("evening", "random")]
        gains[question] = neighbors.gain(*pair, patients, resamples=1000, seed=0)
        print(f"same {question}: {gains[question]}, pretrained minus random, 95% interval")

# %%
if gains:
    text = "the pretrained network holds images of one patient closer than the random one does"
    claim(gains["patient"].low > 0.05, f"{text}, by more than 5 points", settings)
    results.add(
        same_patient_difference=gains["patient"].as_dict(),
        same_finding_difference=gains["finding"].as_dict(),
    )
results.save().name

# %% [markdown]
# Random features already know a body again better than chance. A pretrained network never saw these
# patients either, and nobody gave it a word; where it is shown, compare. An [interval](../docs/glossary.md#interval-95) above zero
# says that other patients would hardly have turned the difference around. This is what you will build,
# measure and doubt: in notebook 02 you pretrain such a network yourself, in minutes.

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
# ## Does my machine work?
#
# What ran above, works. The next cell looks at processor, memory, disk and packages. Look at the column
# `ok`. Beside it, `why` says what the item is needed for, or, beside a `False`, what to do.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.core.machine import machine_report

report = machine_report()
with pd.option_context("display.max_colwidth", None):
    display(report)  # noqa: F821

# %%
from cxr_helpers.detection.boxes import box_iou

assert box_iou([[0, 0, 4, 4]], [[0, 0, 4, 2]]).item() == 0.5
print("numpy, torch and the course's package work together.")

# %% [markdown]
# A graphics card is not needed.

# %% [markdown]
# ## One switch for data and scale
#
# Two environment variables (settings that a program reads when it starts) steer all notebooks.
#
# - `CXR_DATA` is `demo`, or the root folder of a real download.
# - `CXR_SCALE` is `demo` for a laptop, `evening` for a laptop and an hour of pretraining, or `paper` for
#   GPUs.
#
# Set them before you start JupyterLab; the [README](../README.md#real-data) shows how. They are read
# in one place, by `load_settings`. For the demo there is nothing to set.

# %%
print(f"data: {settings.data}, scale: {settings.scale}")

# %% [markdown]
# Behind each scale stand presets, sets of plain values. This is the one for pretraining. You need none
# of its names yet; notebook 02 explains those that matter.

# %%
settings.pretrain

# %% [markdown]
# ## How to read a radiograph
#
# Four images, as large as they are. `nih.read_image` reads NIH's PNG files. Look for what is dark and
# what is bright. In the names the first eight digits are the patient, and the last three count that
# patient's images.

# %%
from cxr_helpers.data import nih

images = nih.find_images(settings.nih)
several = pd.Series(patients).value_counts().index[0]  # the patient with the most images
rows = [*np.flatnonzero(patients == several)[:2], *np.flatnonzero(patients != several)[:2]]
names = data.entries["image_id"][rows]
note = ", synthetic" if settings.data == "demo" else ""
titles = [f"{name}{note}\n{labels[row]}" for row, name in names.items()]
style.show_images([nih.read_image(images[name]) for name in names], titles)
plt.show()

# %% [markdown]
# Four frontal chest radiographs: two dark lungs, the bright heart and spine between them, the bright
# abdomen below. For the same thickness, air weakens X-rays least and is dark; soft tissue and fluid
# weaken them more, bone and metal most. But thickness counts too: the abdomen is so thick that it is
# brighter than a rib. The patient faces you: **the left of the picture is the patient's right.** So
# most of the heart lies on the right of the picture. White letters and dots are markers beside the
# patient, or electrodes on the chest. At sharp black edges the picture ends.
#
# The first two are of one patient, though they may look different. Remember this. Notebook 03 shows
# what goes wrong when one forgets. And labels can be wrong: notebook 01 asks how often.

# %% [markdown]
# ## Where are my results?
#
# Each notebook leaves its figures in `runs/<data>/results`, where `<data>` is `demo` or the name
# of your folder. The next cell shows one of each of 00 to 05; `low` and `high` are the ends of the
# [interval](../docs/glossary.md#interval-95). Come back after the other notebooks.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.core.results import results_table

main = {
    "same_finding_difference": "neighbors that share a finding, pretrained minus random",
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
# All figures are in `table`, with the minutes and the memory of their whole notebook.

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
# - A network that learned from radiographs without a label knows what belongs together better than one
#   with random weights. The course goes from there to boxes and
#   [heatmaps](../docs/glossary.md#heatmap) in notebooks 01 to 05; 06 takes it to your own data and to
#   GPUs.
# - Your machine runs it, or the machine's report says what to mend.
# - Data, models and results lie in `data/` and `runs/`; two environment variables switch to real
#   data and to another scale.
#
# ## Questions to think about
#
# Answers to think against are in the [teacher's notes](../docs/teaching/notebooks.md).
#
# 1. Why might pretraining on radiographs help more than pretraining on photographs?
# 2. The demo is synthetic. Which of the paper's claims could it never confirm?
#
# Go on with [01 data_exploration](01_data_exploration.ipynb).
