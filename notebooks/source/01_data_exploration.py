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
# hospital in the USA; a program read its labels out of the radiologists' reports. VinDr-CXR comes
# from hospitals in Vietnam; there radiologists drew boxes around each
# [finding](../docs/glossary.md#finding).
#
# ## What you will learn
#
# - What findings look like, how large they are, where they lie, and what a small image loses.
# - How far the labels can be trusted, and how three readers' boxes become one truth.
# - How a stored DICOM value becomes a picture, and how it goes wrong.
# - What differs between the two sites, and what the demo's images share with real ones.
#
# **Time and memory:** see the [README](../README.md). Short of time? Leave out 'From stored values to a
# picture'.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxr_helpers import phantom
from cxr_helpers.course.ch01 import exploration
from cxr_helpers.course.core.data import load_nih, load_vindr
from cxr_helpers.course.core.results import Results, claim
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.course.core.tables import packaged_table
from cxr_helpers.course.plots import ch01, style
from cxr_helpers.data import consensus, dicom, nih, vindr

style.set_style()
settings = load_settings()
results = Results("01_data_exploration", settings)

# %% [markdown]
# ## Three findings, marked
#
# The pictures in this notebook are those of the data you chose with `CXR_DATA`. In the demo they are
# **synthetic**: drawn by a program, in the files and folders of the real download. `settings` says
# where they lie; `settings.nih` is the folder of the NIH images. Beside them lies a list of boxes.

# %%
nih_data = load_nih(settings)
nih_files = nih.find_images(settings.nih)
path = settings.nih / "BBox_List_2017.csv"
width = nih.read_image(nih_files[nih_data.entries["image_id"][0]]).shape[1]
boxes = nih.read_boxes(path if path.is_file() else packaged_table("nih_boxes"), size=width)
names = ["Effusion", "Mass", "Nodule"]
examples = exploration.marked_examples(nih_data.entries, boxes, names)
print(f"{len(nih_data.entries):,} images, {len(boxes):,} boxes")

# %% [markdown]
# An effusion is fluid beside the lung; a mass and a nodule are a large and a small lump in it. Cover
# the boxes with your hand: would you have found all three?

# %%
pictures = [nih.read_image(nih_files[image_id]) for image_id in examples["image_id"]]
marks = [boxes[boxes["image_id"] == image_id] for image_id in examples["image_id"]]
style.show_images(pictures, columns=3, width=3.1, boxes=marks)
if any(len(table) for table in marks):
    plt.suptitle(exploration.compare_areas(pd.concat(marks)))
plt.show()
examples[["image_id", "age", "sex", "view", "findings"]]

# %% [markdown]
# Large shadows are easy; one that is small, or spread thin, is not. White letters are markers, dots are
# electrodes on the skin, lines are tubes or wires: none of them is a finding.

# %% [markdown]
# ## From findings to numbers
#
# Three images; the second has two findings, joined by a bar, the third has none. (Edema is fluid in
# the tissue of the lung.) `nih.label_matrix` gives each finding a column, 1 where the image has it.

# %%
three = pd.DataFrame({"image_id": ["a", "b", "c"]})
three["findings"] = ["Effusion", "Effusion|Edema", "No Finding"]
nih.label_matrix(three, ["Edema", "Effusion"])

# %% [markdown]
# The mean of a column is its [**prevalence**](../docs/glossary.md#prevalence): one third for edema. Of
# the one image with edema all have an effusion; of the two with an effusion only half have edema. Such
# shares are not symmetric.
#
# **Exercise 1.1, two minutes.** A fourth image joins the three. Its findings are `Edema|Effusion`.
# Predict the prevalence of edema, as a share from 0 to 1: fill in the dots and run the cell. In a new
# cell, `hint("1.1")` nudges, `hint("1.1", 2)` says more, `solution("1.1")` shows one way. Nothing below
# depends on your answers.

