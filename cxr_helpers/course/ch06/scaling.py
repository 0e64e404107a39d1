"""What changes between the demo's scale and the paper's."""

from dataclasses import asdict

import pandas as pd

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
