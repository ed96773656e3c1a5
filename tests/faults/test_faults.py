"""What `run.py` does at length, in short, and every other fault that a run may meet."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from sandbox import Sandbox

from hrebasin import records

TRAINED = ("--part", "train", "profile=tiny")
MERGED = ("--part", "merge", "profile=tiny")


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="f-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def undisturbed():
    """A run of both shards, trained and merged."""
    with tempfile.TemporaryDirectory(prefix="f-") as name:
        sandbox = Sandbox(Path(name), *MERGED)
        assert sandbox.finish() == 0, sandbox.log.read_text()
        yield sandbox


@pytest.fixture(scope="session")
def whole(undisturbed):
    return undisturbed.contents()


@pytest.fixture
def disk(folder):
    """``disk(size)`` mounts a small disk, or changes its size or mode, at data/runs of a sandbox; needs root."""
    runs = folder / "data" / "runs"
    runs.mkdir(parents=True)

    def mount(*options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", runs], capture_output=True)
        if done.returncode:
            pytest.skip(f"disks cannot be mounted here: {done.stderr.decode().strip()}")

    yield mount
    while runs.is_mount():
        subprocess.run(["umount", runs], check=True)


def shard(files, number):
    return {name: value for name, value in files.items() if f"-{number:03d}." in str(name)}


def last_line(sandbox):
    return sandbox.log.read_text().splitlines()[-1]


def test_an_interrupted_run_goes_on_to_the_same_results(whole, folder):
    sandbox = Sandbox(folder, *MERGED, "groups=1")
    for stop, during, moment, group in (
        (signal.SIGINT, "01_train 000", 2.0, True),
        (signal.SIGKILL, "01_train 000", 4.0, True),
        (signal.SIGKILL, "02_merge 000", 3.0, False),
    ):
        stopped = sandbox.interrupt(moment, stop, during=during, group=group)
        assert stopped, sandbox.log.read_text()
        assert stopped.working == [during]
        assert stopped.code == (130 if stop == signal.SIGINT else -stop)
        assert not stopped.processes, f"{stopped}: processes left"
        if stop == signal.SIGINT:
            assert not list(sandbox.temporary.iterdir())
            assert last_line(sandbox) == "stopped; the same command continues"
    assert sandbox.finish() == 0, sandbox.log.read_text()
    assert len(stopped.finished) == 3, "what 01_train wrote"
    assert not stopped.repeated()
    assert sandbox.contents() == shard(whole, 0)
    assert not sandbox.leftovers()


def test_a_failing_shard_is_named_the_others_finish_and_only_it_is_tried_again(undisturbed, whole, folder):
    shutil.copytree(undisturbed.folder, folder, symlinks=True, dirs_exist_ok=True)
    sandbox = Sandbox(folder, *MERGED)
    run = sandbox.runs / "tiny"
    damaged = run / "weights" / "unmerged-001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    for path in run.glob("merge/*"):
        path.unlink()
    assert sandbox.finish() == 1
    assert last_line(sandbox).startswith("error: 02_merge-001 failed: ValueError: ")
    assert "unmerged-001.safetensors is not a readable safetensors file" in last_line(sandbox)
    assert "02_merge-001.failed.ipynb" in last_line(sandbox)
    assert not (run / "merge" / "shard-001.nc").exists()
    finished = shard(sandbox.finished(), 0)
    assert run / "merge" / "shard-000.nc" in finished

    damaged.unlink()
    assert sandbox.finish() == 0, sandbox.log.read_text()
    assert sandbox.contents() == whole
    assert shard(sandbox.finished(), 0) == finished
    assert not sandbox.leftovers()
    assert not list(run.glob("notebooks/*.failed.ipynb"))


def test_of_two_runs_started_at_once_in_one_folder_one_is_refused(whole, folder):
    first, second = (Sandbox(folder, *TRAINED, "groups=1") for _ in range(2))
    second.log = folder / "log of the second.txt"
    codes = [process.wait() for process in (first.start(), second.start())]
    assert sorted(codes) == [0, 2]
    assert "another process is writing to" in last_line((first, second)[codes.index(2)])
    assert first.contents().items() <= whole.items()
    assert not first.leftovers()


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(whole, folder, disk):
    disk("size=300k")  # the weights of one shard take 2.5 MB
    sandbox = Sandbox(folder, *TRAINED, "groups=1")
    assert sandbox.finish() == 1
    assert "No space left on device" in sandbox.log.read_text()
    assert not sandbox.contents()
    disk("remount", "size=100m")
    assert sandbox.finish() == 0, sandbox.log.read_text()
    assert sandbox.contents().items() <= whole.items()
    assert not sandbox.leftovers()


def test_a_run_in_a_read_only_folder_is_refused(folder, disk):
    disk("ro")
    sandbox = Sandbox(folder, *TRAINED)
    assert sandbox.finish() == 2
    assert last_line(sandbox).startswith("error: [Errno 30] Read-only file system: ")
    assert str(sandbox.runs / "tiny") in last_line(sandbox)


def test_on_a_full_disk_a_file_is_the_old_one_or_the_new_one(undisturbed, folder, disk):
    disk("size=1m")
    folder = folder / "data" / "runs"
    old = records.read(undisturbed.runs / "tiny" / "merge" / "shard-000.nc", stage="merge")
    new = old.assign(test_loss=old.test_loss + 1)
    records.write(old, folder / "shard.nc", stage="merge")
    outcomes = set()
    for free in range(0, 120_000, 4096):
        filler = folder / "filler"
        filler.unlink(missing_ok=True)
        status = os.statvfs(folder)
        filler.write_bytes(bytes(status.f_bavail * status.f_frsize - free))
        try:
            records.write(new, folder / "shard.nc", stage="merge")
            outcomes.add("new")
        except OSError as error:
            assert "No space left on device" in str(error)
            outcomes.add("old")
        found = records.read(folder / "shard.nc", stage="merge")
        assert found.identical(new if "new" in outcomes else old)
        assert {path.name for path in folder.iterdir()} == {"filler", "shard.nc"}
    assert outcomes == {"old", "new"}
