import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from hrebasin.files import project_root

ROOT = project_root()
# name in the package index -> how the project's files use it
USED_AS = {
    "eagerpy": "import eagerpy",
    "filelock": "from filelock",
    "foolbox": "from foolbox",
    "h5netcdf": 'engine="h5netcdf"',
    "h5py": 'engine="h5netcdf"',  # the library below h5netcdf
    "ipykernel": "ipykernel",
    "ipython": "from IPython",
    "ipywidgets": "import ipywidgets",
    "jinja2": "import jinja2",
    "jupyterlab": "from jupyterlab",
    "matplotlib": "import matplotlib",
    "nbformat": "import nbformat",
    "numba": "from numba",
    "numpy": "import numpy",
    "papermill": "import papermill",
    "pillow": "from PIL",
    "psutil": "import psutil",
    "pyyaml": "import yaml",
    "safetensors": "from safetensors",
    "scipy": "from scipy",
    "snakemake": "from snakemake",
    "snakemake-executor-plugin-slurm": "executor: slurm",
    "threadpoolctl": "from threadpoolctl",
    "torch": "import torch",
    "torchvision": "from torchvision",
    "tqdm": "from tqdm",
    "traitlets": "from traitlets",
    "xarray": "import xarray",
    "hypothesis": "from hypothesis",
    "nbstripout": "nbstripout",
    "packaging": "Requirement(text)",
    "pre-commit": "pre-commit",
    "pytest": "import pytest",
    "pytest-xdist": "pytest -n",
    "ruff": "ruff check",
    "snakefmt": "snakefmt --check",
}


def direct():
    """What the lock is made of; the extra `bench` is not in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in project["dependencies"] + extras["dev"] + extras["slurm"]]


def pins(text):
    return [Requirement(line) for line in re.findall(r"^([a-z0-9][^ ]*==[^\\\n]*?) *\\?$", text, flags=re.MULTILINE)]


LOCK = (ROOT / "requirements.txt").read_text()


@pytest.mark.parametrize("requirement", direct(), ids=str)
def test_every_direct_dependency_has_a_lower_bound_and_is_locked_above_it(requirement):
    assert [specifier.operator for specifier in requirement.specifier] == [">="]
    locked = [pin for pin in pins(LOCK) if pin.name == requirement.name]
    assert locked
    for pin in locked:
        assert requirement.specifier.contains(next(iter(pin.specifier)).version)


def test_every_direct_dependency_is_used():
    assert {requirement.name for requirement in direct()} == set(USED_AS)
    files = [*(ROOT / "lib").rglob("*.py"), *(ROOT / "tests").glob("*.py"), ROOT / "Makefile"]
    files += [
        ROOT / "config" / "slurm" / "config.yaml",
        ROOT / "README.md",
        ROOT / ".pre-commit-config.yaml",
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    text = "\n".join(path.read_text() for path in files if path.name != "test_packaging.py")
    text += Path(__file__).read_text().partition("def direct")[2]  # without the table above
    assert [name for name, use in USED_AS.items() if use not in text] == []


def test_the_lock_has_hashes_and_no_addresses():
    assert LOCK.count("--hash=sha256:") > len(pins(LOCK))
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_the_conda_environment_is_the_lock_and_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, pip_list = environment["dependencies"]
    assert python.startswith("python=3.")
    assert pip == "pip"
    package, *listed = pip_list["pip"]
    assert package == "--editable ."
    assert sorted(map(str, map(Requirement, listed))) == sorted(map(str, pins(LOCK)))


def test_every_import_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [text for texts in project["optional-dependencies"].values() for text in texts]
    declared = {Requirement(text).name for text in project["dependencies"] + optional}
    sources = {path: path.read_text() for folder in ("lib", "tests") for path in (ROOT / folder).rglob("*.py")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    own = {"hrebasin"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                assert {"IPython": "ipython", "PIL": "pillow", "yaml": "pyyaml"}.get(name, name) in declared, (
                    f"{path.name}: {name}"
                )
