"""JupyterLab's options, without a browser; `test_browser` has the rest."""

import asyncio
import json

import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from hrebasin.files import project_root
from hrebasin.study.running import lab

HOOK = next(option.partition("=")[2] for option in lab.options(project_root()) if "pre_save_hook" in option)


def test_a_notebook_that_was_run_and_saved_is_the_same_file(tmp_path):
    notebook = project_root() / "notebooks" / "00_tour.ipynb"
    before = notebook.read_bytes()
    for folder in ("notebooks", "copies"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / notebook.name).write_bytes(before)
    content = nbformat.reads(before.decode(), as_version=4)
    content.metadata["widgets"] = {"state": {}}
    content.metadata.setdefault("language_info", {"name": "python"})["version"] = "3.99"
    for cell in content.cells:
        cell.metadata["collapsed"] = True
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = 3, [nbformat.v4.new_output("stream", text="seen")]
    manager = AsyncLargeFileManager(root_dir=str(tmp_path), pre_save_hook=HOOK)
    for folder in ("notebooks", "copies"):
        model = {"type": "notebook", "format": "json", "content": nbformat.from_dict(content)}
        asyncio.run(manager.save(model, f"{folder}/{notebook.name}"))
    assert (tmp_path / "notebooks" / notebook.name).read_bytes() == before
    assert b"seen" in (tmp_path / "copies" / notebook.name).read_bytes()


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