# %%
from cxr_helpers.course.exercises import check, hint, quiz, solution  # noqa: F401

prevalence_of_edema = ...
check("1.1", prevalence_of_edema)

# %% [markdown]
# ## The real NIH table
#
# The tables from here on are the **real** ones. This one ships with the package torchxrayvision,
# without the pictures. One row is one image.

# %%
real_nih = nih.read_entries(packaged_table("nih_entries"))
per_patient = real_nih["patient_id"].value_counts()
print(f"{len(real_nih):,} images of {len(per_patient):,} patients")
print(f"{(per_patient <= 2).mean():.0%} of them have one image or two, one has {per_patient.max()}")
real_nih[["image_id", "patient_id", "age", "sex", "view", "findings"]].head(4)

# %% [markdown]
# So images are not independent: a test image of a patient who is also in training is a half-known
# image. This course splits **by patient**; notebook 03 measures what happens otherwise.
#
# ### How often does each finding occur?
#
# The scale is logarithmic: from 1 to 10 is as far as from 10 to 100. The names are in the
# [glossary](../docs/glossary.md#radiology-and-its-files).

# %%
labels = nih.label_matrix(real_nih)
percent = 100 * labels.mean()
most, least = percent.idxmax(), percent.idxmin()
style.plot_dots(percent, xlabel="images with the label (%, log scale)", log=True)
plt.suptitle(f"{most} is {percent[most] / percent[least]:.0f} times as frequent as {least}")
plt.show()

# %%
none = 100 * (labels.sum(axis=1) == 0).mean()
print(f"No finding at all: {none:.1f}% of the images.")
print(f"'Never a hernia' is right for {100 - percent['Hernia']:.1f}% of them.")

# %% [markdown]
# That is the baseline any accuracy has to be held against, and why this course uses scores that do
# not reward it.
#
# ### Which findings come together?
#
# Of the images with the label of the row, how many also have that of the column? The last row is that of
# all images. Look for cells that are brighter than it.

# %%
counts = labels.T.astype(int) @ labels.astype(int)  # images that have both
share = 100 * counts.div(labels.sum(), axis=0)
share = share.mask(np.eye(len(share), dtype=bool))
row, column = share.stack().idxmax()
share.loc["all images"] = percent
bar = "share of the row's images (%)"
ch01.plot_heatmap(share, label=bar, xlabel="also has", ylabel="images with")
plt.suptitle(f"{share.loc[row, column]:.0f}% of the images with {row} also have {column}")
plt.show()

# %% [markdown]
# Some findings come together far more often than by chance. A network can learn the one instead of the
# other, and still be right. A bright column alone says less: what is frequent comes with everything.
#
# ### The view goes with the illness
#
# A patient who can stand turns the chest to the detector, and the X-rays come from behind
# ([PA](../docs/glossary.md#pa-view)). For one who cannot stand, often in bed, they come from the
# front ([AP](../docs/glossary.md#ap-view)), and the heart looks larger than it is. Watch how far
# the share of AP views strays from that of all images, the dashed line.

# %%
is_ap = (real_nih["view"] == "AP").to_numpy()
ap_share = 100 * labels[is_ap].sum() / labels.sum()
edema = labels["Edema"]
times = edema[is_ap].mean() / edema[~is_ap].mean()
average = (100 * is_ap.mean(), "all images")
style.plot_dots(ap_share, xlabel="AP views among the images with the label (%)", reference=average)
plt.suptitle(f"Edema is {times:.0f} times as frequent on AP views as on PA views")
plt.show()

# %% [markdown]
# A network can score well on edema by recognizing a picture taken in bed. Such a
# [shortcut](../docs/glossary.md#shortcut) is no knowledge of edema. Notebook 05 looks for one.

