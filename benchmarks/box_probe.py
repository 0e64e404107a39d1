"""Does a frozen network know, inside a box, what is there, over several seeds?

    python benchmarks/box_probe.py [--seeds 0 1 2 3 4]

For each seed: random weights of that seed, and weights pretrained with it, made where their file is
missing (minutes). The network that was pretrained for an evening is one, so it is judged once and
set against the random weights of each seed; ImageNet's too, where they are to be had. Beside them
the pixels of each place alone, and its size and place, which must come out at 0.5.

A network's figure is macro AUROC on the test images at the stage that is best on validation, chosen
for each network and seed (cxr_helpers/course/ch04/box_probe.py states the rule). Differences are
paired: the same places of the same resampled test images. benchmarks/README.md says what was
measured.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_helpers.course.ch04 import box_probe
from cxr_helpers.course.ch04.box_probe import GEOMETRY, PIXELS, Judged
from cxr_helpers.course.core.data import BoxData, ensure_demo, load_vindr
from cxr_helpers.course.core.results import Results
from cxr_helpers.course.core.settings import Settings, load_settings
from cxr_helpers.evaluation.intervals import bias_corrected, over_seeds_and_images

SEEDED, ONCE = ("random", "pretrained"), ("evening", "imagenet")
PRETRAINED = ("pretrained", "evening")  # the arms that the aims are about
AIM, CHANCE = 0.04, 0.02


def judge_seeds(
    settings: Settings, data: BoxData, places: box_probe.ProbePlaces, seeds: Sequence[int]
) -> tuple[dict[int, list[Judged]], list[str], dict[str, float]]:
    """What was judged for each seed, a sentence for each arm left out, and seconds of each arm."""
    by_seed, told, seconds = {}, [], {}
    shared = box_probe.judge_baselines(settings, data, places)

    def judged(arm: str, seed: int) -> list[Judged]:
        start = time.perf_counter()
        found, sentence = box_probe.judge_network(settings, data, places, arm, seed=seed)
        if not found:
            told.append(f"{arm}: {sentence}")
        seconds[f"{arm}, seed {seed}"] = time.perf_counter() - start
        return found

    for arm in ONCE:
        shared += judged(arm, seeds[0])
    for seed in seeds:
        by_seed[seed] = shared + [one for arm in SEEDED for one in judged(arm, seed)]
        line = {arm: f"{one.macro:.3f}" for arm, one in box_probe.chosen(by_seed[seed]).items()}
        print(f"seed {seed}", line, flush=True)
    return by_seed, told, seconds


def gain(each: np.ndarray, drawn: np.ndarray, n_images: int) -> dict[str, float]:
    """Mean difference over seeds with its 95% interval.

    Args:
        each: (S,) difference of each seed on the test images themselves.
        drawn: (S, R) the same on R resamples of the images, the same for all seeds.
        n_images: how many test images there are.

    Returns:
        `value`, `low` and `high`: over images and seeds together, or over images alone for a
        single seed.
    """
    if len(each) == 1:
        return bias_corrected(each[0], drawn[0]).as_dict()
    return over_seeds_and_images(each, drawn, n_images=n_images).as_dict()


def gains(by_seed: Mapping[int, list[Judged]], n_images: int) -> pd.DataFrame:
    """Each arm minus random weights and minus pixels, over seeds, at each stage and as chosen.

    Returns:
        Columns arm, minus, stage, value, low, high.
    """
    lines = []
    first = next(iter(by_seed.values()))
    stages = [*dict.fromkeys(one.stage for one in first if one.stage), box_probe.CHOSEN]
    for minus in ("random", PIXELS):
        for arm in dict.fromkeys(one.arm for one in first):
            for stage in stages:
                both = [(at(j, arm, stage), at(j, minus, stage)) for j in by_seed.values()]
                if arm in (minus, GEOMETRY) or any(None in pair for pair in both):
                    continue
                each = np.array([a.macro - b.macro for a, b in both])
                drawn = np.array([a.macro_drawn - b.macro_drawn for a, b in both])
                line = {"arm": arm, "minus": minus, "stage": stage}
                lines.append(line | gain(each, drawn, n_images))
    return pd.DataFrame(lines)


def at(judged: Sequence[Judged], arm: str, stage: str) -> Judged | None:
    """An arm at a stage or as chosen; pixels are the same at every stage; None where absent."""
    if stage == box_probe.CHOSEN or arm == PIXELS:
        return box_probe.chosen(judged).get(arm)
    return next((one for one in judged if (one.arm, one.stage) == (arm, stage)), None)


def scores(by_seed: Mapping[int, list[Judged]]) -> pd.DataFrame:
    """Macro AUROC of each arm and stage, a column for each seed and their mean.

    `validation` is the mean of the scores that choose the stage, `chosen` the seeds that chose it.
    """
    lines = []
    for seed, judged in by_seed.items():
        best = box_probe.chosen(judged)
        for one in judged:
            line = {"arm": one.arm, "stage": one.stage, "seed": seed, "value": one.macro}
            lines.append(line | {"validation": one.validation, "chosen": one is best[one.arm]})
    found = pd.DataFrame(lines)
    groups = found.groupby(["arm", "stage"], sort=False)
    wide = found.pivot(index=["arm", "stage"], columns="seed", values="value")
    wide = wide.loc[list(groups.groups)].add_prefix("seed ")
    extra = {"mean": groups["value"].mean(), "validation": groups["validation"].mean()}
    return wide.assign(**extra, chosen=groups["chosen"].sum()).reset_index()


def verdicts(table: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """One line for each aim, kept or not."""
    aims = []
    for line in table[table["stage"] == box_probe.CHOSEN].to_dict("records"):
        if line["arm"] in PRETRAINED:
            name = f"{line['arm']} minus {line['minus']}"
            least = AIM if line["minus"] == "random" else 0.0
            aims.append((name, line["value"], line["value"] >= least, f">= {least:g}"))
            aims.append((f"lower end of {name}", line["low"], line["low"] > 0, "> 0"))
    alone = found.loc[found["arm"] == GEOMETRY, "mean"].iloc[0]
    close = abs(alone - 0.5) <= CHANCE
    aims.append((f"{GEOMETRY}, by construction", alone, close, f"0.5 +- {CHANCE:g}"))
    return [
        f"aim {name:48} {value:+8.3f}  {bound:12} {'kept' if kept else 'NOT KEPT'}"
        for name, value, kept, bound in aims
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save; status 1 where an aim is not kept."""
    parser = argparse.ArgumentParser(description="The box probe over several seeds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args(arguments)
    settings = load_settings({})
    results = Results("box_probe", settings, folder=settings.project / "runs" / "benchmarks")
    ensure_demo(settings)
    data = load_vindr(settings)
    places = box_probe.draw_places(settings, data)
    print(f"Places from {places.truth}, {len(places.test_rows)} test images; pairs by class:")
    print(places.counts().to_string())
    by_seed, told, seconds = judge_seeds(settings, data, places, args.seeds)
    found, table = scores(by_seed), gains(by_seed, len(places.test_rows))
    print(found.round(3).to_string(index=False))
    print(table.round(3).to_string(index=False))
    print("\n".join(told), {name: round(value, 1) for name, value in seconds.items()})
    print(
        "The evening's network and ImageNet's are one each: their intervals cover other images and"
        " other random weights, not another evening."
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results.add(
        truth=places.truth,
        pairs=places.counts(),
        seeds=args.seeds,
        scores=found.to_dict("records"),
        gains=table.to_dict("records"),
        seconds=seconds,
        left_out=told,
        load_average=load,
    )
    results.save()
    lines = verdicts(table, found)
    print("\n".join(lines))
    return int(any("NOT" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
