"""What surroundings must not change: folders of a known name, hooks of git, braces in a path."""

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.running.plan import Plan
from hrebasin.study.settings import load_setting


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
