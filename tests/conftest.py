"""How the unit tests run."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors: on busy cores, waiting for a second thread costs more than it brings."""
    torch.set_num_threads(1)
