"""What a training needs of the workers and of this machine, asked before there is a slice that costs."""

import shutil
import stat
from pathlib import Path

import pytest
from support.recorded_gcloud import Recorded

from clip_jax.errors import UserError
from clip_jax.tpu.launch import preflight
from clip_jax.tpu.launch.job import Job, check_reach, wandb_key
from clip_jax.tpu.launch.runner import Result
from clip_jax.tpu.topology import parse_topology
from clip_jax.training.config import DataConfig, DrawConfig, SourceConfig, TrainConfig
from clip_jax.training.evaluate_config import EvaluateConfig, ZeroShotTask

BUCKET = "gs://bucket/run"


def config(*sources: str, task: str | None = None, draw: bool = False) -> TrainConfig:
    data = DataConfig(tuple(map(SourceConfig, sources)), draw=DrawConfig("{workdir}/scenes") if draw else None)
    tasks = {} if task is None else {"held_out": ZeroShotTask(task)}
    return TrainConfig(data, evaluate=EvaluateConfig(zero_shot=tasks))


@pytest.mark.parametrize(
    ("sources", "workdir"),
    [
        (["tar:gs://bucket/shards/*.tar"], BUCKET),
        (["gs://bucket/shards/{000..100}.tar", "synthetic:1000"], BUCKET),
        (["tar:/mnt/data/*.tar", "/mnt/data/more"], BUCKET),
        (["tfds:coco_captions?data_dir=gs://bucket/tfds"], BUCKET),
        (["tar:{workdir}/shards"], "/mnt/runs/a"),
    ],
)
def test_data_that_the_workers_have(sources, workdir):
    check_reach("configs/openai_vit_b32.py", config(*sources), workdir)


@pytest.mark.parametrize(
    ("given", "workdir", "message"),
    [
        (config("tar:shards/*.tar"), BUCKET, "the data tar:shards/*.tar is not on the workers; give gs://BUCKET"),
        (config("tar:~/shards"), BUCKET, "the data tar:~/shards is not on the workers"),
        (config("tfds:coco_captions"), BUCKET, "the data tfds:coco_captions is not on the workers"),
        (config("tar:gs://b/*.tar", task="folder:held_out"), BUCKET, "the data folder:held_out is not on the workers"),
        (config("tar:{workdir}/train", draw=True), BUCKET, "scenes cannot be drawn for a workdir in a bucket"),
        (config("tar:gs://b/*.tar"), "runs/a", "--workdir runs/a would lie on a worker's own disk"),
    ],
)
def test_what_would_end_at_once_on_a_slice(given, workdir, message):
    with pytest.raises(UserError) as mistake:
        check_reach("configs/openai_vit_b32.py", given, workdir)
    assert str(mistake.value).startswith(message)


def test_a_config_elsewhere_than_in_the_repository():
    with pytest.raises(UserError, match="give the path within the repository"):
        check_reach("/home/me/config.py", config("tar:gs://b/*.tar"), BUCKET)


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path


def test_the_key_of_weights_and_biases(home, monkeypatch):
    with pytest.raises(UserError, match=r"config.log.wandb needs your key on the workers.*wandb login"):
        wandb_key()
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123abcd\n")
    (home / ".netrc").chmod(0o600)
    assert wandb_key() == "0123abcd"
    monkeypatch.setenv("WANDB_API_KEY", "other")
    assert wandb_key() == "other"


def test_what_goes_to_the_workers(home, monkeypatch):
    """The key is in a file that nobody else reads, and on no command line."""
    monkeypatch.setenv("WANDB_API_KEY", "0123abcd")
    plain, logged = (Job(("train",), home / "cache/a", wandb) for wandb in (False, True))
    assert (plain.extras, logged.extras) == (("train", "tpu", "gcs"), ("train", "tpu", "gcs", "wandb"))
    assert [Path(file).name for file in plain.files] == ["clip-jax.tar.gz", "clip-jax.date"]
    assert logged.files == [*plain.files, str(home / "cache/a/clip-jax.wandb-key")]
    preflight.make_folder(plain)
    assert list(plain.folder.iterdir()) == []
    preflight.make_folder(logged)
    key = logged.folder / "clip-jax.wandb-key"
    assert key.read_text() == "0123abcd"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_cache_that_cannot_be_made(home):
    (home / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cannot make the folder .*cache/a: Not a directory"):
        preflight.make_folder(Job(("train",), home / "cache/a"))


KEY = Result(0, "3072 SHA256:abcdef me@here (RSA)\n")
OTHER = Result(0, "256 SHA256:zyxwvu me@here (ED25519)\n")
NO_KEY = Result(255, "", "ssh-keygen: /home/me/.ssh/google_compute_engine: No such file or directory")
AGENTS = {
    "has the key": (KEY, KEY, None),
    "is not there": (Result(2, "", "Could not open a connection to your authentication agent."), KEY, None),
    "is empty": (Result(1, "The agent has no identities.\n"), KEY, None),
    "has another": (OTHER, KEY, r"without which gcloud does not connect to several workers; ssh-add ~/.ssh/google"),
    "has another, and gcloud none": (OTHER, NO_KEY, r"ssh-keygen -t rsa -f ~/.ssh/google_compute_engine && ssh-add"),
}


@pytest.mark.parametrize("agent", AGENTS)
def test_an_ssh_agent_that(agent):
    """By VerifyKeyInAgent in gcloud 528.0.0, which passes where either program fails."""
    listed, key, message = AGENTS[agent]
    answers = {"ssh-add": [listed], "ssh-keygen": [key]}
    preflight.check_agent(parse_topology("v5e:2x4"), Recorded(**answers))  # of one worker
    if message is None:
        preflight.check_agent(parse_topology("v5e:4x4"), Recorded(**answers))
        return
    with pytest.raises(UserError, match=message):
        preflight.check_agent(parse_topology("v5e:4x4"), Recorded(**answers))


def test_the_tree_and_the_config_that_are_packed(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"git does not track my.py here"):
        preflight.check_tracked("my.py", Recorded(tracked=[Result(1, "", "error: pathspec 'my.py' did not match")]))
    shutil.copytree(Path(__file__).parents[3] / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run it in the repository's folder"):
        preflight.check_tree()
