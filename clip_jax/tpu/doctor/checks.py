"""The checks of doctor in their order, and which needs which.

Those that need a config are imported when they run: they need packages of training, whose absence is to be told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

import clip_jax
from clip_jax.model_size import parameters
from clip_jax.tpu.doctor import cloud
from clip_jax.tpu.doctor.devices import PATIENCE, check_devices
from clip_jax.tpu.doctor.examination import Examination, Finding
from clip_jax.tpu.doctor.hosts import check_hosts, check_processes, digest
from clip_jax.tpu.doctor.machine import check_machine, checkpoint_bytes, this_machine
from clip_jax.tpu.doctor.versions import check_versions
from clip_jax.tpu.doctor.workdir import check_workdir
from clip_jax.training.distributed import CONNECT_SECONDS

STEP_PATIENCE = 600  # seconds, most of which a large model compiles


@dataclass(frozen=True)
class Request:
    """What doctor is asked to look at; without a config, at what needs none."""

    config: str | None = None
    overrides: Sequence[tuple[str, str]] = ()
    workdir: str | None = None
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    step: bool = True
    has_tpu: bool = False


def examinations(request: Request) -> list[Examination]:
    """The checks that the request allows. Those on which processes work together come after 'hosts', and need it."""
    extras = [*(["train"] if request.config else []), *(["tpu"] if request.has_tpu else [])]
    checks = [
        Examination("versions", partial(check_versions, extras)),
        Examination(
            "processes",
            partial(check_processes, request.coordinator, request.processes, request.process),
            seconds=2 * CONNECT_SECONDS + 30,
        ),
    ]
    if request.config is not None:
        checks.append(Examination("config", partial(_read_config, request.config, request.overrides), seconds=300))
    checks += [
        Examination(
            "devices",
            partial(_devices, request.has_tpu),
            ("processes",),
            seconds=2 * PATIENCE + 60,
            if_late="start doctor on all hosts at once, and end what else may use the devices",
        ),
        Examination(
            "hosts",
            partial(_hosts, request),
            ("devices",),
            _config(request),
            seconds=120,
            if_late="look at what doctor prints on the other hosts, and whether a firewall lies between them",
            joins=True,
        ),
        Examination("machine", partial(_machine, request), wants=_config(request)),
    ]
    if request.workdir is not None:
        look = partial(_workdir, request.workdir)
        checks.append(Examination("workdir", look, ("hosts",), _config(request), if_late="is the bucket within reach?"))
    checks.append(Examination("region", partial(_region, request), wants=_config(request)))
    if request.config is not None:
        step, data = partial(_step, request.step), partial(_data, request.workdir or "")
        checks += [
            Examination("mesh", _layout, ("config", "devices", "hosts")),
            Examination(
                "step",
                step,
                ("config", "mesh", "machine"),
                seconds=STEP_PATIENCE,
                if_late="try a smaller batch or model, or --no-step",
            ),
            Examination("data", data, ("config",), seconds=600, if_late="note where samples lie: clip-jax data index"),
            Examination("data speed", _speed, ("config", "mesh", "data"), ("step",), seconds=180),
        ]
    return checks


def _config(request: Request) -> tuple[str, ...]:
    return ("config",) if request.config is not None else ()


def _devices(has_tpu: bool, _: None) -> Finding:
    alone = not jax.distributed.is_initialized()
    expected = cloud.expected_devices(cloud.accelerator_type()) if has_tpu else None
    return check_devices(has_tpu, expected, alone)


def _hosts(request: Request, _: object, run: Any = None) -> Finding:
    identity = {
        "jax": jax.__version__,
        "clip_jax": clip_jax.__version__,
        "config": digest(None if run is None else run.config),
        "workdir": str(request.workdir),
    }
    return check_hosts(identity)


def _machine(request: Request, run: Any = None) -> Finding:
    machine = this_machine(request.workdir, request.has_tpu)
    size = 0 if run is None else checkpoint_bytes(run.config, parameters(run.model).total)
    finding = check_machine(machine, size, 0 if run is None else run.config.checkpoint.keep)
    return replace(finding, found=machine)


def _workdir(workdir: str, gather: Any, run: Any = None) -> Finding:
    return check_workdir(workdir, None if run is None else run.config, gather)


def _region(request: Request, run: Any = None) -> Finding:
    places = [] if request.workdir is None else [request.workdir]
    if run is not None:
        places += [one.source for one in run.config.data.sources]
        places += run.config.evaluate.data
    return cloud.check_region(cloud.buckets(places), cloud.metadata("instance/zone"))


def _read_config(file: str, overrides: Sequence[tuple[str, str]]) -> Finding:
    from clip_jax.tpu.doctor.config import check_config

    return check_config(file, overrides)


def _layout(run: Any, devices: Any, _: object) -> Finding:
    from clip_jax.tpu.doctor.config import check_layout

    return check_layout(run, devices)


def _step(wanted: bool, run: Any, mesh: Any, machine: Any) -> Finding:
    from clip_jax.tpu.doctor.step import check_step

    return check_step(run, mesh, machine) if wanted else Finding("skipped", "by --no-step")


def _data(workdir: str, run: Any) -> Finding:
    from clip_jax.tpu.doctor.data import check_data

    return check_data(run, workdir)


def _speed(run: Any, mesh: Any, data: Any, step_speed: float | None) -> Finding:
    from clip_jax.tpu.doctor.data import check_speed

    return check_speed(run, mesh, data, step_speed)
