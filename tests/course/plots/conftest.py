"""Figures are drawn without a screen, closed after each test, and leave their tables alone."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import pytest


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def check_of_table():
    """Whether a figure of one table leaves it and the settings alone, and names what it lacks."""

    def check(plot, table):
        before, settings = table.copy(), dict(plt.rcParams)
        assert plot(table).axes
        pd.testing.assert_frame_equal(table, before)
        assert dict(plt.rcParams) == settings
        for column in table:
            with pytest.raises(ValueError, match=f"no column '{column}'; it has"):
                plot(table.drop(columns=column))
        with pytest.raises(ValueError, match="no rows"):
            plot(table[:0])
        last = table.select_dtypes("number").columns[-1]
        with pytest.raises(ValueError, match=f"column '{last}' holds the text"):
            plot(table.astype({last: str}))

    return check