# %% [markdown]
# ### Are the labels right?
#
# For some of the NIH images, radiologists later looked again ([Majkowska et al.
# 2020](https://doi.org/10.1148/radiol.2019191293)), for fracture, pneumothorax, airspace opacity, and
# nodule or mass. Two of them have a label of the same meaning in NIH. For these, two questions:
#
# - Of the images **labeled** with it, on how many was it **seen**? (positive predictive value,
#   [PPV](../docs/glossary.md#ppv))
# - Of the images on which it was **seen**, how many were **labeled**?
#   ([sensitivity](../docs/glossary.md#sensitivity-recall))

# %%
rereads = nih.read_rereads(packaged_table("google2019"))
noise = exploration.label_noise(labels, rereads)
noise.round(3)

# %% [markdown]
# Fewer than half of the images labeled Pneumothorax show one, and fewer than half of those that
# show one are labeled. (That its two shares are equal is chance: as many were labeled as were seen.) What was seen on the images of each label? Look at the last row: these are the
# images on which the program found nothing.
# ([Airspace opacity](../docs/glossary.md#airspace-opacity): something other than air fills a part of
# the lung. It covers several labels of NIH.)

# %%
seen = exploration.reread_shares(labels, rereads)
missed = seen.loc["No Finding", exploration.ANY]
saw = "radiologists saw"
ch01.plot_heatmap(seen, label=bar, xlabel=saw, ylabel="NIH label", numbers=True)
plt.suptitle(f"{missed:.0f}% of the 'No Finding' images carry at least one of the four")
plt.show()

# %% [markdown]
# ['No Finding'](../docs/glossary.md#no-finding) does not mean healthy. It means that the program
# found none of its 14 findings reported as present. (These images are no random sample: elsewhere the
# shares may differ.) A model that agreed with the labels perfectly would be wrong more often than right
# where it says pneumothorax. A score against the labels says how well a model imitates them, no more.

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
real_boxes = real_vindr.boxes
n_images = real_vindr.readings["image_id"].nunique()
normal = 100 * (1 - real_boxes["image_id"].nunique() / n_images)
print(f"{n_images:,} images, {len(real_boxes):,} boxes; no box on {normal:.1f}% of the images")
real_boxes.head(3).round(0)

# %% [markdown]
# In the paper's code the detector is trained and scored on the abnormal images alone, so what it does
# on a normal one is never measured there.
#
# ### Who drew the boxes?
#
# Which share of the abnormal images, and which of the normal ones, did each reader read? An image is
# abnormal where any reader drew a box.

# %%
readers = exploration.reader_table(real_vindr)
top = sorted(readers["boxes"].nlargest(3).index, key=lambda name: int(name[1:]))
by_them = 100 * readers["boxes"][top].sum() / readers["boxes"].sum()
read = readers[["abnormal_percent", "normal_percent"]].set_axis(["abnormal", "normal"], axis=1)
read.index = [f"{name}: {n:,} boxes" for name, n in readers["boxes"].items()]
style.plot_dots(read, xlabel="share of these images that this reader read (%)")
plt.suptitle(f"{', '.join(top)} drew {by_them:.1f}% of the boxes")
plt.show()

# %% [markdown]
# A rule that never looks at the image: call it abnormal if these three were its readers, whatever
# they said about it.

# %%
rule = exploration.read_by_all(real_vindr, top)
print(f"abnormal images called abnormal: {rule['abnormal']:.1f}%")
print(f"normal images called abnormal: {rule['normal']:.1f}%")

# %% [markdown]
# And that without a single pixel. A reader's name must never be an input of a model.

# %% [markdown]
# ### How large is a finding, and what vanishes at 224 pixels?
#
# The paper's code trains at 224 and at 640 pixels. The finest feature map of a usual [Faster
# R-CNN](../docs/glossary.md#faster-r-cnn) has a cell for every 4 pixels, so a box with a short side
# under 8 pixels is less than two cells wide.
#
# The figure shows the shorter side of the boxes: the median (stroke), the middle half (box), the middle
# 90% (whiskers). Left of the dashed line are those under 8 pixels. (The table does not hold the size of
# the images. We **assume** one for all, a bound that nearly all boxes keep.)

