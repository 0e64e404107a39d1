"""How close are the phantoms to real radiographs? Transfer, statistics and a picture.

    python benchmarks/phantom_realism.py --nih FOLDER --picture ../phantoms.png --seeds 0 1 2

makes NIH-like phantoms, pretrains Barlow Twins on them (ResNet-18, 64 px), and probes the frozen
features on the real radiographs in FOLDER (any folder with NIH's images; labels, sex, view and
patients come from the table in torchxrayvision). Random weights are the baseline; `--ceiling`
also pretrains on the real images themselves. Cross-validation has 5 folds without a patient in
two of them. Labels: abnormal, Effusion, Infiltration, Edema, sex, AP view.

The picture shows twelve real images above twelve phantoms; as it holds real radiographs it has to
lie outside the repository. Writes runs/benchmarks/phantom_realism.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_helpers import barlow, nih, probe, views
from cxr_helpers.course.quiet import quiet_lightning
from cxr_helpers.course.results import Results
from cxr_helpers.course.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "data_scripts"))
from make_demo import make_demo  # noqa: E402

TARGETS = ("abnormal", "Effusion", "Infiltration", "Edema", "sex", "AP view")


def real_entries(names: list[str]) -> pd.DataFrame:
    """The rows of the real table for these images, in this order."""
    package = Path(importlib.util.find_spec("torchxrayvision").origin).parent
    entries = nih.read_entries(package / "data" / "Data_Entry_2017_v2020.csv.gz")
    return entries.set_index("image_id").loc[names].reset_index()


def targets(entries: pd.DataFrame) -> np.ndarray:
    """(N, 6) of 0 and 1 in the order of `TARGETS`."""
    findings = entries["findings"].str.split("|")
    has = {name: findings.map(lambda f, n=name: n in f) for name in TARGETS[1:4]}
    columns = [findings.map(lambda f: "No Finding" not in f), *has.values()]
    columns += [entries["sex"] == "M", entries["view"] == "AP"]
    return np.stack([np.asarray(c, bool) for c in columns], 1).astype(np.int64)


def read_all(paths: list[Path], size: int) -> np.ndarray:
    """(N, size, size) uint8."""
    images = [Image.fromarray(nih.read_image(p)) for p in paths]
    return np.stack([np.asarray(i.resize((size, size), Image.Resampling.BOX)) for i in images])


class Pairs(torch.utils.data.Dataset):
    """Two views of each image."""

    def __init__(self, pixels: np.ndarray):
        self.pixels, self.views = pixels, views.TwoViews("demo", 64)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of image `i`, each (1, 64, 64)."""
        return self.views(self.pixels[i])


