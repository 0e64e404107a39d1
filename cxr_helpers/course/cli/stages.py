"""The four stages of the course without a notebook: what they make and the figures they give.

They call the functions of the notebooks, so that a backbone or a detector made here is found there
and the other way round. Figures have the names that the notebooks' results files give them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.ch04 import experiment, tables
from cxr_helpers.course.ch04.data import load_detection
from cxr_helpers.course.ch05 import explained, map_scores
from cxr_helpers.course.core.compute import LAUNCHED, ONE_PROCESS, Compute, process_rank
from cxr_helpers.course.core.data import BoxData, NihData, load_nih
from cxr_helpers.course.core.settings import Settings, SettingsError
from cxr_helpers.detection import froc
from cxr_helpers.evaluation import scoring

BASELINE, OURS = "random", "pretrained"


@dataclass(frozen=True)
class Run:
    """What a stage is asked for.

    Attributes:
        settings: the presets.
        seed: of weights, order and augmentation.
        compute: processes and precision.
        resume: `auto`, `yes` or `no`, for the stages that train.
        progress: show progress bars.
        arms: which to compare; those that cannot be had are left out with a sentence.
    """

    settings: Settings
    seed: int = 0
    compute: Compute = ONE_PROCESS
    resume: str = "auto"
    progress: bool = True
    arms: Sequence[str] = pretraining.ARMS


@dataclass(frozen=True)
class Outcome:
    """What a stage gives.

    Attributes:
        metrics: figures by name, as `Results.add` takes them.
        made: sentences on the files that it made or found, and on what was left out.
        digest: of the data.
    """

    metrics: dict[str, object]
    made: list[str]
    digest: str


def load(settings: Settings, stage: str) -> NihData | BoxData:
    """The data that a stage works on."""
    if stage in ("pretrain", "probe"):
        return load_nih(settings)
    return load_detection(settings)


def pretrain(run: Run) -> Outcome:
    """Pretrain a backbone; what its log says of the last epoch."""
    data = load(run.settings, "pretrain")
    path = pretraining.backbone_path(run.settings, seed=run.seed)
    known = path.is_file()
    options = {"progress": run.progress, "compute": run.compute, "resume": run.resume}
    pretraining.pretrain_once(run.settings, data, seed=run.seed, **options)
    log = pretraining.training_log(path)
    last = log.iloc[-1]
    names = ("diagonal_mean", "offdiagonal_abs_mean", "heldout_diagonal", "heldout_offdiagonal")
    names += ("knn_findings", "knn_view", "effective_rank", "spread")
    figures = {name: _known(last[name]) for name in names}
    figures |= {"loss_start": log["loss"].iloc[1], "loss_end": last["loss"]}
    made = [f"{'Found' if known else 'Made'} {_shown(run, path)}.", data.split_source]
    return Outcome(figures, [*made, *data.left_out], data.digest)


def probe_features(run: Run) -> Outcome:
    """Label curves of each arm's frozen features, and what pretraining adds to random weights."""
    settings = replace(run.settings, seed=run.seed)
    data = load(settings, "probe")
    arms, left_out = linear.load_arms(settings, data)
    arms = {name: arm for name, arm in arms.items() if name in run.arms}
    columns = linear.scorable_labels(data)
    names, test = linear.label_names(columns), data.rows("test")
    labels, ids = data.labels[:, columns], np.array(data.images.image_ids)
    draws = linear.draw_labels(settings, data, columns)
    scores = {}
    for name, arm in arms.items():
        features = linear.frozen_features(settings, arm, data.images)
        fitted = linear.fit_probes(data, features, labels, names, draws)
        scores[name] = linear.probe_scores(fitted, features, ids[test])
    truth = labels[test], data.patients[test]
    metrics = {}
    for name, metric in (
        ("macro_auroc", scoring.auroc),
        ("macro_ap", scoring.average_precision),
    ):
        curve = linear.macro_of(linear.curves(settings, *truth, scores, names, metric=metric))
        metrics[name] = {arm: _by_share(part) for arm, part in curve.groupby("arm")}
    if {BASELINE, OURS} <= scores.keys():
        options = {"minus": scores[BASELINE]}
        gains = linear.curves(settings, *truth, {OURS: scores[OURS]}, names, **options)
        metrics["gain"] = _by_share(linear.macro_of(gains))
    return Outcome(metrics, [*left_out, *draws.left_out, *data.left_out], data.digest)