# %%
frame_xy = tuple(real_boxes[["x_max", "y_max"]].quantile(0.995))
side = 100 * exploration.short_sides(real_boxes) / max(frame_xy)
line = (100 * 8 / 224, "8 pixels, where the image has 224")
lost = 100 * (side < line[0]).groupby(real_boxes["label"]).mean()
xlabel = "shorter side of the box (% of the image, log scale)"
ch01.plot_spread(side, real_boxes["label"], xlabel=xlabel, reference=line)
plt.suptitle(f"At 224 pixels {lost['Nodule/Mass']:.1f}% of the nodules are under 8 pixels wide")
plt.show()

# %%
at_640 = 100 * (side[real_boxes["label"] == "Nodule/Mass"] < 100 * 8 / 640).mean()
print(f"{exploration.compare_areas(real_boxes)}: one detector has to find both.")
print(f"At 640 pixels {at_640:.0f}% of the nodules are under 8 pixels wide.")

# %% [markdown]
# No training recovers what the scaling removed.
#
# ### Where does each finding sit?
#
# Each map shows how many boxes of one finding cover a place, from none (dark blue) to most (yellow;
# the title says how many percent). Compare the sharp spots with the wide ones.

# %%
ch01.plot_places(real_boxes, frame_xy=frame_xy, width=1.7)
plt.suptitle("A large heart has one place, a nodule has none")
plt.show()

# %% [markdown]
# Many findings of the lung lie more often on the patient's right, at the left of the picture; why, the table
# does not say. A detector may lean on these places. At another hospital, where images are cropped otherwise, they
# shift.

# %% [markdown]
# ## Three readers, one truth
#
# A detector needs one box for a finding, and three readers draw three. One image of the data at hand,
# left each reader's boxes, right what becomes of them (colors only tell boxes apart). Look for a finding that all three saw, and for one that a single reader saw.

# %%
vindr_data, vindr_files = None, {}
if settings.vindr:
    vindr_data, vindr_files = load_vindr(settings), vindr.find_images(settings.vindr)
    image_id = exploration.telling_fusion(vindr_data.fused)
    pixels = dicom.read_dicom(vindr_files[image_id]).pixels
    tables = vindr_data.readings.boxes, vindr_data.fused
    drawn, joined = (table[table["image_id"] == image_id] for table in tables)
    by_reader = drawn.assign(label=drawn["reader_id"] + ": " + drawn["label"])
    titles = ["readers", "after fusion"]
    style.show_images([pixels] * 2, titles, columns=2, width=3.5, boxes=[by_reader, joined])
    plt.suptitle(f"{len(drawn)} boxes of three readers become {len(joined)}")
    plt.show()

# %% [markdown]
# How does one decide which boxes mean the same? The **intersection over union**
# ([IoU](../docs/glossary.md#iou)) says how well two boxes agree: the area they share, divided by
# the area they cover together. By hand, for the first two of these three:

# %%
hand = np.array([[10, 10, 50, 50], [14, 12, 54, 50], [60, 60, 90, 90]], dtype=float)
shared = (50 - 14) * (50 - 12)
together = 40 * 40 + 40 * 38 - shared
print(f"IoU of the first two: {shared} / {together} = {shared / together:.2f}")

# %% [markdown]
# That is above 0.5, the threshold here; the third lies alone. [**Weighted box
# fusion**](../docs/glossary.md#weighted-box-fusion) replaces boxes that overlap so much by their
# mean.

# %%
fused, n_readers, _ = consensus.weighted_box_fusion(hand, np.array(["R8", "R9", "R10"]))
pd.DataFrame(fused, columns=["x_min", "y_min", "x_max", "y_max"]).assign(readers=n_readers)

# %% [markdown]
# The first two became one, the second row. The boxes beside the paper's code were made in this way (see
# the [ledger](../docs/ledger.md)). Now all real boxes. Many fused boxes rest on one reader: did nobody
# else draw that label on that image?

