"""The four stages from a terminal: results, records, plans, and what can go wrong."""

import json
import re

import pytest
from tiny_root import command, make_nih_root, make_root

from cxr_helpers.course import __main__ as cli
from cxr_helpers.course.cli import planning
from cxr_helpers.course.cli.stages import COURSE_STAGES
from cxr_helpers.course.core import settings as settings_module


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture(autouse=True)
def in_project(monkeypatch, project):
    monkeypatch.setattr(settings_module, "project_root", lambda: project)
    monkeypatch.delenv("CXR_SCALE", raising=False)


def test_the_stages_in_order_write_results_and_records(root, project, capsys):
    figures = {}
    for stage in COURSE_STAGES:
        assert cli.main(command(stage, root)) == 0, capsys.readouterr().err
        content = json.loads((project / "runs/tiny/results" / f"{stage}_seed0.json").read_text())
        record = json.loads((project / "runs/tiny/records" / f"{stage}_seed0.json").read_text())
        figures[stage] = content["metrics"]
        assert record["stage"] == stage and len(record["data_digest"]) == 16
        assert record["settings"]["pretrain"]["batch_size"] == 8
        assert {"torch", "lightly"} <= record["versions"].keys() and "commit" in record
        assert str(root.parent) not in json.dumps(record)
    assert -1 <= figures["pretrain"]["heldout_diagonal"] <= 1
    assert figures["probe"]["gain"].keys() == {"50%", "100%"}
    assert figures["detect"]["map50"].keys() == {"random", "pretrained"}
    assert figures["detect"]["difference"]["low"] <= figures["detect"]["difference"]["high"]
    assert 0 <= figures["explain"]["pointing game"]["random: cell ablation"]["value"] <= 1
    out = capsys.readouterr().out
    assert "Made runs/tiny/pretrain/resnet18_seed0_" in out and "detect_seed0 (" in out


def figures_at_seed_1(root, project, capsys):
    """Metrics of the four stages in a row, each asked for seed 1."""
    for stage in COURSE_STAGES:
        assert cli.main(command(stage, root, "--seed", "1")) == 0, capsys.readouterr().err
    results = project / "runs" / root.name / "results"
    texts = {stage: (results / f"{stage}_seed1.json").read_text() for stage in COURSE_STAGES}
    return {stage: json.loads(text) for stage, text in texts.items()}


def digests(root, project, seed):
    files = (project / "runs" / root.name / "records").glob(f"*_seed{seed}.json")
    records = [json.loads(path.read_text()) for path in files]
    return {record["stage"]: record["data_digest"] for record in records}


def test_another_seed_leaves_the_split_as_it_is_through_all_stages(root, project, capsys):
    found = figures_at_seed_1(root, project, capsys)
    assert found["probe"]["metrics"]["gain"].keys() == {"50%", "100%"}
    assert found["explain"]["metrics"].keys() >= {"pointing game", "difference"}
    assert (found["probe"]["settings"]["seed"], found["probe"]["settings"]["split_seed"]) == (1, 0)
    at_0, at_1 = (digests(root, project, seed) for seed in (0, 1))
    assert at_1.keys() == set(COURSE_STAGES) and at_0 == at_1
    assert at_1["pretrain"] == at_1["probe"] and at_1["detect"] == at_1["explain"]
    made = sorted((project / "runs/tiny/pretrain").glob("*.safetensors"))
    assert made[0].read_bytes() != made[1].read_bytes()


def test_nih_alone_goes_through_all_stages_on_its_own_boxes(tmp_path, project, capsys):
    root = make_nih_root(tmp_path / "nih_alone")
    found = figures_at_seed_1(root, project, capsys)
    assert found["detect"]["metrics"]["map50"].keys() == {"random", "pretrained"}
    assert 0 <= found["explain"]["metrics"]["pointing game"]["random: cell ablation"]["value"] <= 1
    plan = command("detect", root, "--seed", "1", "--dry-run")
    assert cli.main(plan) == 0 and "plan of detect" in capsys.readouterr().out


