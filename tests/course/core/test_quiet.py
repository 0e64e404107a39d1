"""Set-up notes are kept out of the notebooks; warnings that matter are not."""

import logging
import warnings

import pytest

from cxr_helpers.course.core.quiet import quiet_lightning


def test_known_warnings_are_silent_others_are_not_and_all_is_put_back():
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level, list(warnings.filters)
    with pytest.raises(ValueError, match="stop"), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet_lightning():
            assert not logger.isEnabledFor(logging.INFO) and logger.isEnabledFor(logging.WARNING)
            warnings.warn("The 'train_dataloader' does not have many workers", stacklevel=1)
            warnings.warn("the loss is not finite", stacklevel=1)
            raise ValueError("stop")
    assert [str(one.message) for one in heard] == ["the loss is not finite"]
    assert (logger.level, list(warnings.filters)) == before
