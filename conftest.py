"""How pytest divides its work, and how it treats the notebooks of this course."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

try:
    from nbval.plugin import IPyNbCell
except ImportError:
    IPyNbCell = None

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def without_widgets(outputs):
    """Leave out progress bars: whether one appears depends on what is cached already."""
    return [output for output in outputs if WIDGET_VIEW not in output.get("data", {})]


def pytest_configure(config):
    """Let nbval compare what stored notebooks hold: everything but widgets."""
    if IPyNbCell is None or hasattr(IPyNbCell, "_compares_widgets"):
        return
    IPyNbCell._compares_widgets = IPyNbCell.compare_outputs

    def compare_outputs(self, test, ref, skip_compare=None):
        return self._compares_widgets(without_widgets(test), without_widgets(ref), skip_compare)

    IPyNbCell.compare_outputs = compare_outputs
