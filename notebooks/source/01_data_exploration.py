# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 01 · Two countries, two data sets
#
# **The question: what is in these two data sets, and how do they differ?**
#
# The paper learns on one data set and is tested on another. NIH ChestX-ray14 comes from one
# hospital in the USA, with labels that a program read out of the radiologists' reports. VinDr-CXR
# comes from hospitals in Vietnam, with boxes that radiologists drew around each
# [finding](../docs/glossary.md#finding).
#
# ## What you will learn
#
# - How many images, patients and findings there are, from the **real tables** of both data sets.
# - How far the labels can be trusted, and how three readers' boxes become one truth.
# - How large the findings are, where they lie, and what a small image loses.
# - How a stored DICOM value becomes a picture, and two ways to get it wrong.
# - What differs between the two sites, and what the demo's synthetic images share with real ones.
#
# **Time and memory:** the [README](../README.md) lists both. If your time is short, read the real
# tables and leave out 'From stored values to a picture'.

# %%
import numpy as np
import pandas as pd

from cxr_helpers import phantom
from cxr_helpers.course.ch01 import exploration
from cxr_helpers.course.core.data import load_nih, load_vindr
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch01, style
from cxr_helpers.course.plots.style import show
from cxr_helpers.data import consensus, dicom, nih, vindr

style.set_style()
settings = load_settings()
results = Results("01_data_exploration", settings)

# %% [markdown]
# ## Three rows by hand
#
# A label table is small enough to do by hand once. Three images; the second has two findings,
# joined by a bar, and the third has none: its row holds zeros only.
# Effusion is fluid beside the lung, edema is fluid in its tissue.

# %%
three = pd.DataFrame({"image_id": ["a", "b", "c"]})
three["findings"] = ["Effusion", "Effusion|Edema", "No Finding"]
by_hand = pd.DataFrame({"Edema": [0, 1, 0], "Effusion": [1, 1, 0]}, index=three["image_id"])
by_hand

# %% [markdown]
# One column for each finding, 1 where the image has it. The mean of a column is its
# [**prevalence**](../docs/glossary.md#prevalence): here one third for edema. `nih.label_matrix` makes
# the same table.

# %%
made = nih.label_matrix(three, ["Edema", "Effusion"])
bool((made == by_hand).all(axis=None))

# %% [markdown]
# Of the one image with edema all have an effusion; of the two with an effusion only half have edema.
# Such shares are not symmetric. Keep that in mind for a figure below.

# %% [markdown]
# ### Exercises
#
# Fill in the dots and run the cell. In a new cell, `hint("1.1")` nudges, `hint("1.1", 2)` says more,
# `solution("1.1")` shows one way. Nothing below depends on your answers.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

# %% [markdown]
# **Exercise 1.1, two minutes.** A fourth image joins the three above. Its findings are
# `Edema|Effusion`. Predict the prevalence of edema, as a share from 0 to 1.

# %%
prevalence_of_edema = ...
check("1.1", prevalence_of_edema)

# %% [markdown]
# ## The real NIH table
#
# It ships with the package torchxrayvision, without the pictures. One row is one image.

# %%
real_nih = nih.read_entries(packaged_table("nih_entries"))
print(f"{len(real_nih):,} images of {real_nih['patient_id'].nunique():,} patients")
real_nih.drop(columns=["spacing_x_mm", "spacing_y_mm"]).head(4)

# %% [markdown]
# ### How often does each finding occur?
#
# The scale is logarithmic: from 1 to 10 is as far as from 10 to 100. The names are in the
# [glossary](../docs/glossary.md#radiology-and-its-files).

# %%
labels = nih.label_matrix(real_nih)
prevalence = pd.DataFrame({"all images": 100 * labels.mean()})
show(style.plot_dots(prevalence, xlabel="images with the label (%, log scale)", log=True))

# %%
counts = labels.sum().sort_values()
none = 100 * (labels.sum(axis=1) == 0).mean()
print(f"{counts.index[-1]}: {counts.iloc[-1]:,} images. {counts.index[0]}: {counts.iloc[0]:,}.")
print(f"No finding at all: {none:.1f}% of the images.")
print(f"'Never a hernia' is right for {100 * (1 - labels['Hernia'].mean()):.1f}% of them.")

# %% [markdown]
# That is the baseline any accuracy has to be held against, and why this course uses scores that do
# not reward it.
#
# ### Which findings come together?
#
# Of the images with the label of the row, how many also have that of the column? Look for a bright
# column.

# %%
pairs = exploration.cooccurrence(labels)
share = "share of the row's images (%)"
show(ch01.plot_heatmap(pairs, label=share, xlabel="also has", ylabel="images with"))

# %% [markdown]
# Infiltration and Effusion come with almost everything. The strongest pairs:

# %%
strongest = pairs.stack().nlargest(4).round(1)
strongest.rename_axis(["images with", "also have"]).reset_index(name="share (%)")

# %% [markdown]
# A network can learn that instead of the finding itself. It may say pneumonia where it sees edema,
# and be right far more often than by chance.
#
# ### How many images has a patient?
#
# Each point says how many patients have that number of images. Both axes are logarithmic.

