"""A run before it starts: checked values, which notebook gets which of them, and the command of each rule."""

import ast
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import psutil

from ...digests import files_digest
from ...files import project_root, read_text
from ..notebook_code import notebook_digest
from ..settings import DATASETS, SINGLE, Setting, load_setting
from ..stages import ANSWERS, PAPER, QUESTIONS, READS

# What a user may override on the command line: every single value of a setting, and short names for some.
OVERRIDES = {"groups": "n_groups", "first": "first_group"} | {name: name for name in SINGLE}
TEXTS = {"setting", "run", "ask", *(name for name, kind in SINGLE.items() if kind is str)}
PLACE = ("run_folder", "device")  # parameters of notebooks that results do not depend on
KNOWN = ("setting", "run", "ask", *OVERRIDES)
TREE_BYTES = 3 << 30  # that the training of a tree takes on CIFAR-10, with room to spare
ENCODED = "json:"  # what values begin with that `encoded` hands to Snakemake
# Parts of a run, for machines that are lent for minutes: each ends with its files written, and the next goes on.
PARTS = {
    "train": ("train",),
    "merge": ("merge",),
    "attack": ("attack",),
    "measure": ("regularity", "ablations"),
    "publish": ("paper",),
    # of networks that are there: nothing is trained or merged anew, but what a question reads is measured
    "questions": (*QUESTIONS, "answers", *{stage for reads in READS.values() for stage in reads if stage != "merge"}),
}


