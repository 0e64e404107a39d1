"""The presets of every stage, and the one place that reads `CXR_DATA` and `CXR_SCALE`.

`CXR_DATA` is `demo` (the default) or the root folder of a real download. A root may hold NIH
ChestX-ray14 (`images/` or `images_001/images/` ...), VinDr-CXR (`train/` and its table), or both
in two subfolders named `nih` and `vindr`. `CXR_SCALE` is `quick` (does everything run on these
data? a few steps of each stage; its results mean nothing), `demo` (a laptop), `evening` (a laptop,
and an hour of pretraining) or `paper` (GPUs).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cxr_helpers.explanation.layers import DEFAULT_LAYER

DATA_SWITCH, SCALE_SWITCH = "CXR_DATA", "CXR_SCALE"
SCALES = ("quick", "demo", "evening", "paper")
VINDR_TABLES = ("train.csv", "annotations_train.csv")
RATES = ("learning_rate", "backbone_rate")


class SettingsError(ValueError):
    """A switch of the course has a value that cannot be used."""


@dataclass(frozen=True)
class PretrainPreset:
    """Barlow Twins pretraining; sizes in pixels.

    `min_crop` is the least share of the image that a view shows; views that differ more teach more,
    to a network that has the steps for it. A small data set trains for more than `epochs`, until it
    has had `min_steps` steps. `initial_weights` is `random`, `imagenet`, or the path of a
    checkpoint. Figures on validation patients are measured every `measure_every` epochs. With
    `phantoms` above 0 it learns from about so many phantoms, made for it with the demo's script
    from the seed `phantoms_seed`, which is no demo's, instead of from the training part. The
    redundancy term sums over D (D - 1) entries and the invariance term over D, so a narrower output
    takes a larger redundancy weight: weight times D is 15 here and 42 at the paper's scale.
    """

    arch: str = "resnet18"
    views: str = "demo"
    min_crop: float = 0.8
    cache_size: int = 96
    image_size: int = 64
    batch_size: int = 128
    epochs: int = 28
    min_steps: int = 224
    projector: tuple[int, ...] = (512, 512, 128)
    redundancy_weight: float = 0.12
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1
    initial_weights: str = "random"
    phantoms: int = 0
    phantoms_seed: int = 0
    measure_every: int = 5
    checkpoint_every: int = 5


@dataclass(frozen=True)
class ProbePreset:
    """Linear evaluation: which shares of the labels, how many draws, how many resamples.

    What begins with `finetune` is about networks that are trained end to end, which costs more:
    they get fewer shares and draws.
    """

    fractions: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    draws: int = 10
    resamples: int = 500
    neighbors: int = 20
    finetune_fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    finetune_draws: int = 1
    finetune_epochs: int = 5
    finetune_min_steps: int = 40
    finetune_batch_size: int = 32
    finetune_learning_rate: float = 1e-3


@dataclass(frozen=True)
class DetectPreset:
    """Faster R-CNN fine-tuning; sizes in pixels.

    The demo's pyramid and box head are narrower than usual and fewer proposals train the head,
    since on two cores they would cost more than the backbone does. Image size, anchors and norms
    were chosen on validation images.

    What has a name of `DetectorSettings` or `DetectorModule` is said there. `batch_norm` and
    `frozen_stages` hold for backbones that were trained before: random weights have no statistics
    or stages that are worth keeping, so a random arm learns both. `fractions` are the shares of the
    training images for label efficiency. `epochs` is said of all of them: a share is trained for as
    many steps, so for more epochs. `checkpoint_every` is in epochs; 0 keeps none, for a run of a
    minute.

    `recipes` holds `learning_rate` and `backbone_rate` of each arm, chosen for each from the same
    grid on validation images (`benchmarks/detection.py --only recipes`). They are taken where
    `learning_rate` is 0; another one holds for every arm, together with `backbone_rate`.

    Raises:
        SettingsError: the recipes are no table of the two rates by arm.
    """

    image_size: int = 160
    batch_size: int = 8
    epochs: int = 3
    learning_rate: float = 0.0
    backbone_rate: float = 1.0
    recipes: dict[str, dict[str, float]] = field(
        default_factory=lambda: {
            "random": {"learning_rate": 2e-3, "backbone_rate": 1.0},
            "pretrained": {"learning_rate": 2e-3, "backbone_rate": 1.0},
            "evening": {"learning_rate": 2e-3, "backbone_rate": 0.1},
            "imagenet": {"learning_rate": 2e-3, "backbone_rate": 0.1},
        }
    )
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    warmup_steps: int = 40
    fpn_channels: int = 64
    head_width: int = 256
    box_batch_size_per_image: int = 32
    sampling_ratio: int = 1
    canonical_scale: int = 64
    proposals: tuple[int, int] = (200, 100)
    anchors_at_every_level: bool = True
    pipeline: str = "demo"
    batch_norm: str = "train"
    frozen_stages: int = 0
    keep: str = "last"
    fractions: tuple[float, ...] = (0.1, 0.3, 1.0)
    resamples: int = 1000
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        """Refuse recipes that no arm could be trained by."""
        tables = self.recipes.values() if isinstance(self.recipes, dict) else (None,)
        if any(not isinstance(one, dict) or set(one) != set(RATES) for one in tables):
            raise SettingsError(
                f"recipes must give {' and '.join(RATES)} by arm, not {self.recipes!r}; to set one "
                "for every arm, set detect.learning_rate and detect.backbone_rate"
            )


@dataclass(frozen=True)
class ExplainPreset:
    """Ablation-CAM: which layer, from which score a detection is explained."""

    layer: str = DEFAULT_LAYER
    max_images: int = 120
    score_threshold: float = 0.05
    resamples: int = 1000


PRESETS = {
    # Images are packed at the sizes of the demo, so that the next scale need not read them again,
    # and all that the notebooks ask for by number is there: the shares of 10% and 100%.
    "quick": {
        "pretrain": PretrainPreset(batch_size=64, epochs=2, min_steps=0, measure_every=1),
        "probe": ProbePreset(
            fractions=(0.1, 1.0),
            draws=2,
            resamples=50,
            finetune_fractions=(0.1,),
            finetune_epochs=1,
            finetune_min_steps=4,
        ),
        "detect": DetectPreset(epochs=1, warmup_steps=4, fractions=(0.3, 1.0), resamples=50),
        "explain": ExplainPreset(max_images=8, resamples=50),
    },
    "demo": {
        "pretrain": PretrainPreset(),
        "probe": ProbePreset(),
        "detect": DetectPreset(),
        "explain": ExplainPreset(),
    },
    "evening": {
        "pretrain": PretrainPreset(
            min_crop=0.3,
            cache_size=160,
            epochs=35,
            min_steps=1600,
            learning_rate=2e-3,
            phantoms=6000,
            phantoms_seed=20_241_126,
            checkpoint_every=1,
        ),
        "probe": ProbePreset(),
        "detect": DetectPreset(),
        "explain": ExplainPreset(),
    },
    "paper": {
        "pretrain": PretrainPreset(
            arch="resnet50",
            views="paper",
            min_crop=0.08,
            cache_size=256,
            image_size=224,
            batch_size=768,
            epochs=600,
            min_steps=0,
            projector=(8192, 8192, 8192),
            redundancy_weight=0.0051,
            optimizer="lars",
            learning_rate=0.2,
            weight_decay=1e-6,
            warmup_fraction=10 / 600,
            initial_weights="imagenet",
            measure_every=10,
            checkpoint_every=1,
        ),
        "probe": ProbePreset(resamples=1000, finetune_epochs=20, finetune_batch_size=128),
        "detect": DetectPreset(
            image_size=640,
            batch_size=32,
            epochs=50,
            learning_rate=0.005,
            optimizer="sgd",
            warmup_steps=500,
            fpn_channels=256,
            head_width=1024,
            box_batch_size_per_image=512,
            sampling_ratio=2,
            canonical_scale=224,
            proposals=(2000, 1000),
            anchors_at_every_level=False,
            pipeline="paper",
            batch_norm="frozen",
            frozen_stages=1,
            keep="best",
            checkpoint_every=1,
        ),
        "explain": ExplainPreset(max_images=1000, score_threshold=0.3),
    },
}


@dataclass(frozen=True)
class Settings:
    """What every stage of the course needs to know.

    Attributes:
        data: name of the data, `demo` or the name of the real root folder.
        scale: `quick`, `demo`, `evening` or `paper`.
        project: root folder of the course.
        nih: root of an NIH ChestX-ray14 download, or None where the data has none.
        vindr: root of a VinDr-CXR download, or None where the data has none.
        seed: the seed that every stage starts from.
        split_seed: of the split into training, validation and test part. It is not `seed`: runs
            of another seed are compared on the same patients, and a backbone must never be tested
            on those it learned from.
    """

    data: str
    scale: str
    project: Path
    nih: Path | None
    vindr: Path | None
    pretrain: PretrainPreset = field(default_factory=PretrainPreset)
    probe: ProbePreset = field(default_factory=ProbePreset)
    detect: DetectPreset = field(default_factory=DetectPreset)
    explain: ExplainPreset = field(default_factory=ExplainPreset)
    seed: int = 0
    split_seed: int = 0

    @property
    def runs(self) -> Path:
        """Folder of everything that the course makes from this data."""
        return self.project / "runs" / self.data

    @property
    def results(self) -> Path:
        """Folder of the results files; those of a quick run lie apart, since they mean nothing."""
        return (self.runs / "quick" if self.scale == "quick" else self.runs) / "results"

    @property
    def data_key(self) -> str:
        """Changes when the demo data is made anew by another seed or version."""
        stamp = self.project / "data" / "demo" / "demo.json"
        text = stamp.read_text(encoding="utf-8") if self.data == "demo" and stamp.is_file() else ""
        return fingerprint(self.data, text)

    @property
    def is_demo(self) -> bool:
        """Whether this is the default: demo data at demo scale."""
        return self.data == "demo" and self.scale == "demo"

    def summary(self) -> dict:
        """The settings as plain values, without any absolute path, for a results file."""
        presets = {name: asdict(getattr(self, name)) for name in PRESETS["demo"]}
        seeds = {"seed": self.seed, "split_seed": self.split_seed}
        plain = {"data": self.data, "scale": self.scale, **seeds, **presets}
        return json.loads(json.dumps(plain))


def fingerprint(*parts: object) -> str:
    """Eight hex digits that change when any part changes; used in names of files in runs/.

    >>> fingerprint("resnet18", 64) == fingerprint("resnet18", 64)
    True
    >>> fingerprint("resnet18", 64) == fingerprint("resnet18", 96)
    False
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def project_root() -> Path:
    """Folder that holds the course: the one above the package, or above the working directory.

    Raises:
        SettingsError: neither has a folder `notebooks` beside a `pyproject.toml`.
    """
    candidates = [Path(__file__).resolve().parents[3], Path.cwd(), *Path.cwd().parents]
    for folder in candidates:
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise SettingsError(
        f"The course's folder was not found from {Path.cwd()}. Start from inside the clone, "
        "or install the package with `pip install -e .` there."
    )


