"""Networks trained end to end on the draws of notebook 03: from scratch, and fine-tuned."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cxr_helpers.course.ch03.linear import Arm, LabelDraws, each_draw, label_names, untrained_to_nan
from cxr_helpers.course.core.compute import training_precision
from cxr_helpers.course.core.data import NihData
from cxr_helpers.course.core.quiet import quiet_lightning
from cxr_helpers.course.core.settings import Settings
from cxr_helpers.course.core.threads import SpareCores
from cxr_helpers.evaluation import finetune, scoring


@dataclass(frozen=True)
class EndToEnd:
    """What a network that was trained end to end said at each check.

    Attributes:
        val: (checks, V, K) log-odds of the validation images.
        test: (checks, M, K) log-odds of the test images.
        chosen: the check with the best macro AUROC on validation.
    """

    val: np.ndarray
    test: np.ndarray
    chosen: int


def train_end_to_end(
    settings: Settings, data: NihData, arm: Arm, columns: Sequence[int], rows: np.ndarray
) -> EndToEnd:
    """Train a copy of an arm's backbone and a new head; the check is chosen on validation.

    Args:
        settings: give the recipe and the seed.
        data: gives pixels, labels and the split.
        arm: `random` weights make this training from scratch, others fine-tuning.
        columns: label columns to train.
        rows: training images whose labels are used.

    Raises:
        EvaluationError: no label can be scored on validation.
    """
    labels = data.labels[:, columns]
    recipe = finetune_recipe(settings, arm)
    watched = {part: data.images.pixels[data.rows(part)] for part in ("val", "test")}
    with quiet_lightning():
        _, checks = finetune.train(
            copy.deepcopy(arm.backbone),
            data.images.pixels[rows],
            labels[rows],
            watched=watched,
            recipe=recipe,
            precision=_precision(),
            callbacks=[SpareCores()],
            seed=settings.seed,
        )
    said = {
        part: np.stack([untrained_to_nan(check[part], labels[rows]) for check in checks])
        for part in watched
    }
    val_labels = labels[data.rows("val")]
    values = [
        scoring.macro_auroc(val_labels, scores, label_names(columns)).value
        for scores in said["val"]
    ]
    return EndToEnd(said["val"], said["test"], int(np.argmax(values)))


def _precision() -> str:
    """Float32 on a processor: in bfloat16 the small batches here took far longer."""
    return training_precision() if torch.cuda.is_available() else "32-true"


def train_runs(
    settings: Settings, data: NihData, arm: Arm, columns: Sequence[int], draws: LabelDraws
) -> dict[float, list[EndToEnd]]:
    """`train_end_to_end` for each draw."""
    return each_draw(draws.rows, lambda rows: train_end_to_end(settings, data, arm, columns, rows))


def chosen_scores(runs: Mapping[float, list[EndToEnd]]) -> dict[float, list[np.ndarray]]:
    """Test scores of each run at the check that was chosen on validation."""
    return each_draw(runs, lambda run: run.test[run.chosen])


def finetune_recipe(settings: Settings, arm: Arm) -> finetune.Recipe:
    """The preset as a recipe; the input is normalized as the arm's weights were trained."""
    preset = settings.probe
    return finetune.Recipe(
        image_size=settings.pretrain.image_size,
        epochs=preset.finetune_epochs,
        min_steps=preset.finetune_min_steps,
        batch_size=preset.finetune_batch_size,
        learning_rate=preset.finetune_learning_rate,
        **arm.normalization,
    )


def few_draws(settings: Settings, draws: LabelDraws) -> LabelDraws:
    """The shares and the first draws that networks are trained end to end on.

    Raises:
        ValueError: none of the preset's shares was drawn.
    """
    preset = settings.probe
    if not set(draws.rows) & set(preset.finetune_fractions):
        raise ValueError(
            f"shares {list(preset.finetune_fractions)} are to be trained end to end, and none of "
            f"them was drawn: there are {list(draws.rows)}; give both one share at least"
        )
    rows = {f: r[: preset.finetune_draws] for f, r in draws.rows.items()}
    return LabelDraws({f: r for f, r in rows.items() if f in preset.finetune_fractions}, [])
