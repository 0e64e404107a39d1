"""What changes between the demo's scale and the paper's, and how a scaling table is read."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from cxr_helpers.course.settings import PRESETS


def preset_changes(stage: str) -> pd.DataFrame:
    """Fields of a stage's preset that differ between the two scales.

    Args:
        stage: `pretrain`, `probe`, `detect` or `explain`.

    Returns:
        Indexed by field, columns demo and paper, as text.

    >>> preset_changes("explain").loc["max_images"].tolist()
    ['200', '1000']
    """
    sides = {scale: asdict(PRESETS[scale][stage]) for scale in ("demo", "paper")}
    changed = [name for name in sides["demo"] if sides["demo"][name] != sides["paper"][name]]
    rows = {name: {scale: as_text(side[name]) for scale, side in sides.items()} for name in changed}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("field")


def as_text(value: object) -> str:
    """A setting as a table shows it.

    >>> as_text(10 / 600), as_text((8192, 8192)), as_text("lars")
    ('0.0166667', '(8192, 8192)', 'lars')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def projector_bytes(width: int, features: int = 2048) -> dict[str, int]:
    """Bytes in float32 that grow with the width D of the projector's output.

    Args:
        width: D, of the two hidden layers too.
        features: of the backbone.

    Returns:
        `weights`, with gradient and one value of the optimizer; and `correlation`, the D x D
        matrix with its gradient.

    >>> projector_bytes(8192)["correlation"] // 2**20
    512
    """
    weights = features * width + 2 * width**2
    return {"weights": 3 * 4 * weights, "correlation": 2 * 4 * width**2}


def scaling_table(
    work: Callable[[], object], counts: Sequence[int], use: Callable[[int], object], *, items: int
) -> pd.DataFrame:
    """How much faster a piece of work is with more workers.

    Args:
        work: what is timed; the best of three runs counts.
        counts: numbers of workers, 1 first.
        use: sets the number of workers.
        items: images that `work` handles.

    Returns:
        Indexed by the number of workers: `images a second`; `times faster` than with one; and
        `efficiency`, the share that each worker keeps of what one alone does.
    """
    rates = {}
    for count in counts:
        use(count)
        work()
        rates[count] = items / min(_seconds(work) for _ in range(3))
    table = pd.Series(rates, name="images a second").rename_axis("workers").to_frame()
    table["times faster"] = table["images a second"] / table["images a second"].iloc[0]
    table["efficiency"] = table["times faster"] / table.index
    return table


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
