"""The ladder: what it trains, whom it names with a reason, what it does not do twice, and what it draws."""

import importlib.util
import json
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import pytest

from drivetrain import catalog, ladder
from drivetrain.cli import main
from drivetrain.envs.words import spec_of
from drivetrain.errors import UserError
from drivetrain.rungs import picture, table

SMALL = """
about = "A pole."
env = "cartpole"
collect = "--by cartpole --noise 0.3 --episodes 2"
flags = "--network.state-layers 8 8"

[bc]
flags = "--steps 20"

[ppo]
flags = "--steps 64 --worlds 2 --rollout 16"
"""


def summary(mean, low, high):
    return {"n": 20, "mean": mean, "low": low, "high": high}


SAID = {
    "ladder": "small", "env": "cartpole", "about": "A pole.", "episodes": 20,
    "data": {"episodes": 2, "frames": 1000, "command": "collect"},
    "rungs": [
        {"algorithm": "ppo", "family": "online_rl", "summary": summary(400, 300, 500),
         "runs": [{"seed": 0, "summary": summary(400, 300, 500), "acted": 2000, "minutes": 1.5,
                   "command": "drivetrain train ppo"}], "lost": {"1": "NotANumber: loss"}},
        {"algorithm": "bc", "family": "il", "summary": summary(100, None, None),
         "runs": [{"seed": 0, "summary": summary(100, None, None), "acted": 0, "minutes": 0.5,
                   "command": "drivetrain train bc --dataset data"}], "lost": {}},
    ],
    "refused": {"sac": "BadConfig: sac needs actions that are numbers"},
    "floors": {"random": summary(20, 10, 30), "pendulum": summary(500, 500, 500)},
}  # fmt: skip


def test_a_table_says_what_each_cost_and_who_refused():
    lines = table(SAID).splitlines()
    assert lines[2] == "| `ppo` | by acting | 400.0 (300.0 to 500.0) | 400.0, seed 1 lost |  | 2,000 | 1.5 |"
    assert lines[3] == "| `bc` | imitation | 100.0 | 100.0 | 1,000 |  | 0.5 |"
    assert lines[4] == "| random |  | 20.0 (10.0 to 30.0) |  |  |  |  |"
    assert lines[5].startswith("| demonstrator (pendulum) |  | 500.0")
    assert lines[-1] == "- `sac`: sac needs actions that are numbers"


def test_a_picture_puts_higher_returns_further_right():
    drawn = xml.etree.ElementTree.fromstring(picture(SAID))
    large = [float(dot.get("cx")) for dot in drawn.iter("{http://www.w3.org/2000/svg}circle") if dot.get("r") == "5"]
    assert large[0] > large[1]
    assert picture(SAID) == picture(json.loads(json.dumps(SAID)))


@pytest.mark.parametrize("name", ladder.shipped())
def test_what_ships_names_flags_that_there_are(name):
    from drivetrain import config

    said = ladder.read_ladder(name)
    spec_of(said.env)
    for algorithm in catalog.ALGORITHMS:
        words = ladder.command(said, algorithm, ladder.LADDERS, 0)
        _, theirs = config.split_flags(words[2:], config.RunOptions())
        parsed = config.parse(catalog.find("algorithms", algorithm).Config(), theirs, "ladder")
        assert parsed.seed == 0
        if algorithm == "gail":  # which refuses worlds whose episodes end by themselves
            assert said.name == "pendulum" or "absorb=" in parsed.env


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("env = ", "is no TOML"),
        ('env = "cartpole"', "does not say collect"),
        (SMALL.replace("about", "abuot"), "says abuot; a ladder has about, env, collect, eval, flags and algorithms"),
        (SMALL.replace("[ppo]", "[pop]"), "there is no algorithm called 'pop'"),
        (SMALL + 'steps = "3"', "tells ppo steps; it takes flags alone"),
        ("eval = 3\n" + SMALL, "eval of .*mine.toml must be text in quotation marks, got 3"),
        (SMALL + "[dqn]\nflags = ['--lr']", r"flags of dqn in .*mine.toml must be text .*, got \['--lr'\]"),
        ("eval = '--fast \"'\n" + SMALL, "eval of .* is '--fast \"': no closing quotation; close it"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused(text, says, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        ladder.read_ladder(str(path))


@pytest.mark.slow
def test_a_ladder_from_end_to_end(tmp_path, capsys, refused):
    path, out = tmp_path / "mine.toml", tmp_path / "out"
    path.write_text(SMALL)
    asked = [
        "ladder",
        str(path),
        "--only",
        "bc,ppo,sac,dagger",
        "--seeds",
        "1",
        "--episodes",
        "2",
        "--output-dir",
        str(out),
    ]
    path.write_text(SMALL + '\n[dagger]\nflags = "--steps 20 --round-steps 10 --episodes 1"\n')
    assert main(asked) == 0
    first = capsys.readouterr().out
    assert "sac needs actions that are numbers" in first
    said = json.loads((out / "ladder.json").read_text())
    rungs = {rung["algorithm"]: rung["runs"][0] for rung in said["rungs"]}
    assert set(rungs) == {"bc", "ppo", "dagger"}
    assert rungs["bc"]["acted"] == 0 < rungs["dagger"]["acted"]
    assert rungs["ppo"]["acted"] == 64
    assert rungs["bc"]["command"].endswith("--network.state-layers 8 8 --steps 20 --seed 0")
    assert set(said["floors"]) == {"random", "cartpole"}
    assert said["floors"]["cartpole"]["mean"] == 500
    assert (out / "ladder.svg").read_text().startswith("<svg")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and not p.name.startswith("ladder.")}
    assert main(asked) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}, "what is finished is not made twice"
    asked_and_got = path.read_text()
    path.write_text(asked_and_got.replace("--steps 64", "--steps 96"))
    assert "was made by other settings; move" in refused(*asked)
    path.write_text(asked_and_got.replace("about =", 'eval = "--fast"\nabout ='))
    assert "was made by other settings; move" in refused(*asked), "nor would it be judged anew"
    assert main([*asked, "--output-dir", str(tmp_path / "other")]) == 2
    assert "--fast is about CarRacing's drawing" in capsys.readouterr().err


