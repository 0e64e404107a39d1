"""Two machines, as two torchrun agents on this one; and a worker that is killed in mid-epoch."""

import socket
import sys
from pathlib import Path

import pytest
import torch
from own_process import finish, start
from tiny_pretraining import PRESET, tiny_settings

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.pretraining import weights

SCRIPT = Path(__file__).parents[2] / "tiny_pretraining.py"
# By default the agents' rounds share one store, and a second round may wait for ever on what the
# first one left in it.
ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def two_agents(folder, **environment):
    """Pretrain with one worker on each of two agents that share a folder; where weights lie."""
    with socket.socket() as probe:  # a port that is free
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launcher += ["--max-restarts", "5", "--monitor-interval", "0.2", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    environment |= ENVIRONMENT
    finish(
        *(start(SCRIPT, folder, launcher=launcher, **environment) for _ in range(2)), timeout=400
    )
    return pretraining.backbone_path(tiny_settings(folder), seed=0)


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
@pytest.mark.slow
def test_a_worker_killed_on_one_of_two_machines_leaves_no_trace_in_the_result(tmp_path):
    unbroken = two_agents(tmp_path / "unbroken")
    broken = two_agents(tmp_path / "broken", KILL_IN_EPOCH="3")
    assert (tmp_path / "broken" / "killed").exists()
    expected, got = (weights.read_weights(path)[0] for path in (unbroken, broken))
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    log = pretraining.training_log(broken)
    assert log["epoch"].tolist() == list(range(PRESET.epochs + 1))
    assert log.equals(pretraining.training_log(unbroken))
