"""Keep Lightning's set-up notes out of the notebooks; warnings that matter still show."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Each pattern, and why a learner need not see it.
KNOWN_WARNINGS = (
    r".*LeafSpec.*is deprecated.*",  # Lightning's own use of torch, not ours
    r".*does not have many workers.*",  # the packed cache makes workers needless
    r".*Checkpoint directory .* exists and is not empty.*",  # a rerun overwrites on purpose
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*Experiment logs directory .* exists.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's device and sponsor notes and the warnings listed above."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for pattern in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", pattern)
        try:
            yield
        finally:
            logger.setLevel(level)