# %%
per_patient = real_nih["patient_id"].value_counts()
show(ch01.plot_frequencies(per_patient, xlabel="images of one patient", ylabel="patients"))

# %%
print(f"mean {per_patient.mean():.2f}, median {per_patient.median():.0f}, most {per_patient.max()}")
few, many = (per_patient <= 2).mean(), (per_patient > 100).sum()
print(f"{few:.0%} of the patients have one image or two, {many} patients more than a hundred")

# %% [markdown]
# So images are not independent. A test image of a patient who is also in training is a half-known
# image. So this course splits **by patient**; notebook 03 measures what happens otherwise.
#
# ### The view goes with the illness
#
# A patient who can stand turns the chest to the detector, and the X-rays come from behind
# ([PA](../docs/glossary.md#pa-view)). For one who cannot stand, often in bed, they come from the
# front ([AP](../docs/glossary.md#ap-view)), and the heart looks larger than it is. Watch how far
# the share of AP views strays from that of all images, the dashed line.

# %%
is_ap = (real_nih["view"] == "AP").to_numpy()
ap_share = labels.apply(lambda column: 100 * is_ap[column.to_numpy() == 1].mean())
ap_share = pd.DataFrame({"AP": ap_share})
average = (100 * is_ap.mean(), "all images")
xlabel = "AP views among the images with the label (%)"
show(style.plot_dots(ap_share, xlabel=xlabel, reference=average))

# %%
edema = labels["Edema"].to_numpy()
times = edema[is_ap].mean() / edema[~is_ap].mean()
print(f"AP: {is_ap.sum():,} images, PA: {(~is_ap).sum():,}.")
print(f"Edema is {times:.0f} times as frequent on AP views as on PA views.")

# %% [markdown]
# A network can score well on edema by recognizing a picture taken in bed. Such a
# [shortcut](../docs/glossary.md#shortcut) is no knowledge of edema. Notebook 05 looks for one: a
# corner of the image where a word such as 'PORTABLE' may be burnt in.

# %% [markdown]
# ### Are the labels right?
#
# The NIH labels were read out of reports by a program. For some of the images, radiologists later
# looked again ([Majkowska et al. 2020](https://doi.org/10.1148/radiol.2019191293)). Two questions,
# for each finding:
#
# - Of the images **labeled** with it, on how many was it **seen**? (positive predictive value,
#   [PPV](../docs/glossary.md#ppv))
# - Of the images on which it was **seen**, how many were **labeled**?
#   ([sensitivity](../docs/glossary.md#sensitivity-recall))
#
# The radiologists looked for fracture, pneumothorax, airspace opacity, and nodule or mass. Two of
# them have a label of the same meaning in NIH.

# %%
rereads = nih.read_rereads(packaged_table("google2019"))
noise = exploration.label_noise(labels, rereads)
noise.round(3)

# %% [markdown]
# Fewer than half of the images labeled Pneumothorax show one, and fewer than half of those that
# show one are labeled. What was seen on the images of each label? Look at the last row.
# [Airspace opacity](../docs/glossary.md#airspace-opacity) means that something other than air
# fills a part of the lung. It covers several labels of NIH.

# %%
seen = exploration.reread_shares(labels, rereads)
show(ch01.plot_heatmap(seen, label=share, xlabel="radiologists saw", ylabel="NIH label"))

# %%
unlabeled = labels.loc[rereads.index].sum(axis=1) == 0
missed = rereads[unlabeled].any(axis=1).mean()
print(f"{len(rereads):,} images were looked at again, {unlabeled.sum():,} of them 'No Finding'.")
print(f"{missed:.0%} of those carry at least one of the four findings.")

# %% [markdown]
# ['No Finding'](../docs/glossary.md#no-finding) does not mean healthy. It means that the program
# found none of its 14 findings reported as present. (The images that were looked at again are no
# random sample: elsewhere the shares may differ.)

# %%
found = [*noise.loc["Pneumothorax", ["ppv", "sensitivity"]]]
found += [*noise.loc["Nodule/Mass", ["ppv", "sensitivity"]], missed]
claim(
    np.allclose(found, [0.458, 0.458, 0.563, 0.423, 0.36], atol=0.0006),
    "PPV and sensitivity are 0.458 and 0.458 for Pneumothorax, 0.563 and 0.423 for Nodule/Mass; "
    "36% of 'No Finding' carry a finding",
    settings,
)

# %% [markdown]
# A model that agreed with these labels perfectly would be wrong more often than right where it says
# pneumothorax. So a score against the labels says how well a model imitates the labels, and no more.

# %% [markdown]
# ### Exercises
#
# **Exercise 1.2, five minutes.** Which share of the patients has exactly one image? Write a function
# of the column of patients. When it is right, ask it about `real_nih["patient_id"]`.


# %%
def single_image_share(patient_ids):
    return ...  # your code


check("1.2", single_image_share)

# %% [markdown]
# **Exercise 1.3, ten minutes.** Two arrays of True and False, one entry an image: was it `labeled`,
# was it `seen`? Return the positive predictive value and the sensitivity, in this order.


