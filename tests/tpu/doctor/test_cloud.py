"""What a Google Cloud VM knows of itself, from a metadata server of the test's own."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from clip_jax.errors import UserError
from clip_jax.tpu.doctor import cloud
from clip_jax.tpu.doctor.cloud import check_region, expected_devices
from clip_jax.training import google_cloud
from clip_jax.training.google_cloud import metadata


def test_expected_devices():
    names = ("v5litepod-16", "v4-32", "v5p-8", "v6e-4", "tpu7x-8", "v2-8", "nonsense", "")
    assert [expected_devices(name) for name in names] == [16, 16, 4, 4, 8, None, None, None]


def test_metadata(monkeypatch):
    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/computeMetadata/v1/instance/zone" and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(b"projects/123/zones/us-west4-a" if known else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("localhost", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
        assert metadata("instance/zone") == "projects/123/zones/us-west4-a"
        assert metadata("instance/attributes/accelerator-type") == ""
        server.shutdown()
    assert metadata("instance/zone") == ""
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v6e-8")
    assert cloud.accelerator_type() == "v6e-8"


def test_a_metadata_server_that_hangs(monkeypatch):
    monkeypatch.setattr(google_cloud, "PATIENCE", 0.2)
    with socket.create_server(("", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert metadata("instance/zone") == ""
    assert time.monotonic() - started < 5


def test_regions():
    zone = "projects/123/zones/us-west4-a"
    locations = {"near": "US-WEST4", "far": "EUROPE-WEST4", "wide": "US", "secret": ""}
    assert cloud.buckets(["gs://near/run", "tar:gs://far/{0..9}.tar", "runs/x", "tar:gs://near/y"]) == [
        "near",
        "far",
    ]
    assert check_region(["near"], zone, locations.__getitem__).status == "ok"
    for name in ("far", "wide"):
        finding = check_region(["near", name], zone, locations.__getitem__)
        assert finding.status == "warning"
        assert "us-west4" in finding.advice
    assert "an unknown place" in check_region(["secret"], zone, locations.__getitem__).seen

    def absent(name: str) -> str:
        raise UserError("there is no such bucket")

    assert check_region(["x"], zone, absent).status == "warning"
    assert check_region(["x"], "", absent).status == "skipped"
    assert check_region([], zone, absent).status == "skipped"
