"""metrics.jsonl survives kills: torn lines go, steps that run again replace their old lines."""

import json
import resource

import pytest
import tensorflow as tf

from clip_jax.errors import IOFailure
from clip_jax.training.event_file import EventFile
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
    log = MetricsLog(tmp_path, 3, tensorboard=True)
    log.write(4, {"loss": 1.5, "batch_digest": "abc", "eval/held_out/top1": 0.25})
    log.keep()
    (events,) = (tmp_path / "tensorboard").iterdir()
    first, begin, loss, top1 = (
        tf.compat.v1.Event.FromString(r) for r in tf.data.TFRecordDataset(events).as_numpy_iterator()
    )
    log.close()
    assert first.file_version == "brain.Event:2"
    assert (begin.step, begin.session_log.status) == (4, begin.session_log.START)  # what else there is of 4 is dropped
    assert [
        (event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in (loss, top1)
    ] == [
        (4, "loss", 1.5),
        (4, "eval/held_out/top1", 0.25),
    ]


@pytest.fixture
def bound():
    """Bounds the size of files from then on, which is how a full disk answers: with an errno, once a buffer is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(log: MetricsLog) -> None:
    for step in range(1, 1000):
        log.write(step, {f"figure_{number}": 1.0 for number in range(20)})


def test_a_full_disk_ends_the_log_with_one_line(tmp_path, bound):
    """Whichever file meets it; what was there is there."""
    log = MetricsLog(tmp_path, 0, tensorboard=True)
    log.write(1, {"loss": 1.0})
    bound(3000)
    with pytest.raises(IOFailure, match=r"^cannot write the metrics: File too large$") as raised:
        fill(log)
    assert raised.value.exit_code == 74
    log.close()
    assert read_metrics(tmp_path)[0] == {"step": 1, "loss": 1.0}


def test_a_full_disk_is_heard_of_by_who_writes_for_tensorboard(tmp_path, bound):
    """Until all of it is written, or not; SummaryWriter would hang."""
    events = EventFile(tmp_path, 0)
    bound(3000)
    with pytest.raises(OSError, match="File too large"):
        events.write(1, {f"figure_{number}": 1.0 for number in range(1000)})
    with pytest.raises(OSError, match="File too large"):
        events.close()


def test_a_log_that_cannot_be_begun(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(IOFailure, match=r"^cannot write the metrics: File exists$"):
        MetricsLog(tmp_path, 0, tensorboard=True)
    assert (tmp_path / FILE).read_text() == ""