# %%
real_fused = consensus.fuse_readings(real_boxes)
single = real_fused[real_fused["readers"] == 1]
alone = 100 * len(single) / len(real_fused)
who = real_boxes.groupby(["image_id", "label"])["reader_id"].nunique().rename("drew_it")
named = 100 * (single.join(who, on=["image_id", "label"])["drew_it"] > 1).mean()
print(f"{len(real_boxes):,} boxes become {len(real_fused):,}; {alone:.1f}% rest on one reader")
print(f"In {named:.0f}% of these, another reader put the same label on another box")

# %% [markdown]
# So 'one reader' often means that another reader drew that label elsewhere: the same finding drawn in
# another way, or another one. An IoU of
# 0.5 is strict: two boxes of equal size, one shifted by a third of its width, just reach it. How
# well do two readers agree? [F1](../docs/glossary.md#f1) is twice the number of matched boxes,
# divided by all boxes of the two.

# %%
agreement = 100 * consensus.reader_agreement(real_boxes)["f1"]
on_one = 100 * (real_fused["readers"] == 1).groupby(real_fused["label"]).mean()
opinions = pd.DataFrame({"agreement of two readers (F1)": agreement, "on one reader": on_one})
best, worst = agreement.idxmax(), agreement.idxmin()
style.plot_dots(opinions, xlabel="percent")
plt.suptitle(f"Two readers agree on {best} ({agreement.max():.0f}%), not on {worst}")
plt.show()

# %% [markdown]
# So no detector can be expected to score 100% against such boxes; how far one could come, notebook 04
# asks. (The question below names a score, [AUROC](../docs/glossary.md#auroc): of all pairs of an image
# with the finding and one without, the share in which the first gets the higher score.)

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
# ## From stored values to a picture
#
# VinDr's files are [DICOM](../docs/glossary.md#dicom), the format of hospitals. A file stores whole
# numbers and says what they mean. Its **Photometric Interpretation** tells the direction: with
# [MONOCHROME2](../docs/glossary.md#monochrome1-monochrome2) a large number means bright, with
# MONOCHROME1 it means dark. Its [**window**](../docs/glossary.md#window) tells which numbers to show,
# by a center and a width. How many files are of which kind here?

# %%
exploration.dicom_kinds(vindr_files)

# %% [markdown]
# Whoever forgets the smaller groups gets most pictures right, and notices nothing. We take a
# MONOCHROME1 file with a window, whose values fill little of what its bits can hold.

# %%
inverted = exploration.find_dicom(vindr_files, photometric="MONOCHROME1")
if inverted:
    dataset = dicom.load_dataset(inverted)
    stored = dicom.stored_values(dataset)
    top_value = 2**dataset.BitsStored - 1
    print(f"{stored.shape}, values from {stored.min()} to {stored.max()}; {top_value} would fit")

# %% [markdown]
# Three steps lead to the picture. A slope and an intercept give the numbers their unit. The window
# turns those to be shown into gray, from 0 to 1. The last step turns the scale around where large
# means dark. `read_dicom` does all three, and lists what it did.

# %%
if inverted:
    values, _ = dicom.modality_values(stored, dataset)
    shown, *_ = dicom.display_values(values, dataset)
    right_way = dicom.read_dicom(inverted)
    print("by hand the same:", np.allclose(1 - shown, right_way.pixels, atol=1e-6))
    print(*right_way.steps, sep="\n")

# %% [markdown]
# Two ways to get it wrong. First, to forget the last step. Second: in a file without a window, to let
# the smallest and the largest value set the scale. To show it, the next cell takes the window out of our
# file and breaks two pixels: one becomes 0, the other the largest number that fits. What `read_dicom` falls back on passes over them: from the
# 0.5th to the 99.5th **percentile** of the values.