# %%
def ppv_and_sensitivity(labeled, seen):
    return ...  # your code


check("1.3", ppv_and_sensitivity)

# %% [markdown]
# A question. Choose, then unfold the answers.

# %%
quiz("1.A")

# %% [markdown]
# ## The real VinDr table
#
# Three radiologists read each image; the course calls them [readers](../docs/glossary.md#reader).
# Each drew boxes, or said 'No finding'.

# %%
real_vindr = vindr.read_readings(packaged_table("vinbigdata"))
real_vindr.boxes.head(3).round(0)

# %%
n_images = real_vindr.readings["image_id"].nunique()
n_abnormal = real_vindr.boxes["image_id"].nunique()
print(f"{n_images:,} images, {len(real_vindr.boxes):,} boxes")
print(
    f"No reader drew a box on {n_images - n_abnormal:,} images ({1 - n_abnormal / n_images:.1%})."
)

# %% [markdown]
# In the paper's code the detector is trained and scored on the abnormal images alone, so what it does
# on a normal one is never measured there.
#
# ### Which findings have boxes?

# %%
by_label = real_vindr.boxes.groupby("label")["image_id"]
how_many = pd.DataFrame({"boxes": by_label.size(), "images": by_label.nunique()})
show(style.plot_dots(how_many, xlabel="number (log scale)", log=True))

# %% [markdown]
# An enlarged aorta and an enlarged heart lead this list. Which names are in NIH's too, apart from
# capitals and underscores?

# %%
nih_names = {name.replace("_", " ").lower() for name in nih.LABELS}
both = [name for name in vindr.CLASSES if name.lower() in nih_names]
print(f"The same name in both: {', '.join(sorted(both))}")

# %% [markdown]
# By meaning there are more: Effusion is Pleural effusion here. And a shared name is no shared
# meaning: 'Infiltration' is a word that one radiologist uses where another says 'consolidation'.
#
# ### How large is a finding?
#
# The table does not hold the size of the images. We take a bound from the boxes and **assume** every
# image to be that large; so the next figures hold on the whole, and are exact for no single image.

# %%
frame = real_vindr.boxes[["x_max", "y_max"]].quantile(0.995).round()
frame_xy = (float(frame["x_max"]), float(frame["y_max"]))
long_side = max(frame_xy)
print(f"99.5% of the boxes end before x = {frame_xy[0]:.0f} and before y = {frame_xy[1]:.0f}")

# %% [markdown]
# The shorter side of the boxes: the median (stroke), the middle half (box) and the middle 90%
# (whiskers).

# %%
short = exploration.short_sides_at(real_vindr.boxes, long_side=long_side, size=long_side)
percent = 100 * short / long_side
side = "shorter side of the box (% of the image, log scale)"
show(ch01.plot_spread(percent, real_vindr.boxes["label"], xlabel=side))

# %%
corners = real_vindr.boxes[["x_min", "y_min", "x_max", "y_max"]].to_numpy()
area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
median_area = pd.Series(area).groupby(real_vindr.boxes["label"].to_numpy()).median().sort_values()
times = median_area.iloc[-1] / median_area.iloc[0]
print(f"{median_area.index[-1]}: {times:.0f} times the area of {median_area.index[0]} (medians)")

# %% [markdown]
# One detector has to find both.
#
# ### What vanishes at 224 pixels?
#
# The paper's code trains at 224 and at 640 pixels. The finest feature map of a usual [Faster
# R-CNN](../docs/glossary.md#faster-r-cnn) has a cell for every 4 pixels, so a box with a short side
# under 8 pixels is less than two cells wide. How many boxes are that small?

# %%
at = {
    f"{n} px": exploration.short_sides_at(real_vindr.boxes, long_side=long_side, size=n) < 8
    for n in (224, 640)
}
lost = 100 * pd.DataFrame(at).groupby(real_vindr.boxes["label"]).mean()
show(style.plot_dots(lost, xlabel="boxes with a short side under 8 px (%)"))

# %%
lost_nodules = lost.loc["Nodule/Mass", "224 px"]
claim(
    abs(lost_nodules - 55.5) < 1,
    "at 224 px, between 54.5% and 56.5% of the Nodule/Mass boxes have a short side under 8 px",
    settings,
)

# %% [markdown]
# No training recovers what the scaling removed. A low score on nodules at 224 pixels is first of
# all a statement about 224 pixels.

# %% [markdown]
# ### Where does each finding sit?
#
# Each map shows how many boxes of one finding cover a place, from none (dark blue) to most (yellow;
# the title says how many percent). The patient faces you, so the left of the map is the patient's
# right. Compare the sharp spots with the wide ones.

# %%
show(ch01.plot_places(real_vindr.boxes, frame_xy=frame_xy), colors=96)

# %% [markdown]
# The heart and the aorta have one place each. Pleural effusions lie at the bases, the lower ends of
# the lungs, pleural thickening at the apices, their upper tips. Nodules lie anywhere in the lungs. A
# detector may lean on these places. At another hospital, where images are cropped otherwise, they
# shift.

# %% [markdown]
# ### Who drew the boxes?
#
# Each point is one of the 17 readers. Look at those at the top.

