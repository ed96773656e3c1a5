import os
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from hrebasin.files import only_writer, temporary_name
from hrebasin.study.running.scratch import scratch

HOLD = """
import sys, time
from pathlib import Path
from hrebasin.files import only_writer, replacing
from hrebasin.study.running.scratch import scratch
folder = Path(sys.argv[1])
with only_writer(folder), scratch(folder) as temporary, replacing(folder / "deep" / "result.nc") as half:
    half.write_text("half of the resul")
    (temporary / "socket").touch()
    print(temporary, flush=True)
    time.sleep(60)
"""


def files_in(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_one_writer_and_a_killed_one_leaves_neither_lock_nor_files(tmp_path):
    held = threading.Event()

    def wait():
        with only_writer(tmp_path, wait=True):
            held.set()

    waiting = threading.Thread(target=wait)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        held_there = holder.stdout.readline().strip()
        with pytest.raises(ValueError, match=f"another process is writing to {tmp_path}"), only_writer(tmp_path):
            pass
        assert len(files_in(tmp_path)) == 2, "the other's lock and half-written file"
        waiting.start()
        assert not held.wait(0.5)
        holder.kill()
    assert held.wait(30)
    waiting.join()
    with only_writer(tmp_path), scratch(tmp_path) as temporary:
        assert files_in(tmp_path) == {".lock"}
        assert str(temporary) == held_there
        assert not list(temporary.iterdir())
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(temporary)
    assert not temporary.exists()
    assert tempfile.gettempdir() == str(temporary.parent)


def test_only_temporary_files_are_cleared_away(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = temporary_name(tmp_path / "result.nc").name
    theirs = mine.replace(str(os.getpid()), str(gone.pid), 1)
    kept = {mine, ".hidden", ".lock", f"._IMG-{gone.pid}-20240501.jpg", theirs.removeprefix(".")}
    for name in (*kept, theirs, theirs.removesuffix(".nc")):
        (tmp_path / name).touch()
    for name in (".backup-20240501", f".hrebasin-{gone.pid}-89abcdef"):
        (tmp_path / name / "train").mkdir(parents=True)
    kept.add(".backup-20240501")
    with only_writer(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == kept


def test_scratch_follows_no_link_that_another_user_may_have_laid(tmp_path):
    with scratch(tmp_path / "run") as temporary:
        pass
    (tmp_path / "precious").mkdir()
    temporary.symlink_to(tmp_path / "precious")
    with scratch(tmp_path / "run") as again:
        assert not again.is_symlink()
        assert os.stat(again).st_mode & 0o777 == 0o700
    assert (tmp_path / "precious").is_dir()


LATE = """
import os, time
if os.fork():
    os._exit(0)  # so that the writer has lost its parent
time.sleep(0.5)
os.makedirs(os.environ["TMPDIR"], exist_ok=True)
open(os.environ["TMPDIR"] + "/late", "w").close()
time.sleep(0.5)
"""


def test_scratch_outlasts_those_who_use_it(tmp_path):
    with scratch(tmp_path) as temporary:
        subprocess.run([sys.executable, "-c", LATE], check=True)
    assert not temporary.exists()
    time.sleep(1.5)
    assert not temporary.exists(), "made anew by a process that had not ended"