# %%
def stretch(numbers):
    """Smallest to largest, and turned around as MONOCHROME1 asks for."""
    return (numbers.max() - numbers) / (numbers.max() - numbers.min())


if inverted:
    spots = np.array([[0.3, 0.12], [0.7, 0.88]]) * stored.shape
    spots = spots.astype(int)
    broken = stored.copy()
    broken[spots[:, 0], spots[:, 1]] = 0, top_value
    for name in ("WindowCenter", "WindowWidth"):
        delattr(dataset, name)  # from here on the file has no window
    robust = 1 - dicom.display_values(broken, dataset)[0]

# %% [markdown]
# In the figure small boxes mark the two broken pixels. Compare the grays of the last two pictures.
# The contrast is the standard deviation of the gray values.

# %%
if inverted:
    ways = {"last step forgotten": shown, "right": right_way.pixels}
    ways |= {"2 broken: smallest to largest": stretch(broken), "2 broken: percentiles": robust}
    around = np.hstack([spots[:, ::-1] - 6, spots[:, ::-1] + 6])
    nothing = np.zeros((0, 4))
    found = [nothing, nothing, around, around]
    style.show_images(list(ways.values()), list(ways), boxes=found)
    kept = 100 * stretch(broken).std() / stretch(stored).std()
    plt.suptitle(f"Two broken pixels leave {kept:.0f}% of the contrast; percentiles pass over them")
    plt.show()

# %% [markdown]
# If the last step is forgotten for some files, a network sees inverted images among the others, and
# nothing tells you. And two pixels of many thousands change a whole picture; so does a burnt-in marker.
#
# **Exercise 1.5, fifteen minutes.** Turn an array of stored values into gray, 0 (dark) to 1 (bright).
# The window reaches from `center - width / 2` to `center + width / 2`; in it the gray rises in a
# straight line, beyond it stays at 0 or 1. With `monochrome1` (True or False) the scale is turned.


# %%
def to_gray(stored, center, width, monochrome1):
    return ...  # your code


check("1.5", to_gray)

# %% [markdown]
# ## Two sites, two looks
#
# How often does each gray value occur at each site? And how far could a model tell the sites apart by
# that alone, from 16 steps of gray, without shape or place? Guessing is right for half of the pictures.
# (Only the middle of each picture counts: the course fills up VinDr's, which are not square, with black.)

# %% tags=["nbval-ignore-output"]
accuracy = None
if vindr_data is not None:
    sites = {"NIH": nih_data.images.pixels, "VinDr": vindr_data.images.pixels}
    middle = {site: exploration.center(pixels) for site, pixels in sites.items()}
    shares = {site: exploration.gray_shares(pixels) for site, pixels in middle.items()}
    owners = {"NIH": nih_data.patients, "VinDr": vindr_data.patients}
    accuracy = exploration.site_accuracy(shares, owners)
    ch01.plot_gray_values(middle)
    plt.suptitle(f"Gray values alone name the site of {accuracy:.0%} of the pictures")
    plt.show()
    print(f"right for {accuracy:.0%} of the pictures")

# %% tags=["hide-input"]
if accuracy is not None:
    claim(accuracy > 0.65, "gray values alone name the site of more than 65% of pictures", settings)

# %% [markdown]
# In the demo the program gave each site its look: this shows how to measure such a difference, not how
# large it is between the real sites. Train on both at once, with more illness at one of them, and the
# site becomes a shortcut to the illness.

# %% [markdown]
# ## How the demo data was made
#
# A program, the [phantom](../docs/glossary.md#phantom) in `cxr_helpers/phantom`, draws a patient, then
# how the image is taken, and puts findings into it. There are two looks. *Realistic* keeps the sizes of
# the real boxes. *Teaching*, the default, draws findings larger (`size`) and with more contrast
# (`plain`), none of them fainter than `faintest`, in images whose grays differ less (`variety`).

