"""A run does not depend on whose configuration, options of Python, locale or home it meets."""

import getpass
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hrebasin.digests import files_digest
from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.running.plan import Plan
from hrebasin.study.running.surroundings import FOLDERS, jupyters, own_surroundings, variables
from hrebasin.study.settings import load_setting

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
    ours = {"IPYTHONDIR": "ipython", "JUPYTER_PATH": "jupyter", "JUPYTER_DATA_DIR": "jupyter", "MATPLOTLIBRC": "."}
    ours |= {"PYTHONSTARTUP": "startup.py", "HOME": "nobody", "JUPYTER_RUNTIME_DIR": "runtime"}
    ours |= {"XDG_CACHE_HOME": "startup.py/cache", "XDG_DATA_HOME": "not yet there"}
    options = {"JUPYTER_PREFER_ENV_PATH": "0", "PYTHONOPTIMIZE": "2", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error"}
    options |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "SNAKEMAKE_PROFILE": "of-the-user"}
    return options | {name: str(tmp_path / place) for name, place in ours.items()}


PRELUDE = "from hrebasin.study.running.surroundings import begin_anew, own_surroundings; begin_anew()\n"


def told(code, variables, *arguments, prelude=PRELUDE):
    """Lines that a Python prints which begins as the command does."""
    command = [sys.executable, "-c", prelude + code, *arguments]
    run = subprocess.run(command, env=os.environ | variables, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode().splitlines()


def test_a_notebook_sees_nothing_of_the_users(hostile, tmp_path):
    out = tmp_path / "told.json"
    parameters = nbformat.v4.new_code_cell(f"out: str = {str(out)!r}", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(TELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "tell.ipynb")
    command = [sys.executable, "-m", "hrebasin.study.command", "notebook", "tell.ipynb", "done.ipynb"]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | hostile, capture_output=True, encoding="utf-8")
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
        of_others = {"PYTHONOPTIMIZE", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONWARNINGS", "SNAKEMAKE_PROFILE"}
        assert not of_others & set(os.environ)
        assert (os.environ["PYTHONNOUSERSITE"], os.environ["HDF5_USE_FILE_LOCKING"]) == ("1", "FALSE")
        assert os.environ["XDG_CACHE_HOME"].startswith(os.environ["HOME"])
        assert os.environ["XDG_DATA_HOME"] == hostile["XDG_DATA_HOME"]
        with variables(jupyters(Path.home())):
            assert "JUPYTER_RUNTIME_DIR" not in os.environ
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


def test_a_folder_in_a_home_that_cannot_be_used_is_elsewhere_and_what_a_killed_command_has_left_goes(
    monkeypatch, tmp_path
):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, others = tmp_path / f"hrebasin-home-{ended.pid}-abc", tmp_path / f"hrebasin-home-{os.getppid()}-abc"
    for folder in (left / ".cache", others, home := tmp_path / "home"):
        folder.mkdir(parents=True)
    (home / ".cache").write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(home))
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    with own_surroundings():
        assert Path.home() == home
        elsewhere = {name for name in FOLDERS if name in os.environ}
        assert not left.exists()
        assert others.exists()
    assert elsewhere == {name for name, usual in FOLDERS.items() if usual.startswith(".cache")}


@pytest.mark.skipif(sys.platform != "linux", reason="where these packages lie is said for Linux")
def test_packages_beside_the_environments_are_not_seen(tmp_path):
    code = """
import os, subprocess, sys
with own_surroundings():
    print(sys.flags.no_user_site)
    subprocess.run([sys.executable, "-c", "import sys; print(sys.flags.no_user_site)"], check=True)
"""
    beside = "import site, sys; site.ENABLE_USER_SITE = not sys.flags.no_user_site\n"  # as with conda
    folder = "import sys; sys.path += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []\n"
    assert told(code, {"PYTHONUNBUFFERED": "1"}, prelude=beside + folder + PRELUDE) == ["1", "1"]


@pytest.fixture(params=["C", "Latin-1"])
def not_utf8(request, tmp_path):
    """Variables of a locale whose text is not UTF-8."""
    if request.param == "C":
        return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no Latin-1 locale here")
    return {"LC_ALL": "de_DE.ISO-8859-1", "LOCPATH": str(tmp_path), "PYTHONUTF8": "0"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere arguments are text in UTF-8")
def test_text_is_utf8_in_any_locale_arguments_and_names_of_files_too(not_utf8, tmp_path):
    folder = tmp_path / "Grün"
    folder.mkdir()
    (folder / "Bär.png").write_bytes(b"pixels")
    code = """
import os, subprocess, sys
from pathlib import Path
from hrebasin.digests import files_digest
from hrebasin.files import read_text, write_atomically
with own_surroundings():
    job = [sys.executable, "-c", "import sys; print(ascii(sys.argv[1]))", sys.argv[1]]
    print(subprocess.run(job, capture_output=True, check=True).stdout.decode().strip())
    write_atomically(Path(sys.argv[1]) / ".page.md", f"{Path(sys.argv[1]).name} gr\\u00f6\\u00dfer")
    print(ascii(read_text(Path(sys.argv[1]) / ".page.md")))
    print(files_digest(Path(sys.argv[1])))
"""
    digest = files_digest(folder)
    assert told(code, not_utf8, str(folder)) == [ascii(str(folder)), ascii("Grün größer"), digest]
    assert (folder / ".page.md").read_bytes() == "Grün größer".encode()
    alone = "import sys; from pathlib import Path; from hrebasin.digests import files_digest\n"
    assert told("print(files_digest(Path(sys.argv[1])))", not_utf8, str(folder), prelude=alone) == [digest]


def test_a_folder_beside_does_not_hide_images_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    setting = project_root() / "config" / "plain.yaml"
    monkeypatch.chdir(tmp_path)
    assert load_setting(setting, dataset="cifar10").dataset == "cifar10"


def test_a_hook_of_git_does_not_change_the_commit(monkeypatch):
    before = records.Clock().commit
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert records.Clock().commit == before


def test_braces_in_the_place_of_python_are_none_of_snakemake_s(monkeypatch):
    monkeypatch.setattr("sys.executable", "/a {x}/python")
    assert "exec '/a {{x}}/python' -m" in Plan.from_config({"setting": "tiny"}).shell("01_train")
