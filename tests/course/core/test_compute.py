"""Which machines a run uses, and work that several processes share without repeating any of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from course_data import made_up_nih

from cxr_helpers.course.ch03.linear import Arm, frozen_features
from cxr_helpers.course.core import compute as c
from cxr_helpers.course.core import machine
from cxr_helpers.course.core.settings import load_settings
from cxr_helpers.pretraining import barlow

LAUNCHED = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3"}


@pytest.mark.parametrize(
    ("batch", "processes", "remedy"),
    [
        (768, 7, "set batch_size to 763 or 770, or start 6 processes"),
        (2, 3, "set batch_size to 3 or 6, or start 2 processes"),
        (8, 0, "start 1 processes"),
    ],
)
def test_a_batch_that_cannot_be_shared_says_what_would_do(batch, processes, remedy):
    for fitting in ((768, 8), (4, 4), (128, 1)):
        c.check_batch(*fitting)
    with pytest.raises(c.ComputeError, match=remedy):
        c.check_batch(batch, processes)


def test_torchruns_own_numbers_are_taken_and_those_that_contradict_them_refused():
    for asked in (c.Compute(accelerator="cpu"), c.Compute(2, 3, accelerator="cpu")):
        found = c.resolved(asked, batch_size=12, environ=LAUNCHED)
        assert (found.devices, found.nodes, found.processes) == (2, 3, 6)
    with pytest.raises(c.ComputeError, match="torchrun started 2 processes on 3 machines"):
        c.resolved(c.Compute(4, 1, accelerator="cpu"), batch_size=12, environ=LAUNCHED)


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert c.resolved(c.Compute("auto"), batch_size=8, environ={}).processes == 2
    with pytest.raises(c.ComputeError, match="4 devices asked for, and this machine has 2 GPUs"):
        c.resolved(c.Compute(4), batch_size=8, environ={})


def pretend(monkeypatch, *, gpu=None, cpu=()):
    """Pretend a GPU of some kind, or a processor with some instructions."""
    kinds = {"T4": (True, False), "A100": (True, True), None: (False, False)}
    emulated, native = kinds[gpu]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: emulated if including_emulation else native,
    )
    plain = {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "cpu_name": "bf16"}
    told = plain | dict.fromkeys(cpu, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)


@pytest.mark.parametrize(
    ("gpu", "cpu", "fast", "precision"),
    [
        ("T4", ("avx512_bf16",), False, "16-mixed"),  # it emulates bfloat16
        ("A100", (), True, "bf16-mixed"),
        (None, (), False, "32-true"),
        (None, ("avx512_bf16",), True, "bf16-mixed"),
        (None, ("amx_bf16",), True, "bf16-mixed"),
        (None, ("amx_int8", "amx_tile"), False, "32-true"),
    ],
)
def test_training_and_the_report_agree_on_bfloat16(
    monkeypatch, tmp_path, gpu, cpu, fast, precision
):
    pretend(monkeypatch, gpu=gpu, cpu=cpu)
    assert (c.bf16_is_fast(), c.training_precision()) == (fast, precision)
    monkeypatch.setattr(machine, "accelerator", lambda: gpu)
    report = machine.machine_report(tmp_path)
    assert report.loc["fast bfloat16", "found"] == ("yes" if fast else "no")
    options = c.Compute(accelerator="gpu" if gpu else "cpu").trainer_options()
    assert options["precision"] == precision


def test_a_run_on_the_processor_asks_the_processor_even_beside_a_gpu(monkeypatch):
    for found, expected in (((), "32-true"), (("avx512_bf16",), "bf16-mixed")):
        pretend(monkeypatch, gpu="T4", cpu=found)
        options = c.Compute("auto", accelerator="cpu").trainer_options()
        assert (options["precision"], options["devices"]) == (expected, 1)
    asked = c.Compute(accelerator="cpu", precision="32-true")
    assert asked.trainer_options()["precision"] == "32-true"


def test_an_older_torch_is_asked_otherwise(monkeypatch):
    pretend(monkeypatch, cpu=("avx512_bf16",))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for bf16, amx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda v=bf16: v, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda v=amx: v, raising=False)
        assert c.bf16_is_fast() == (bf16 or amx)


def test_where_memory_ends_is_told_and_any_other_error_passes():
    with pytest.raises(MemoryError, match=r"halve batch_size \(now 8\), or image_size \(now 64\)"):
        with c.memory_is_told(batch_size=8, image_size=64):
            torch.empty(2**58)  # a real failure of torch's own allocator
    with pytest.raises(RuntimeError, match="something else"):
        with c.memory_is_told(batch_size=8, image_size=64):
            raise RuntimeError("something else")


def work(rank, folder, world):
    """One of the processes: squares of eleven numbers, and features of 360 images."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/m", rank=rank, world_size=world)
    asked = []

    def square(share):
        asked.extend(share.tolist())
        return [x * x for x in share.tolist()]

    squares = c.each_once(np.arange(11), square)
    features = features_of(f"{folder}/{rank}")
    np.savez(f"{folder}/{rank}.npz", squares=squares, asked=asked, features=features)
    dist.destroy_process_group()


def features_of(folder):
    """Features of made-up images, cached in a folder of this process's own."""
    settings = replace(load_settings({}), project=Path(folder))
    settings = replace(settings, pretrain=replace(settings.pretrain, image_size=16))
    arm = Arm(barlow.build_backbone("resnet18", seed=0), False, "random")
    data = made_up_nih()
    return frozen_features(settings, arm, data.images).of(data.images.image_ids)


def test_each_item_is_worked_on_once_and_all_processes_get_all_results(tmp_path):
    assert c.each_once(np.arange(0), lambda share: share.tolist()) == []
    mp.spawn(work, (str(tmp_path), 3), nprocs=3)
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(3)]
    assert sorted(np.concatenate([f["asked"] for f in found]).tolist()) == list(range(11))
    alone = features_of(tmp_path / "alone")
    for one in found:
        assert one["squares"].tolist() == [x * x for x in range(11)]
        np.testing.assert_allclose(one["features"], alone, rtol=1e-4, atol=1e-5)