# %%
readers = exploration.reader_table(real_vindr)
show(ch01.plot_readers(readers))

# %%
top = readers["boxes"].nlargest(3)
top_names = sorted(top.index, key=lambda name: int(name[1:]))
by_them = 100 * top.sum() / readers["boxes"].sum()
print(f"{', '.join(top_names)} drew {by_them:.1f}% of the boxes")
print(f"{(readers['boxes'] == 0).sum()} of {len(readers)} readers drew none")

# %% [markdown]
# A rule that never looks at the image: call it abnormal if these three were its readers, whatever
# they said about it.

# %%
rule = exploration.read_by_all(real_vindr, top_names)
print(f"abnormal images called abnormal: {rule['abnormal']:.1f}%")
print(f"normal images called abnormal: {rule['normal']:.1f}%")

# %%
claim(
    rule["abnormal"] > 90 and rule["normal"] < 20,
    "the readers' names alone tell abnormal from normal images",
    settings,
)

# %% [markdown]
# And that without a single pixel. A reader's name must never be an input of a model.

# %% [markdown]
# ## Three readers, one truth
#
# A detector needs one box for a finding. The **intersection over union**
# ([IoU](../docs/glossary.md#iou)) says how well two boxes agree: the area they share, divided by
# the area they cover together. Three readers drew one box each:

# %%
drawn = np.array([[10, 10, 50, 50], [14, 12, 54, 50], [60, 60, 90, 90]], dtype=float)
shared = (50 - 14) * (50 - 12)
together = 40 * 40 + 40 * 38 - shared
print(f"IoU of the first two: {shared} / {together} = {shared / together:.2f}")

# %% [markdown]
# That is above 0.5, the threshold here; the third lies alone. [**Weighted box
# fusion**](../docs/glossary.md#weighted-box-fusion) replaces boxes that overlap so much by their
# mean.

# %%
fused, n_readers, _ = consensus.weighted_box_fusion(drawn, np.array(["R8", "R9", "R10"]))
pd.DataFrame(fused, columns=["x_min", "y_min", "x_max", "y_max"]).assign(readers=n_readers)

# %% [markdown]
# The first two became one, the second row. So were made the boxes beside the paper's code (see the
# [ledger](../docs/ledger.md)). Now all real boxes:

# %%
real_fused = consensus.fuse_readings(real_vindr.boxes)
alone = 100 * (real_fused["readers"] == 1).mean()
print(
    f"{len(real_vindr.boxes):,} boxes become {len(real_fused):,}; {alone:.1f}% rest on one reader"
)

# %%
claim(len(real_fused) == 23934, "the fused real boxes number 23,934", settings)

# %% [markdown]
# Two thirds of the fused boxes rest on one reader. Did nobody else see the finding? Did another
# reader draw the same label on the same image at all?

# %%
single = real_fused[real_fused["readers"] == 1].reset_index(names="box")
who = ["image_id", "label"]
drew_it = real_vindr.boxes.groupby(who)["reader_id"].nunique().rename("drew_it")
named = (single.merge(drew_it, on=who)["drew_it"] > 1).mean()
print(f"{named:.0%} of them: another reader drew this label on this image")

# %% [markdown]
# And did another reader's box of that label overlap it, by any amount?

# %%
pairs = single.merge(real_vindr.boxes, on=who, suffixes=("", "_drawn"))
overlap = (pairs["x_min_drawn"] < pairs["x_max"]) & (pairs["x_max_drawn"] > pairs["x_min"])
overlap &= (pairs["y_min_drawn"] < pairs["y_max"]) & (pairs["y_max_drawn"] > pairs["y_min"])
touched = (pairs[overlap].groupby("box")["reader_id"].nunique() > 1).mean()
print(f"{touched:.0%} of them: another reader's box of this label overlaps it")

# %%
claim(
    abs(named - 0.498) < 0.001 and abs(touched - 0.361) < 0.001,
    "of the boxes with one reader, another drew the label in half, and overlaps in a third",
    settings,
)

# %% [markdown]
# So 'one reader' often means that two readers saw the same thing and drew it differently. An IoU of
# 0.5 is strict: two boxes of equal size, one shifted by a third of its width, just reach it. How
# well do two readers agree? [F1](../docs/glossary.md#f1) is twice the number of matched boxes,
# divided by all boxes of the two. The squares show the share of the fused boxes that rest on one
# reader.

# %%
agreement = 100 * consensus.reader_agreement(real_vindr.boxes)["f1"]
single = 100 * (real_fused["readers"] == 1).groupby(real_fused["label"]).mean()
opinions = pd.DataFrame({"agreement of two readers (F1)": agreement, "on one reader": single})
show(style.plot_dots(opinions, xlabel="percent"))

# %% [markdown]
# On an enlarged heart or aorta the readers agree well, on small or diffuse findings they do not. So
# no detector can be expected to score 100% against such boxes; how far one could come, notebook 04
# asks.

# %% [markdown]
# ### Exercises

# %%
quiz("1.B")