# %%
rows = {"size": [1.0, 1.45], "plain": [1.0, 3.0], "faintest": [0.0, 0.5], "variety": [1.0, 0.3]}
looks = pd.DataFrame(rows, index=["realistic", "teaching"])
looks

# %% [markdown]
# One finding at both: fluid beside a lung, in the same patient; then the same at the other site.


# %%
def draw(look, site="nih"):
    """The same patient, acquisition and fluid at one of the looks."""
    patient = phantom.draw_patient(3, 10, sex="M", age=60)
    frame = {"view": "PA", "image_hw": (256, 256), "field_cm": (36, 36)}
    taken = phantom.draw_acquisition(3, 10, 0, site=site, **frame, variety=look["variety"])
    severity = look["faintest"] + (1 - look["faintest"]) * 0.4
    how = {"size": look["size"], "plain": look["plain"], "severity": severity}
    fluid = phantom.draw_lesion("Pleural effusion", patient, np.random.default_rng(2), **how)
    return phantom.render(patient, taken, (fluid,))


# %%
made = {name: draw(look) for name, look in looks.iterrows()}
made["teaching, at the other site"] = draw(looks.loc["teaching"], site="vindr")
pixels = [radiograph.pixels for radiograph in made.values()]
marks = [exploration.phantom_boxes(radiograph) for radiograph in made.values()]
style.show_images(pixels, list(made), columns=3, width=2.9, boxes=marks)
cm = {name: made[name].boxes[0].contrast for name in looks.index}
plt.suptitle(
    f"The fluid weakens the beam like {cm['realistic']:.1f} cm more of soft tissue (realistic), "
    f"{cm['teaching']:.1f} cm (teaching)"
)
plt.show()

# %% [markdown]
# On the left the fluid only blunts the lower edge of the lung. In the middle nobody overlooks it.
#
# **Why the plainer one?** From a thousand images of the realistic look small networks learn far
# less than from a thousand real radiographs. The teaching look is set so that its images teach a small
# network nearly as much as real ones do ([benchmarks](../benchmarks/README.md)), and you see effects in
# minutes. A score on it does not say how hard real findings are.
# (`python data_scripts/make_demo.py --findings realistic` makes the other look.)
#
# The program wrote down what is really there. How many of the labels are right?

# %%
said = nih.label_matrix(nih_data.entries)
exact = exploration.exact_labels(settings.nih, said.index)
right = None
if exact is None:
    print("These are real images: nobody knows what is really there.")
else:
    agreed = (said * exact).to_numpy().sum()
    right, told = 100 * agreed / said.to_numpy().sum(), 100 * agreed / exact.to_numpy().sum()
    print(f"{right:.0f}% of the labels are right, {told:.0f}% of what was drawn is labeled")

# %% [markdown]
# **Real labels are noisier**, as you saw above. What else of all this is real?
#
# | | real | not real |
# |---|---|---|
# | Files | names, folders, columns, quirks of DICOM | the pixels in them |
# | Numbers | how often findings occur and come together, how far readers agree | the patients; 75% of the VinDr-like images are abnormal |
# | Anatomy | lung outlines vary as in real masks | ribs, vessels and organs are plausible shapes, not measured ones |
# | Physics | attenuation, scatter, noise and blur exist | one energy of the beam, and a simple law for scatter |
# | Findings | place and kind of shadow; size, in the realistic look | an illness: no cause, no course, no effect of one on another |
#
# **No clinical conclusion may be drawn from the demo.** That a model finds an effusion in it means
# that the model can find this program's effusions.

# %% [markdown]
# ## The answer: what is in them, and how do they differ?
#
# Put side by side, as computed above. Which names are in both, apart from capitals and underscores?

