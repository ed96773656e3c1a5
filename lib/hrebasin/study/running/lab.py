"""JupyterLab on the notebooks: this environment's kernel, a token, this machine only, and no call to the internet."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import nbformat

from ...files import project_root, write_atomically
from .surroundings import jupyters, variables

FIRST = "notebooks/00_tour.ipynb"
FOLDER = "notebooks/"  # of the project's own, which are saved without outputs
# Settings at first: no question whether news may be fetched, and saved notebooks keep what their controls show.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}


def environment(folder: Path) -> dict[str, str | None]:
    """Variables that keep settings, layouts and kernels in ``folder``, apart from the user's own; makes it at first.

    None stands for a variable that must not be there.
    """
    for name, values in SETTINGS.items():
        path = folder / "config" / "lab" / "user-settings" / f"{name}.jupyterlab-settings"
        if not path.exists():
            write_atomically(path, json.dumps(values))
    return jupyters(folder)


def options(root: Path) -> list[str]:
    """JupyterLab's options; later ones on a command line win."""
    return [
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.allow_remote_access=False",
        # The one kernel is the Python that runs the server: it has the library.
        "--KernelSpecManager.allowed_kernelspecs=python3",
        "--KernelSpecManager.ensure_native_kernel=True",
        # No news, no look for a newer JupyterLab, no list of extensions from a package registry.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        f"--ContentsManager.pre_save_hook={__name__}.without_outputs",
        # Containers often have no other user; the token and the address guard the server.
        *(["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]


def without_outputs(model: dict, path: str, contents_manager, **_) -> None:
    """Take outputs out of a notebook of the project that is about to be saved: looking at one changes no file.

    What JupyterLab itself notes in a notebook goes too; copies elsewhere keep everything. A hook of the server.
    """
    there = Path(contents_manager.root_dir) / path
    if model["type"] != "notebook" or not path.lstrip("/").startswith(FOLDER) or not there.is_file():
        return
    content, before = model["content"], nbformat.read(there, as_version=4)
    content["metadata"], content["nbformat_minor"] = before.metadata, before.nbformat_minor
    noted = {cell.get("id"): cell.metadata for cell in before.cells}
    for cell in content["cells"]:
        cell["metadata"] = noted.get(cell.get("id"), {})
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def start(more: Sequence[str] = ()) -> None:
    """Start JupyterLab, with more options such as ``["--no-browser"]``, and stay until it ends.

    Raises:
        ValueError: the token is switched off.
    """
    root = project_root()
    with variables(environment(root / ".jupyter")):
        from jupyterlab.labapp import LabApp  # only now: it reads the variables when it is imported

        server = LabApp.initialize_server(argv=[*options(root), *more])
        if not server.identity_provider.token:
            raise ValueError("the token is switched off by an option or by a file of this machine")
        server.start()
