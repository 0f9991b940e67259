"""`drivetrain collect --as captions` and `--as instructions`: whole sets, true facts, and splits that share no picture."""

import json
from dataclasses import replace

import numpy as np
import pytest

from drivetrain import describe
from drivetrain.cli import main
from drivetrain.data.captions import open_captions
from drivetrain.data.instructions import open_instructions
from drivetrain.data.lerobot import Writer, open_lerobot
from drivetrain.data.questions import KINDS, caption, kinds_of
from drivetrain.describe import Config
from drivetrain.envs import cartpole
from drivetrain.envs.carracing import LABELS
from drivetrain.envs.words import make_env
from drivetrain.experts.choosing import find_expert, words_of
from drivetrain.sample import ACTION, EXPERT_WORDS


def written(folder):
    """All files by name, and their bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def facts_of(folder):
    return [json.loads(line) for line in (folder / "facts.jsonl").read_text().splitlines()]


def collected(form, folder, *flags):
    arguments = ["collect", "--as", form, "--output-dir", str(folder), *map(str, flags)]
    assert main(arguments) == 0
    return facts_of(folder)


@pytest.mark.parametrize("style", ["plain", "why", "seen"])
@pytest.mark.parametrize("env", [env for env, kinds in KINDS.items() if "caption" in kinds])
def test_captions_are_true_and_can_be_opened(env, style, tmp_path, capsys):
    rows = collected("captions", tmp_path / "set", "--env", env, "--scenes", 30, "--held-out", 0.3, "--style", style)
    splits = {split: [row for row in rows if row["split"] == split] for split in ("train", "held_out")}
    counts = f"{len(splits['train'])} scenes to train on, {len(splits['held_out'])} held out: {tmp_path / 'set'}\n"
    assert capsys.readouterr().out == counts
    for split, mine in splits.items():
        assert mine
        for suffix in (".csv", ".jsonl"):
            data = open_captions(tmp_path / "set" / f"{split}{suffix}")
            assert data.names == [row["image"] for row in mine]
            assert [i["caption"] for i in data] == [row["caption"] for row in mine]
        assert [caption(env, row["facts"], style) for row in mine] == [row["caption"] for row in mine]


@pytest.mark.parametrize("env", KINDS)
def test_instructions_are_true_and_can_be_opened(env, tmp_path):
    rows = collected("instructions", tmp_path / "set", "--env", env, "--scenes", 40, "--held-out", 0.3, "--turns", 2)
    kinds = set()
    for split in ("train", "held_out"):
        mine = [row for row in rows if row["split"] == split]
        data = open_instructions(tmp_path / "set", split=split)
        assert len(data) == len(mine) > 0
        for conversation, item, row in zip(data.rows, data, mine, strict=True):
            assert conversation.image == row["image"]
            assert item["turns"][0][0].startswith("<image>\n")
            assert len(item["turns"]) == len(row["questions"]) <= 2
            for (human, gpt), question in zip(item["turns"], row["questions"], strict=True):
                kind = KINDS[env][question["kind"]]
                assert human.removeprefix("<image>\n") in kind.texts
                assert gpt == question["answer"] == kind.answer(row["facts"])
                assert tuple(question["choices"]) == kind.choices
                kinds.add(question["kind"])
    assert kinds == set(kinds_of(env))


def test_the_pictures_are_those_the_facts_speak_of(tmp_path):
    rows = collected("captions", tmp_path / "set", "--scenes", 10, "--held-out", 0)
    world = cartpole.CartPolePixels()
    for item, row in zip(open_captions(tmp_path / "set"), rows, strict=True):
        tilt_rad = np.radians(row["facts"]["tilt_deg"])
        np.testing.assert_array_equal(item["image"], world.strip_of(row["facts"]["position_m"], tilt_rad))


@pytest.mark.slow
def test_no_held_out_picture_equals_one_to_train_on(tmp_path):
    settings = Config(scenes=600, difficulty=0.0, held_out=0.4, kinds="tilt", output_dir=str(tmp_path / "a"))
    counts = describe.describe("instructions", settings)
    seen = {split: [i["image"].tobytes() for i in open_instructions(tmp_path / "a", split=split)] for split in counts}
    assert {split: len(pictures) for split, pictures in seen.items()} == counts
    assert len(set(seen["train"])) < len(seen["train"]), "easy scenes repeat, or this shows nothing"
    assert len(set(seen["held_out"])) < len(seen["held_out"])
    assert not set(seen["train"]) & set(seen["held_out"])
    assert 0.3 < counts["held_out"] / 600 < 0.5


def test_a_set_is_a_function_of_its_settings_and_a_longer_one_begins_alike(tmp_path):
    for name, scenes, seed in (("a", 6, 0), ("b", 6, 0), ("longer", 9, 0), ("other", 6, 1)):
        collected("captions", tmp_path / name, "--env", "carracing", "--scenes", scenes, "--seed", seed)
    a, b, longer, other = (written(tmp_path / name) for name in ("a", "b", "longer", "other"))
    assert a == b
    pictures = [name for name in a if name.endswith(".png")]
    assert len(pictures) == 6
    assert all(a[name] == longer[name] != other[name] for name in pictures)


def test_kinds_can_be_chosen(tmp_path):
    rows = collected("instructions", tmp_path / "set", "--scenes", 8, "--kinds", "tilt, third", "--turns", 9)
    assert {q["kind"] for row in rows for q in row["questions"]} == {"tilt", "third"}


def test_nothing_is_overwritten_and_nothing_left_half_way(tmp_path, monkeypatch, capsys):
    collected("captions", tmp_path / "set", "--scenes", 2)
    before = written(tmp_path / "set")
    assert main(["collect", "--as", "captions", "--scenes", "2", "--output-dir", str(tmp_path / "set")]) == 2
    assert "holds something already; name another --output-dir" in capsys.readouterr().err
    assert written(tmp_path / "set") == before

    def interrupted(form, config):
        yield from list(honest(form, config))[:3]
        raise KeyboardInterrupt

    honest = describe.scenes
    monkeypatch.setattr(describe, "scenes", interrupted)
    assert main(["collect", "--as", "captions", "--scenes", "5", "--output-dir", str(tmp_path / "new")]) == 130
    assert "the same command begins anew" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    monkeypatch.undo()
    (tmp_path / "new").mkdir()
    assert len(collected("captions", tmp_path / "new", "--scenes", 5)) == 5


MISTAKES = [
    (["--as"], "--as has no value"),
    (
        ["--as", "poems"],
        "a collection is --as episodes, captions, instructions, replay, subset, d4rl or minari; got 'poems'",
    ),
    (["--as", "captions", "--env", "acrobot"], "there is no env with scenes called 'acrobot'"),
    (["--as=captions", "--episodes", "3"], "there is no flag --episodes"),
    (["--as", "captions", "--scenes", "0"], "--scenes must be 1 or more, got 0"),
    (["--as", "captions", "--difficulty", "1.5"], "--difficulty must be between 0 and 1, got 1.5"),
    (["--as", "captions", "--held-out", "-1"], "--held-out must be between 0 and 1, got -1"),
    (["--as", "captions", "--style", "poem"], "captions have no style 'poem'; use plain, why, seen"),
    (["--as", "instructions", "--turns", "0"], "--turns must be 1 or more, got 0"),
    (["--as", "instructions", "--kinds", "tilt,colour"], "nothing called 'colour' is asked about cartpole"),
    (["--scenes", "3"], "there is no flag --scenes"),
]


@pytest.mark.parametrize(("flags", "says"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(flags, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", *flags]) == 2
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_has_no_answer_at_all_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(describe, "TRIES", 3)
    monkeypatch.setattr("drivetrain.describe.caption", lambda *_: "")
    assert main(["collect", "--as", "captions", "--output-dir", str(tmp_path / "set")]) == 2
    assert "of 3 scenes none had an answer for style why at difficulty 1.0" in capsys.readouterr().err


def test_episodes_are_collected_as_before(tmp_path, capsys):
    flags = ["--env", "cartpole", "--episodes", "1", "--output-dir"]
    assert (
        main(["collect", *flags, str(tmp_path / "a")])
        == main(["collect", "--as", "episodes", *flags, str(tmp_path / "b")])
        == 0
    )
    first, second = capsys.readouterr().out.splitlines()
    assert first.replace("/a", "/b") == second
    assert written(tmp_path / "a").keys() == written(tmp_path / "b").keys()


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """A quarter of a lap by the expert."""
    folder = tmp_path_factory.mktemp("driven") / "set"
    env = make_env("carracing:repeat=4")
    expert = find_expert("carracing", env.sample_spec)
    spec = replace(env.sample_spec, features={**env.sample_spec.features, **words_of(expert)})
    writer, (observation, info) = Writer(folder, spec), env.reset(seed=3)
    for step in range(60):
        told = {key: np.asarray(value)[None] for key, value in (observation | info).items()}
        action, _, said = expert.act(told, {}, greedy=True, generator=None)
        outcome = {"next.reward": 0.0, "next.terminated": False, "next.truncated": step == 59}
        writer.add({**observation, ACTION: action[0], EXPERT_WORDS: said[EXPERT_WORDS][0], **outcome})
        observation, _, _, _, info = env.step(action[0])
    writer.end_episode()
    writer.finish()
    return folder


def test_frames_that_were_driven_have_the_drivers_words(driven, tmp_path):
    found = {}
    for style in ("plain", "why", "seen"):
        rows = collected("captions", tmp_path / style, "--dataset", driven, "--style", style, "--held-out", 0.3)
        found[style] = [row["caption"] for row in rows]
        names = [LABELS[int(row["facts"]["choice"])] for row in rows]
        assert len(rows) == 60
        if style == "plain":
            assert set(found[style]) <= {"Do nothing.", "Accelerate.", "Turn left.", "Turn right.", "Brake."}
            assert all(name in caption.lower() for name, caption in zip(names, found[style], strict=True))
    for plain, why, seen in zip(*found.values(), strict=True):
        assert f"{seen[:-1]}: {plain[0].lower()}{plain[1:]}" == why
    csv, jsonl = (open_captions(tmp_path / "plain" / f"train.{ending}") for ending in ("csv", "jsonl"))
    assert csv.captions == jsonl.captions


def test_a_data_set_that_cannot_be_captioned_is_told(driven, tmp_path, capsys):
    data = open_lerobot(driven)
    bare = replace(data.spec, features={key: f for key, f in data.spec.features.items() if key != EXPERT_WORDS})
    writer = Writer(tmp_path / "bare", bare)
    sample = data.windows(np.array([59]))
    writer.add({key: sample[key][0, 0] for key in [*bare.features, "next.reward", "next.terminated", "next.truncated"]})
    writer.end_episode()
    writer.finish()
    more = ["--dataset", str(tmp_path / "bare"), "--output-dir", str(tmp_path / "out")]
    assert main(["collect", "--as", "captions", "--style", "why", *more]) == 2
    assert "has no expert.words; use --style plain" in capsys.readouterr().err
    assert main(["collect", "--as", "instructions", *more]) == 2
    assert "leave --dataset out" in capsys.readouterr().err
