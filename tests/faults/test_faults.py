"""In short what `run.py` does at length, and other faults that a run may meet, on notebooks that do next to nothing."""

import json
import os
import signal
import tempfile
from pathlib import Path

import injected
import nbformat
import pytest
from run import table
from sandbox import Sandbox, small_disk

import synthetic
from hrebasin.files import project_root, read_text
from hrebasin.study import records
from hrebasin.study.stages import NOTEBOOKS, PAPER, WEIGHTS

ROOT = project_root()
PARAMETERS = "run_folder: str = 'data/runs/tiny'\nshard: int = 0\ndevice: str = 'cpu'"
WORK = """
import io, json, time
import h5py
from hrebasin.study import notebook_code
from hrebasin.files import project_root, read_text, write_atomically
folder = project_root() / run_folder
time.sleep(0.2)
if (folder / f"no {stage}").exists() and shard == 1:
    raise ValueError(f"there is no {stage}")
record = io.BytesIO()
with h5py.File(record, "w") as file:
    file.attrs["parameters"] = json.dumps({"run_folder": run_folder, "shard": shard})
    file.attrs["code_digest"] = notebook_code.executed["code_digest"]
write_atomically(folder / stage / f"shard-{shard:03d}.nc", record.getvalue())
if weights:
    write_atomically(folder / "weights" / f"{weights}-{shard:03d}.safetensors", bytes([shard]) * 1_000_000)
"""
TRAINED, MERGED = (("--part", part, "setting=tiny") for part in ("train", "merge"))


