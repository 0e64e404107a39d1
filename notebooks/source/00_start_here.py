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
# **The question: does my machine work, and what will I build?**
#
# A hospital has many chest radiographs (X-ray images) and few reliable labels, that is, words for what
# they show. In this course you rebuild one paper that lives with that: BarlowTwins-CXR (Sheng et al. 2024,
# [doi 10.1186/s12911-024-02529-9](https://doi.org/10.1186/s12911-024-02529-9)). A network first
# learns from radiographs without any label: this is
# [self-supervised](../docs/glossary.md#self-supervised) [pretraining](../docs/glossary.md#pretraining).
# Then it learns to find abnormalities in the radiographs of other hospitals, in another country.
#
# ## What you will learn
#
# - What a network knows of radiographs that was never told what they show.
# - What the course builds, in which order, and whether your machine can run it.
# - Where data and results lie, and how to switch to real data.
#
# **Time:** a minute or two, and as much again the first time, when it makes the demo data.
#
# To run a cell, click into it and press Shift+Enter; go on so down the page. What stands below a cell
# before you run it came out on the authors' machine; yours takes its place. Words that may be new to
# you are links into the [glossary](../docs/glossary.md).
#
# <details><summary>In Colab (notebooks on Google's machines)?</summary>
#
# There the course has to be fetched first. Write the address of its repository, the one that you
# opened this notebook from, such as `https://github.com/NAME/REPOSITORY`, between the quotes of
# `ADDRESS` in the next cell. Where the course is installed, that cell does nothing.
#
# </details>

# %% tags=["hide-input"]
import importlib.util
import os
import subprocess
import sys

ADDRESS = ""  # the course's repository; needed only where the course is not installed
if importlib.util.find_spec("cxr_helpers") is None:
    assert ADDRESS, "write the address of the course's repository into ADDRESS, then run again"
    pip = [sys.executable, "-m", "pip", "install", "-q", "-c", "cxr-course/constraints.txt"]
    subprocess.run(["git", "clone", "-q", "--depth", "1", ADDRESS, "cxr-course"], check=True)
    subprocess.run([*pip, "-e", "cxr-course[course]"], check=True)
    sys.path.insert(0, os.path.abspath("cxr-course"))

# %% [markdown]
# ## Four radiographs
#
# By default you work with **demo data: synthetic radiographs**, drawn by a program, in the files and
# folders of a real download. No patient is in them, and no clinical conclusion may be drawn from
# them. The next cell makes them where they are missing, in about two minutes. `data.entries` is their
# table, a row for each image; `files` says where each image lies.

# %%
from cxr_helpers.course.core.data import load_nih
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.data import nih

settings = load_settings()
results = Results("00_start_here", settings)  # what this notebook finds is kept there
data = load_nih(settings)
entries, files = data.entries, nih.find_images(settings.nih)
print(f"{settings.data}: {len(entries):,} images of {entries['patient_id'].nunique()} patients")

# %%
entries[["image_id", "patient_id", "age", "sex", "view", "findings"]].head(3)

# %% [markdown]
# In the next picture the first two images are of one patient. Look for what is the same in both.

# %%
import matplotlib.pyplot as plt
import numpy as np

from cxr_helpers.course.plots import ch02, style

style.set_style()
busiest = entries["patient_id"].value_counts().index[0]  # the patient with the most images
theirs = (entries["patient_id"] == busiest).to_numpy()
rows = [*np.flatnonzero(theirs)[:2], *np.flatnonzero(~theirs)[:2]]
pictures = [nih.read_image(files[entries["image_id"][row]]) for row in rows]
titles = [f"patient {entries['patient_id'][row]}\n{entries['findings'][row]}" for row in rows]
style.show_images(pictures, titles)
plt.suptitle("One body keeps its outline, whatever its findings and the exposure")
plt.show()

# %% [markdown]
# Two dark lungs, the bright heart and spine between them, the bright abdomen below. For the same
# thickness, air weakens X-rays least and is dark; soft tissue and fluid weaken them more, bone and
# metal most. The patient faces you: **the left of the picture is the patient's right.** White letters
# and dots are markers beside the patient, or electrodes on the chest.
#
# The words above each picture are its labels. They can be wrong: notebook 01 asks how often. And
# images of one patient are alike: notebook 03 shows what goes wrong when one forgets that.

# %% [markdown]
# ## A first win: which radiographs look alike?
#
# A network turns each image into a list of numbers, its [features](../docs/glossary.md#feature). Images
# with similar features look alike to it. Here are two networks of the same build. The weights (the
# numbers that a network learns) of one are random, as before any learning. The other was
# [pretrained for an evening](../docs/glossary.md#evening-weights) with the paper's method (an hour or less of computing), on synthetic
# radiographs of other patients. Nobody told it what they show. `data.images.pixels` holds all images,
# made small for the networks.

# %%
from cxr_helpers.course.ch02 import neighbors, pretraining

