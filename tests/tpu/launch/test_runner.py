"""What gcloud's failures mean, by its own words: as recorded, and as the gcloud of this machine has them."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.recorded_gcloud import IS, NO_LOGIN, NO_NETWORK, NO_ROOM, NO_SLICE

from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands, runner
from clip_jax.tpu.launch.request import Slice
from clip_jax.tpu.launch.runner import Result, Shell, cause_of

DESCRIBE = "ERROR: (gcloud.compute.tpus.tpu-vm.describe)"
SAYS = [
    (NO_SLICE.err, "not found"),
    (NO_ROOM.err, "capacity"),
    (NO_LOGIN.err, "login"),
    (NO_NETWORK.err, None),
    (f"{DESCRIBE} You do not currently have an active account selected.\nPlease run:\n", "login"),
    (f"{DESCRIBE} Your current active account [a@b.c] does not have any valid credentials\nPlease run:\n", "login"),
    (
        f"{DESCRIBE} There was a problem refreshing auth tokens for account a@b.c: ('invalid_grant: Bad Request', "
        "{'error': 'invalid_grant', 'error_description': 'Bad Request'})\nPlease run:\n",
        "login",
    ),
    (f"{DESCRIBE} UNAUTHENTICATED: Request had invalid authentication credentials. {IS} property.\n", "login"),
    ("ERROR: (gcloud.compute.tpus.tpu-vm.ssh) The required property [project] is not currently set.\n", "project"),
    (f"{DESCRIBE} Error parsing [tpu].\nFailed to find attribute [project]. The attribute can be set\n", "project"),
    (f"{DESCRIBE} PERMISSION_DENIED: Permission denied on resource project nope. {IS} property.\n", "project"),
    (
        f"{DESCRIBE} PERMISSION_DENIED: Cloud TPU API has not been used in project 1 before or it is disabled. Enable "
        f"it by visiting https://console.developers.google.com/ then retry. {IS} property.\n",
        "api",
    ),
    (
        f"{DESCRIBE} PERMISSION_DENIED: Permission 'tpu.nodes.get' denied on resource "
        f"'//tpu.googleapis.com/projects/p/locations/l/nodes/n' (or it may not exist). {IS} property.\n",
        "permission",
    ),
    (
        "ERROR: (gcloud.compute.tpus.tpu-vm.create) PERMISSION_DENIED: Permission denied on 'locations/us-central2-b' "
        f"(or it may not exist). {IS} property.\n- '@type': type.googleapis.com/google.rpc.ErrorInfo\n",
        "permission",
    ),
    (
        "ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit "
        "'TPUV6EPreemptiblePerProjectPerRegionForTPUAPI' has been exceeded. Limit: 0 in region us-east5.\n",
        "quota",
    ),
]


@pytest.mark.parametrize(("says", "cause"), SAYS)
def test_causes(says, cause):
    assert cause_of(says) == cause
    line = str(Result(1, "", says).explained("that failed"))
    assert "\n" not in line
    assert "authenticated as" not in line


def test_a_failure_is_told_with_what_to_do_and_gclouds_own_words():
    assert str(NO_ROOM.explained("cannot create my-run")).startswith(
        "cannot create my-run: the zone has no capacity for it now; --queued waits for some, or try --spot or another "
        'zone (ERROR: (gcloud.compute.tpus.tpu-vm.create) { "code": 8, "message": "There is no more capacity'
    )
    assert str(Result(7).explained("it failed")) == "it failed: exit code 7"
    assert str(Result(1, "some output\n").explained("it failed")) == "it failed: some output"


ANSWERS = {
    "not found": (404, "NOT_FOUND", "Resource 'projects/my-project/locations/us-west4-a/nodes/my-run' was not found"),
    "permission": (
        403,
        "PERMISSION_DENIED",
        "Permission 'tpu.nodes.get' denied on resource 'x' (or it may not exist).",
    ),
    "login": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
}


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
@pytest.mark.parametrize("cause", ANSWERS)
def test_causes_in_the_words_of_this_machines_gcloud(cause, tmp_path, monkeypatch):
    """The API's answers, as its documentation has them, given by a server of the test."""
    code, status, message = ANSWERS[cause]

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"error": {"code": code, "status": status, "message": message}}).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("CLOUDSDK_AUTH_ACCESS_TOKEN", "made-up")
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "true")
        result = Shell().run(commands.describe(Slice("my-run", "us-west4-a", "my-project")))
        server.shutdown()
    assert result.code == 1
    assert status in result.err
    assert result.cause == cause


def test_no_gcloud(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="the program gcloud is not on this machine"):
        Shell().run(["gcloud", "version"])


def test_a_program_that_does_not_end_is_a_failure(monkeypatch):
    monkeypatch.setattr(runner, "LONGEST", 0.1)
    result = Shell().run(["sleep", "30"])
    assert result.code == 124
    assert "sleep did not end within" in result.err
