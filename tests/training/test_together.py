"""Several processes train as one would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from drivetrain import cli, describe

HERE = Path(__file__).resolve().parent
SMALL = ["--shape.width=32", "--shape.heads=2", "--shape.vision-layers=1", "--shape.language-layers=1"]
FLAGS = ["--steps=6", "--batch-size=8", "--questions=20", "--check-every=2", "--log-every=1", "--checkpoint-every=3"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def by_two(*command):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*launch, *map(str, command)], env=environment, capture_output=True, text=True, timeout=480)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    describe.describe("instructions", describe.Config("cartpole", 60, held_out=0.3, output_dir=str(folder / "q")))
    begin = ["--steps", "2", "--batch-size", "4", "--questions", "8", "--worlds", "cartpole", "--quiet"]
    assert cli.main(["train", "pretrain", *SMALL, *begin, "--output-dir", str(folder / "pre")]) == 0
    return folder


def instruct(made, name, *flags):
    paths = ["--backbone", made / "pre/model", "--instruction-dataset", made / "q", "--output-dir", made / name]
    return [*map(str, ["train", "instruct", *paths, *FLAGS, "--quiet", *flags])]


def told(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_resume(made):
    assert cli.main(instruct(made, "one")) == 0
    code, said = by_two("-m", "drivetrain", *instruct(made, "two", "--accumulate", "2"))
    assert code == 0, said
    assert said.count("done:") == 1
    for a, b in zip(told(made / "one"), told(made / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    one, two = (load_file(made / name / "model/model.safetensors") for name in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-6
    last = made / "two/checkpoints/000000006"
    whole = (last / "learner.safetensors").read_bytes()
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    code, said = by_two("-m", "drivetrain", *instruct(made, "two", "--accumulate", "2", "--resume"))
    assert code == 0, said
    assert (last / "learner.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_model_that_is_spread_learns_is_saved_and_loaded_as_a_whole_one():
    code, said = by_two(HERE / "sharded.py")
    assert code == 0, said
    assert "process 0: as one" in said
    assert "process 1: as one" in said


def test_accelerate_reads_the_config_for_sharding():
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(HERE.parents[1] / "scripts/fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    assert config.fsdp_config["fsdp_version"] == 2


def test_what_trains_in_one_process_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("ppo", "pretrain"):
        assert cli.main(["train", name, "--output-dir", str(tmp_path / name)]) == 2
        assert "one process" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