# %% [markdown]
# **Exercise 1.4, fifteen minutes.** Write the IoU of two boxes `(x_min, y_min, x_max, y_max)`. Try it
# on boxes that lie apart.


# %%
def iou(first, second):
    return ...  # your code


check("1.4", iou)

# %% [markdown]
# ## The pictures: NIH
#
# Now the pixels of the data you chose with `CXR_DATA`. In the demo they are **synthetic**: drawn by
# a program, in the files and folders of the real download.

# %%
nih_data = load_nih(settings)
print(f"{len(nih_data.entries):,} images of {nih_data.entries['patient_id'].nunique()} patients")
print(nih_data.split_source)

# %% [markdown]
# Of the demo one can know what is really there: the program that drew it wrote that down, in a file
# that no real download has. How many labels are right?

# %%
said = nih.label_matrix(nih_data.entries)
exact = exploration.exact_labels(settings.nih, said.index)
right = None
if exact is None:
    print("These are real images: nobody knows what is really there.")
else:
    agreed = (said * exact).to_numpy().sum()
    right, told = agreed / said.to_numpy().sum(), agreed / exact.to_numpy().sum()
    print(f"{right:.0%} of the labels are right, {told:.0%} of what was drawn is labeled")

# %%
if right is not None:
    claim(right > 0.92, "more than nine in ten of the demo's labels are right", settings)

# %% [markdown]
# **Real labels are noisier**, as you saw above. The demo is kinder on purpose; 'How the demo data was
# made' below says why.

# %%
nih_files = nih.find_images(settings.nih)
one = said.sum(axis=1) == 1
one &= True if exact is None else (said == exact).all(axis=1)
sick = nih_data.entries[one.to_numpy()].drop_duplicates("findings").head(4)
pictures = [nih.read_image(nih_files[image_id]) for image_id in sick["image_id"]]
show(style.show_images(pictures, sick["findings"].tolist(), width=1.55))

# %% [markdown]
# Each image carries one label, in the demo a right one. Point at each finding. Large shadows are
# easy; one that is small, or spread thin, is not. White letters are markers, dots are electrodes on
# the skin, and lines are tubes or wires: none of them is a finding.

# %% [markdown]
# ### One patient, several images
#
# The most photographed patient of this data. Look for what stays and what changes.

# %%
busiest = nih_data.entries["patient_id"].value_counts().index[0]
same = nih_data.entries[nih_data.entries["patient_id"] == busiest].head(4)
pictures = [nih.read_image(nih_files[image_id]) for image_id in same["image_id"]]
show(style.show_images(pictures, same["view"].tolist(), width=1.55))

# %% [markdown]
# The anatomy stays: the shape of lungs and heart, the spine. View, exposure and position change, and
# so may the illness. A network can learn to recognize the person.

# %% [markdown]
# ### What the test list does to prevalence
#
# NIH publishes a list of files to train on and one to test on. The next figure uses them where your
# data has them, as the demo does, and otherwise a random split by patient.

# %%
test = nih_data.split == "test"
parts = {"training list": ~test, "test list": test}
by_list = pd.DataFrame({k: 100 * nih_data.labels[rows].mean(axis=0) for k, rows in parts.items()})
by_list.index = nih.LABELS
show(style.plot_dots(by_list, xlabel="images with the label, data at hand (%)"))

# %%
for name, rows in parts.items():
    without = (nih_data.labels[rows].sum(axis=1) == 0).mean()
    print(f"{name}: {rows.sum():,} images, {without:.1%} without a finding")

# %% [markdown]
# With the demo's lists, and with NIH's own, the test part is the sicker one. In the real data 58.4%
# of the training list but only 38.5% of the test list are 'No Finding' (counted in the table above
# by the two lists of the [NIH download](https://nihcc.app.box.com/v/ChestXray-NIHCC)). So a
# threshold chosen on the one is wrong on the other, and a score on the official test list cannot be
# compared with one on a random split.

# %% [markdown]
# ## The pictures: VinDr
#
# VinDr's files are [DICOM](../docs/glossary.md#dicom), the format of hospitals.

# %%
vindr_data = load_vindr(settings) if settings.vindr else None
if vindr_data is None:
    print("This data has no VinDr-CXR folder: its pictures are left out.")
else:
    print(f"{len(vindr_data.images.image_ids):,} images, {len(vindr_data.fused):,} fused boxes")

# %% [markdown]
# ### From stored values to a picture, step by step
#
# A DICOM file stores whole numbers and says what they mean. Its **Photometric Interpretation** tells
# the direction: with [MONOCHROME2](../docs/glossary.md#monochrome1-monochrome2) a large number means
# bright, with MONOCHROME1 it means dark. Its [**window**](../docs/glossary.md#window) tells which
# numbers to show. How many files are of which kind here?

# %%
vindr_files = vindr.find_images(settings.vindr) if settings.vindr else {}
kinds = exploration.dicom_kinds(vindr_files)
kinds

# %% [markdown]
# Whoever forgets the smaller groups gets most pictures right, and notices nothing. We take a
# MONOCHROME1 file with a window through all steps.

# %%
inverted = exploration.find_dicom(vindr_files, photometric="MONOCHROME1")
print("a MONOCHROME1 file was found" if inverted else "no MONOCHROME1 file here")