@pytest.fixture
def folder():
    """A folder with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="f-") as name:
        yield Path(name)


@pytest.fixture
def disk(folder):
    """``disk(size)`` puts a small disk where a sandbox has its results, or changes its size."""
    with small_disk(folder / "data" / "runs") as mount:
        if mount is None:
            pytest.skip("disks cannot be mounted here")
        yield mount


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory):
    """Notebooks that read and write what the real ones do, without the work."""
    folder = tmp_path_factory.mktemp("notebooks")
    for stage, name in (*NOTEBOOKS.items(), ("paper", PAPER)):
        parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        work = nbformat.v4.new_code_cell(f"stage, weights = {stage!r}, {WEIGHTS.get(stage)!r}\n{WORK}")
        notebook = nbformat.v4.new_notebook(cells=[parameters, work])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


def last_line(sandbox):
    return read_text(sandbox.log).splitlines()[-1]


def test_the_published_table_is_that_of_the_record():
    faults = [json.loads(line) for line in read_text(ROOT / "figures" / "faults.jsonl").splitlines()]
    assert table(faults) == read_text(ROOT / "figures" / "faults.md")
    assert len({(fault["kind"], fault["number"]) for fault in faults}) == len(faults)
    assert not any(fault["wrong"] for fault in faults)


@pytest.mark.faults
def test_an_interrupted_run_goes_on_to_the_same_results(folder):
    undisturbed = Sandbox(folder / "a", *MERGED, "groups=1")
    assert undisturbed.finish() == 0, read_text(undisturbed.log)
    sandbox = Sandbox(folder / "b", *MERGED, "groups=1")
    for stop, during in ((signal.SIGINT, "01_train 000"), (signal.SIGKILL, "02_merge 000")):
        stopped = sandbox.interrupt(3.0, stop, during=during)
        assert stopped, read_text(sandbox.log)
        assert stopped.working == [during]
        assert stopped.code == (130 if stop == signal.SIGINT else -stop)
        assert not stopped.processes, f"{stopped}: processes left"
        if stop == signal.SIGINT:
            assert not list(sandbox.temporary.iterdir())
            assert last_line(sandbox) == "stopped; the same command continues"
        else:
            assert sandbox.leftovers(), "a killed process cannot clear up, or this test sees nothing"
    assert sandbox.finish() == 0, read_text(sandbox.log)
    assert len(stopped.finished) == 3, "what 01_train wrote"
    assert not stopped.repeated()
    assert sandbox.repeat(undisturbed.contents()) == []


@pytest.mark.faults
def test_notebooks_end_with_the_run_whose_first_process_alone_is_killed(folder, notebooks):
    sandbox = Sandbox(folder, *TRAINED, "groups=1", notebooks=notebooks)
    stopped = sandbox.interrupt(0.5, signal.SIGKILL, during="01_train 000", group=False)
    assert stopped, read_text(sandbox.log)
    assert not stopped.processes
    assert sandbox.finish() == 0, read_text(sandbox.log)
    assert not sandbox.leftovers()


@pytest.mark.faults
@pytest.mark.skipif(not injected.available(), reason="strace is not here, or may not trace")
def test_a_run_that_is_killed_after_a_rename_and_then_cannot_write_goes_on_when_it_can(folder, notebooks):
    part = injected.Traced(folder / "a", None, *TRAINED, "groups=1", notebooks=notebooks)
    assert part.stop("rename", 2) == "rename data/runs/tiny/weights/unmerged-000.safetensors"
    assert not part.sandbox.processes()
    assert part.sandbox.leftovers(), "a killed process cannot clear up, or this test sees nothing"
    assert part.fail("fsync", 1, "EIO") == 1
    assert last_line(part.sandbox).startswith("error: 01_train-000 failed: OSError: [Errno 5] Input/output error: ")
    assert part.sandbox.finish() == 0, read_text(part.sandbox.log)
    assert len(part.sandbox.finished()) == 3
    assert not part.sandbox.leftovers()


@pytest.mark.faults
def test_a_failing_shard_is_named_the_others_finish_and_only_it_is_tried_again(folder, notebooks):
    sandbox = Sandbox(folder, *TRAINED, notebooks=notebooks)
    run = sandbox.runs / "tiny"
    run.mkdir(parents=True)
    (planted := run / "no train").touch()
    assert sandbox.finish() == 1
    assert last_line(sandbox).startswith("error: 01_train-001 failed: ValueError: there is no train (see ")
    assert last_line(sandbox).endswith("notebooks/01_train-001.failed.ipynb)")
    finished = sandbox.finished()
    assert {path.stem for path in finished if path.parent.name == "notebooks"} == {"01_train-000"}
    planted.unlink()
    assert sandbox.finish() == 0, read_text(sandbox.log)
    assert finished.items() < sandbox.finished().items()
    assert not list(run.glob("notebooks/*.failed.ipynb"))
    assert not sandbox.leftovers()


@pytest.mark.faults
def test_of_runs_started_at_once_in_one_folder_one_of_a_name_is_refused(folder, notebooks):
    sandboxes = [Sandbox(folder, *TRAINED, "groups=1", f"run={run}", notebooks=notebooks) for run in "aab"]
    for sandbox, name in zip(sandboxes, ("log.txt", "log of the second.txt", "log of the third.txt"), strict=True):
        sandbox.log = folder / name
    ended = [process.wait() for process in [sandbox.start() for sandbox in sandboxes]]
    assert (sorted(ended[:2]), ended[2]) == ([0, 2], 0)
    assert "another process is writing to" in last_line(sandboxes[ended.index(2)])
    assert {path.parts[-3] for path in sandboxes[0].finished()} == {"a", "b"}
    assert not sandboxes[0].leftovers()


@pytest.mark.faults
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(folder, disk, notebooks):
    disk("500k")
    sandbox = Sandbox(folder, *TRAINED, "groups=1", notebooks=notebooks)
    assert sandbox.finish() == 1
    assert last_line(sandbox).startswith("error: 01_train-000 failed: OSError: [Errno 28] No space left on device: ")
    assert "unmerged-000.safetensors" in last_line(sandbox)
    assert not (sandbox.runs / "tiny" / "weights" / "unmerged-000.safetensors").exists()
    disk("10m")
    assert sandbox.finish() == 0, read_text(sandbox.log)
    assert len(sandbox.finished()) == 3
    assert not sandbox.leftovers()


@pytest.mark.faults
def test_a_run_in_a_read_only_folder_is_refused(folder, disk, notebooks):
    disk("1m,ro")
    sandbox = Sandbox(folder, *TRAINED, notebooks=notebooks)
    assert sandbox.finish() == 2
    assert last_line(sandbox).startswith(f"error: [Errno 30] Read-only file system: '{sandbox.runs / 'tiny'}")


@pytest.mark.faults
def test_on_a_full_disk_a_file_is_the_old_one_or_the_new_one(folder, disk):
    disk("1m")
    folder, outcomes = folder / "data" / "runs", []
    old = synthetic.results(groups=2, stages=["merge"])["merge"]
    new = old.assign(test_loss=old.test_loss + 1)
    records.write(old, folder / "shard.nc", stage="merge")
    for free in range(0, 3 * (folder / "shard.nc").stat().st_size, 3 * 4096):
        records.write(old, folder / "shard.nc", stage="merge")
        status = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - free))
        try:
            records.write(new, folder / "shard.nc", stage="merge")
            outcomes.append("new")
        except OSError as error:
            outcomes.append(str(error))
        (folder / "filler").unlink()
        written = records.read(folder / "shard.nc", stage="merge")
        assert written.test_loss.equals((new if outcomes[-1] == "new" else old).test_loss)
        assert {path.name for path in folder.iterdir()} == {"shard.nc"}
    assert set(outcomes) == {"new", f"[Errno 28] No space left on device: '{folder / 'shard.nc'}'"}
