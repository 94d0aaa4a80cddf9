"""A real Slurm cluster on this host, as root, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
NODES = ("one", "two")
LARGEST_ARRAY = 3
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d/%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
MaxArraySize={largest_array}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=small Nodes=one MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"


def missing() -> str:
    """Return why no cluster can be started here, or an empty string."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing; apt-get install slurmctld slurmd munge)"
    return "" if os.geteuid() == 0 else "only root can start the test's Slurm daemons"


class Cluster:
    """Two nodes of two cores each, and the daemons behind them; ``env`` makes Slurm's commands use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configuration = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.env = os.environ | {"SLURM_CONF": str(self._configuration)}
        host = socket.gethostname().partition(".")[0]
        for name in ("ctld", "d"):
            (folder / name).mkdir()
        text = CONFIGURATION.format(host=host, folder=folder, ctld_port=_free_port(), largest_array=LARGEST_ARRAY)
        text += "".join(NODE.format(name=name, host=host, port=_free_port(), cpus=2) for name in NODES)
        self._configuration.write_text(text)
        folder.chmod(0o755)

    def start(self) -> None:
        """Start all daemons and wait until the nodes are there."""
        key = self._folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = ("socket", "pid-file", "log-file", "seed-file")
        files = [f"--{name}={self._folder}/munge.{name.partition('-')[0]}" for name in names]
        self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *files)
        self._wait_for(lambda: (self._folder / "munge.socket").exists(), "munged")
        self.start_controller()
        for node in NODES:
            self.start_node(node)

    def start_controller(self) -> None:
        """Start the controller, with what it knew before it was stopped."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self._configuration))

    def start_node(self, node: str) -> None:
        """Start a node's daemon and wait until it can be used."""
        self._start(node, "slurmd", "-D", "-f", str(self._configuration), "-N", node)
        self._wait_for(lambda: self.ask("sinfo", "-h", "-n", node, "-o", "%T") in ("idle", "mixed"), f"node {node}")

    def stop_controller(self) -> None:
        """Stop the controller; what runs on the nodes goes on."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(20)

    def kill_node(self, node: str) -> None:
        """Kill a node with everything that runs on it."""
        _kill(self._processes(f"SLURMD_NODENAME={node}"))
        self._daemons.pop(node).wait()

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints, with its errors."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip()

    def queue(self, state: str = "all", format: str = "%i") -> list[str]:
        """Return the array elements in one state of those that wait or run."""
        options = [] if state == "all" else [f"--states={state}"]
        return self.ask("squeue", "--array", "--noheader", f"--format={format}", *options).splitlines()

    def stop(self) -> None:
        """Stop all daemons and whatever still runs on the nodes: a step waits for ever for a lost controller."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait(20)
        _kill(self._processes())

    def _processes(self, variable: str = "") -> list[int]:
        """Return the processes of this cluster's daemons and jobs that run with a variable of the environment."""
        wanted = {f"SLURM_CONF={self._configuration}".encode(), variable.encode()}
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = environment.read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if wanted <= {*variables, b""}:
                found.append(int(environment.parent.name))
        return found

    def _start(self, name: str, *command: str) -> None:
        env = self.env | {"SLURMD_NODENAME": name}  # a node's daemon hands it on to its steps
        with (self._folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)

    def _wait_for(self, condition: Callable[[], bool], what: str, limit_s: float = 30) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                logs = [*self._folder.glob("*.[lo][ou][gt]"), *self._folder.glob("d/*.log")]
                said = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)
                raise RuntimeError(f"{what} did not come up within {limit_s} s\n{said}")
            time.sleep(0.2)


def _kill(pids: list[int]) -> None:
    for pid in sorted(pids):  # daemons first
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a fresh cluster whose files are in ``folder``."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
