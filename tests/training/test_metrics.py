"""metrics.jsonl survives kills: torn lines go, steps that run again replace their old lines."""

import json

from clip_jax.training.metrics import FILE, MetricsLog, read_metrics


def test_lines_after_the_resumed_step_are_replaced(tmp_path):
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    for step in range(1, 6):
        log.write(step, {"loss": float(step)})
    log.close()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    log = MetricsLog(tmp_path, 3, tensorboard=False)
    log.write(4, {"loss": 40.0, "batch_digest": "abc"})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [line["loss"] for line in lines] == [1.0, 2.0, 3.0, 40.0]
    assert lines[-1] == {"step": 4, "loss": 40.0, "batch_digest": "abc"}


def test_no_file_is_no_lines(tmp_path):
    assert read_metrics(tmp_path) == []


def test_tensorboard_files_are_written(tmp_path):
    log = MetricsLog(tmp_path, 0, tensorboard=True)
    log.write(1, {"loss": 1.0, "batch_digest": "abc"})
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
