"""What a run will take: costs of a step from two trials."""

import pytest
import torch
from tiny_pretraining import tiny_data, tiny_settings
from torch import nn

from cxr_helpers.course.ch02 import pretraining
from cxr_helpers.course.cli import planning
from cxr_helpers.course.cli.stages import Run


def test_two_trials_part_what_an_image_costs_from_what_a_step_costs(monkeypatch):
    taken = []
    monkeypatch.setattr(
        planning, "seconds_of", lambda work, least: (work(), 2.0 + 0.5 * taken[-1])[1]
    )
    cost = planning.trial_cost(
        taken.append, lambda n: (torch.ones(n, 4, requires_grad=True) ** 2).sum(),
        images=4, seconds=0,
    )  # fmt: skip
    assert (cost.seconds, cost.seconds_per_image) == (2.0, 0.5)
    assert cost.step_seconds(100) == 52.0
    assert cost.bytes_per_image == 4 * 4 and cost.step_bytes(100) == 1600


def test_noise_in_the_trials_never_gives_a_negative_cost(monkeypatch):
    times = iter([3.0, 2.0])
    monkeypatch.setattr(planning, "seconds_of", lambda work, least: next(times))
    cost = planning.trial_cost(lambda n: None, lambda n: torch.ones(1), images=4, seconds=0)
    assert cost.seconds >= 0 and cost.seconds_per_image > 0


def test_activations_are_counted_once_and_parameters_not_at_all():
    layer = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
    images = torch.ones(8, 100)
    found = planning.activation_bytes(lambda: layer(images).sum())
    assert found == 4 * (8 * 100 + 8 * 50)  # the input, and what the ReLU gives


def test_a_plan_is_shown_with_its_units():
    plan = planning.Plan("pretrain", ("9 images",), 1200, 1.5, 0.25, 42.1, "a trial")
    assert plan.lines() == [
        "plan of pretrain",
        "9 images",
        "steps: 1,200",
        "memory of one device: about 1.5 GB",
        "disk: about 0.25 GB",
        "time: about 42.1 hours",
        "measured by a trial",
    ]


@pytest.mark.parametrize("least", [0.0, 0.01])
def test_work_is_warmed_up_and_repeated(least):
    calls = []
    assert planning.seconds_of(lambda: calls.append(0), least=least) >= 0
    assert len(calls) >= 1 + planning.SEVERAL


def test_a_plan_can_be_for_more_images_than_are_here_and_takes_a_cost_that_is_known(tmp_path):
    settings, cost = tiny_settings(tmp_path), planning.Cost(1.0, 0.5, 0.0, 2.0**20)
    known = {"cost": cost, "training_images": 1000}
    plan = planning.plan_pretrain(Run(settings), tiny_data(), **known)
    batch = settings.pretrain.batch_size
    assert plan.steps == pretraining.epoch_count(settings.pretrain, 1000) * (1000 // batch)
    assert plan.hours == pytest.approx(plan.steps * cost.step_seconds(batch) / 3600)
    assert plan.facts[0].startswith("1,000 images, ")
    assert plan.memory_gb > batch / 2**10 and plan.disk_gb > 0
