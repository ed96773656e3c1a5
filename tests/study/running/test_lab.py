import json

from hrebasin.study.running import lab


def test_settings_are_written_once_and_then_are_the_users(tmp_path):
    variables = lab.environment(tmp_path)
    assert {"JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "JUPYTER_PATH"} < set(variables)
    assert all(value.startswith(str(tmp_path)) for name, value in variables.items() if value and name.endswith("DIR"))
    written = {path.stem: path for path in tmp_path.rglob("*.jupyterlab-settings")}
    assert json.loads(written["notification"].read_text()) == {"fetchNews": "false", "checkForUpdates": False}
    written["plugin"].write_text('{"saveState": false}')
    assert lab.environment(tmp_path) == variables
    assert json.loads(written["plugin"].read_text()) == {"saveState": False}


def test_jupyterlab_knows_every_option(tmp_path):
    from jupyterlab.labapp import LabApp

    known = {LabApp.__name__: LabApp} | {kind.__name__: kind for kind in LabApp.serverapp_class.classes}
    known[LabApp.serverapp_class.__name__] = LabApp.serverapp_class
    for option in lab.options(tmp_path):
        owner, trait = option.removeprefix("--").partition("=")[0].split(".")
        assert known[owner].class_traits(config=True).get(trait) is not None, option
    assert any(option.endswith(f"={tmp_path}") for option in lab.options(tmp_path))
