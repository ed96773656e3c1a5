import re
import subprocess
import sys
import tomllib

import yaml
from packaging.requirements import Requirement

from hrebasin.files import project_root

ROOT = project_root()
LOCK = (ROOT / "requirements.txt").read_text()
PINS = [Requirement(pin) for pin in re.findall(r"^([a-z0-9][^ \n]*==[^\\\n]*?) *\\?$", LOCK, flags=re.MULTILINE)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Python in which packages of the study's alone cannot be imported; those that others bring along are left out
ALONE = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if (root := name.partition(".")[0]) in {refused}:
            raise ModuleNotFoundError(f"no {{root}}", name=root)

sys.meta_path.insert(0, Refuse())
from hrebasin.study.command import main
"""
REFUSED = ("IPython", "ipykernel", "ipywidgets", "jupyterlab", "matplotlib", "nbformat", "papermill", "pydantic")
REFUSED += ("snakemake", "traitlets", "yaml")
PUBLIC = """
import hrebasin
for name in hrebasin.__all__:
    assert getattr(hrebasin, name) is not None
for module in pkgutil.walk_packages(hrebasin.__path__, "hrebasin."):
    if not module.name.startswith("hrebasin.study"):
        importlib.import_module(module.name)
assert len(hrebasin.__all__) > 20
"""


def test_every_direct_dependency_has_a_lower_bound_and_is_locked_above_it():
    for requirement in map(Requirement, PROJECT["dependencies"] + EXTRAS["study"] + EXTRAS["dev"] + EXTRAS["slurm"]):
        assert [specifier.operator for specifier in requirement.specifier] == [">="], requirement
        found = [pin for pin in PINS if pin.name == requirement.name]
        assert found, requirement
        for pin in found:
            assert requirement.specifier.contains(next(iter(pin.specifier)).version), requirement


def test_the_lock_has_hashes_and_no_addresses():
    assert LOCK.count("--hash=sha256:") > len(PINS)
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_the_conda_environment_is_the_lock_and_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, pip_list = environment["dependencies"]
    assert python.startswith("python=3.")
    assert pip == "pip"
    package, *listed = pip_list["pip"]
    assert package == "--editable ."
    assert sorted(map(str, map(Requirement, listed))) == sorted(map(str, PINS))


def alone(code):
    return subprocess.run([sys.executable, "-c", ALONE.format(refused=REFUSED) + code], capture_output=True, text=True)


def test_the_method_needs_nothing_of_the_study_and_a_command_names_the_package_that_it_lacks():
    ended = alone(f"{PUBLIC}\nsys.exit(main(['verify']))")
    assert ended.stderr == "error: hrebasin verify needs the package matplotlib: install hrebasin[study]\n"
    assert ended.returncode == 2