def pretrain(pixels: np.ndarray, *, seed: int, epochs: int) -> torch.nn.Module:
    """Barlow Twins on images (N, 96, 96): batch 128, D = 512, AdamW 1e-3, lambda 5e-3."""
    pl.seed_everything(seed, verbose=False)
    backbone = barlow.build_backbone("resnet18", seed=seed).to(memory_format=torch.channels_last)
    steps = epochs * (len(pixels) // 128)
    module = barlow.BarlowTwins(backbone, batch_size=128, total_steps=steps)
    loader = torch.utils.data.DataLoader(Pairs(pixels), 128, shuffle=True, drop_last=True)
    precise = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=epochs,
            precision="bf16-mixed" if precise else "32-true",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
    diagonal = float(trainer.callback_metrics["diagonal_mean"])
    print(f"  diagonal correlation {diagonal:.2f}", flush=True)
    return backbone


def probe_auc(
    backbone: torch.nn.Module, pixels: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> dict[str, np.ndarray]:
    """AUC per target with all and with a tenth of the training labels, over 5 folds by patient."""
    features = probe.extract_features(backbone, pixels, image_size=64)
    found = {"all": [], "tenth": []}
    for k in range(labels.shape[1]):
        scores = {"all": np.zeros(len(labels)), "tenth": np.zeros(len(labels))}
        aucs: list[float] = []
        for fold, (train, test) in enumerate(GroupKFold(5).split(features, groups=patients)):
            fit = _logistic(features[train], labels[train, k])
            scores["all"][test] = fit.decision_function(features[test])
            for draw in range(5):
                few = _some(np.random.default_rng(100 * fold + draw), labels[train, k])
                fit = _logistic(features[train][few], labels[train, k][few])
                aucs.append(roc_auc_score(labels[test, k], fit.decision_function(features[test])))
        found["all"].append(roc_auc_score(labels[:, k], scores["all"]))
        found["tenth"].append(np.mean(aucs))
    return {key: np.array(value) for key, value in found.items()}


def _logistic(features: np.ndarray, labels: np.ndarray):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    return model.fit(features, labels)


def _some(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A tenth of the rows, at least two of each kind."""
    few = rng.choice(len(labels), len(labels) // 10, replace=False)
    more = [rng.choice(np.flatnonzero(labels == v), 2, replace=False) for v in (0, 1)]
    return np.unique(np.concatenate([few, *more]))


def statistics(pixels: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Gray values, spectrum and diversity of images (N, 256, 256); `other` are the real ones."""
    x = pixels.astype(np.float64) / 255
    window = np.hanning(x.shape[1])[:, None] * np.hanning(x.shape[2])[None, :]
    power = np.abs(np.fft.fft2((x - x.mean((1, 2), keepdims=True)) * window)) ** 2
    f = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    band = (f > 4 / 256) & (f < 0.35)
    slopes = [stats.linregress(np.log(f[band]), np.log(p[band] + 1e-12)).slope for p in power]
    fine = [p[f > 0.25].sum() / p[f > 4 / 256].sum() for p in power]
    small = _unit(pixels)
    real = _unit(other)
    same = pixels is other
    neighbors = NearestNeighbors(n_neighbors=2).fit(real)
    return {
        "mean": x.mean(),
        "spread of image means": x.mean((1, 2)).std(),
        "contrast": x.std((1, 2)).mean(),
        "darkest tenth": np.quantile(x, 0.1),
        "brightest tenth": np.quantile(x, 0.9),
        "spectrum slope": np.mean(slopes),
        "spread of slopes": np.std(slopes),
        "share of fine detail": np.mean(fine),
        "distance to nearest of its kind": _nearest(small),
        "distance to nearest real image": neighbors.kneighbors(small)[0][:, int(same)].mean(),
    }


def _unit(pixels: np.ndarray) -> np.ndarray:
    """Images (N, 256, 256) as 32 px vectors of mean 0 and norm 1."""
    small = pixels.reshape(len(pixels), 32, 8, 32, 8).mean((2, 4)).reshape(len(pixels), -1)
    small = small - small.mean(1, keepdims=True)
    return small / np.linalg.norm(small, axis=1, keepdims=True)


def _nearest(vectors: np.ndarray) -> float:
    return NearestNeighbors(n_neighbors=2).fit(vectors).kneighbors(vectors)[0][:, 1].mean()


def draw_picture(real: np.ndarray, phantoms: np.ndarray, path: Path, *, seed: int) -> None:
    """Twelve real images in the upper two rows, twelve phantoms below."""
    if path.resolve().is_relative_to(ROOT):
        raise SystemExit(f"{path} lies in the repository: real radiographs must not; give another")
    rng = np.random.default_rng(seed)
    tiles = [p[i] for p in (real, phantoms) for i in rng.choice(len(p), 12, replace=False)]
    rows = [np.concatenate(tiles[k : k + 6], 1) for k in range(0, 24, 6)]
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = ROOT / os.environ.get("CXR_REAL", "../shared/nih_mini")
    parser.add_argument("--nih", type=Path, default=default, help="folder with real NIH images")
    parser.add_argument("--picture", type=Path, help="PNG to write, outside the repository")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=1000, help="phantoms to pretrain on")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--ceiling", action="store_true", help="also pretrain on the real images")
    args = parser.parse_args()
    if not args.nih.is_dir():
        print("left out: no folder of real radiographs; name one with --nih or CXR_REAL")
        return
    results = Results("phantom_realism", load_settings(), folder=ROOT / "runs" / "benchmarks")
    found = nih.find_images(args.nih)
    names = sorted(found)
    entries = real_entries(names)
    labels, patients = targets(entries), entries["patient_id"].to_numpy()
    real = read_all([found[n] for n in names], 256)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        demo = make_demo(
            Path(folder) / "demo", seed=0, n_nih=args.images, n_vindr=1, progress=False
        )
        print(f"phantoms: {time.perf_counter() - start:.0f} s", flush=True)
        made = nih.find_images(demo / "nih")
        phantoms = read_all([made[n] for n in sorted(made)], 256)
    if args.picture:
        draw_picture(real, phantoms, args.picture, seed=len(args.seeds))
    table = pd.DataFrame({"real": statistics(real, real), "phantom": statistics(phantoms, real)})
    print(table.round(4).to_string(), flush=True)
    results.add(statistics=table.to_dict())
    scores: dict[str, list[dict[str, np.ndarray]]] = {}
    half = lambda p: np.stack([np.asarray(Image.fromarray(i).resize((96, 96))) for i in p])  # noqa: E731
    arms = {"phantoms": half(phantoms)} | ({"real images": half(real)} if args.ceiling else {})
    for seed in args.seeds:
        random = barlow.build_backbone("resnet18", seed=seed)
        scores.setdefault("random", []).append(probe_auc(random, real, labels, patients))
        for arm, pixels in arms.items():
            start = time.perf_counter()
            backbone = pretrain(pixels, seed=seed, epochs=args.epochs)
            scores.setdefault(arm, []).append(probe_auc(backbone, real, labels, patients))
            print(f"  seed {seed}, {arm}: {time.perf_counter() - start:.0f} s", flush=True)
    for share in ("all", "tenth"):
        per = {arm: np.mean([s[share] for s in runs], 0) for arm, runs in scores.items()}
        frame = pd.DataFrame(per, index=TARGETS)
        frame.loc["mean"] = frame.mean()
        print(f"\nAUC on real radiographs, {share} of the labels\n{frame.round(3).to_string()}")
        results.add(**{f"auc_{share}": frame.to_dict()})
        means = {arm: [float(s[share].mean()) for s in runs] for arm, runs in scores.items()}
        results.add(**{f"auc_{share}_seeds": means})
    results.save()


if __name__ == "__main__":
    main()
