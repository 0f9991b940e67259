"""The demo: what is done is left alone, what was made by other settings is not passed off as what was asked for."""

import json
from dataclasses import replace

import pytest

from drivetrain import config, demo
from drivetrain.data.recording import Writer
from drivetrain.errors import BadConfig
from drivetrain.sample import ACTION, REWARD, STATE, TERMINATED, TRUNCATED, Feature, Spec
from drivetrain.training.il import dagger

SPEC = Spec({STATE: Feature((1,)), ACTION: Feature((), "int64", choices=2)}, "go", 10.0)


@pytest.fixture
def done(tmp_path):
    """A folder as a demo with the settings given leaves it, as far as these tests look."""
    settings = demo.Config(output_dir=str(tmp_path), demonstrations=2)
    writer = Writer(tmp_path / "data", SPEC)
    for _ in range(2):
        writer.add({STATE: [0.0], ACTION: 0, REWARD: 0.0, TERMINATED: True, TRUNCATED: False})
        writer.end_episode()
    writer.finish()
    drive = tmp_path / "drive"
    drive.mkdir()
    wanted = demo.imitating(settings, tmp_path)
    (drive / "config.json").write_text(json.dumps({"algorithm": "dagger", "config": config.to_json(wanted)}))
    (drive / "report.md").write_text("done")
    return settings


def test_what_is_done_is_left_alone(done, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.collect, "collect", lambda wanted: pytest.fail("it collects again"))
    demo.gather(done, tmp_path)
    demo.train("dagger", dagger, demo.imitating(done, tmp_path), tmp_path / "drive")
    assert capsys.readouterr().out.count("done already") == 2


@pytest.mark.parametrize(
    ("change", "says"), [({"steps": 7}, "steps=1000, asked for 7"), ({"seed": 3}, "seed=0, asked for 3")]
)
def test_another_training_is_not_passed_off(change, says, done, tmp_path):
    wanted = demo.imitating(replace(done, **change), tmp_path)
    with pytest.raises(BadConfig, match=says):
        demo.train("dagger", dagger, wanted, tmp_path / "drive")


def test_another_number_of_laps_is_not_passed_off(done, tmp_path):
    with pytest.raises(BadConfig, match="2 laps of the expert, asked for 5"):
        demo.gather(replace(done, demonstrations=5), tmp_path)


def test_a_run_that_has_no_report_yet_goes_on(done, tmp_path, monkeypatch):
    """Its last row of metrics may be there before its last checkpoint is."""
    (tmp_path / "drive" / "report.md").unlink()
    (tmp_path / "drive" / "metrics.jsonl").write_text(json.dumps({"step": 1000}) + "\n")
    went = []
    monkeypatch.setattr(demo, "Run", lambda folder, **how: went.append(how["resume"]) or Nothing())
    monkeypatch.setattr(demo.report, "write_report", lambda folder: went.append("report"))
    demo.train("dagger", Nothing(), demo.imitating(done, tmp_path), tmp_path / "drive")
    assert went == [True, "report"]


class Nothing:
    CHECKPOINT_EVERY = 1

    def begin(self, *given):
        pass

    def train(self, *given):
        pass
