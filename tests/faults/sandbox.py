"""A copy of the project in which runs are started, stopped and compared."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from PIL import Image
from safetensors import safe_open

from hrebasin.files import LEFTOVER, project_root, read_text
from hrebasin.study.running.scratch import processes_with
from hrebasin.study.stages import WEIGHTS

MARK = "HREBASIN_FAULTS"  # in the environment of every process of a run
MOMENTARY = ("created", "wall_seconds", "made_from")  # attributes that differ from run to run
PATIENCE = 10.0  # seconds that processes of a killed run may take to end


class Sandbox:
    """The project's code, notebooks and sample in a folder of its own, with its own results and temporary files.

    Sockets of kernels lie in it, so the folder needs a short path.
    """

    def __init__(self, folder: Path, *values: str, cores: int = 2, notebooks: Path | None = None):
        self.folder, self.values, self.cores, self.starts = folder, values, cores, 0
        self.before: list[str] = []  # what stands before the command
        sources = ("Snakefile", "config", "notebooks", "pyproject.toml", "data/cifar10-sample.nc")
        sources = {name: project_root() / name for name in sources} | ({"notebooks": notebooks} if notebooks else {})
        for name, source in sources.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(source)
        self.temporary, self.runs, self.log = folder / "tmp", folder / "data" / "runs", folder / "log.txt"
        self.temporary.mkdir(exist_ok=True)

    def start(self) -> subprocess.Popen:
        """Start the run, or go on with it, in a process group of its own."""
        self.starts += 1
        command = [sys.executable, "-m", "hrebasin.study.command", "run", "--cores", str(self.cores), *self.values]
        where = {"cwd": self.folder, "env": os.environ | {MARK: self._mark(), "TMPDIR": str(self.temporary)}}
        with self.log.open("w", encoding="utf-8") as log:
            how = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            return subprocess.Popen([*self.before, *command], **where, **how)

    def finish(self) -> int:
        """Run to the end; the exit code."""
        with stopped_at_last(self.start()) as process:
            return process.wait()

    def interrupt(self, moment: float, stop: signal.Signals, *, during: str = "", group: bool = True):
        """Start the run and stop it; None if it ended before.

        Args:
            moment: seconds after the start, or after the notebook ``during``, such as ``01_train 000``, began.
            stop: the signal.
            during: a notebook; "" for the run.
            group: whether the whole process group is stopped, as by a terminal, or only the first process.
        """
        with stopped_at_last(self.start()) as process:
            while during and during not in self.working() and process.poll() is None:
                time.sleep(0.1)
            try:
                process.wait(moment)
                return None
            except subprocess.TimeoutExpired:
                working = self.working()
            (os.killpg if group else os.kill)(process.pid, stop)
            start = time.perf_counter()
            code = process.wait()
        self.wait_for_end()
        seconds = time.perf_counter() - start
        return Interruption(stop, moment, working, code, seconds, self.processes(), self.finished())

    def wait_for_end(self) -> None:
        """Until no process of the latest start is left, or patience ends."""
        start = time.perf_counter()
        while self.processes() and time.perf_counter() - start < PATIENCE:
            time.sleep(0.05)

    def _mark(self) -> str:
        return f"{self.folder}/{self.starts}"

    def processes(self) -> list[psutil.Process]:
        """What is alive of the latest start, in whichever session and under whichever parent."""
        return processes_with(MARK, self._mark())

    def working(self) -> list[str]:
        """The notebooks that are running, such as ``01_train 000``."""
        commands = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                commands.append(process.cmdline())
        return sorted(words[words.index("--label") + 1] for words in commands if "--label" in words)

    def leftovers(self) -> list[Path]:
        """Temporary files, and Snakemake's marks of unfinished work and locks."""
        hidden = [path for path in self.folder.rglob(".*") if LEFTOVER.fullmatch(path.name)]
        marks = [path for kind in ("incomplete", "locks") for path in (self.folder / ".snakemake" / kind).rglob("*")]
        checkpoints = [path for path in self.runs.glob("*/checkpoints/**/*") if path.is_file()]
        return [*hidden, *marks, *self.temporary.rglob("*"), *checkpoints]

    def finished(self) -> dict[Path, tuple[int, int]]:
        """Inode and time of all that finished notebooks wrote: of those that Snakemake no longer counts as begun."""
        marks = (self.folder / ".snakemake" / "incomplete").glob("*")
        begun, written = {base64.urlsafe_b64decode(mark.name).decode() for mark in marks}, []
        for copy in self.runs.glob("*/notebooks/[0-9]*.ipynb"):
            if str(copy.relative_to(self.folder)) in begun or ".failed" in copy.name:
                continue
            stage, _, shard = copy.stem[3:].partition("-")
            run = copy.parent.parent
            written += [copy, *run.glob(f"{stage}/shard-{shard}.nc")]
            written += run.glob(f"weights/{WEIGHTS.get(stage)}-{shard}.safetensors")
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in written}

    def contents(self) -> dict[str, str]:
        """A digest of every data set, bank and figure, of all but time stamps and durations."""
        digests, data = {}, self.folder / "data"
        for path in sorted([*self.runs.rglob("*"), *(data / "published").rglob("*")]):
            if kind := {".nc": data_set, ".safetensors": weights, ".png": picture}.get(path.suffix):
                digests[str(path.relative_to(data))] = hashlib.sha256(kind(path)).hexdigest()
        return digests

    def repeat(self, whole: dict[str, str]) -> list[str]:
        """Give the same command again; what is wrong with what it leaves, beside the contents of a whole run."""
        code, contents = self.finish(), self.contents()
        wrong = [f"exit code {code}: {read_text(self.log)[-2000:]}"] if code else []
        wrong += [f"differs: {name}" for name in sorted(whole | contents) if whole.get(name) != contents.get(name)]
        wrong += [f"left: {path.relative_to(self.folder)}" for path in self.leftovers()]
        return wrong + [f"process left: {process}" for process in self.processes()]