# %%
if inverted:
    dataset = dicom.load_dataset(inverted)
    stored = dicom.stored_values(dataset)
    print(f"{stored.shape} {stored.dtype}, {dataset.BitsStored} bits stored")
    print(f"values from {stored.min()} to {stored.max()}")

# %% [markdown]
# Three transforms follow. The **modality** transform gives the numbers their unit (slope and
# intercept); in many files it changes nothing. The **window** says which of them to show, by a center
# and a width. The last step turns the scale around where large means dark.

# %%
if inverted:
    values, modality_step = dicom.modality_values(stored, dataset)
    shown, kind, window_step, window = dicom.display_values(values, dataset)
    by_steps = 1 - shown
    print(modality_step, window_step, sep="\n")

# %% [markdown]
# Each picture is drawn from its own darkest to its own brightest value, and its histogram stands
# below. Watch the axis of the histogram.

# %%
if inverted:
    steps = {"stored": stored, "modality": values, "window": shown, "inverted": by_steps}
    units = {"stored": "stored number", "modality": "modality value"}
    units |= {"window": "gray, 0 to 1", "inverted": "gray, 0 to 1"}
    figure = ch01.plot_steps(steps, units=units)
show(figure, colors=96) if inverted else None

# %% [markdown]
# The first three look inverted: the lungs are bright. Only the last step makes them dark, as on film,
# which turns dark where X-rays pass. `read_dicom` does the same in one call, and lists what it did.

# %%
if inverted:
    example = dicom.read_dicom(inverted)
    print(*example.steps, sep="\n")
    claim(
        np.allclose(example.pixels, by_steps, atol=1e-6),
        "the steps by hand give the picture of read_dicom",
        settings,
    )

# %% [markdown]
# ### Two ways to get it wrong
#
# First, to overlook MONOCHROME1, as in the third picture above. If that happens to some of the
# files, a network sees inverted images among the others, and nothing tells you.
#
# Second, a file without a window. We take it out of the same file, and try the full range of the
# bits, the smallest to the largest value, and the percentiles that `read_dicom` falls back on.


# %%
def stretch(numbers):
    """Smallest to largest, and turned around as MONOCHROME1 asks for."""
    return (numbers.max() - numbers) / (numbers.max() - numbers.min())


# %%
if inverted:
    for name in ("WindowCenter", "WindowWidth"):
        delattr(dataset, name)
    bare = dicom.read_dicom(dataset)
    full = 1 - stored / (2**dataset.BitsStored - 1)
    spread = stretch(stored)
    print(*bare.steps, sep="\n")

# %%
if inverted:
    ways = {"range of the bits": full, "smallest to largest": spread}
    ways |= {"percentiles": bare.pixels, "with its window": example.pixels}
    figure = style.show_images(list(ways.values()), list(ways), width=1.55)
show(figure) if inverted else None

# %% [markdown]
# By the range of the bits the picture is the flattest. Now two of the pixels break: one is stuck at
# 0, the other at the largest number that the bits allow. The contrast (the standard deviation of
# the gray values) before and after:

# %%
contrast = {}
if inverted:
    broken = stored.copy()
    broken[0, :2] = 0, 2**dataset.BitsStored - 1
    robust = [1 - dicom.display_values(numbers, dataset)[0] for numbers in (stored, broken)]
    contrast["smallest to largest"] = [stretch(stored).std(), stretch(broken).std()]
    contrast["percentiles"] = [robust[0].std(), robust[1].std()]
pd.DataFrame(contrast, index=["before", "two pixels broken"]).T.round(2)

# %% [markdown]
# Where the smallest and the largest value set the scale, two pixels of many thousands change the
# whole picture, and so does a burnt-in marker. The percentiles pass over them.

# %% [markdown]
# ### Exercise: from stored numbers to gray
#
# **Exercise 1.5, fifteen minutes.** Turn an array of stored values into gray, 0 (dark) to 1 (bright).
# The window reaches from `center - width / 2` to `center + width / 2`; in it the gray rises in a
# straight line, beyond it stays at 0 or 1. With `monochrome1` (True or False) the scale is turned.


# %%
def to_gray(stored, center, width, monochrome1):
    return ...  # your code


check("1.5", to_gray)

# %% [markdown]
# ### Three readers on one image
#
# Here fusion had much to do.

# %%
if vindr_data is not None:
    example_id = exploration.most_fused(vindr_data.readings.boxes, vindr_data.fused)
    pixels = dicom.read_dicom(vindr_files[example_id]).pixels
    tables = [vindr_data.readings.boxes, vindr_data.fused]
    of_both = [table[table["image_id"] == example_id] for table in tables]
    print(f"{len(of_both[0])} boxes of the readers, {len(of_both[1])} fused boxes")

# %%
if vindr_data is not None:
    titles = ["boxes of three readers", "fused boxes"]
    figure = style.show_images([pixels, pixels], titles, columns=2, width=2.8, boxes=of_both)
show(figure, colors=96) if vindr_data is not None else None