def detect(run: Run) -> Outcome:
    """Train a detector for each arm and score it on the abnormal test images."""
    settings, data = replace(run.settings, seed=run.seed), load(run.settings, "detect")
    test = data.rows("test", abnormal_only=True)
    truths, everyone = data.truths(test), data.rows("test")
    options = {"resamples": settings.detect.resamples, "seed": run.seed}
    made, matches, sensitivity = [], {}, {}
    for arm in run.arms:
        detector, path = experiment.train_or_load_detector(
            settings,
            data,
            arm,
            seed=run.seed,
            progress=run.progress,
            compute=run.compute,
            resume=run.resume,
        )
        if detector is None:
            made.append(f"{arm}: {path}")
            continue
        detector = detector.to(_device())
        made.append(f"{arm}: {_shown(run, path)}")
        found = experiment.predictions(detector, path, data, test)
        matches[arm] = tables.match(found, truths, data)
        all_found = experiment.predictions(detector, path, data, everyone)
        all_matches = tables.match(all_found, data.truths(everyone), data)
        sensitivity[arm] = float(froc.sensitivity_at(all_matches, [1.0])[0])
    map50 = {arm: tables.bootstrap_map(m, **options) for arm, m in matches.items()}
    metrics = {
        "map50": {arm: interval.as_dict() for arm, interval in map50.items()},
        "sensitivity_at_1_fp": sensitivity,
    }
    if {BASELINE, OURS} <= matches.keys():
        pair = matches[BASELINE], matches[OURS]
        difference = tables.bootstrap_map_difference(*pair, **options)
        metrics["difference"] = difference.as_dict()
    return Outcome(metrics, [*made, *data.left_out], data.digest)


def explain(run: Run) -> Outcome:
    """Ablation-CAM of each arm's detections, scored against the readers' boxes."""
    settings, data = replace(run.settings, seed=run.seed), load(run.settings, "explain")
    preset = settings.explain
    rows = {part: data.rows(part, abnormal_only=True) for part in ("val", "test")}
    found_by = {"threshold": preset.score_threshold, "max_images": preset.max_images}
    scores, made = {}, []
    for arm in (arm for arm in run.arms if arm in (BASELINE, OURS)):
        detector, path = experiment.train_or_load_detector(
            settings, data, arm, seed=run.seed, progress=run.progress
        )
        detector = detector.to(_device())
        found = {
            part: explained.choose(
                data, own, experiment.predictions(detector, path, data, own), **found_by
            )
            for part, own in rows.items()
        }
        scores[arm] = map_scores.score_maps(
            detector, data, found["val"], found["test"], layer=preset.layer
        )
        made.append(f"{arm}: {len(found['test'])} findings of {_shown(run, path)}")
    if not scores:
        raise SettingsError(f"--arms {' '.join(run.arms)}: explain takes {BASELINE} and {OURS}")
    drawn = {"resamples": preset.resamples, "seed": run.seed}
    table = map_scores.score_table(scores, reference=list(scores)[-1], **drawn)
    metrics = {
        measure: part.set_index("map")[["value", "low", "high"]].T.to_dict()
        for measure, part in table.groupby("measure", sort=False)
    }
    if len(scores) == 2:
        difference = map_scores.paired_difference(scores[BASELINE], scores[OURS], **drawn)
        figures = difference.set_index("measure")[["value", "low", "high"]]
        metrics["difference"] = figures.T.to_dict()
    return Outcome(metrics, [*made, *data.left_out], data.digest)


COURSE_STAGES = {
    "pretrain": pretrain,
    "probe": probe_features,
    "detect": detect,
    "explain": explain,
}


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, for stages that train with no Trainer of their own.

    Where none were started, or they are joined already, this does nothing.
    """
    if LAUNCHED not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process writes the results."""
    return process_rank() == 0 and int(os.environ.get("RANK", "0")) == 0


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _shown(run: Run, path) -> str:
    return path.relative_to(run.settings.project).as_posix()


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _by_share(table) -> dict[str, dict[str, float]]:
    figures = table.set_index("fraction")[["value", "low", "high"]]
    return {f"{100 * share:g}%": row.to_dict() for share, row in figures.iterrows()}
