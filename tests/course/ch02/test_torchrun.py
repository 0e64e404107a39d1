"""Two machines, as two torchrun agents on this one; and a worker that is killed in mid-epoch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pretraining import PRESET, tiny_settings

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.pretraining import weights

SCRIPT = Path(__file__).parents[2] / "tiny_pretraining.py"
ROOT = Path(__file__).resolve().parents[3]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_agents(folder, **environment):
    """Pretrain with one worker on each of two agents that share a folder; what they printed."""
    port = free_port()
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "1", "--max-restarts", "5", "--monitor-interval", "0.2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command += ["--local-addr", "127.0.0.1", str(SCRIPT), str(folder)]
    known = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # By default the agents' rounds share one store, and a second round may wait for ever on what
    # the first one left in it.
    known["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    agents = [
        subprocess.Popen(
            command, env=os.environ | known | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        outputs = [agent.communicate(timeout=400)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(outputs)
    return pretraining.backbone_path(tiny_settings(folder), seed=0)


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's loopback interface")
def test_a_worker_killed_on_one_of_two_machines_leaves_no_trace_in_the_result(tmp_path):
    unbroken = two_agents(tmp_path / "unbroken")
    broken = two_agents(tmp_path / "broken", KILL_IN_EPOCH="3")
    assert (tmp_path / "broken" / "killed").exists()
    expected, got = (weights.read_weights(path)[0] for path in (unbroken, broken))
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    log = pretraining.training_log(broken)
    assert log["epoch"].tolist() == list(range(PRESET.epochs + 1))
    assert log.equals(pretraining.training_log(unbroken))