def find_sources(root: str | os.PathLike[str]) -> tuple[Path | None, Path | None]:
    """The NIH root and the VinDr root below `root`; None for one that is absent.

    Raises:
        SettingsError: the folder does not exist, or holds neither of the two.
    """
    root = Path(root)
    if not root.is_dir():
        raise SettingsError(
            f"{DATA_SWITCH}={root} is not a folder. Set it to `demo`, or to the root of a "
            "real download."
        )
    nih = next((p for p in (root / "nih", root) if _is_nih(p)), None)
    vindr = next((p for p in (root / "vindr", root) if _is_vindr(p)), None)
    if nih is None and vindr is None:
        raise SettingsError(
            f"{DATA_SWITCH}={root} holds no radiographs that the course knows. Missing there: "
            "`images/` (NIH ChestX-ray14), or `train/` beside `train.csv` (VinDr-CXR), or the "
            "subfolders `nih` and `vindr` with these."
        )
    return nih, vindr


def _is_nih(folder: Path) -> bool:
    return (folder / "images").is_dir() or any(folder.glob("images_0*/images"))


def _is_vindr(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / t).is_file() for t in VINDR_TABLES)


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the two switches.

    A relative `CXR_DATA` is taken from the course's folder, so that it means the same in a
    terminal and in a notebook.

    Raises:
        SettingsError: a switch has a value that cannot be used; the text says what is missing.
    """
    project = project_root()
    scale = environ.get(SCALE_SWITCH, "demo")
    if scale not in SCALES:
        raise SettingsError(f"{SCALE_SWITCH}={scale!r} is none of {', '.join(SCALES)}.")
    data = environ.get(DATA_SWITCH, "demo") or "demo"
    if data == "demo":
        demo = project / "data" / "demo"
        return Settings("demo", scale, project, demo / "nih", demo / "vindr", **PRESETS[scale])
    root = (project / Path(data).expanduser()).resolve()
    nih, vindr = find_sources(root)
    if root.name == "demo":
        raise SettingsError(
            f"{DATA_SWITCH}={root}: a real root must not be named `demo`, because its results "
            "would mix with the demo's. Rename the folder."
        )
    return Settings(root.name, scale, project, nih, vindr, **PRESETS[scale])
