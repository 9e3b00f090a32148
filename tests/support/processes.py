"""Processes that a test starts: a port for them to meet at, and waiting for them to end."""

import socket
import subprocess

SECONDS = 500  # a hang; the longest takes a tenth where the machine is free


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def ended(*processes: subprocess.Popen) -> list[tuple[str, str]]:
    """What each wrote to its outputs, once all have ended; none outlives the call."""
    try:
        return [process.communicate(timeout=SECONDS) for process in processes]
    except subprocess.TimeoutExpired as error:
        for process in processes:
            process.kill()
        raise AssertionError([process.communicate() for process in processes]) from error
    finally:
        for process in processes:
            process.kill()


def finish(*processes: subprocess.Popen) -> list[tuple[str, str]]:
    """The same of processes which all must have succeeded."""
    outputs = ended(*processes)
    for process, told in zip(processes, outputs, strict=True):
        assert process.returncode == 0, told
    return outputs