features, pixels = {}, data.images.pixels[:2500]  # of a large download only the first images
for arm in ("evening", "random"):
    backbone, sentence = pretraining.arm_backbone(settings, arm, seed=settings.seed)
    print(sentence)
    if backbone is not None:
        name = pretraining.ARM_NAMES[arm]
        features[name] = pretraining.features(settings, backbone, pixels, arm)
        print(f"{name}: {features[name].shape[1]} features of each of {len(pixels):,} images")

# %% [markdown]
# Where the file of the evening is not there, a line above says how to make it, and below the random
# network is shown alone. For each image, the rows of the four whose features are nearest:


# %%
def picture(place):
    return nih.read_image(files[entries["image_id"][place]])


def about(place):
    image = entries.loc[place]
    return f"patient {image['patient_id']}, {image['view']}\n{image['findings']}"


# %%
near = {name: neighbors.nearest(found, count=4) for name, found in features.items()}

# %% [markdown]
# **Pick an image: any row of the table.** The next cell shows it and the four, once for each network.
# Then change `row` and run the cell again. Do the four share the *view* (PA: the rays come from behind,
# AP: from the front)? The finding? Are they of the same patient?

# %%
row = 228  # in the demo one of the patient above; write any other row and run this cell again
told, rows = [], {}
for name, found in near.items():
    close = found[row]
    rows[name] = [picture(place) for place in close], [about(place) for place in close]
    own = (entries["patient_id"][close] == entries["patient_id"][row]).sum()
    alike = (data.labels[close] & data.labels[row]).any(axis=1).sum()
    told.append(f"{name}: same patient {own} of 4, a shared finding {alike} of 4")
ch02.plot_neighbors(picture(row), rows, title=about(row))
plt.suptitle("\n".join(told))
plt.show()

# %% [markdown]
# At the left stands your image, beside it the four. One image may be lucky, or have bad luck. So ask all
# images. Is the nearest image of the *same patient*? And the four
# nearest of *other* patients: how many have the same view, how many share a finding? The last row
# says what drawing blindly gives. In brackets stands a 95% [interval](../docs/glossary.md#interval-95).

# %%
import pandas as pd

patients = data.patients[: len(pixels)]
views = pd.get_dummies(entries["view"][: len(pixels)]).to_numpy()
labels = data.labels[: len(pixels)]
questions = {  # what counts as shared, by how many neighbors, and whose images are left out
    "same patient": (neighbors.patient_marks(patients), 1, None),
    "same view": (views, 4, patients),
    "shared finding": (labels, 4, patients),
}

# %% tags=["nbval-ignore-output"]
shares, table, gains = {}, pd.DataFrame(), {}
for question, (marks, count, apart) in questions.items():
    for name, found in features.items():
        closest = neighbors.nearest(found, count=count, patients=apart)
        shares[question, name] = neighbors.sharing(marks, closest)
        table.loc[name, question] = np.nanmean(shares[question, name])
    table.loc["chance", question] = neighbors.by_chance(marks, apart)
    if len(features) == 2:
        pair = [shares[question, name] for name in features]
        gains[question] = neighbors.gain(*pair, patients, resamples=1000, seed=0)
        value, low, high = (100 * getattr(gains[question], key) for key in ("value", "low", "high"))
        print(
            f"{question}: {value:+.1f} points ({low:+.1f} to {high:+.1f}) more than random weights"
        )
(100 * table).round(1).add_suffix(" (%)")

# %% [markdown]
# The code of the next cell is folded. It only checks what the output above should show, and prints it
# as a sentence; a click unfolds it. Such cells come up in all notebooks.

# %% tags=["hide-input"]
from cxr_helpers.course.core.results import claim

above = (table.loc[list(features)] > table.loc["chance"]).all(axis=None)
claim(above, "even random weights find all three more often than chance", settings)
if gains:
    text = "the pretrained network finds all three more often than the random one"
    claim(all(gain.low > 0 for gain in gains.values()), text, settings)
    results.add(
        same_patient_difference=gains["same patient"].as_dict(),
        same_finding_difference=gains["shared finding"].as_dict(),
    )

# %% [markdown]
# Random weights already tell one chest from another better than chance. The pretrained network never
# saw these patients either, and nobody gave it a word; where it is shown, compare its row. An interval
# above zero says that other patients would hardly have turned the difference around.
#
# Such a network is what you will build, measure and doubt.

