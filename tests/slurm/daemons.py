"""A Slurm of one node on loopback, for as long as a block lasts: its daemons, its files, its environment."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from hrebasin.study.running.scratch import processes_with

CPUS = 16  # as many as a rule of config/slurm asks for; Slurm takes our word for it
MARK = "HREBASIN_TEST_SLURM"  # variable that every process of the block inherits: daemons, jobs and what they run
# Snakemake's options for this cluster: two jobs of one core at once, no accounting, eager polling
ONE_NODE = ["--jobs", "2", "--max-threads", "1", "--latency-wait", "5"]
ONE_NODE += ["--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
MinJobAge=86400
KillWait=2
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 Gres=gpu:1
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""

# The executor takes SLURM_* away from what runs inside a job, SLURM_CONF included; this file is not where srun looks.
SRUN = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run munged, slurmctld and slurmd with all their files in ``folder``; the environment in which to use them.

    At the end, however it comes (Ctrl-C, kill, a closed terminal), every process that was started is gone.

    Raises:
        FileNotFoundError: Slurm or MUNGE is not installed.
        RuntimeError: a daemon does not start; the message shows its log.
    """
    programs = {
        name: _program(name) for name in ("munged", "slurmctld", "slurmd", "srun", "sinfo", "squeue", "scancel")
    }
    environment = _write_files(folder, programs)
    daemons = {
        "munged": ["--foreground", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"]
        + [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")],
        "slurmctld": ["-D"],
        "slurmd": ["-D", "-N", "localhost"],
    }
    handlers = {event: signal.getsignal(event) for event in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for event, handler in handlers.items():
        if handler is signal.SIG_DFL:  # not what nohup ignores
            signal.signal(event, signal.default_int_handler)
    started = []
    try:
        for name, options in daemons.items():
            started.append(_start(programs[name], options, environment, folder))
            _wait(started, folder, (folder / "munge.socket").exists)
        states = [programs["sinfo"], "--noheader", "--format=%T"]
        _wait(started, folder, lambda: _answer(states, environment) == "idle\n")
        yield environment
    finally:
        for event in handlers:  # a second Ctrl-C must not keep the rest from being stopped
            signal.signal(event, signal.SIG_IGN)
        # The daemons last: without them, the processes that watch over jobs do not end, nor can we find those.
        _end([process for process in processes_with(MARK, folder) if process not in started])
        _empty_queue(programs, environment)
        _end(processes_with(MARK, folder))
        for event, handler in handlers.items():
            signal.signal(event, handler)


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(f"{name} is not installed; on Debian: apt-get install slurm-wlm munge")
    return path


def _write_files(folder: Path, programs: dict[str, str]) -> dict[str, str]:
    folder.chmod(0o711)  # munged wants its socket reachable by all
    for name in ("state", "spool", "bin", "temporary"):  # the last for what a killed job leaves
        (folder / name).mkdir()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    conf = CONF.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=ports, cpus=CPUS)
    (folder / "slurm.conf").write_text(conf)
    # A device that exists everywhere stands for the GPU: jobs get it counted, not used.
    (folder / "gres.conf").write_text("NodeName=localhost Name=gpu File=/dev/null\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    srun = folder / "bin" / "srun"
    srun.write_text(SRUN.format(folder=folder, srun=programs["srun"]))
    srun.chmod(0o755)
    path = f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"SLURM_CONF": f"{folder}/slurm.conf", "TMPDIR": f"{folder}/temporary", "PATH": path, MARK: str(folder)}
    return {**os.environ, **ours}


def _start(program: str, options: list[str], environment: dict[str, str], folder: Path) -> psutil.Popen:
    with (folder / f"{Path(program).name}.out").open("w") as output:
        # A session of its own: Ctrl-C is for us, and we stop the daemons in order.
        return psutil.Popen([program, *options], env=environment, stdout=output, stderr=output, start_new_session=True)


def _wait(daemons: list[psutil.Popen], folder: Path, ready: Callable[[], bool]) -> None:
    for _ in range(150):
        if ready():
            return
        if any(daemon.poll() is not None for daemon in daemons):
            break
        time.sleep(0.2)
    logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.out")))
    raise RuntimeError(f"Slurm does not start\n{logs}")


def _answer(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _empty_queue(programs: dict[str, str], environment: dict[str, str]) -> None:
    for _ in range(100):
        if not _answer([programs["squeue"], "--me", "--noheader"], environment):  # nor where Slurm did not start
            return
        _answer([programs["scancel"], "--me"], environment)
        time.sleep(0.2)


def _end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and make those that have not done so within some seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