def test_a_backbone_of_other_images_under_the_same_name_is_not_taken(root, project, capsys):
    assert cli.main(command("pretrain", root)) == 0
    picture = root / "nih" / "images" / "00000079_000.png"
    kept = picture.read_bytes()
    try:
        picture.unlink()
        assert cli.main(command("pretrain", root)) == 1
    finally:
        picture.write_bytes(kept)
    told = capsys.readouterr().err
    assert "pretrained on other images" in told and "delete" not in told


def test_what_is_made_is_found_and_not_made_again(root, project, capsys):
    assert cli.main(command("pretrain", root)) == 0
    made = next((project / "runs/tiny/pretrain").glob("*.safetensors"))
    before = made.stat().st_mtime_ns
    assert cli.main(command("pretrain", root)) == 0
    assert made.stat().st_mtime_ns == before
    assert "Found runs/tiny/pretrain/" in capsys.readouterr().out


def test_help_names_each_stage_and_its_examples_can_be_given():
    assert [line.split()[0] for line in cli.STAGES.splitlines()[1:]] == list(COURSE_STAGES)
    examples = re.findall(r"^  cxr (.+?)(?: {2}.*)?$", cli.EXAMPLES, re.MULTILINE)
    given = [cli.parser().parse_args(example.split()) for example in examples]
    assert [options.stage for options in given] == ["pretrain", "pretrain", "detect"]
    assert cli.settings_of(given[-1]).detect.epochs == 5
    assert len(cli.parser().format_help().splitlines()) < 60


@pytest.mark.parametrize("stage", planning.PLANS)
def test_a_dry_run_prints_the_plan_and_makes_no_result(root, project, capsys, stage):
    assert cli.main(command(stage, root, "--dry-run", "--seed", "7")) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"plan of {stage}\n")
    for word in ("memory of one device: about", "disk: about", "time: about", "measured by steps"):
        assert word in out
    assert not list((project / "runs/tiny").glob("*/*seed7*"))


def test_the_plan_counts_the_steps_of_the_run(root, capsys, monkeypatch):
    monkeypatch.setattr(planning, "seconds_of", lambda work, least: 1.0)
    cli.main(command("pretrain", root, "--dry-run", "--set", "epochs=600"))
    out = capsys.readouterr().out
    assert "56 images, 600 epochs of 7 steps\n" in out and "steps: 4,200\n" in out
    assert cli.main(command("probe", root, "--dry-run")) == 1
    assert "--dry-run plans pretrain and detect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "epoch=3"], "--set epoch=3: no field 'epoch'; did you mean epochs?"),
        (
            ["--devices", "3", "--seed", "11"],
            "a batch of 8 images cannot be shared evenly by 3 processes",
        ),
        (["--resume", "yes", "--seed", "9"], "last.ckpt does not exist, so there is no run"),
        (["--set", "batch_size=99"], "batch_size 99 does not fit 56 images"),
        (["--set", "initial_weights=gone.pth", "--seed", "8"], "gone.pth does not exist"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all is not a folder"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_1(root, capsys, more, message):
    assert cli.main(command("pretrain", root, *more)) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_gpu_that_is_not_there_is_named(root, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(command("pretrain", root, "--accelerator", "gpu", "--seed", "5")) == 1
    assert "no GPU can be used: torch sees none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "data", "more", "message"),
    [
        ("explain", ".", ["--arms", "imagenet"], "explain takes random and pretrained"),
        ("probe", "vindr", [], "vindr has no NIH ChestX-ray14 folder"),
    ],
)
def test_an_arm_or_a_data_set_that_is_missing_is_named(root, capsys, stage, data, more, message):
    assert cli.main([*command(stage, root / data), *more]) == 1
    assert message in capsys.readouterr().err
