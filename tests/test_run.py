"""The run folder: what is counted, logged and kept, and what a resumed run takes back."""

import json

import pytest
import torch

from drivetrain import checkpoint
from drivetrain.errors import BadCheckpoint, BadConfig, NotANumber
from drivetrain.run import Run, read_config, read_metrics


class Counter:
    """Something to be trained: it counts, and can be killed."""

    def __init__(self):
        self.seen = []

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


def run_in(folder, resume=False, config=None, **how):
    run = Run(folder, resume=resume, quiet=True, **{"checkpoint_every": 10, "log_every": 4, **how})
    run.begin("count", {"seed": 3, "lr": 0.1, **(config or {})})
    return run


def go(run, total=30, by=1, die_at=None):
    counter, fresh = Counter(), []
    for step in run.steps(total, by=by, counter=counter):
        if run.fresh:
            fresh.append(step)
        if step == die_at:
            raise KeyboardInterrupt
        counter.seen.append(step)
        run.log(step, {"loss": float(step), "half": torch.tensor(step / 2)})
    return counter, fresh


def rows(folder):
    return [{k: v for k, v in row.items() if k != "wall_s"} for row in read_metrics(folder)]


def test_it_counts_saves_and_says_when_worlds_are_rebuilt(tmp_path):
    counter, fresh = go(run_in(tmp_path))
    assert counter.seen == list(range(30))
    assert fresh == [0, 10, 20]
    assert checkpoint.steps_in(tmp_path) == [20, 30]


def test_strides_meet_at_the_first_step_past_each_multiple(tmp_path):
    counter, fresh = go(run_in(tmp_path), total=30, by=7)
    assert counter.seen == [0, 7, 14, 21, 28]
    assert fresh == [0, 14, 21]
    assert checkpoint.steps_in(tmp_path) == [21, 30]


def test_of_totals_the_last_of_an_interval_is_written(tmp_path):
    run = run_in(tmp_path)
    for step in run.steps(8, counter=Counter()):
        run.log_totals(step, {"judge/frames": 10.0 * (step + 1)})
    assert [row["judge/frames"] for row in rows(tmp_path)] == [40, 80]


def test_a_row_is_the_mean_over_its_interval_and_intervals_end_at_checkpoints(tmp_path):
    go(run_in(tmp_path), total=12)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [4, 8, 10, 12]
    assert [row["loss"] for row in found] == [1.5, 5.5, 8.5, 10.5]
    assert [row["half"] for row in found] == [0.75, 2.75, 4.25, 5.25]


def test_what_is_logged_now_and_then_stands_in_some_rows(tmp_path):
    run = run_in(tmp_path)
    for step in run.steps(8):
        if step == 5:
            run.log(step, {"held_out": 1.0})
        run.log(step, {"loss": 0.0})
    assert [sorted(row) for row in rows(tmp_path)] == [["loss", "step"], ["held_out", "loss", "step"]]


@pytest.mark.parametrize("die_at", [0, 3, 10, 13, 20, 29])
@pytest.mark.parametrize("by", [1, 7])
def test_resumed_it_is_as_if_nothing_had_been(die_at, by, tmp_path):
    whole, _ = go(run_in(tmp_path / "whole"), by=by)
    with pytest.raises(KeyboardInterrupt):
        go(run_in(tmp_path / "cut"), by=by, die_at=die_at - die_at % by)
    again, fresh = go(run_in(tmp_path / "cut", resume=True), by=by)
    assert again.seen == whole.seen
    assert fresh[0] % 10 < by
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_rows_after_the_meeting_point_are_taken_back(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(run_in(tmp_path), die_at=19)
    assert rows(tmp_path)[-1]["step"] == 16
    run = run_in(tmp_path, resume=True)
    next(run.steps(30, counter=Counter()))
    assert rows(tmp_path)[-1]["step"] == 10


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(run_in(tmp_path), die_at=19)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert rows(tmp_path)[-1]["step"] == 12
    go(run_in(tmp_path, resume=True))
    go(run_in(tmp_path / "whole"))
    assert rows(tmp_path) == rows(tmp_path / "whole")


def test_time_counts_on_over_a_resume(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(run_in(tmp_path), die_at=19)
    go(run_in(tmp_path, resume=True))
    walls = [row["wall_s"] for row in read_metrics(tmp_path)]
    assert walls == sorted(walls)


def test_a_finished_run_resumes_to_nothing(tmp_path):
    go(run_in(tmp_path))
    before = rows(tmp_path)
    counter, fresh = go(run_in(tmp_path, resume=True))
    assert (counter.seen, fresh) == (list(range(30)), [])
    assert rows(tmp_path) == before


def test_a_run_is_never_written_over(tmp_path):
    go(run_in(tmp_path))
    with pytest.raises(BadConfig, match="holds a run already; add --resume"):
        run_in(tmp_path)


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="no run to resume"):
        run_in(tmp_path / "nowhere", resume=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": {"lr": 0.2}}, "lr=0.1, got 0.2"),
        ({"checkpoint_every": 11}, "checkpoint_every=10, got 11"),
        ({"log_every": 5}, "log_every=4, got 5"),
    ],
)
def test_a_resumed_run_keeps_its_settings(change, says, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(run_in(tmp_path), die_at=19)
    with pytest.raises(BadConfig, match=says):
        run_in(tmp_path, resume=True, **change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(value, tmp_path):
    run = run_in(tmp_path)

    def learn():
        for step in run.steps(30, counter=Counter()):
            run.log(step, {"loss": value if step == 17 else 0.0})

    with pytest.raises(NotANumber, match=r"loss became (nan|inf) by step 20") as refused:
        learn()
    assert "\n" not in str(refused.value)
    assert checkpoint.steps_in(tmp_path) == [10]


def test_the_folder_tells_what_was_run(tmp_path):
    run_in(tmp_path, config={"layers": (1, 2)})
    said = read_config(tmp_path)
    assert (said["algorithm"], said["config"]) == ("count", {"seed": 3, "lr": 0.1, "layers": [1, 2]})
    told = json.loads((tmp_path / "environment.json").read_text())
    assert told["seed"] == 3
    assert told["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"commit", "python", "platform", "processors", "command"} <= told.keys()
    run_in(tmp_path, resume=True, config={"layers": (1, 2)})  # a tuple is a list in JSON, and no other setting


def test_a_folder_that_is_no_run_is_said_so(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="is not JSON"):
        read_config(tmp_path)


def test_metrics_are_written_as_they_come(tmp_path):
    run = run_in(tmp_path)
    for step in run.steps(30, counter=Counter()):
        run.log(step, {"loss": 1.0})
        if step == 5:
            assert [row["step"] for row in read_metrics(tmp_path)] == [4]
            break