# %% [markdown]
# ### A nodule at 640 and at 224 pixels
#
# The surroundings of a nodule of median size. The titles give the image's longer side and the
# nodule's shorter one. An image smaller than 640 pixels, as in the demo, is shrunk in the ratio of
# 224 to 640.

# %%
if vindr_data is not None:
    nodule = exploration.typical_box(vindr_data.fused, label="Nodule/Mass")
    pixels = dicom.read_dicom(vindr_files[nodule["image_id"]]).pixels
    large = min(640, max(pixels.shape))
    sizes = [large, round(large * 224 / 640)]
    short = min(nodule["x_max"] - nodule["x_min"], nodule["y_max"] - nodule["y_min"])

# %%
if vindr_data is not None:
    crops = exploration.close_ups(pixels, nodule, sizes=sizes)
    side = [f"{n} px: nodule {short * n / max(pixels.shape):.0f} px" for n in sizes]
    figure = style.show_images(crops, side, columns=2, width=2.2)
show(figure) if vindr_data is not None else None

# %% [markdown]
# On the right few pixels are left of it. No network gets back what is not in its input.

# %% [markdown]
# ## Two sites, two looks
#
# How do the pictures of the two sites differ as numbers? VinDr's are not square, and the course fills
# them up with black; so only the middle of each picture counts here. How often does each gray value
# occur in it?

# %%
sites = {"NIH": nih_data.images.pixels}
if vindr_data is not None:
    sites["VinDr"] = vindr_data.images.pixels
looks = {site: exploration.center(pixels) for site, pixels in sites.items()}
show(ch01.plot_gray_values(looks))

# %% [markdown]
# In the demo the curves differ because the program gave each site its look: this shows how to
# measure such a difference, not how large it is between the real sites. How far could a model tell
# the sites apart by it? It gets the shares of 16 steps of gray, no shape, no place. Guessing is
# right for half of the pictures.

# %% tags=["nbval-ignore-output"]
accuracy = 0.5
if vindr_data is not None:
    shares = {site: exploration.gray_shares(pixels) for site, pixels in looks.items()}
    owners = {"NIH": nih_data.patients, "VinDr": np.array(vindr_data.images.image_ids)}
    accuracy = exploration.site_accuracy(shares, owners)
    print(f"right for {100 * accuracy:.0f}% of the pictures")

# %%
if vindr_data is not None:
    claim(accuracy > 0.65, "gray values alone name the site of more than 65% of pictures", settings)

# %% [markdown]
# If the sites can be told apart, so can anything that goes with a site. Train on both at once, with
# more illness at one of them, and the site becomes a shortcut to the illness.

# %% [markdown]
# ## How the demo data was made
#
# The demo's radiographs come from a program, a [phantom](../docs/glossary.md#phantom) in
# `cxr_helpers/phantom`. It draws a patient, then how the image is taken, and puts findings into it.
# There are two looks. *Realistic* keeps the sizes of the real boxes. *Teaching*, the default, draws
# findings larger (`size`) and with more contrast (`plain`), none of them fainter than `faintest`,
# in images whose grays differ less from each other (`variety`).

# %%
rows = {"size": [1.0, 1.45], "plain": [1.0, 3.0], "faintest": [0.0, 0.5], "variety": [1.0, 0.3]}
looks = pd.DataFrame(rows, index=["realistic", "teaching"])
patient = phantom.draw_patient(3, 10, sex="M", age=60)
frame = {"view": "PA", "image_hw": (256, 256), "field_cm": (36, 36)}
looks

# %% [markdown]
# One finding at both: fluid beside a lung, of the same patient and from the same draw.


# %%
def draw(look, site="nih"):
    """The same patient, acquisition and fluid at one of the looks."""
    taken = phantom.draw_acquisition(3, 10, 0, site=site, **frame, variety=look["variety"])
    how = {"size": look["size"], "plain": look["plain"]}
    how["severity"] = look["faintest"] + (1 - look["faintest"]) * 0.4
    generator = np.random.default_rng(2)
    fluid = phantom.draw_lesion("Pleural effusion", patient, generator, **how)
    return phantom.render(patient, taken, (fluid,), keep_maps=True)


# %%
made = {name: draw(look) for name, look in looks.iterrows()}
made["teaching, VinDr's look"] = draw(looks.loc["teaching"], site="vindr")
boxes = [exploration.phantom_boxes(radiograph) for radiograph in made.values()]
pixels = [radiograph.pixels for radiograph in made.values()]
show(style.show_images(pixels, list(made), columns=3, width=2.2, boxes=boxes), colors=96)

# %%
contrast = {name: made[name].boxes[0].contrast for name in looks.index}
for name, cm in contrast.items():
    print(f"{name}: the fluid weakens the beam like {cm:.1f} cm more of soft tissue")

