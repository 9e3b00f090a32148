"""Several processes that train as one: how they meet, who writes, and what happens when one of them dies.

Every process runs the same program over the same global mesh and has its own share of the devices and of each batch.
They share one workdir, so it must lie on a file system that all of them see.
"""

import atexit
import glob
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.sharding import Mesh

from clip_jax.errors import IOFailure, LostProcess, UserError
from clip_jax.processes import wait_for_all
from clip_jax.sharding import batch_sharding, batch_shards
from clip_jax.training.google_cloud import metadata

CONNECT_SECONDS = 120
MULTISLICE = "MEGASCALE_COORDINATOR_ADDRESS"
# What devices say of this process's program rather than of the others.
OWN_FAULTS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND")
HEARTBEAT_SECONDS = 25  # a process that has not been heard of for so long is dead, and the others end
SHUTDOWN_SECONDS = 300  # at the end all wait for each other; one that dies then is found out by its heartbeat


def initialise(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    connect_seconds: int = CONNECT_SECONDS,
) -> None:
    """Makes this process one of several, number `process` of `processes`.

    They meet at `coordinator`, HOST:PORT on the host of number 0. With all three None, the hosts of a Cloud TPU pod
    find each other, and anywhere else nothing happens. To be called before JAX touches a device. Raises UserError for
    numbers and addresses at fault, and where the others do not come.
    """
    check_given(coordinator, processes, process)
    if coordinator is None:
        if _on_tpu_pod():
            _connect(connect_seconds, None, None, None)
        return
    host, port = _split(coordinator)
    if process == 0:
        _check_free(coordinator, port)
    else:
        _wait_for(coordinator, host, port, connect_seconds)
    _connect(connect_seconds, coordinator, processes, process)


def check_given(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Raises UserError where not all three are given, or all None, and for numbers at fault."""
    if coordinator is None and processes is None and process is None:
        return
    if coordinator is None or processes is None or process is None:
        raise UserError("give all three of --coordinator, --processes and --process, or none of them")
    if processes < 1 or not 0 <= process < processes:
        raise UserError(f"--process {process} of --processes {processes} cannot be; processes count from 0")


def meet() -> None:
    """Connects the processes before they go different ways: later, they would have to come within 30 s of each other.

    Raises UserError where JAX sees several processes of which nobody told them how to meet.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"this is one of {jax.process_count()} processes; give each --coordinator HOST:PORT "
            f"--processes {jax.process_count()} --process I"
        )
    wait_for_all("all have met")


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Which part of each global batch this process reads, as (part, number of parts).

    Processes that share the rows of a batch, as where the tensor axis crosses them, read the same part. Raises
    UserError where the rows of two processes overlap in part.
    """
    shards: dict[int, set[int]] = {}
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((batch_shards(mesh),)).items():
        shards.setdefault(device.process_index, set()).update(range(batch_shards(mesh))[rows])
    parts = sorted({tuple(sorted(rows)) for rows in shards.values()})
    if len({len(part) for part in parts}) > 1 or sum(map(len, parts)) > batch_shards(mesh):
        raise UserError(
            f"config.mesh.tensor {mesh.shape['tensor']} splits the devices of a process unevenly; "
            "choose a divisor or a multiple of the devices of each process"
        )
    return parts.index(tuple(sorted(shards[jax.process_index()]))), len(parts)


@contextmanager
def together() -> Iterator[None]:
    """What the processes do together: all of them end it before any goes on, and where one has died, so do the others.

    Raises LostProcess where the devices say that another process is gone.
    """
    try:
        with _others_lost():
            yield
            if jax.distributed.is_initialized():
                # Waits for the others. Left to JAX's exit, this comes after the devices, which another may still need.
                jax.distributed.shutdown()
    except BaseException as error:
        if jax.distributed.is_initialized():
            # At exit, once what is wrong has been said, JAX would wait for the others, which wait for this process.
            code = (
                error.exit_code if isinstance(error, UserError) else 130 if isinstance(error, KeyboardInterrupt) else 1
            )
            atexit.register(_leave, code)
        raise


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def _others_lost() -> Iterator[None]:
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # of gloo's failures, some are ValueErrors
        foreign = isinstance(error, ValueError) and "Gloo" not in str(error)
        if jax.process_count() == 1 or foreign or any(fault in str(error) for fault in OWN_FAULTS):
            raise
        reason = str(error).strip().splitlines()[0]
        raise LostProcess(
            f"process {jax.process_index()} ends: another process has died, or cannot be reached ({reason}); "
            "start all of them again to go on from the last checkpoint"
        ) from error


def _on_tpu_pod() -> bool:
    """Whether this TPU has more than one host: by GKE's variables, or by what a TPU VM's metadata server says."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts or MULTISLICE in os.environ:
        return True
    if not has_tpu():
        return False
    told = "instance/attributes"
    return "," in metadata(f"{told}/worker-network-endpoints") or MULTISLICE in metadata(f"{told}/tpu-env")


def has_tpu() -> bool:
    """Whether this host has TPU chips that JAX may use."""
    chips = glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and os.environ.get("JAX_PLATFORMS", "tpu") != "cpu"


def _split(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator '{coordinator}' is not HOST:PORT, as in 10.0.0.1:8476")
    return host.strip("[]"), int(port)


def _check_free(coordinator: str, port: int) -> None:
    """JAX would join another run's coordinator that listens on the same port, and both runs would fail."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at --coordinator {coordinator}: {error.strerror}; choose another port"
        ) from error


def _wait_for(coordinator: str, host: str, port: int, seconds: int) -> None:
    """Waits for process 0 to listen. JAX would abort the whole process where it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise IOFailure(
                    f"nobody listens at --coordinator {coordinator} ({error.strerror or error}); "
                    "it must be an address of the host of process 0, which must run"
                ) from error
        time.sleep(0.2)


def _connect(seconds: int, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """jax.distributed.initialize in a thread, which can be given up: JAX itself aborts where the others do not come."""
    failures: list[Exception] = []
    # It would catch SIGTERM and wait to be asked about it, so that a run could not be ended.
    jax.config.update("jax_enable_preemption_service", False)

    def connect() -> None:
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                cluster_detection_method="deactivate" if coordinator else None,
                initialization_timeout=seconds + 60,  # never comes first
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            )
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    where = f"at --coordinator {coordinator}" if coordinator else "on this TPU pod"
    if thread.is_alive():
        raise IOFailure(f"not all processes met {where} within {seconds} seconds; start them at the same time")
    if failures:
        raise IOFailure(f"the processes cannot meet {where}: {failures[0]}") from failures[0]
