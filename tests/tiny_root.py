"""A root with both data sets in their real formats, of noise and few pixels; the real headers."""

import numpy as np
from dicom_files import make_dataset, to_bytes
from PIL import Image

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NIH_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
VINDR_HEADER = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
# Presets that take seconds on one core.
SMALL = (
    *("pretrain.batch_size=8", "pretrain.epochs=2", "pretrain.min_steps=0"),
    *("pretrain.image_size=32", "pretrain.projector=16,16,8", "pretrain.measure_every=1"),
    *("pretrain.checkpoint_every=1", "probe.draws=2", "probe.resamples=20", "probe.neighbors=5"),
    *("probe.fractions=0.5,1", "detect.image_size=32", "detect.batch_size=4", "detect.epochs=20"),
    *("detect.fpn_channels=16", "detect.head_width=32", "detect.resamples=20"),
    *("detect.learning_rate=3e-3", "detect.warmup_steps=5", "detect.pipeline=none"),
    *("explain.score_threshold=0.01", "explain.resamples=20"),
)


def make_root(root):
    """Write 80 NIH images of as many patients and 30 VinDr-CXR images, 20 of them with boxes."""
    rng = np.random.default_rng(0)
    _write_nih(root, rng)
    _write_vindr(root, rng)
    return root


def make_nih_root(root):
    """Write the NIH images alone, 30 of them in the test list and with boxes of two findings."""
    _write_nih(root, np.random.default_rng(0))
    names = [f"{k:08d}_000.png" for k in range(30)]
    rows = [NIH_BOX_HEADER]
    for name in names:
        rows += [f"{name},Cardiomegaly,128,256,640,640,,,", f"{name},Mass,64,64,224,224,,,"]
    (root / "nih" / "BBox_List_2017.csv").write_text("\n".join(rows))
    (root / "nih" / "test_list.txt").write_text("\n".join(names))
    return root


def _write_nih(root, rng):
    images = root / "nih" / "images"
    images.mkdir(parents=True)
    lines = [NIH_HEADER]
    for k in range(80):
        name = f"{k:08d}_000.png"
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(images / name)
        found = ("Mass", "Effusion", "Mass|Effusion", "No Finding")[k % 4]
        lines.append(f"{name},{found},0,{k},50,F,{'AP' if k % 2 else 'PA'},32,32,0.1,0.1")
    (root / "nih" / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))


def _write_vindr(root, rng):
    train = root / "vindr" / "train"
    train.mkdir(parents=True)
    rows = [VINDR_HEADER]
    for k in range(30):
        name = f"{k:032x}"
        stored = rng.integers(0, 4096, (32, 32))
        (train / f"{name}.dicom").write_bytes(to_bytes(make_dataset(stored)))
        for reader in ("R1", "R2", "R3"):
            if k < 20:
                rows.append(f"{name},Cardiomegaly,3,{reader},4,8,24,28")
                rows.append(f"{name},Nodule/Mass,8,{reader},2,2,9,9")
            else:
                rows.append(f"{name},No finding,14,{reader},,,,")
    (root / "vindr" / "train.csv").write_text("\n".join(rows))


def command(stage, root, *more, small=SMALL):
    """Arguments of the command line."""
    pairs = [part for pair in small for part in ("--set", pair)]
    return [stage, "--data", str(root), "--arms", "random", "pretrained", *pairs, *more]