# %% [markdown]
# The box is measured on what the finding changed. On the left the fluid only blunts the lower edge of
# the lung. In the middle nobody overlooks it.
#
# **Why the plainer one?** From a thousand images of the realistic look small networks learn far
# less than from a thousand real radiographs. The teaching look is set such that a thousand images
# teach what a thousand real ones do, so that you see effects in minutes. A score on it does not say
# how hard real findings are. `python data_scripts/make_demo.py --findings realistic` makes the
# other look, with the label noise that was measured on the real tables.
#
# How does a picture come about? From the patient follow **maps of thickness**: how many centimeters
# of soft tissue, lung and bone lie in the way of each ray. The beam grows weaker with each
# centimeter; scatter and noise are added. The signal's logarithm, sharpened and windowed, is the
# picture.

# %%
maps = made["teaching"].maps
stages = {name: maps[name] for name in ("soft tissue", "lung", "bone")}
stages |= {"signal": np.log10(maps["signal"]), "picture": made["teaching"].pixels}
units = {"soft tissue": "cm", "lung": "cm", "bone": "cm", "signal": "log10; 0: no patient"}
show(ch01.plot_maps(stages, units=units))

# %% [markdown]
# What of all this is real?
#
# | | real | not real |
# |---|---|---|
# | Files | names, folders, columns, quirks of DICOM | the pixels in them |
# | Numbers | how often findings occur and come together, how far readers agree | the patients; 75% of the VinDr-like images are abnormal |
# | Labels | the realistic look has the measured noise | the teaching look's labels are nearly all right |
# | Anatomy | lung outlines vary as in real masks | ribs, vessels and organs are plausible shapes, not measured ones |
# | Physics | attenuation, scatter, noise and blur exist | one energy of the beam, and a simple law for scatter |
# | Findings | place and kind of shadow; size, in the realistic look | an illness: no cause, no course, no effect of one on another; how plainly a shadow shows |
#
# **No clinical conclusion may be drawn from the demo.** That a model finds an effusion in it means
# that the model can find this program's effusions.

# %% [markdown]
# ## What differs between the two
#
# Put side by side, as computed above:

# %%
both_sets = {
    "images": [f"{len(real_nih):,}", f"{n_images:,}"],
    "patients known": [f"{len(per_patient):,}", "no"],
    "without a finding": [f"{none:.0f}%", f"{100 * (1 - n_abnormal / n_images):.0f}%"],
    "findings named": [len(nih.LABELS), len(vindr.CLASSES)],
    "named alike": [len(both), len(both)],
    "who says so": ["a program, from reports", f"{len(readers)} readers, three an image"],
    "AP views": [f"{100 * is_ap.mean():.0f}%", "not in the files"],
}
pd.DataFrame(both_sets, index=["NIH", "VinDr"]).T

# %% [markdown]
# A model that is trained on one side and used on the other meets all of this at once. Whether its
# scores fall, notebook 03 measures. The paper's way is to learn first from the pictures of one side
# *without* its labels, and to take only the features to the other side. Whether that helps is the
# question of the next notebooks.

# %%
results.add(
    real_nih_images=len(real_nih),
    real_vindr_fused_boxes=len(real_fused),
    one_reader_percent=alone,
    one_reader_same_label_percent=100 * float(named),
    one_reader_overlap_percent=100 * float(touched),
    no_finding_with_finding_percent=100 * missed,
    nodules_under_8_px_at_224_percent=float(lost_nodules),
    labels_right_here_percent=None if right is None else 100 * float(right),
    site_from_gray_accuracy=accuracy,
    images_here=len(nih_data.entries),
)
results.save().name

# %% [markdown]
# ## Your own figure
#
# **Exercise 1.6, half an hour.** Does the view go with the age? For each decade of age, 0-9 to 80-89,
# draw how many percent of its images are AP views. `entries` is a table like `real_nih`, with columns
# `age` and `view`. Name both axes; `check` shows what you drew.


# %%
def ap_by_decade(axis, entries):
    return ...  # your code, such as axis.bar(...)


check("1.6", ap_by_decade)

# %% [markdown]
# ## What this does not show
#
# Tables say what was recorded, not what was there. The demo's pictures tell nothing new about
# patients. And that a model *can* use the view, the site or the reader as a shortcut does not prove
# that it does.
#
# ## What you learned
#
# - How many images, patients and findings there are: two large data sets with few names in common.
# - Labels from reports are wrong about every second pneumothorax; fusion turns three readers' boxes
#   into one truth, the [consensus](../docs/glossary.md#consensus), and two thirds of its boxes rest on
#   one reader.
# - Findings differ widely in area, have their places, and small ones vanish at 224 pixels.
# - A DICOM value becomes a picture in named steps; MONOCHROME1 and a missing window are the traps.
# - The sites differ in labels, findings, patients and gray values. The demo is drawn plainer than real
#   radiographs, so that little data can teach, and its exact truth is known.
#
# ## Questions to think about
#
# 1. Which findings could a network guess from the view alone? How would you test whether it does?
# 2. A detector reaches a higher F1 against the fused boxes than two readers reach with each other.
#    Is it better than a radiologist?
# 3. Set the IoU of the fusion to 0.4. Do you expect more boxes or fewer?
# 4. With the PPV and the sensitivity of Pneumothorax above: which AUROC could a perfect reader of
#    images reach against these labels at most? What else would you need to know?
#
# Go on with [02 barlow_twins_pretraining](02_barlow_twins_pretraining.ipynb).
