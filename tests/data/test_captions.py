"""Pictures with captions, as CSV, JSONL and Hugging Face tables have them; and what happens to rows that are no good."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from drivetrain.data.captions import csv_to_jsonl, open_captions, write_captions
from drivetrain.data.images import share_of
from drivetrain.errors import BadConfig, BadData, MissingExtra

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
WORDS = ["Turn left.", 'Brake, "now".', "加速する", "Do\nnothing."]


@pytest.fixture
def folder(tmp_path):
    """Four pictures in images/."""
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def assert_all_there(data, which=range(4)):
    assert len(data) == len(which)
    assert [item["caption"] for item in data] == [WORDS[i] for i in which]
    for item, i in zip(data, which, strict=True):
        assert item["image"].dtype == np.uint8
        np.testing.assert_array_equal(item["image"], PICTURES[i])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("where", ["", "images/"])
def test_what_is_written_is_read(suffix, where, folder):
    path = folder / f"words{suffix}"
    assert write_captions(path, [(f"{where}{i}.png", word) for i, word in enumerate(WORDS)]) == 4
    assert_all_there(open_captions(path))


def test_the_columns_are_those_of_the_public_project(folder):
    rows = [("a.png", "Turn left.")]
    write_captions(folder / "a.csv", rows)
    write_captions(folder / "a.jsonl", rows)
    assert (folder / "a.csv").read_text() == "filename,action_text\na.png,Turn left.\n"
    assert json.loads((folder / "a.jsonl").read_text()) == {"image": "a.png", "text": "Turn left."}


def test_columns_can_be_named_and_a_missing_one_is_an_error(folder):
    (folder / "x.csv").write_text("\ufeffimage,when,what\n0.png,now,Turn left.\n", encoding="utf-8")
    with pytest.raises(BadData, match="got the columns image, when, what, expected text or action_text or caption"):
        open_captions(folder / "x.csv")
    with pytest.raises(BadData, match="expected whta; name the caption column"):
        open_captions(folder / "x.csv", caption_column="whta")
    assert_all_there(open_captions(folder / "x.csv", caption_column="what", image_column="image"), [0])


def test_a_folder_is_read_by_split(folder):
    write_captions(folder / "train.csv", [("0.png", WORDS[0]), ("1.png", WORDS[1])])
    write_captions(folder / "held_out.csv", [("2.png", WORDS[2])])
    assert_all_there(open_captions(folder), [0, 1])
    assert_all_there(open_captions(folder, split="held_out"), [2])


def test_images_can_lie_elsewhere(folder, tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("words") / "a.csv"
    write_captions(path, [("0.png", WORDS[0])])
    assert_all_there(open_captions(path, images=str(folder / "images")), [0])
    with pytest.raises(BadData, match=r"0\.png \(missing\)"):
        open_captions(path)
    write_captions(path, [("images/0.png", WORDS[0])])
    monkeypatch.chdir(folder)
    assert_all_there(open_captions(path), [0])


def test_rows_that_are_no_good_are_skipped_in_one_line(folder, capsys):
    (folder / "images" / "bad.png").write_text("I am no picture")
    (folder / "images" / "deep.png").mkdir()
    names = ["0.png", "bad.png", "gone.png", "deep.png", "1.png", "2.png", ""]
    words = [WORDS[0], "x", "x", "x", WORDS[1], " ", "x"]
    write_captions(folder / "a.csv", zip(names, words, strict=True))
    data = open_captions(folder / "a.csv")
    line = capsys.readouterr().err
    assert line == (
        f"{folder / 'a.csv'}: skipped 5: bad.png (no image), gone.png (missing), deep.png (missing), "
        "row 6 (no caption), row 7 (no image named)\n"
    )
    assert_all_there(data, [0, 1])


def test_many_are_counted_and_a_few_named(folder, capsys):
    write_captions(folder / "a.jsonl", [("0.png", WORDS[0]), *[(f"gone{i}.png", "x") for i in range(40)]])
    data = open_captions(folder / "a.jsonl")
    line = capsys.readouterr().err
    assert line.endswith("gone4.png (missing), and 35 more\n")
    assert "skipped 40: gone0.png (missing), " in line
    assert len(data.skipped) == 40


def test_broken_json_lines_are_skipped(folder, capsys):
    lines = [b'{"image": "0.png", "text": "Turn left."}', b"{", b"[1]", b"", b'{"image": "1.png", "text": 5}', b'\xff"']
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    assert_all_there(open_captions(folder / "a.jsonl"), [0])
    assert (
        "skipped 4: row 2 (no JSON object), row 3 (no JSON object), row 4 (no caption), row 5"
        in capsys.readouterr().err
    )


def test_a_picture_that_breaks_off_gives_way_to_the_next_and_is_said_once(folder, capsys):
    whole = (folder / "images" / "1.png").read_bytes()
    (folder / "images" / "1.png").write_bytes(whole[: len(whole) // 2])
    write_captions(folder / "a.csv", [(f"{i}.png", word) for i, word in enumerate(WORDS)])
    data = open_captions(folder / "a.csv")
    assert capsys.readouterr().err == "", "its first bytes are in order"
    for _ in range(2):
        assert_all_there([data[1]], [2])
    assert_all_there([data[0], data[3], data[-1]], [0, 3, 3])
    line = capsys.readouterr().err
    assert line == f"{folder / 'a.csv'}: 1.png is broken, the next one takes its place\n"
    assert list(data.skipped.reasons) == ["1.png"]
    with pytest.raises(IndexError):
        data[4]


def test_all_broken_is_an_error_and_not_an_endless_search(folder):
    for i in range(4):
        path = folder / "images" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:60])
    write_captions(folder / "a.csv", [(f"{i}.png", word) for i, word in enumerate(WORDS)])
    data = open_captions(folder / "a.csv")
    with pytest.raises(BadData, match="no image that can be decoded"):
        data[0]


def test_nothing_at_all_is_an_error(folder):
    write_captions(folder / "a.csv", [])
    with pytest.raises(BadData, match="got no row with both picture and caption; expected one or more"):
        open_captions(folder / "a.csv")
    write_captions(folder / "a.csv", [("gone.png", "x")])
    with pytest.raises(BadData, match=r"skipped 1: gone\.png \(missing\)"):
        open_captions(folder / "a.csv")
    with pytest.raises(BadData, match="there is no file"):
        open_captions(folder / "b.csv")
    (folder / "c.csv").write_bytes(b"image,text\n\xff\xfe,x\n")
    with pytest.raises(BadData, match="is no CSV in UTF-8"):
        open_captions(folder / "c.csv")
    with pytest.raises(BadConfig, match=r"kept as \.csv or \.jsonl"):
        write_captions(folder / "a.txt", [])


def test_a_csv_becomes_a_jsonl_whose_images_are_found(folder, tmp_path_factory, capsys):
    write_captions(folder / "a.csv", [*[(f"{i}.png", word) for i, word in enumerate(WORDS)], ("0.png", "")])
    for target in (folder / "b.jsonl", tmp_path_factory.mktemp("elsewhere") / "b.jsonl"):
        assert csv_to_jsonl(folder / "a.csv", target) == 4
        assert "skipped 1: row 5 (no caption)" in capsys.readouterr().err
        assert_all_there(open_captions(target))
    assert json.loads((folder / "b.jsonl").read_text().splitlines()[0])["image"] == "images/0.png"


def test_greys_and_transparent_pictures_become_rgb(folder):
    Image.fromarray(PICTURES[0, ..., 0]).save(folder / "grey.png")
    Image.fromarray(np.dstack([PICTURES[0], PICTURES[0, ..., :1]])).save(folder / "clear.png")
    write_captions(folder / "a.csv", [("grey.png", "x"), ("clear.png", "x")])
    grey, clear = open_captions(folder / "a.csv")
    np.testing.assert_array_equal(grey["image"], PICTURES[0, ..., :1].repeat(3, axis=-1))
    np.testing.assert_array_equal(clear["image"], PICTURES[0])


def test_without_the_package_the_extra_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (folder / "a.parquet").write_bytes(b"rows")
    for name in ("someone/something", str(folder / "a.parquet")):
        with pytest.raises(MissingExtra, match=r"opening .*needs the package 'datasets'.*drivetrain\[data\]"):
            open_captions(name)


class TestHuggingFace:
    @pytest.fixture
    def datasets(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        return pytest.importorskip("datasets")

    @pytest.fixture
    def table(self, datasets):
        columns = {"image": [Image.fromarray(p) for p in PICTURES], "text": WORDS}
        kinds = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        return datasets.Dataset.from_dict(columns, features=kinds)

    def test_parquet_and_saved_folders_are_opened(self, datasets, table, tmp_path):
        (tmp_path / "laid/data").mkdir(parents=True)
        table.to_parquet(tmp_path / "a.parquet")
        table.to_parquet(tmp_path / "laid/data/train-00000-of-00001.parquet")
        table.save_to_disk(tmp_path / "saved")
        datasets.DatasetDict(train=table.select([3]), held_out=table).save_to_disk(tmp_path / "splits")
        for name, split in (("a.parquet", "train"), ("laid", "train"), ("saved", "train"), ("splits", "held_out")):
            assert_all_there(open_captions(tmp_path / name, split=split))

    def test_file_names_in_a_table_are_found(self, datasets, folder, capsys):
        names = ["0.png", "gone.png", "2.png", "3.png"]
        datasets.Dataset.from_dict({"image_path": names, "caption": [*WORDS[:3], ""]}).to_parquet(folder / "a.parquet")
        data = open_captions(folder / "a.parquet", images=str(folder / "images"))
        assert "skipped 1: row 3 (no caption)" in capsys.readouterr().err
        assert_all_there([data[0], data[1], data[2]], [0, 2, 2])
        assert "row 1 is missing" in capsys.readouterr().err

    def test_what_cannot_be_opened_is_one_line(self, datasets, tmp_path):
        (tmp_path / "a.parquet").write_text("no parquet")
        for name, says in (("a.parquet", "cannot be opened as a data set"), ("nowhere", "does not exist")):
            with pytest.raises(BadData, match=says) as caught:
                open_captions(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_equal_pictures_have_equal_shares_and_shares_are_spread_evenly():
    random = np.random.default_rng(1)
    shares = [share_of(random.integers(0, 256, (3, 4, 3), dtype=np.uint8)) for _ in range(2000)]
    assert np.abs(np.quantile(shares, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.04
    assert share_of(PICTURES[0]) == share_of(PICTURES[0].copy(order="F"))
    assert share_of(PICTURES[0]) != share_of(PICTURES[0].reshape(9, 6, 3))


def test_a_path_that_is_not_there_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("data/captoins", "some/where/else", str(tmp_path / "nothing")):
        with pytest.raises(BadData, match=f"{name} does not exist"):
            open_captions(name)
