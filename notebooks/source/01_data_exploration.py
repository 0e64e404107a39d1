# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 01 · Two hospitals, two data sets
#
# **The question: what is in these two data sets, and how do they differ?**
#
# The paper learns on one data set and is tested on another. To judge its result you have to know
# both. NIH ChestX-ray14 comes from a hospital in the USA, with labels that a program read out of
# reports. VinDr-CXR comes from hospitals in Vietnam, with boxes that radiologists drew.
#
# ## What you will learn
#
# - How many images, patients and findings there are, from the **real tables** of both data sets.
# - How three readers' boxes become one truth.
# - How a stored DICOM value becomes a picture.
# - Why a model trained on one data set may stumble on the other.
#
# **Time and memory:** the [README](../README.md) lists both, as measured on two cores.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxr_helpers import consensus, dicom, nih, plots, vindr
from cxr_helpers.course.data import load_nih, load_vindr
from cxr_helpers.course.exploration import reader_table
from cxr_helpers.course.results import Results, claim
from cxr_helpers.course.settings import load_settings
from cxr_helpers.course.tables import packaged_table

plots.set_style()
settings = load_settings()
results = Results("01_data_exploration", settings)

# %% [markdown]
# ## The real NIH table
#
# The table of all images ships with the package torchxrayvision, so you can read it without the
# 42 GB of pictures. First as it is. Look at the last columns.

# %%
raw = pd.read_csv(packaged_table("nih_entries"), nrows=2)
list(raw.columns)

# %% [markdown]
# `OriginalImage[Width` and `Height]`: a header with a comma in it was split in two. Our reader
# mends this and gives each column a plain name.

# %%
real_nih = nih.read_entries(packaged_table("nih_entries"))
real_nih.drop(columns=["spacing_x_mm", "spacing_y_mm"]).head(4)

# %% [markdown]
# One row is one image. The column `findings` joins several labels with a bar.

# %%
print(f"{len(real_nih):,} images of {real_nih['patient_id'].nunique():,} patients")

# %% [markdown]
# ### How often does each finding occur?
#
# Look at the length of the bars from top to bottom.

# %%
labels = nih.label_matrix(real_nih)
plots.plot_counts(labels.sum(), xlabel="images with the label (all 112,120)")
plt.show()

# %% [markdown]
# The most frequent finding is many times as frequent as the rarest. A score that averages over
# classes gives Hernia the same weight as Infiltration.

# %%
counts = labels.sum().sort_values()
print(f"{counts.index[-1]}: {counts.iloc[-1]:,}. {counts.index[0]}: {counts.iloc[0]:,}.")

# %% [markdown]
# ### How many images has a patient?
#
# Most patients have few images. A few have very many. Each point of the next figure says how many
# patients have that number of images. Both axes are logarithmic.

# %%
per_patient = real_nih["patient_id"].value_counts()
plots.plot_frequencies(per_patient, xlabel="images of one patient", ylabel="patients")
plt.show()

# %%
print(f"mean {per_patient.mean():.2f}, median {per_patient.median():.0f}, most {per_patient.max()}")

# %% [markdown]
# So images are not independent. A test image of a patient who is also in training is a half-known
# image. That is why this course splits **by patient**, and why notebook 03 measures what happens
# otherwise.

# %% [markdown]
# ### The view goes with the illness
#
# A patient who can stand is X-rayed from behind (PA). One who lies in bed is X-rayed from the
# front (AP). Watch how the share of AP views differs between labels.

# %%
is_ap = (real_nih["view"] == "AP").to_numpy()
ap_share = labels.apply(lambda column: 100 * is_ap[column.to_numpy() == 1].mean())
plots.plot_counts(ap_share.round(1), xlabel="AP views among images with the label (%)")
plt.show()

# %% [markdown]
# Edema is seen almost only on AP views. A network can score well on edema by recognizing the bed.
# Such a shortcut is no knowledge of edema. Keep it in mind when a heatmap lights up in a corner.

# %% [markdown]
# ## The real VinDr table
#
# Three radiologists read each image. Each drew boxes, or said 'No finding'.

# %%
real_vindr = vindr.read_readings(packaged_table("vinbigdata"))
real_vindr.boxes.head(3).round(0)