# %% [markdown]
# ## What you will build
#
# | notebook | what you build | the question |
# |---|---|---|
# | [01](01_data_exploration.ipynb) | tables and pictures of two data sets | What is in them, and how do they differ? |
# | [02](02_barlow_twins_pretraining.ipynb) | a network that learns from images alone | What can be learned without labels? |
# | [03](03_linear_evaluation.ipynb) | a small classifier on its features | How good are the features, and at how many labels? |
# | [04](04_faster_rcnn_finetuning.ipynb) | a detector that draws boxes | Does it find abnormalities better? |
# | [05](05_ablation_cam.ipynb) | [heatmaps](../docs/glossary.md#heatmap) of its decisions | Where does it look? |
# | [06](06_your_data_and_paper_scale.ipynb) | the same on your own images | How do I run this on my data, at the paper's scale? |
#
# The paper claims that learning without labels first helps the detector, by about 3 percentage points
# of [mAP50](../docs/glossary.md#map50), a score of detectors. What else it claims, and what this course
# has on it, stands in the [ledger](../docs/ledger.md).
#
# Each notebook leaves what it made in the folder `runs/`, and the next one picks it up there. Where
# it is missing, a notebook makes it itself. So each one also runs alone; it then takes longer.
# The [README](../README.md) lists time and memory. People need longer than machines: the
# [plans](../docs/teaching/plans.md) propose minutes for a class and for self-study.

# %% [markdown]
# ## Does my machine work?
#
# What ran above, works. The next cell looks at processor, memory, disk and packages. Look at the column
# `ok`. Beside it, `why` says what the item is needed for, or, beside a `False`, what to do. A graphics
# card is not needed.

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.core.machine import machine_report

report = machine_report()
with pd.option_context("display.max_colwidth", None):
    display(report)  # noqa: F821

# %% tags=["hide-input"]
assert report["why"][~report["ok"]].all()
print("Where something is missing, the report says what to do.")

# %% [markdown]
# <details><summary>One switch for data and scale</summary>
#
# Two environment variables (settings that a program reads when it starts) steer all notebooks.
#
# - `CXR_DATA` is `demo`, or the root folder of a real download.
# - `CXR_SCALE` is `demo` for a laptop, `evening` for a laptop and an hour of pretraining, `paper` for
#   GPUs, or `quick` to see within minutes whether everything runs on your data; its results mean nothing.
#
# Set them before you start JupyterLab; [real data](../docs/real_data.md) shows how. They are read
# in one place, by `load_settings`. For the demo there is nothing to set. Behind each scale stand
# presets, sets of plain values: `settings.pretrain` in a new cell shows those of pretraining.
#
# </details>

# %% [markdown]
# ## Where are my results?
#
# Each notebook leaves its results in `runs/<data>/results`, where `<data>` is `demo` or the name of your
# folder. Notebooks 01 to 06 also hold exercises and questions that check your answers; what you solved
# is kept in `runs/exercises.json`. The next cell counts both. Come back after the other notebooks. (Minutes are those of the machine that
# ran them: a slow or busy one takes more than the README says.)

# %% tags=["nbval-ignore-output"]
from cxr_helpers.course.core.results import results_table
from cxr_helpers.course.exercises import progress

figures = results_table(settings.runs / "results")
by_notebook = figures.groupby(figures["notebook"].str[:2])["minutes"].agg(["size", "first"])
by_notebook.columns = ["results", "minutes it ran"]
done = progress()
done.join(by_notebook.round(1).astype(object)).fillna("")

# %% tags=["hide-input"]
assert done.index.tolist() == ["01", "02", "03", "04", "05", "06"]
print("Each row is one notebook; what is still open has its number.")

# %% [markdown]
# In a new cell, `figures[figures["notebook"] == "01_data_exploration"]` shows those of one notebook.

# %% [markdown]
# ## The answer

# %% tags=["nbval-ignore-output"]
works = report["ok"].all()
needs = "has all that the course needs" if works else "lacks something: see the report above"
best = next(iter(features))
percent = 100 * table["shared finding"]
print(f"This machine {needs}. You will build networks that learn from images alone.")
print(f"Of the four images of other patients that one such ('{best}') puts nearest,")
print(
    f"{percent[best]:.0f}% share a finding; of four drawn blindly {percent['chance']:.0f}% would."
)

# %% tags=["hide-input"]
saved = results.save()
assert saved.is_file()
saved.name

# %% [markdown]
# ## What you learned
#
# - What stands in a radiograph, and that a network which was never told so finds what belongs together
#   more often than chance and than random weights do.
# - What the course builds, in which order, and whether your machine can run it.
# - Where data and results lie (`data/` and `runs/`), and that two environment variables switch to real
#   data and to another scale.
#
# ## Questions to think about
#
# 1. Why might pretraining on radiographs help more than pretraining on photographs?
#
# <details><summary>An answer</summary>
#
# Same gray scale, same anatomy in the same place, fine texture instead of objects and colors. That is a
# hypothesis. The paper's comparison asks it, but in its code the two starts are not matched.
#
# </details>
#
# 2. The demo is synthetic. Which of the paper's claims could it never confirm?
#
# <details><summary>An answer</summary>
#
# Any that is about patients: the size of the gain, whether it carries over between real hospitals, and
# everything clinical.
#
# </details>
#
# Go on with [01 data_exploration](01_data_exploration.ipynb).
