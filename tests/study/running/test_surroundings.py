"""A run does not depend on whose configuration, options of Python, locale or home it meets."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hrebasin.study.running.surroundings import own_surroundings, variables

TELL = """
import json, sys, warnings
from pathlib import Path
from hrebasin.study import records
told = {"parameters": records.plain_values(globals()), "debug": __debug__, "python": sys.executable,
        "leaked": [name for name in ("of_the_profile", "of_startup") if name in globals()],
        "options": [*sys.warnoptions, *(o for o in (sys.flags.optimize, sys.flags.safe_path) if o)],
        "utf8": open(out, "w").encoding, "home": str(Path.home())}
warnings.warn("of somebody else's code", DeprecationWarning)
Path(out).write_text(json.dumps(told), encoding="utf-8")
"""


@pytest.fixture
def hostile(tmp_path):
    """Variables of a user whose start-up files define names, whose kernel is another one, and who has no home."""
    profile = tmp_path / "ipython" / "profile_default" / "startup" / "00.py"
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    for path, text in (
        (profile, "of_the_profile = 'token'"),
        (tmp_path / "startup.py", "of_startup = 'token'"),
        (kernel, json.dumps({"argv": ["false"], "display_name": "other", "language": "python"})),
        (tmp_path / "matplotlibrc", "figure.dpi: 7"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONSTARTUP": str(tmp_path / "startup.py"),
        "PYTHONOPTIMIZE": "2",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "HOME": str(tmp_path / "nobody"),
    }


def test_a_notebook_sees_nothing_of_the_users(hostile, tmp_path):
    out = tmp_path / "told.json"
    parameters = nbformat.v4.new_code_cell(f"out: str = {str(out)!r}", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(TELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "tell.ipynb")
    command = [sys.executable, "-m", "hrebasin.study.command", "notebook", "tell.ipynb", "done.ipynb"]
    run = subprocess.run(
        command, cwd=tmp_path, env=os.environ | hostile, capture_output=True, encoding="utf-8", check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(out.read_text(encoding="utf-8"))
    home = Path(told.pop("home"))
    assert home.name.startswith("hrebasin-home-")
    assert not home.exists()
    assert told == {
        "parameters": {"out": str(out)}, "debug": True, "python": sys.executable, "leaked": [], "options": [],
        "utf8": "utf-8",
    }  # fmt: skip


def test_surroundings_are_a_commands_own_and_come_back(hostile, monkeypatch):
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with own_surroundings():
        assert not {"PYTHONOPTIMIZE", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONWARNINGS"} & set(os.environ)
        assert os.access(home := Path.home(), os.W_OK)
        assert Path(os.environ["MATPLOTLIBRC"]).is_file()
    assert dict(os.environ) == before
    assert not home.exists()


def test_a_user_whom_no_list_knows_has_a_name_and_a_home(monkeypatch):
    def unknown(*_):
        raise KeyError("uid not found")

    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with own_surroundings():
        assert os.access(os.environ["HOME"], os.W_OK)
        assert getpass.getuser() == "nobody"
    assert not {"HOME", "USER"} & set(os.environ)


def test_variables_come_back(monkeypatch):
    monkeypatch.setenv("ONE", "1")
    monkeypatch.delenv("TWO", raising=False)
    with variables({"ONE": None, "TWO": "2"}):
        assert ("ONE" in os.environ, os.environ["TWO"]) == (False, "2")
    assert (os.environ["ONE"], "TWO" in os.environ) == ("1", False)
