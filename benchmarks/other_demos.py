"""Does what an evening's pretraining is worth hold on demos of other seeds?

    python benchmarks/other_demos.py [--demos 2 3] [--seeds 0 1 2] [--detectors 0]

The notebooks show the demo of seed 0. Here other demos are made, in build/demo_SEED, with patients
and images that nothing was chosen on, and the evening's weights are set against random ones (one
network for each of `--seeds`) and against pixels alone: by linear probes on shares of the labels,
as linear_evaluation.py does, and by the box probe, as box_probe.py does. The evening is one
network, so an interval holds other patients or images, other draws and other random weights.

No network is trained, unless `--detectors` names seeds: then, as detection.py does, a detector on
all boxes from each start with each of these seeds. Status 1 where an aim of those scripts is not
kept. benchmarks/README.md says what was measured.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import box_probe as probe_of_boxes
import detection
import linear_evaluation as probe_of_labels
import numpy as np
import pandas as pd

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.ch03 import linear
from cxr_helpers.course.ch04 import box_probe
from cxr_helpers.course.core.data import load_nih, load_vindr
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import DATA_SWITCH, Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "data_scripts"))
from make_demo import make_demo  # noqa: E402

ARM = "evening"


def arms_of(settings: Settings, seed: int, *, fixed: bool) -> dict[str, linear.Arm]:
    """Random weights of a seed and, where `fixed`, what has no seed: the evening's, and pixels.

    Raises:
        SystemExit: the evening's weights are not there.
    """
    arms = {}
    for name in ("random", ARM) if fixed else ("random",):
        backbone, source = pretraining.arm_backbone(settings, name, seed=seed)
        if backbone is None:
            sys.exit(source)
        arms[name] = linear.Arm(backbone, False, source)
    return arms | ({linear.PIXELS: linear.Arm(linear.Thumbnail(), False, "")} if fixed else {})


def label_gains(settings: Settings, seeds: Sequence[int]) -> pd.DataFrame:
    """Curves of the arms and their differences, as `linear_evaluation.curves` gives them."""
    data = load_nih(settings)
    columns, test = linear.scorable_labels(data), data.rows("test")
    names, labels = linear.label_names(columns), data.labels[:, columns]
    draws, ids = linear.draw_labels(settings, data, columns), np.array(data.images.image_ids)[test]
    by_seed = []
    for seed in seeds:
        scores = {}
        for name, arm in arms_of(settings, seed, fixed=seed == seeds[0]).items():
            frozen = linear.frozen_features(settings, arm, data.images)
            fitted = linear.fit_probes(data, frozen, labels, names, draws)
            scores[name] = linear.probe_scores(fitted, frozen, ids)
        by_seed.append(scores)
    patients = data.patients[test]
    macros = probe_of_labels.resampled_macros(labels[test], patients, by_seed, seed=settings.seed)
    return probe_of_labels.curves(macros, n_patients=len(set(patients)), seed=settings.seed)


def box_gains(settings: Settings, seeds: Sequence[int]) -> pd.DataFrame:
    """Differences of the arms in boxes at the chosen stage, as `box_probe.gains` gives them."""
    data = load_vindr(settings)
    places = box_probe.draw_places(settings, data)
    shared = box_probe.judge_baselines(settings, data, places)
    shared += box_probe.judge_network(settings, data, places, ARM, seed=seeds[0])[0]
    by_seed = {
        seed: shared + box_probe.judge_network(settings, data, places, "random", seed=seed)[0]
        for seed in seeds
    }
    table = probe_of_boxes.gains(by_seed, len(places.test_rows))
    return table[(table["arm"] == ARM) & (table["stage"] == box_probe.CHOSEN)]


def detector_gains(settings: Settings, seeds: Sequence[int]) -> pd.DataFrame:
    """mAP50 from scratch and from the evening's weights, as `detection.seeds_table` gives it."""
    data = load_vindr(settings)
    arms = {"arms": (detection.BASELINE, ARM), "seeds": seeds, "fractions": (1.0,)}
    scored, _ = detection.measure_seeds(settings, data, **arms)
    found, n_images = detection.found_classes(scored), len(data.rows("test", abnormal_only=True))
    return detection.seeds_table(scored, data.class_names, found, n_images=n_images)


def verdicts(labels: pd.DataFrame, boxes: pd.DataFrame, *, of: str) -> list[str]:
    """A line for each aim of the evening's weights: kept or not."""
    aims = [aim for aim in probe_of_labels.AIMS if aim[0] == ARM and aim[1] in ("random", "pixels")]
    lines = list(probe_of_labels.verdicts(labels, aims, of=of))
    boxes = boxes.assign(fraction=1.0)
    aims = [(ARM, "random", (1.0,), probe_of_boxes.AIM), (ARM, box_probe.PIXELS, (1.0,), 0.0)]
    told = probe_of_labels.verdicts(boxes, aims, of=f"{of}, boxes")
    return lines + [line.replace(", 100% of the labels", "") for line in told]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where an aim is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demos", type=int, nargs="+", default=[2, 3], help="seeds of the demos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random networks")
    parser.add_argument("--detectors", type=int, nargs="+", default=[], help="seeds of detectors")
    args = parser.parse_args(arguments)
    lines, found = [], {}
    for demo in args.demos:
        out = make_demo(ROOT / "build" / f"demo_{demo}", seed=demo)
        settings = load_settings({DATA_SWITCH: str(out)})
        labels, boxes = label_gains(settings, args.seeds), box_gains(settings, args.seeds)
        print(f"demo of seed {demo}\n{labels.round(3).to_string(index=False)}")
        print(boxes.round(3).to_string(index=False), flush=True)
        lines += verdicts(labels, boxes, of=f"demo {demo}")
        found[str(demo)] = {"labels": labels.to_dict("records"), "boxes": boxes.to_dict("records")}
        if args.detectors:
            table = detector_gains(settings, args.detectors)
            print(table[table["seed"] == detection.ALL].round(3).to_string(index=False), flush=True)
            lines += [f"demo {demo}: {line}" for line in detection.verdicts(None, table)]
            found[str(demo)]["detectors"] = table.to_dict("records")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results = Results("other_demos", load_settings({}), folder=ROOT / "runs" / "benchmarks")
    results.add(demos=found, random_seeds=args.seeds, load_average=load)
    results.save()
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
