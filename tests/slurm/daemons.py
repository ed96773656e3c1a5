"""A Slurm of one node on loopback, for as long as a block lasts: its daemons, its files, its environment."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

CPUS = 16  # as many as a rule of config/slurm asks for; Slurm takes our word for it
MARK = "HREBASIN_TEST_SLURM"  # variable that every process of the block inherits
# Snakemake's options for this cluster: two jobs of one core at once, no accounting, eager polling
ONE_NODE = ["--jobs", "2", "--max-threads", "1", "--latency-wait", "5"]
ONE_NODE += ["--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo", "squeue", "scancel")

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


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run munged, slurmctld and slurmd with all their files in ``folder``; the environment in which to use them.

    At the end, however it comes (Ctrl-C, kill, a closed terminal), every process that was started is gone.
    """
    programs = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in PROGRAMS}
    if missing := [name for name, path in programs.items() if path is None]:
        raise FileNotFoundError(f"{missing} are not installed; on Debian: apt-get install slurm-wlm munge")
    environment = _write_files(folder, programs["srun"])

    def answer(*command: str) -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    munge = ["--foreground", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"]
    munge += [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
    daemons = {"munged": munge, "slurmctld": ["-D"], "slurmd": ["-D", "-N", "localhost"]}
    handlers = {event: signal.getsignal(event) for event in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for event, handler in handlers.items():
        if handler is signal.SIG_DFL:  # not what nohup ignores
            signal.signal(event, signal.default_int_handler)
    started = []
    try:
        for name, options in daemons.items():
            with (folder / f"{name}.out").open("w") as output:
                how = {"env": environment, "stdout": output, "stderr": output}
                # A session of its own: Ctrl-C is for us, and we stop the daemons in order.
                started.append(psutil.Popen([programs[name], *options], start_new_session=True, **how))
            _wait(started, folder, (folder / "munge.socket").exists)
        _wait(started, folder, lambda: answer(programs["sinfo"], "--noheader", "--format=%T") == "idle\n")
        yield environment
    finally:
        for event in handlers:  # a second Ctrl-C must not keep the rest from being stopped
            signal.signal(event, signal.SIG_IGN)
        # The daemons last: without them, the processes that watch over jobs do not end, nor can we find those.
        _end([process for process in _processes(folder) if process not in started])
        for _ in range(100):
            if not answer(programs["squeue"], "--me", "--noheader"):  # nor where Slurm did not start
                break
            answer(programs["scancel"], "--me")
            time.sleep(0.2)
        _end(_processes(folder))
        for event, handler in handlers.items():
            signal.signal(event, handler)


def _write_files(folder: Path, srun: str) -> dict[str, str]:
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
    # The executor takes SLURM_* away from what runs inside a job, SLURM_CONF too; this file is not where srun looks.
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    path = f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"SLURM_CONF": f"{folder}/slurm.conf", "TMPDIR": f"{folder}/temporary", "PATH": path, MARK: str(folder)}
    return {**os.environ, **ours}


def _wait(daemons: list[psutil.Popen], folder: Path, ready) -> None:
    for _ in range(150):
        if ready():
            return
        if any(daemon.poll() is not None for daemon in daemons):
            break
        time.sleep(0.2)
    logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.out")))
    raise RuntimeError(f"Slurm does not start\n{logs}")


def _end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and make those that have not done so within some seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=10)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def _processes(folder: Path) -> list[psutil.Process]:
    """All processes of the block: daemons, steps of jobs and what they run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            if process.environ().get(MARK) == str(folder):
                found.append(process)
    return found