# %%
print(f"{real_vindr.readings['image_id'].nunique():,} images, {len(real_vindr.boxes):,} boxes")

# %% [markdown]
# ### Which findings have boxes?

# %%
plots.plot_counts(real_vindr.boxes["label"].value_counts(), xlabel="boxes of all readers")
plt.show()

# %% [markdown]
# Compare with the NIH figure above. The two data sets name other findings, and share only some.
# Here the most frequent are an enlarged aorta and an enlarged heart.

# %% [markdown]
# ### Who drew the boxes?
#
# Seventeen readers took part, named R1 to R17. Each point of the next figure is one reader. Look
# at the points at the top.

# %%
readers = reader_table(real_vindr)
plots.plot_readers(readers)
plt.show()

# %% [markdown]
# Three readers saw nearly all the abnormal images and drew nearly all the boxes. So the reader's
# name alone predicts whether an image is abnormal. It must never be an input of a model.

# %%
top = readers["boxes"].nlargest(3)
share = 100 * top.sum() / readers["boxes"].sum()
print(f"{', '.join(sorted(top.index, key=lambda r: int(r[1:])))} drew {share:.1f}% of the boxes")

# %% [markdown]
# ## Three readers, one truth
#
# Two readers may draw the same finding a little differently. A detector needs one box. The
# **intersection over union** (IoU) says how well two boxes agree: the area they share, divided by
# the area they cover together. Three readers drew one box each:

# %%
drawn = np.array([[10, 10, 50, 50], [14, 12, 54, 50], [60, 60, 90, 90]], dtype=float)
fused, n_readers, _ = consensus.weighted_box_fusion(drawn, np.array(["R8", "R9", "R10"]))
pd.DataFrame(fused, columns=["x_min", "y_min", "x_max", "y_max"]).assign(readers=n_readers)

# %% [markdown]
# The first two boxes overlap by more than half, so they became one: their mean. The third stayed,
# with one reader behind it. This is weighted box fusion, and it is what the paper's data went
# through. Now all real boxes:

# %%
real_fused = consensus.fuse_readings(real_vindr.boxes)
alone = 100 * (real_fused["readers"] == 1).mean()
print(
    f"{len(real_vindr.boxes):,} boxes become {len(real_fused):,}; {alone:.1f}% rest on one reader"
)

# %% [markdown]
# Two thirds of the 'truth' is the word of one reader. How well do two readers agree at all? F1 is
# 1 where they draw the same boxes, and 0 where they share none (at an IoU of at least 0.5).

# %%
agreement = consensus.reader_agreement(real_vindr.boxes)
plots.plot_counts(agreement["f1"].round(2), xlabel="agreement of two readers (F1 at IoU 0.5)")
plt.show()

# %% [markdown]
# Large organs find agreement. Small or diffuse findings do not. No detector can be expected to
# agree with the readers more than they agree with each other.

# %% [markdown]
# ## The pictures: NIH
#
# Now the pixels of the data you chose with `CXR_DATA`. In the demo they are **synthetic**: drawn by
# a program, in the files and folders of the real download.

# %%
nih_data = load_nih(settings)
print(f"{len(nih_data.entries):,} images of {nih_data.entries['patient_id'].nunique()} patients")
print(nih_data.split_source)

# %%
nih_files = nih.find_images(settings.nih)
sick = nih_data.entries[nih_data.labels.sum(axis=1) == 1].drop_duplicates("findings").head(8)
pictures = [nih.read_image(nih_files[image_id]) for image_id in sick["image_id"]]
plots.show_images(pictures, sick["findings"].tolist(), width=1.7)
plt.show()

# %% [markdown]
# Each image carries one label. Some labels are wrong on purpose, as in the real data: a program
# read them out of reports, and against a second reading by radiologists many did not hold.

# %% [markdown]
# ### One patient, several images
#
# The most photographed patient of this data. Look for what stays and what changes.

# %%
busiest = nih_data.entries["patient_id"].value_counts().index[0]
same = nih_data.entries[nih_data.entries["patient_id"] == busiest].head(4)
pictures = [nih.read_image(nih_files[image_id]) for image_id in same["image_id"]]
plots.show_images(pictures, same["view"].tolist(), width=1.7)
plt.show()

