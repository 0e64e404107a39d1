"""Tables that notebook 01 shows."""

import pandas as pd

from cxr_helpers.vindr import Readings


def reader_table(readings: Readings) -> pd.DataFrame:
    """What each reader read and drew.

    Args:
        readings: of all images.

    Returns:
        A row a reader: `normal_percent` and `abnormal_percent`, the shares of all normal and of
        all abnormal images that this reader read, and `boxes`, how many boxes the reader drew. An
        image is abnormal where any reader drew a box.
    """
    abnormal = set(readings.boxes["image_id"])
    table = readings.readings[["image_id", "reader_id"]]
    table = table.assign(abnormal=table["image_id"].isin(abnormal))
    n_abnormal = len(abnormal)
    n_normal = table["image_id"].nunique() - n_abnormal
    read = table.groupby("reader_id")["abnormal"].agg(["sum", "count"])
    return pd.DataFrame(
        {
            "normal_percent": 100 * (read["count"] - read["sum"]) / max(n_normal, 1),
            "abnormal_percent": 100 * read["sum"] / max(n_abnormal, 1),
            "boxes": readings.boxes["reader_id"].value_counts().reindex(read.index, fill_value=0),
        }
    )