@dataclass(frozen=True)
class Plan:
    """A checked setting, what is asked, and where the results go.

    Attributes:
        name: of the setting.
        setting: its values.
        run: folder of the results, relative to the project.
        ask: open questions that the run may ask.
    """

    name: str
    setting: Setting
    run: str
    ask: tuple[str, ...] = tuple(QUESTIONS)

    @classmethod
    def from_config(cls, config: Mapping) -> "Plan":
        """From a command line: ``setting=``, ``run=`` (a folder in ``data/runs``), ``ask=`` (open questions with commas
        or spaces between them) and `OVERRIDES`; nothing else."""
        if (text := str(config.get("values", ""))).startswith(ENCODED):
            config = json.loads(unquote(text.removeprefix(ENCODED)))
        if unknown := sorted(set(config) - set(KNOWN)):
            lists = [name for name in unknown if name in Setting.model_fields]
            if lists:
                raise ValueError(f"{lists} hold several values: change them in a copy of the setting's file in config/")
            raise ValueError(f"unknown values {unknown}; known are {KNOWN}")
        config = {key: str(value) if key in TEXTS and value is not None else value for key, value in config.items()}
        name = config.get("setting") or "sample"
        run = config.get("run") or name
        if not re.fullmatch(r"\w[\w.-]*", run):
            raise ValueError(f"run names a folder in data/runs, of letters, digits and . _ -, got {run!r}")
        ask = tuple((config.get("ask") or "").replace(",", " ").split()) or tuple(QUESTIONS)
        if unknown := sorted(set(ask) - set(QUESTIONS)):
            raise ValueError(f"no open questions {unknown}; ask of {tuple(QUESTIONS)}")
        overrides = {OVERRIDES[key]: config[key] for key in OVERRIDES if config.get(key) not in (None, "")}
        if "dataset" in overrides and Path(overrides["dataset"]).expanduser().exists():
            overrides["dataset"] = str(Path(overrides["dataset"]).expanduser().resolve())
        setting = load_setting(project_root() / "config" / f"{name}.yaml", **overrides)
        return cls(name, setting, f"data/runs/{run}", tuple(question for question in QUESTIONS if question in ask))

    @cached_property
    def shards(self) -> dict[int, list[int]]:
        """Shard -> numbers of the groups that one notebook handles; made once, for thousands of jobs ask."""
        return self.setting.shards

    def asked(self, stage: str) -> list[int]:
        """Numbers of the shards that have a stage: other recipes are trained for some groups only."""
        end = self.setting.recipe_groups if stage == "recipes" else math.inf
        return [shard for shard, groups in self.shards.items() if groups[0] < end]

    def neighbour(self, shard: int | None) -> int:
        """The shard before this one, for the first the next, whatever comes behind; -1 where there is no other."""
        shards = list(self.shards)
        if shard is None or len(shards) == 1:
            return -1
        return shards[abs(shards.index(shard) - 1)]

    @cached_property
    def trees_at_once(self) -> int:
        """How many trees are trained side by side: as many as there are, and as fit into the memory that is free."""
        return max(1, min(len(self.shards), int(psutil.virtual_memory().available // TREE_BYTES)))

    @property
    def questions(self) -> list[str]:
        """Open questions that are asked of any shard."""
        return [question for question in self.ask if self.asked(question)]

    @cached_property
    def images(self) -> str:
        """Digest of the images' files, other networks are trained when it changes; none of what torchvision fetches."""
        if self.setting.dataset not in DATASETS:
            return files_digest(Path(self.setting.dataset).expanduser())
        shipped = project_root() / "data" / f"{self.setting.dataset}.nc"
        return files_digest(shipped) if shipped.is_file() else ""

    @property
    def gpus(self) -> int:
        """How many GPUs a notebook asks for."""
        return int(self.setting.device != "cpu")

    def parameters(self, notebook: str, shard: int | None) -> str:
        """The parameters of a notebook as JSON: what it declares, from the setting and the wiring.

        Without those that name a place or a machine: Snakemake makes anew what was made with other ones.
        """
        groups = None if shard is None else self.shards[shard]
        wiring = {"shard": shard, "groups": groups, "neighbour": self.neighbour(shard)}
        if shard is None:  # over all shards, which the thousands of others must not list
            shards = {"shards": list(self.shards), "recipe_shards": self.asked("recipes")}
            wiring |= shards | {"questions": self.questions}
        values = {**vars(self.setting), **wiring}
        declared = [name for name in _declared(notebook) if name not in PLACE]
        if strange := sorted(set(declared) - set(values)):
            raise ValueError(f"{notebook} declares parameters that no setting has: {strange}")
        return json.dumps({name: values[name] for name in declared}, sort_keys=True)

    def code(self, notebook: str) -> str:
        """Digest of the code that a notebook runs; a result made by other code is made again."""
        return notebook_digest(project_root() / "notebooks" / f"{notebook}.ipynb")

    def shell(self, notebook: str, *, images: bool = False) -> str:
        """The command of a rule, which has the resource ``gpu``: an executor's profile may give none.

        With ``images``, the rule has the digest of the images' files among its ``params``, for the data set to tell.
        """
        origin = f"--setting {_literal(self.name)}"
        origin += " --images={params.images:q}" * images  # = since there may be none
        label = notebook if notebook in (PAPER, ANSWERS) else f"{notebook} {{wildcards.shard}}"
        return (
            f"exec {_literal(sys.executable)} -m hrebasin.study.command notebook "
            f"notebooks/{notebook}.ipynb {{output.notebook:q}} {{params.values:q}} "
            f"--device {self.setting.device} --gpus {{resources.gpu}} {origin} --label '{label}' "
            "--threads {threads} --parent $PPID"
        )


def _literal(text: str) -> str:
    """A word of a rule's command, in which Snakemake fills in what stands in braces."""
    return shlex.quote(text).replace("{", "{{").replace("}", "}}")


def encoded(values: Mapping) -> str:
    """Values for Snakemake's ``--config``, which strips quotes and reads the rest as YAML: no number there is safe."""
    return f"values={ENCODED}{quote(json.dumps(dict(values)), safe='')}"


@cache
def _declared(notebook: str) -> list[str]:
    """Names of the parameters that a notebook declares; papermill, which knows too, is slow to import."""
    cells = json.loads(read_text(project_root() / "notebooks" / f"{notebook}.ipynb"))["cells"]
    [source] = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return [line.target.id for line in ast.parse(source).body]
