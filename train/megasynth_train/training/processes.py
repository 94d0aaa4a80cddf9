"""The processes of a run and their devices, by ``accelerate``: one per GPU, or one on the CPU.

Processes that ``torchrun`` or ``accelerate launch`` started together fail together: ``on_main`` and ``check_stop``
raise on all of them, ``met_by_all`` says whether the others met an error too, and ``run_program`` ends all with one
message and one exit code. They tell each other about failures through the launcher's store, which works at any moment.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from megasynth_attr.core.errors import (
    ConfigError,
    EnvironmentProblem,
    ExitCode,
    Interrupted,
    MegaSynthError,
    expected,
    run_main,
)
from megasynth_attr.core.stop import RESUME, StopRequest

Result = TypeVar("Result")
_PLAIN = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
_LONGEST_WAIT = timedelta(days=1)  # of the others for what process 0 does alone, as an evaluation; usual: 10 minutes
_TOGETHER_S = 20.0  # a process that failed waits this long for the others: a launcher ends them when one has ended
_FAILED, _LEFT = "megasynth: exit code", "megasynth: processes that failed"
_LOST = ("gloo", "NCCL", "onnection", "process group")  # in what PyTorch says when another process is gone


def make_accelerator(device: str) -> Accelerator:
    """Return the accelerator of this process, for ``device`` auto, cpu or cuda.

    It provides devices, process groups, DDP and gathering; vggt/precision.py sets the precision, whatever the user's
    accelerate configuration says. EnvironmentProblem if a GPU is asked for and this process has none.
    """
    gpus, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" and gpus == 0:
        raise EnvironmentProblem(
            "run.device=cuda, but PyTorch sees no CUDA GPU; check nvidia-smi and that this PyTorch is built for CUDA "
            f"(it is {torch.__version__}), or use run.device=cpu"
        )
    use_cpu = device == "cpu" or gpus == 0
    if not use_cpu and local_rank >= gpus:
        raise EnvironmentProblem(
            f"process {local_rank} of this machine has no GPU: there are {gpus}; start at most {gpus}"
        )
    accelerator = Accelerator(
        cpu=use_cpu,
        mixed_precision="no",
        # the gradients are views of DDP's buckets: no copy; there are no buffers that training changes
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
        ],
    )
    if accelerator.distributed_type not in _PLAIN:
        raise ConfigError(
            f"accelerate is configured for {accelerator.distributed_type.value}; training supports one process or DDP: "
            "use torchrun, or accelerate launch --multi_gpu"
        )
    # what accelerate launch sets for several processes, and starts one: without mpirun it does so on the CPU
    if accelerator.num_processes == 1 and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            "accelerate launch was asked for several processes but started one, as it does on the CPU; use torchrun, "
            "or accelerate launch --multi_gpu with run.device=cpu"
        )
    return accelerator


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Return, on all processes, what ``action`` returns on process 0; its errors are raised on all of them.

    Otherwise a full disk on process 0 would leave the others waiting for it.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except Exception as error:
            broadcast_object_list([None, _portable(error)])
            raise
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: Result = outcome[0]
    return result


def _portable(error: Exception) -> Exception:
    """Return ``error``, or what can be sent to other processes in its place."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception may hold anything, and may refuse its own arguments
        return RuntimeError(f"process 0: {type(error).__name__}: {error}")
    return error


def asked_to_stop(stop: StopRequest) -> str:
    """Return why this process should stop, or an empty string."""
    try:
        stop.check()
    except Interrupted as reason:
        return str(reason)
    return ""


def check_stop(stop: StopRequest) -> None:
    """Raise Interrupted on all processes if one of them should stop."""
    for reason in gather_object([asked_to_stop(stop)]):
        if reason:
            raise Interrupted(reason)


def met_by_all(what: str) -> bool:
    """Return whether all processes failed in doing ``what``, and so can go on together; waits for the others.

    If false, this process must end: the others are in the middle of a step that needs it.
    """
    if (world := _world()) == 1:
        return True
    store = _store()
    store.add(what, 1)
    if _reaches(store, what, world):
        return True
    store.add(what, -1)
    return False


def survived(error: Exception, what: str) -> str:
    """Return what an ``error`` in doing ``what`` says: it must not stop other trainings, and is listed at the end.

    Raises it if it would stop them all, too, or if only some processes have met it.
    """
    if isinstance(error, EnvironmentProblem | Interrupted) or not met_by_all(what):
        raise error
    if not isinstance(error, MegaSynthError):
        traceback.print_exc()
    return f"{type(error).__name__}: {error}"


def run_program(main: Callable[[list[str]], None], argv: list[str]) -> int:
    """Return the exit code of ``main(argv)`` as ``run_main`` does, the same for all processes of a run.

    Only process 0 writes to stdout. The first process that fails says why. Others are silent if they fail with the same
    code or because the first is gone.
    """
    if _world() == 1:
        return run_main(main, argv)
    if os.environ["RANK"] != "0":
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    store = None  # kept until the end: where no launcher holds it, process 0 does

    def together(words: list[str]) -> None:
        nonlocal store
        try:
            main(words)
            if distributed.is_initialized():
                distributed.destroy_process_group()
        except (Exception, KeyboardInterrupt) as raised:
            with suppress(distributed.DistError):  # nobody can be told
                store = _store()
            _agree(raised, store)
            raise

    try:
        return run_main(together, argv)
    finally:
        if store is not None:
            with suppress(distributed.DistError):  # the store is gone: so are the others
                store.add(_LEFT, 1)
                _reaches(store, _LEFT, _world())


def _agree(raised: BaseException, store: distributed.Store | None) -> None:
    """Tell the others how this process fails; raises SystemExit where another has failed and said why.

    EnvironmentProblem if another process has ended without a word.
    """
    error = Interrupted(str(raised)) if isinstance(raised, KeyboardInterrupt) else expected(raised)
    is_lost = error is None and isinstance(raised, RuntimeError) and any(word in str(raised) for word in _LOST)
    own = int(error.exit_code if error else ExitCode.ENVIRONMENT if is_lost else ExitCode.CRASH)
    said = me = f"{own} of process {os.environ['RANK']}"
    if store is not None:
        with suppress(distributed.DistError):
            said = store.compare_set(_FAILED, "", me).decode()  # of the first that failed
    if distributed.is_initialized():
        distributed.destroy_process_group()
    if said == me:
        if is_lost:
            raise EnvironmentProblem(
                "another process of this run has ended without a word, most often because memory ran out; mend "
                f"this, then {RESUME}"
            ) from raised
        return
    code = int(said.split()[0])
    if error is None and not is_lost:
        traceback.print_exc()
    elif error is not None and own not in (code, ExitCode.INTERRUPTED):  # a launcher stops those that have not failed
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def _world() -> int:
    """Return the number of processes that were started together, by torchrun's variables."""
    started = all(name in os.environ for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))
    return int(os.environ["WORLD_SIZE"]) if started else 1


def _store() -> distributed.Store:
    """Return the store of the processes that were started together; DistError if it cannot be reached."""
    store: distributed.Store = next(rendezvous("env://", timeout=timedelta(seconds=_TOGETHER_S)))[0]
    return store


def _reaches(store: distributed.Store, key: str, count: int) -> bool:
    """Return whether the number at ``key`` reaches ``count`` in time."""
    until = time.monotonic() + _TOGETHER_S
    while store.add(key, 0) < count:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
