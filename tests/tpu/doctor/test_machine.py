"""Machines that are fit, and some that lack something."""

from dataclasses import replace

from clip_jax.tpu.doctor.machine import Machine, check_machine, this_machine
from clip_jax.training.chips import GIB


def test_machines():
    well = Machine(208, 300 * GIB, 900 * GIB, 65_536, -1, True)
    assert check_machine(well, 2 * GIB, 3).status == "ok"
    trouble = check_machine(replace(well, free_memory=GIB, open_files=1024, memlock=64 * 1024))
    assert trouble.status == "warning"
    assert "1,024 files" in trouble.seen
    assert "ulimit -l unlimited" in trouble.advice
    assert check_machine(replace(well, free_disk=7 * GIB), 2 * GIB, 3).status == "warning"
    assert check_machine(replace(well, free_disk=GIB), 2 * GIB, 3).status == "failed"
    assert check_machine(replace(well, has_tpu=False, memlock=0)).status == "ok"
    here = this_machine("/not/there/at/all", False)
    assert here.free_disk
    assert here.processors >= 1
    assert this_machine("gs://bucket/run", False).free_disk is None
