"""JupyterLab as `make lab` starts it: its settings hold, and the user's own stay as they are."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from jupyter_server.utils import url_path_join
from jupyterlab.commands import get_app_dir

from cxr_helpers.course import lab

ROOT = Path(__file__).resolve().parents[2]
OVERRIDES = json.loads((ROOT / "docs" / "lab" / "overrides.json").read_text(encoding="utf-8"))
LAYOUT = json.loads((ROOT / "docs" / "lab" / "workspace.json").read_text(encoding="utf-8"))
APP = Path(get_app_dir())
NEWS = "@jupyterlab/apputils-extension:notification"
TOKEN = "classroom"


def test_each_setting_is_one_that_this_jupyterlab_knows():
    for name, values in OVERRIDES.items():
        package, plugin = name.split(":")
        text = (APP / "schemas" / package / f"{plugin}.json").read_text(encoding="utf-8")
        schema = json.loads(text)
        assert set(values) <= set(schema["properties"]), name
        Draft7Validator(schema).validate(values)


def test_the_layout_shows_the_first_notebook_and_its_contents():
    places = LAYOUT["data"]["layout-restorer:data"]
    (opened,) = places["main"]["dock"]["widgets"]
    path = LAYOUT["data"][opened]["data"]["path"]
    assert opened == f"notebook:{path}" and path == lab.FIRST and (ROOT / path).is_file()
    assert (
        not places["left"]["collapsed"] and places["left"]["current"] in places["left"]["widgets"]
    )
    scripts = b"".join(path.read_bytes() for path in (APP / "static").glob("*.js"))
    assert places["left"]["current"].encode() in scripts, "JupyterLab calls the panel otherwise"


def test_a_layout_of_last_time_stays(tmp_path):
    lab.place_layout(ROOT, tmp_path)
    (path,) = (tmp_path / "workspaces").iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == LAYOUT
    path.write_text(json.dumps(LAYOUT | {"data": {}}), encoding="utf-8")
    lab.place_layout(ROOT, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["data"] == {}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a running JupyterLab, the folder for its state, and the user's own folder."""
    state, own = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("own")
    runtime = own / "runtime"
    env = os.environ | {"HOME": str(own), "JUPYTER_RUNTIME_DIR": str(runtime)}
    env |= {"JUPYTER_CONFIG_DIR": str(own / "config"), "JUPYTER_DATA_DIR": str(own / "data")}
    lab.place_layout(ROOT, state)
    options = ["--no-browser", "--port=0", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", "jupyterlab", *lab.lab_options(ROOT, state), *options]
    with open(state / "log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        yield address_of(process, runtime, state / "log"), state, own
    finally:
        process.terminate()
        process.wait(timeout=20)


def address_of(process, runtime, log):
    for _ in range(240):
        if process.poll() is not None:
            break
        for path in runtime.glob("jpserver-*.json"):
            if text := path.read_text(encoding="utf-8"):
                address = json.loads(text)["url"]
                with contextlib.suppress(OSError):  # the file is there before the server answers
                    ask(address, "/api")
                    return address
        time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def ask(address, path, **content):
    data = json.dumps(content).encode() if content else None
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        url_path_join(address, path), data, headers, method="PUT" if content else "GET"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 204)
        return answer.url, answer.read().decode()


@pytest.mark.slow
def test_the_page_is_served_and_opens_the_first_notebook(server):
    url, page = ask(server[0], "/")
    assert url.split("?")[0].endswith(f"/lab/tree/{lab.FIRST}") and "jupyter-config-data" in page
    config = json.loads(page.split('id="jupyter-config-data"')[1].split(">", 1)[1].split("<")[0])
    assert config["news"] == {"disabled": True}
    notebook = json.loads(ask(server[0], f"/api/contents/{lab.FIRST}")[1])
    assert notebook["type"] == "notebook"


@pytest.mark.slow
def test_settings_and_layout_are_the_courses(server):
    for name, values in OVERRIDES.items():
        answer = json.loads(ask(server[0], f"/lab/api/settings/{name}")[1])
        shown = {key: answer["schema"]["properties"][key]["default"] for key in values}
        assert shown == values and answer["settings"] == {}, name
    assert json.loads(ask(server[0], "/lab/api/workspaces/default")[1])["data"] == LAYOUT["data"]


@pytest.mark.slow
def test_what_a_learner_changes_stays_in_the_course(server):
    address, state, own = server
    ask(address, f"/lab/api/settings/{NEWS}", raw='{"doNotDisturbMode": true}')
    written = [p for p in (state / "settings").rglob("*") if p.is_file()]
    assert [p.name for p in written] == ["notification.jupyterlab-settings"]
    assert not [p for p in own.rglob("*") if p.suffix.startswith(".jupyterlab")]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_lab_starts_it_so():
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "lab"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == ".venv/bin/python -m cxr_helpers.course.lab"
