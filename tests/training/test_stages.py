"""The trainings of vision-language models: they learn what they are to, refuse what would go wrong, and resume exactly."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivetrain import describe
from drivetrain.errors import BadConfig, SelfCheckFailed
from drivetrain.models.fresh import Shape, fresh_vlm
from drivetrain.models.vlm import PARTS, load_vlm
from drivetrain.report import write_report
from drivetrain.run import Run
from drivetrain.training import align, caption, instruct, language, pretrain
from drivetrain.training.conversations import open_talks, questions
from drivetrain.training.language import Learner, Schedule, Talk, collate
from drivetrain.training.selfchecks import check

SMALL = Shape(width=32, heads=2, vision_layers=1, language_layers=1, picture=48, patch=24)
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), dtype=np.uint8)
TALKS = [Talk((("Which way?", word),), picture) for word, picture in zip(("left", "right"), PICTURES, strict=False)]
PRETRAIN = replace(pretrain.DEBUG, worlds="cartpole", shape=SMALL)


def new(architecture="llava"):
    torch.manual_seed(0)
    vlm = fresh_vlm(architecture, SMALL, ["Which way?", "left", "right", "What should the vehicle do?"] * 2)
    vlm.train_parts(*PARTS)
    return vlm


def trained(stage, config, folder, *, stop=0, resume=False):
    """A run of `stage`; with `stop` it is cut off after that checkpoint."""
    run = Run(folder, checkpoint_every=2, quiet=True, resume=resume, on_save=killer(stop))
    run.begin("stage", {"steps": config.steps})
    return stage.train(config, run)


class Killed(Exception):
    pass


def killer(stop):
    def on_save(step):
        if step == stop:
            raise Killed

    return on_save if stop else None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of questions, one of captions, and a model of each architecture from stage 0."""
    folder = tmp_path_factory.mktemp("stages")
    for form in ("instructions", "captions"):
        describe.describe(form, describe.Config("cartpole", 60, held_out=0.3, output_dir=str(folder / form)))
    for architecture in ("llava", "git"):
        trained(pretrain, replace(PRETRAIN, architecture=architecture), folder / architecture)
    return folder


def stages(made):
    llava, git = (str(made / name / "model") for name in ("llava", "git"))
    questions, captions = str(made / "instructions"), str(made / "captions")
    return {
        "pretrain": (pretrain, PRETRAIN),
        "align": (align, replace(align.DEBUG, backbone=llava, alignment_dataset=questions, new_projector=True)),
        "instruct": (instruct, replace(instruct.DEBUG, backbone=llava, instruction_dataset=questions)),
        "instruct-lora": (
            instruct,
            replace(instruct.DEBUG, backbone=llava, instruction_dataset=questions, lora_rank=2),
        ),
        "caption": (caption, replace(caption.DEBUG, backbone=git, dataset=captions, lora_rank=2)),
    }


