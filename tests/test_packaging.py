import re
import tomllib

import yaml
from packaging.requirements import Requirement

from hrebasin.files import project_root

ROOT = project_root()
LOCK = (ROOT / "requirements.txt").read_text()
PINS = [Requirement(pin) for pin in re.findall(r"^([a-z0-9][^ \n]*==[^\\\n]*?) *\\?$", LOCK, flags=re.MULTILINE)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


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
