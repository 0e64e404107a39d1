"""What changes between the demo's scale and the paper's, and how a scaling table is read."""

import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd
from matplotlib.axes import Axes
from torch import nn

from cxr_helpers.course.core.settings import PRESETS


def preset_changes(stage: str) -> pd.DataFrame:
    """Fields of a stage's preset that differ between the two scales.

    Args:
        stage: `pretrain`, `probe`, `detect` or `explain`.

    Returns:
        Indexed by field, columns demo and paper, as text.

    >>> preset_changes("explain").loc["max_images"].tolist()
    ['120', '1000']
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


def trained_bytes(network: nn.Module) -> int:
    """Bytes in float32 of a network in training: weights, gradients, one value of the optimizer.

    >>> trained_bytes(nn.Linear(9, 1))
    120
    """
    return 3 * 4 * sum(p.numel() for p in network.parameters())


def projector_bytes(width: int, features: int = 2048) -> dict[str, int]:
    """Bytes in float32 that grow with the width D of the projector's output.

    Args:
        width: D, of the two hidden layers too.
        features: of the backbone.

    Returns:
        `projector`, counted as by `trained_bytes`; and `correlation`, the D x D matrix with its
        gradient.

    >>> projector_bytes(8192)["correlation"] // 2**20
    512
    """
    weights = features * width + 2 * width**2
    return {"projector": 3 * 4 * weights, "correlation": 2 * 4 * width**2}


def plot_projector(widths: Sequence[int], *, backbone_bytes: int, published: int) -> Axes:
    """What grows with the width of the projector's output, beside the backbone, which does not.

    Args:
        widths: D, of each point.
        backbone_bytes: as `trained_bytes` counts them, of a ResNet-50.
        published: the D of the published code, a vertical line.
    """
    rows = pd.DataFrame([projector_bytes(int(d)) for d in widths], index=widths) / 2**20
    rows.columns = ["projector: weights, gradients, optimizer", "correlation matrix, with gradient"]
    axis = rows.plot(logx=True, logy=True, style=["o-", "s--"], figsize=(7, 4))
    axis.axhline(backbone_bytes / 2**20, color="black", ls=":", label="ResNet-50, counted alike")
    axis.axvline(published, color="gray", lw=1)
    axis.text(0.95 * published, 0.2, f"published code: {published}", ha="right", fontsize=9)
    axis.minorticks_off()
    axis.set_xticks(widths, [str(d) for d in widths])
    ticks = [10.0**k for k in range(-1, 4)]
    axis.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set(xlabel="width D of the projector's output", ylabel="memory (MB)")
    axis.legend(fontsize=9)
    return axis


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

    >>> table = scaling_table(lambda: sum(range(1000)), (1,), lambda count: None, items=5)
    >>> table.columns.tolist()
    ['images a second', 'times faster', 'efficiency']
    """
    rates = {}
    for count in counts:
        use(count)
        work()
        rates[count] = items / min(timeit.repeat(work, number=1, repeat=3))
    table = pd.Series(rates, name="images a second").rename_axis("workers").to_frame()
    table["times faster"] = table["images a second"] / table["images a second"].iloc[0]
    table["efficiency"] = table["times faster"] / table.index
    return table