@pytest.mark.parametrize("name", ["pretrain", "align", "instruct", "instruct-lora", "caption"])
def test_cut_off_and_resumed_it_ends_bit_equal(name, made, tmp_path):
    stage, config = stages(made)[name]
    whole = trained(stage, config, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(stage, config, tmp_path / "cut", stop=2)
    resumed = trained(stage, config, tmp_path / "cut", resume=True)
    for (key, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    rows = [
        [json.loads(line) for line in (tmp_path / f / "metrics.jsonl").read_text().splitlines()]
        for f in ("whole", "cut")
    ]
    assert [{k: v for k, v in row.items() if k != "wall_s"} for row in rows[0]] == [
        {k: v for k, v in row.items() if k != "wall_s"} for row in rows[1]
    ]


@pytest.mark.parametrize(
    ("name", "moving"),
    [("align", {"projector"}), ("instruct", {"projector", "language", "head"}), ("caption", set())],
)
def test_what_is_to_stay_stays(name, moving, made, tmp_path):
    stage, config = stages(made)[name]
    if name == "align":
        config = replace(config, new_projector=False)
    before, after = load_vlm(config.backbone), trained(stage, config, tmp_path / name)
    for part in PARTS:
        old, fresh = (
            {k: v for m in v_.part(part) for k, v in m.state_dict().items() if "lora" not in k}
            for v_ in (before, after)
        )
        fresh = {key.replace(".base_layer", ""): value for key, value in fresh.items()}
        same = all(torch.equal(old[key], fresh[key]) for key in old)
        assert same == (part not in moving), part


@pytest.mark.parametrize("name", ["instruct-lora", "caption"])
def test_an_adapter_opened_again_gives_the_same_logits(name, made, tmp_path):
    stage, config = stages(made)[name]
    vlm = trained(stage, replace(config, schedule=Schedule(lr=0.05)), tmp_path / "run")
    again, base = load_vlm(str(tmp_path / "run" / "model")), load_vlm(config.backbone)
    found, same, before = (v.score(PICTURES, "Which way?", ["left", "right"]) for v in (vlm, again, base))
    assert torch.equal(found, same)
    assert not torch.allclose(found, before)


def test_a_little_training_lowers_the_loss(made, tmp_path):
    _, config = stages(made)["instruct"]
    trained(instruct, replace(config, steps=60, batch_size=16, schedule=Schedule(lr=3e-3)), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_sound_training_passes_the_checks():
    for architecture in ("llava", "git"):
        check(new(architecture), TALKS, PARTS)


def test_a_mask_that_covers_the_question_is_refused(monkeypatch):
    vlm = new()
    whole = language.tokenise

    def wrong(style, turns, pictures):
        ids = whole(style, turns, pictures)
        return replace(ids, labels=ids.tokens)

    monkeypatch.setattr(language, "tokenise", wrong)
    with pytest.raises(SelfCheckFailed, match="the loss covers"):
        check(vlm, TALKS, PARTS)


def test_a_mask_that_hides_every_answer_is_refused(monkeypatch):
    vlm = new()
    whole = language.tokenise
    monkeypatch.setattr(language, "tokenise", lambda *a: replace(i := whole(*a), labels=[-100] * len(i)))
    with pytest.raises(SelfCheckFailed, match="the loss covers ''"):
        check(vlm, TALKS, PARTS)


def test_as_many_places_for_pictures_as_features():
    vlm = new()
    vlm.style.tokens_per_picture += 1
    with pytest.raises(SelfCheckFailed, match="image tokens"):
        check(vlm, TALKS, PARTS)


def test_a_frozen_projector_that_should_learn_is_refused():
    vlm = new()
    vlm.train_parts("language", "head")
    with pytest.raises(SelfCheckFailed, match="projector is to learn"):
        check(vlm, TALKS, ("projector", "language", "head"))


def test_a_part_that_should_stay_and_learns_is_refused():
    with pytest.raises(SelfCheckFailed, match="vision is to stay"):
        check(new(), TALKS, ("projector", "language", "head"))


def test_weights_that_do_not_belong_to_the_tokenizer_are_refused():
    vlm = new()
    with torch.no_grad():
        vlm.core.get_output_embeddings().weight.mul_(1000)
    with pytest.raises(SelfCheckFailed, match="first loss"):
        check(vlm, TALKS, PARTS)


def test_checks_leave_no_trace():
    vlm = new()
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    check(vlm, TALKS, PARTS)
    assert all(torch.equal(v, before[k]) for k, v in vlm.model.state_dict().items())
    assert all(p.grad is None for p in vlm.model.parameters())


def test_the_learning_rate_rises_along_a_line_and_falls_along_a_cosine():
    schedule = Schedule(warmup=0.1, floor=0.1)
    rates = [language.rate(step, 100, schedule) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert rates[100] == pytest.approx(0.1)


def test_batches_hold_rows_of_like_length_and_every_row_comes_once_an_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, 64)
    data = range(64)
    seen = [language.batches(data, 4, 7, at, lambda i: int(lengths[i])) for at in range(16)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(64))
    assert np.mean([np.ptp(lengths[rows]) for rows in seen]) < 12
    again = language.batches(data, 4, 7, 5, lambda i: int(lengths[i]))
    assert again.tolist() == seen[5].tolist()


def test_a_step_is_adamw_on_the_mean_over_answer_tokens():
    one, other = new(), new()
    learner = Learner(one, Schedule(lr=1e-3, warmup=0, weight_decay=0.0, max_grad_norm=1e9), 100)
    batch = collate(one, TALKS)
    learner.step(50, [batch])
    reference = torch.optim.AdamW(other.model.parameters(), lr=1e-3 * language.rate(50, 100, Schedule(warmup=0)),
                                  betas=(0.9, 0.98), weight_decay=0.0)  # fmt: skip
    other.model(**collate(other, TALKS)).loss.backward()
    reference.step()
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_portions_take_the_same_step_as_the_whole_batch():
    """Their answers differ in length, so the mean over portions of their means would be another."""
    talks = [
        Talk((("Which way?", word),), picture)
        for word, picture in zip(("left", "right left right", "left", "right right"), PICTURES, strict=True)
    ]
    one, other = new(), new()
    whole, parts = (Learner(vlm, Schedule(warmup=0), 100) for vlm in (one, other))
    loss, each = whole.step(50, [collate(one, talks)])
    again, apart = parts.step(50, [collate(other, talks[:2]), collate(other, talks[2:])])
    assert float(loss) == pytest.approx(float(again), rel=1e-5)
    torch.testing.assert_close(each, apart, rtol=1e-4, atol=1e-5)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(BadConfig, match="--batch-size 4 does not divide"):
        _ = replace(instruct.DEBUG, accumulate=3).portion


def widened(curriculum, sure, begin, end):
    for step in range(begin, end):
        curriculum.take("cartpole", [(kind, sure(kind)) for kind in curriculum.kinds("cartpole")], step)
    return curriculum.difficulty["cartpole"]


def test_the_curriculum_widens_only_when_the_least_seen_is_seen():
    config = replace(PRETRAIN, patience=1, gate=0.5, widen=0.01, steps=10_000)
    curriculum = pretrain.Curriculum(["cartpole"], config)
    assert curriculum.kinds("cartpole") == pretrain.FIRST["cartpole"]
    assert widened(curriculum, lambda kind: 0.4, 0, 400) == 0.0
    assert curriculum.kinds("cartpole") == pretrain.FIRST["cartpole"]
    curriculum.take("cartpole", [("lean", 0.9)] * 300, 400)  # it has passed once
    assert len(curriculum.kinds("cartpole")) > len(pretrain.FIRST["cartpole"])
    widened(curriculum, lambda kind: 0.1 if kind == "lean" else 0.9, 401, 500)  # it forgets
    reached = curriculum.difficulty["cartpole"]
    assert widened(curriculum, lambda kind: 0.1 if kind == "lean" else 0.9, 500, 1_000) == reached < 1
    assert curriculum.weight("cartpole", "lean") > 3 * curriculum.weight("cartpole", "third")
    assert widened(curriculum, lambda kind: 0.9, 1_000, 1_400) == 1.0


def test_no_world_goes_on_before_all_are_seen():
    curriculum = pretrain.Curriculum(["cartpole", "carracing"], replace(PRETRAIN, patience=1, steps=10_000))
    assert widened(curriculum, lambda kind: 0.9, 0, 400) == 0.0
    assert curriculum.kinds("cartpole") == pretrain.FIRST["cartpole"]
    curriculum.take("carracing", [("bend", 0.9), ("speed", 0.9)] * 300, 400)
    assert widened(curriculum, lambda kind: 0.9, 400, 500) > 0


def test_scenes_are_at_their_hardest_when_they_are_due():
    curriculum = pretrain.Curriculum(["cartpole"], replace(PRETRAIN, steps=100, due=0.5))
    assert [round(widened(curriculum, lambda kind: 0.0, s, s + 1), 2) for s in (25, 30, 40, 50)] == [0, 0.2, 0.6, 1]


def test_pictures_are_centred_on_the_scenes_own_colours():
    scenes = pretrain.Scenes(replace(PRETRAIN, worlds="cartpole,carracing"))
    colours = pretrain.colours_of(scenes)
    assert colours == pretrain.colours_of(scenes)
    vlm = pretrain.fresh_vlm("llava", PRETRAIN.shape, pretrain.words(PRETRAIN), colours)
    draws = np.random.default_rng(3)
    seen = [scenes.of[world].draw(draws, 1.0)[0] for world in scenes.worlds for _ in range(100)]
    pixels = vlm.pixels(seen)
    assert pixels.mean((0, 2, 3)).abs().max() < 0.05
    white = pretrain.colours_of(pretrain.Scenes(replace(PRETRAIN, worlds="cartpole")))
    assert min(white.mean) > 0.9


def test_a_new_model_keeps_the_colours_that_were_asked_for(tmp_path):
    own = pretrain.colours_of(pretrain.Scenes(PRETRAIN)).mean
    for wanted, changes in ((own, {}), (pretrain.OF_CLIP.mean, {"own_colours": False})):
        folder = tmp_path / str(len(changes))
        trained(pretrain, replace(PRETRAIN, **changes), folder)
        assert load_vlm(str(folder / "model")).processor.image_processor.image_mean == pytest.approx(wanted)


def test_projections_of_patches_learn_at_their_share_of_the_rate(tmp_path, monkeypatch):
    seen = {}
    fresh = pretrain.fresh_vlm

    def kept(*words):
        vlm = fresh(*words)
        seen["before"] = pretrain.projections(vlm)[0].detach().clone()
        return vlm

    monkeypatch.setattr(pretrain, "fresh_vlm", kept)
    schedule, moved = Schedule(warmup=0.0, weight_decay=0.0), {}
    for share in (0.0, 0.1, 1.0):
        config = replace(PRETRAIN, steps=1, patches=share, schedule=schedule)
        after = pretrain.projections(trained(pretrain, config, tmp_path / str(share)))[0]
        moved[share] = float((after - seen["before"]).abs().max())
    assert moved[0.0] == 0.0
    assert moved[1.0] == pytest.approx(10 * moved[0.1], rel=0.01)
    assert moved[1.0] > 0


def test_how_sure_it_is_of_an_answer():
    """Of a number by its first token, of words by the token that decides."""
    vlm = new()
    talks = [Talk((("Which way?", word),), p) for word, p in zip(("-12", "right left"), PICTURES, strict=False)]
    batch = collate(vlm, talks)
    counts = [len(vlm.style.answer(talk.turns[0][1])) for talk in talks]
    each = -torch.log(torch.tensor([0.5, 0.1, 0.2, 0.3][: counts[0]] + [0.9, 0.4, 0.8, 0.7][: counts[1]]))
    assert pretrain.chances(vlm, batch, each) == pytest.approx([0.5, 0.4])


def test_the_report_tells_what_it_knows_and_shows_what_it_says(made, tmp_path):
    stage, config = stages(made)["align"]
    trained(stage, config, tmp_path / "run")
    said = write_report(tmp_path / "run").read_text()
    assert "| held-out question | measure |" in said
    assert "| cartpole/" in said
    assert "![](samples/0.png)" in said
    assert (tmp_path / "run/samples/0.png").is_file()


def test_several_sets_are_one_and_its_questions_are_known_by_world(made):
    paths = f"{made / 'instructions'}, {made / 'roads'}"
    describe.describe("instructions", describe.Config("carracing", 20, held_out=0.3, output_dir=str(made / "roads")))
    learn, held_out = open_talks(paths, "", 0.1)
    assert len(learn) + len(held_out) == 80
    asked = questions(paths, held_out, 1_000)
    assert len(asked) == len(held_out)
    assert {talk.kind.split("/")[0] for talk in asked} == {"cartpole", "carracing"}
    assert all(not talk.choices or talk.turns[0][1] in talk.choices for talk in asked)


def test_a_blind_one_sees_other_pictures(made):
    sighted, _ = open_talks(str(made / "captions"), "", 0.1, captions=True)
    blind, held_out = open_talks(str(made / "captions"), "", 0.1, captions=True, blind=True)
    same = [np.array_equal(a.picture, b.picture) for a, b in zip(sighted, blind, strict=True)]
    assert np.mean(same) < 0.2
    assert [t.turns for t in sighted] == [t.turns for t in blind]
    assert held_out.dealt.tolist() == list(range(len(held_out)))