def test_a_flag_that_an_algorithm_does_not_know_stops_before_anything_is_made(tmp_path, refused):
    path = tmp_path / "mine.toml"
    path.write_text(SMALL + '\n[dagger]\nflags = "--stepz 20"\n')
    said = refused("ladder", str(path), "--only", "bc,dagger", "--output-dir", str(tmp_path / "out"))
    assert "--stepz" in said
    path.write_text('eval = "--fest"\n' + SMALL)
    assert "--fest" in refused("ladder", str(path), "--only", "bc", "--output-dir", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_who_refuses_is_asked_once(tmp_path, monkeypatch, capsys):
    path, asked = tmp_path / "mine.toml", []
    path.write_text(SMALL)
    once = ladder.rung
    monkeypatch.setattr(ladder, "rung", lambda *words: asked.append(words[2]) or once(*words))
    assert (
        main(
            [
                "ladder",
                str(path),
                "--only",
                "sac",
                "--seeds",
                "3",
                "--episodes",
                "1",
                "--output-dir",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert "sac needs actions that are numbers" in capsys.readouterr().out
    assert asked == ["sac"]


def test_a_ladder_that_was_refused_can_be_mended(tmp_path):
    ladder.once(tmp_path, "ppo-0", ["train", "ppo", "--stepz", "3"])
    ladder.once(tmp_path, "ppo-0", ["train", "ppo", "--steps", "3"])  # nothing was made by the first
    (tmp_path / "ppo-0").mkdir()
    ladder.once(tmp_path, "ppo-0", ["train", "ppo", "--steps", "3"])
    with pytest.raises(UserError, match="was made by other settings"):
        ladder.once(tmp_path, "ppo-0", ["train", "ppo", "--steps", "4"])


def test_a_ladder_may_be_named_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "bc-0").mkdir(parents=True)
    for folder in (Path("out"), tmp_path / "out"):
        ladder.once(folder, "bc-0", ["train", "bc", "--dataset", str(folder / "data")])
    with pytest.raises(UserError, match="was made by other settings"):
        ladder.once(Path("out"), "bc-0", ["train", "bc", "--dataset", "other/data"])


def test_an_experts_name_is_the_expert_whatever_lies_beside(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cartpole").mkdir()
    assert main(["eval", "cartpole", "--env", "cartpole", "--episodes", "1"]) == 0
    assert main(["eval", "cartpole"]) == 2
    assert "a run of that name is ./cartpole" in capsys.readouterr().err


def test_the_bench_gathers_whole_algorithms_of_the_flags_that_ship(tmp_path, monkeypatch):
    bench = Path(__file__).resolve().parents[1] / "bench"
    monkeypatch.syspath_prepend(str(bench))
    how = importlib.util.spec_from_file_location("bench_ladder", bench / "ladder.py")
    bench_ladder = importlib.util.module_from_spec(how)
    how.loader.exec_module(bench_ladder)
    monkeypatch.setattr(bench_ladder, "RESULTS", tmp_path)
    monkeypatch.setattr(bench_ladder, "PARTS_OF_IT", tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    shipped = ladder.read_ladder("cartpole")

    def keep(algorithm, seed, **more):
        words = ["drivetrain", *ladder.command(shipped, algorithm, Path("runs/ladder/cartpole/data"), seed)]
        said = {"returns": [seed, 9.0], "summary": summary(seed, None, None), "minutes": 1.0, "acted": 0, "steps": 1}
        part = {"data": {"frames": 5, "episodes": 1, "command": ""}, "algorithm": algorithm, "seed": seed,
                "said": {**said, "command": " ".join(words), **more}, "refused": "", "lost": ""}  # fmt: skip
        (tmp_path / "parts" / f"cartpole-{algorithm}-{seed}.json").write_text(json.dumps(part))

    for seed in range(3):
        keep("bc", seed)
    keep("iql", 0)
    bench_ladder.gather("cartpole")
    said = json.loads((tmp_path / "cartpole.json").read_text())
    assert [rung["algorithm"] for rung in said["rungs"]] == ["bc"]
    assert {"iql", "ppo"} < set(said["pending"])
    assert "Not climbed yet: " in table(said)
    keep("iql", 1, command="drivetrain train iql --steps 3")
    with pytest.raises(SystemExit, match=r"cartpole-iql-1\.json is of other flags"):
        bench_ladder.gather("cartpole")


@pytest.mark.parametrize(
    ("status", "trouble"),
    [(2, "warning\nNotANumber: the loss is nan at step 3; lower --lr"), (-9, ""), (1, "Error: x")],
)
def test_one_training_that_is_lost_does_not_stop_the_others(status, trouble, tmp_path, monkeypatch):
    """Nor does it stand for its algorithm: the other trainings do."""
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    once = ladder.call

    def call(words):
        if words[:2] == ["train", "ppo"] and words[words.index("--seed") + 1] == "0":
            place = Path(words[words.index("--output-dir") + 1])
            place.mkdir(parents=True, exist_ok=True)
            (place / "metrics.jsonl").write_text("")
            return subprocess.CompletedProcess(words, status, "", trouble)
        return once(words)

    monkeypatch.setattr(ladder, "call", call)
    settings = ladder.Config(only="ppo", seeds=2, episodes=1, output_dir=str(tmp_path / "out"))
    (rung,) = ladder.climb(str(path), settings)["rungs"]
    assert [run["seed"] for run in rung["runs"]] == [1]
    assert rung["lost"] == {"0": trouble.rpartition("\n")[2] or "ended with status -9"}
    assert "seed 0 lost" in (tmp_path / "out" / "ladder.md").read_text()


@pytest.mark.parametrize(
    ("trouble", "refuses"),
    [
        ("BadConfig: sac needs actions that are numbers", True),
        ("UnknownName: there is no expert called 'x'", True),
        ("DiskTrouble: no space left", False),
        ("MissingExtra: it needs the package 'mujoco'", False),
    ],
)
def test_only_a_world_that_does_not_suit_takes_an_algorithm_off_the_ladder(trouble, refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ladder, "call", lambda words: subprocess.CompletedProcess(words, 2, "", f"warning\n{trouble}\n")
    )
    asked = (ladder.read_ladder("pendulum"), tmp_path, "sac", 0, ["train", "sac"], ladder.Config())
    if refuses:
        assert ladder.rung(*asked) == ladder.Rung("sac", 0, {}, refused=trouble)
    else:
        with pytest.raises(UserError, match=trouble):
            ladder.rung(*asked)


def test_a_few_trainings_have_a_wide_interval_however_many_episodes_each_has():
    rungs = [
        ladder.Rung("ppo", seed, {"returns": [value] * 20, "summary": summary(value, None, None)})
        for seed, value in enumerate((500.0, 500.0, 100.0))
    ]
    said = ladder.told(ladder.read_ladder("cartpole"), ladder.Config(), {}, rungs, {})
    assert (said["rungs"][0]["summary"]["low"], said["rungs"][0]["summary"]["high"]) == (100.0, 500.0)


@pytest.mark.parametrize("words", [("--by", "cartpole"), ("--by=cartpole",)])
def test_the_demonstrator_is_measured_too(words):
    said = ladder.Ladder("mine", "cartpole", "", words, (), (), {})
    assert list(ladder.floor(said)) == ["random", "cartpole"]


def test_steps_in_the_world_are_those_that_were_taken_there(tmp_path):
    for acting in (0, 30):
        (tmp_path / "config.json").write_text(json.dumps({"config": {"acting": acting}}))
        assert ladder.acted("iql", tmp_path, 100 + acting) == acting
    assert ladder.acted("ppo", tmp_path, 64) == 64
    assert ladder.acted("bc", tmp_path, 64) == 0