# %% [markdown]
# The anatomy stays: lungs, heart, spine. Exposure, position and devices change. A network can
# learn to recognize the person.

# %% [markdown]
# ## The pictures: VinDr
#
# VinDr's files are DICOM, the format of hospitals. Where your data has no VinDr folder, the next
# cells say so and go on.

# %%
vindr_data = load_vindr(settings) if settings.vindr else None
if vindr_data is None:
    print("This data has no VinDr-CXR folder: its pictures are left out.")
else:
    print(f"{len(vindr_data.images.image_ids):,} images, {len(vindr_data.fused):,} fused boxes")

# %% [markdown]
# A DICOM file stores numbers and says what they mean. `read_dicom` returns the picture and a list
# of what it did to get there.

# %%
if vindr_data is not None:
    vindr_files = vindr.find_images(settings.vindr)
    n_boxes = vindr_data.fused["image_id"].value_counts()
    example_id = n_boxes.index[n_boxes == 5].min()
    example = dicom.read_dicom(vindr_files[example_id])
    print(*example.steps, sep="\n")

# %% [markdown]
# In MONOCHROME1 a large number means dark. A reader that overlooks this shows a negative. Here
# is a file of that kind without the inversion, and with it.

# %%
if vindr_data is not None:
    headers = ((p, dicom.load_dataset(p)) for p in vindr_files.values())
    inverted = next(p for p, h in headers if h.PhotometricInterpretation == "MONOCHROME1")
    right = dicom.read_dicom(inverted).pixels
    plots.show_images([1 - right, right], ["not inverted", "inverted"], columns=2, width=2)
    plt.show()

# %% [markdown]
# The lungs are full of air, air lets X-rays pass, and by convention they are dark.
#
# Next, the readers' boxes beside the fused ones on one image.

# %%
if vindr_data is not None:
    of_readers = vindr_data.readings.boxes.query("image_id == @example_id")
    of_fusion = vindr_data.fused.query("image_id == @example_id")
    pair = [example.pixels, example.pixels]
    titles = [f"{len(of_readers)} boxes of three readers", f"{len(of_fusion)} fused boxes"]
    plots.show_images(pair, titles, columns=2, width=3.5, boxes=[of_readers, of_fusion])
    plt.show()

# %% [markdown]
# ## Two sites, two looks
#
# The gray values of both sites, over all images. If one network is to serve both, it must cope
# with this difference.

# %%
looks = {"NIH": nih_data.images.pixels}
if vindr_data is not None:
    looks["VinDr"] = vindr_data.images.pixels
plots.plot_gray_values(looks)
plt.show()

# %% [markdown]
# The curves differ: each site's machines and processing leave their own look. A model that leans
# on absolute gray values will stumble at the other site.

# %%
claim(len(real_fused) == 23934, "the fused real boxes number 23,934, as the paper's", settings)

# %%
results.add(
    real_nih_images=len(real_nih),
    real_vindr_fused_boxes=len(real_fused),
    one_reader_percent=alone,
    images_here=len(nih_data.entries),
)
results.save().name

# %% [markdown]
# ## What this does not show
#
# Tables say what was recorded, not what was there. The NIH labels come from reports, and the VinDr
# boxes from readers who often disagree. The demo's pictures are synthetic; they follow these tables
# in number, place and size, and tell nothing new about them.
#
# ## What you learned
#
# - 112,120 images of 30,805 patients on one side; 15,000 images and three readers each on the other.
# - Fusion turns many readers' boxes into one truth, most of it the word of one reader.
# - A DICOM value becomes a picture in named steps, and MONOCHROME1 means inverted.
# - The sites differ in findings, in labels and in gray values.
#
# ## Questions to think about
#
# 1. Which findings could a network guess from the view alone? How would you test whether it does?
# 2. A detector reaches a higher F1 against the fused boxes than two readers reach with each other.
#    Is it better than a radiologist?
# 3. Set the IoU of the fusion to 0.4. Do you expect more boxes or fewer?
#
# Go on with [02 barlow_twins_pretraining](02_barlow_twins_pretraining.ipynb).
