"""Conversations in LLaVA's layout: rows as its files have them, and rows that are no good."""

import json

import numpy as np
import pytest
from PIL import Image

from drivetrain.data.instructions import Conversation, open_instructions, write_instructions
from drivetrain.errors import BadData

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
PRETRAIN = {
    "id": "004539375",
    "image": "00453/004539375.jpg",
    "conversations": [
        {"from": "human", "value": "Say in few words what the photo shows.\n<image>"},
        {"from": "gpt", "value": "a red car before a bend"},
    ],
}
INSTRUCT = {
    "id": "000000033471",
    "image": "000000033471.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat colour is the bus?"},
        {"from": "gpt", "value": "White and red."},
        {"from": "human", "value": "What is behind it?"},
        {"from": "gpt", "value": "A tree."},
    ],
}
TEXT = {"id": "kJ2", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "00453").mkdir(parents=True)
    for row, picture in zip((PRETRAIN, INSTRUCT), PICTURES, strict=True):
        Image.fromarray(picture).save(folder / row["image"], format="PNG")
    return folder


def opened(tmp_path, rows, **where):
    (tmp_path / "a.json").write_text(json.dumps(rows))
    return open_instructions(tmp_path / "a.json", **where)


def test_all_three_kinds_of_row_are_read(tmp_path, images):
    first, second, third = opened(tmp_path, [PRETRAIN, INSTRUCT, TEXT], images=str(images))
    assert first["id"] == "004539375"
    assert first["turns"] == [("Say in few words what the photo shows.\n<image>", "a red car before a bend")]
    np.testing.assert_array_equal(first["image"], PICTURES[0])
    assert second["turns"] == [
        ("<image>\nWhat colour is the bus?", "White and red."),
        ("What is behind it?", "A tree."),
    ]
    np.testing.assert_array_equal(second["image"], PICTURES[1])
    assert third == {"id": "kJ2", "image": None, "turns": [("Hi", "Hello")]}


def test_images_lie_beside_the_file_or_below_images(tmp_path, images):
    (images / "a.json").write_text(json.dumps([INSTRUCT]))
    assert len(open_instructions(images / "a.json")) == 1
    images.rename(tmp_path / "images")
    assert len(opened(tmp_path, [INSTRUCT])) == 1


def test_what_is_written_is_the_same_layout(tmp_path, images):
    rows = [PRETRAIN, INSTRUCT, TEXT]
    conversations = opened(tmp_path, rows, images=str(images)).rows
    assert write_instructions(tmp_path / "b.json", conversations) == 3
    assert json.loads((tmp_path / "b.json").read_text()) == rows
    assert "<image>\\nWhat" in (tmp_path / "b.json").read_text()


def test_a_line_per_row_is_read_too(tmp_path, images, capsys):
    lines = [json.dumps(TEXT), "{", json.dumps(INSTRUCT)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = open_instructions(tmp_path / "a.jsonl", images=str(images))
    assert [row.id for row in data.rows] == ["kJ2", "000000033471"]
    assert "skipped 1: row 1 (no JSON object)" in capsys.readouterr().err


def said(*pairs):
    return [{"from": who, "value": value} for who, value in pairs]


BROKEN = [
    ({"conversations": []}, "turns that do not go human, gpt"),
    ({"conversations": None}, "no conversations"),
    ({"conversations": ["Hi"]}, "no conversations"),
    ({"conversations": said(("human", "<image>"))}, "turns that do not go human, gpt"),
    ({"conversations": said(("human", "<image>"), ("human", "x"))}, "turns that do not go human, gpt"),
    ({"conversations": said(("human", "<image>"), ("robot", "x"))}, "turns that do not go human, gpt"),
    ({"conversations": said(("human", "<image>"), ("gpt", " "))}, "a turn without text"),
    ({"conversations": said(("human", "<image>"), ("gpt", None))}, "a turn without text"),
    ({"conversations": said(("human", "Hi"), ("gpt", "x"))}, "0 times <image> with an image"),
    ({"conversations": said(("human", "<image><image>"), ("gpt", "x"))}, "2 times <image> with an image"),
    ({"conversations": said(("human", "<image>"), ("gpt", "<image>"))}, "<image> in an answer"),
    ({"image": None}, "1 times <image> with no image"),
    ({"image": ["a.jpg", "b.jpg"]}, "an image that is no path"),
]


@pytest.mark.parametrize(("change", "why"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_row_is_skipped_by_name(change, why, tmp_path, images, capsys):
    data = opened(tmp_path, [INSTRUCT | change, TEXT], images=str(images))
    assert capsys.readouterr().err == f"{tmp_path / 'a.json'}: skipped 1: 000000033471 ({why})\n"
    assert [row.id for row in data.rows] == ["kJ2"]


def test_missing_and_broken_images_are_skipped_and_a_cut_one_gives_way(tmp_path, images, capsys):
    (images / "bad.jpg").write_text("no picture")
    cut = images / "cut.jpg"
    cut.write_bytes((images / INSTRUCT["image"]).read_bytes()[:80])
    rows = [INSTRUCT | {"image": name} for name in ("gone.jpg", "bad.jpg", "cut.jpg")]
    data = opened(tmp_path, [*rows, 7, INSTRUCT], images=str(images))
    line = capsys.readouterr().err
    assert line.endswith("skipped 3: gone.jpg (missing), bad.jpg (no image), row 3 (no JSON object)\n")
    assert len(data) == 2
    np.testing.assert_array_equal(data[0]["image"], PICTURES[1])
    assert "cut.jpg is broken, the next one takes its place" in capsys.readouterr().err
    with pytest.raises(IndexError):
        data[2]


def test_an_answer_before_the_first_question_is_dropped(tmp_path):
    row = TEXT | {"conversations": said(("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Hello"))}
    assert opened(tmp_path, [row])[0]["turns"] == [("Hi", "Hello")]


def test_ids_are_text_and_a_row_without_one_has_its_number(tmp_path):
    data = opened(tmp_path, [TEXT | {"id": 12}, {"conversations": TEXT["conversations"]}])
    assert [item["id"] for item in data] == ["12", "row 1"]


def test_a_folder_is_read_by_split_or_by_its_only_file(tmp_path):
    write_instructions(tmp_path / "blip.json", [Conversation("a", (("Hi", "Hello"),))])
    assert open_instructions(tmp_path)[0]["id"] == "a"
    write_instructions(tmp_path / "held_out.json", [Conversation("b", (("Hi", "Hello"),))])
    assert open_instructions(tmp_path, split="held_out")[0]["id"] == "b"
    with pytest.raises(BadData, match=r"got blip\.json, held_out\.json, expected train\.json"):
        open_instructions(tmp_path)


def test_what_is_no_such_file_is_an_error(tmp_path):
    with pytest.raises(BadData, match="there is no file"):
        open_instructions("liuhaotian/LLaVA-Pretrain")
    with pytest.raises(BadData, match="got a JSON dict, expected a list"):
        opened(tmp_path, {"rows": []})
    with pytest.raises(BadData, match="got no conversation that can be used; expected one or more"):
        opened(tmp_path, [])
    with pytest.raises(BadData, match=r"can be used \(.*skipped 1: kJ2 \(no conversations\)\)"):
        opened(tmp_path, [{"id": "kJ2"}])
    (tmp_path / "a.json").write_text('[{"id": ')
    with pytest.raises(BadData, match="cut short or corrupt"):
        open_instructions(tmp_path / "a.json")
