"""A real Slurm cluster of one node on this host, as root, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why no cluster can be started here, or an empty string."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing; apt-get install slurmctld slurmd munge)"
    return "" if os.geteuid() == 0 else "only root can start the test's Slurm daemons"


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which sbatch and squeue use a fresh cluster whose files are in ``folder``."""
    host = socket.gethostname().partition(".")[0]
    for name in ("ctld", "d"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    ports = {"ctld_port": _free_port(), "d_port": _free_port()}
    text = CONFIGURATION.format(host=host, folder=folder, cpus=len(os.sched_getaffinity(0)), **ports)
    configuration.write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    env = os.environ | {"SLURM_CONF": str(configuration)}
    munge = [
        f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-D", "-i", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration), "-N", host],
    ]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(_start(command, env, folder))
            if command[0] == "munged":
                _wait_for(lambda: (folder / "munge.socket").exists(), "munged", folder)
        _wait_for(lambda: "idle" in _sinfo(env), "the node", folder)
        yield env
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(20)
        for pid in _left_over(configuration):
            os.kill(pid, signal.SIGKILL)


def _left_over(configuration: Path) -> list[int]:
    """Return the processes of this cluster that still run: a step daemon waits for ever for a lost controller."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environment.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if f"SLURM_CONF={configuration}".encode() in variables:
            found.append(int(environment.parent.name))
    return found


def _start(command: list[str], env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)


def _sinfo(env: dict[str, str]) -> str:
    return subprocess.run(["sinfo", "-h", "-o", "%T"], env=env, capture_output=True, text=True, check=False).stdout


def _wait_for(condition, what: str, folder: Path, limit_s: float = 30) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(
                f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in folder.glob("*.[lo][ou][gt]")
            )
            raise RuntimeError(f"{what} did not come up within {limit_s} s\n{logs}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