@contextmanager
def stopped_at_last(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """A run does not outlive who tests it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[str], None] | None]:
    """A function that mounts a disk at ``folder`` or changes its size, given as to mount; None without the right to."""

    def mount(size: str) -> None:
        again = ["-o", "remount"] if folder.is_mount() else []
        command = ["mount", "-t", "tmpfs", *again, "-o", f"size={size}", "tmpfs", folder]
        subprocess.run(command, check=True, capture_output=True)

    folder.mkdir(parents=True)
    try:
        mount("1m")
        subprocess.run(["umount", folder], check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield mount
    finally:
        if folder.is_mount():
            subprocess.run(["umount", folder], check=True)


@dataclass(frozen=True)
class Interruption:
    """How a run was stopped and what was left of it."""

    stop: signal.Signals
    moment: float
    working: list[str]
    code: int
    seconds: float
    processes: list[psutil.Process]
    finished: dict[Path, tuple[int, int]]

    def repeated(self) -> list[Path]:
        """Files of finished notebooks that were written again since."""
        now = {path: path.stat() for path in self.finished if path.exists()}
        return [p for p, then in self.finished.items() if p not in now or (now[p].st_ino, now[p].st_mtime_ns) != then]

    def __str__(self):
        return f"{self.stop.name} after {self.moment:5.1f} s in {', '.join(self.working) or 'no notebook'}"


def data_set(path: Path) -> bytes:
    """All values and attributes of a netCDF file but those that tell when and how long."""
    dataset = xr.load_dataset(path, engine="h5netcdf").drop_vars("seconds", errors="ignore")
    dataset.attrs["parameters"] = json.loads(dataset.attrs.get("parameters", "{}"))
    for told in (dataset.attrs, dataset.attrs["parameters"]):
        for name in MOMENTARY:
            told.pop(name, None)
    types = {name: str(variable.dtype) for name, variable in dataset.variables.items()}
    return json.dumps([types, dataset.to_dict()], sort_keys=True, default=str).encode()


def weights(path: Path) -> bytes:
    """All tensors and labels of a bank; its header holds them in no order."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    origin = {name: value for name, value in json.loads(header.pop("origin")).items() if name not in MOMENTARY}
    parts = [repr(sorted((header | origin).items())).encode()]
    return b"".join(parts + [name.encode() + tensor.tobytes() for name, tensor in sorted(tensors.items())])


def picture(path: Path) -> bytes:
    """The pixels of an image."""
    with Image.open(path) as image:
        return np.asarray(image).tobytes()