# %%
nih_names = {name.replace("_", " ").lower() for name in nih.LABELS}
both = [name for name in vindr.CLASSES if name.lower() in nih_names]
both_sets = {
    "images": [f"{len(real_nih):,}", f"{n_images:,}"],
    "patients known": [f"{len(per_patient):,}", "no"],
    "without a finding": [f"{none:.0f}%", f"{normal:.0f}%"],
    "findings named": [len(nih.LABELS), len(vindr.CLASSES)],
    "who says so": ["a program, from reports", f"{len(readers)} readers, three an image"],
    "AP views": [f"{100 * is_ap.mean():.0f}%", "not in the files"],
}
print(f"The same name in both: {', '.join(both)}")
pd.DataFrame(both_sets, index=["NIH", "VinDr"]).T

# %%
wrong = 100 * (1 - noise.loc["Pneumothorax", "ppv"])
print(
    f"NIH holds labels that a program read (radiologists did not see {wrong:.0f}% of those for\n"
    f"pneumothorax), VinDr boxes that readers drew ({alone:.0f}% of the fused ones rest on one reader);\n"
    f"other patients, and only {len(both)} of {len(vindr.CLASSES)} findings by the same name."
)

# %% [markdown]
# By meaning there are more: Effusion is Pleural effusion in VinDr. And a shared name is no shared
# meaning: 'Infiltration' is a word that one radiologist uses where another says 'consolidation'.
#
# The paper's way is to learn first from the pictures of one side *without* its labels, and to take only
# the features to the other side. Whether that helps is the question of the next notebooks.

# %%
results.add(
    real_nih_images=len(real_nih),
    real_vindr_fused_boxes=len(real_fused),
    one_reader_percent=alone,
    one_reader_same_label_percent=float(named),
    no_finding_with_finding_percent=float(missed),
    nodules_under_8_px_at_224_percent=float(lost["Nodule/Mass"]),
    labels_right_here_percent=None if right is None else float(right),
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
# - Findings differ widely in area, have their places, and small ones vanish at 224 pixels.
# - Labels from reports are wrong about every second pneumothorax; fusion turns three readers' boxes
#   into one truth, the [consensus](../docs/glossary.md#consensus), and two thirds of its boxes rest on
#   one reader.
# - A DICOM value becomes a picture in named steps; MONOCHROME1 and a missing window are the traps.
# - The sites differ in labels, findings, patients and gray values. The demo is drawn plainer than real
#   radiographs, so that little data can teach, and its exact truth is known.
#
# ## Questions to think about
#
# 1. Which findings could a network guess from the view alone? How would you test whether it does?
#
# <details><summary>An answer</summary>
#
# Those whose share of AP views is far from that of all images, edema first. Score within AP and within
# PA alone, or match both groups for the view. A score that falls to chance within a view was the view.
#
# </details>
#
# 2. A detector reaches a higher F1 against the fused boxes than two readers reach with each other.
#    Is it better than a radiologist?
#
# <details><summary>An answer</summary>
#
# No. The fused truth is partly made of each reader's own boxes, and a detector is trained to imitate the
# mean of these readers. It agrees with this consensus more than they with each other; about patients
# that says nothing.
#
# </details>
#
# 3. Set the IoU of the fusion to 0.4. Do you expect more boxes or fewer?
#
# <details><summary>An answer</summary>
#
# Fewer: more pairs count as the same. `consensus.fuse_readings(real_boxes, iou_threshold=0.4)` counts
# them.
#
# </details>
#
# 4. With the PPV and the sensitivity of Pneumothorax above: which AUROC could a perfect reader of
#    images reach against these labels at most? What else would you need to know?
#
# <details><summary>An answer</summary>
#
# If the reader says only yes or no, the AUROC is the mean of sensitivity and specificity against the
# *labels*. The sensitivity against the labels is the labels' PPV. The specificity is 1 - (1 - s) p / (1 -
# q), with s the labels' sensitivity, p the share of images with the finding, q the share labeled; p and q
# you would need to know. For a rare finding it is near 1, and the bound near (1 + PPV) / 2: far from 1.
#
# </details>
#
# Go on with [02 barlow_twins_pretraining](02_barlow_twins_pretraining.ipynb).
