"""Which texts are looked for in which of one's own images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.image_pairs import read_pairs
from pipelines.data.image_queries import ImageQueries, check_images, query_images
from shards.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, b.png and more/a.png."""
    (tmp_path / "more").mkdir()
    for index, name in enumerate(("a.png", "b.png", "more/a.png")):
        Image.new("RGB", (4 + index, 3)).save(tmp_path / name)
    return tmp_path


def list_queries(queries: ImageQueries) -> list[tuple[str, int, str]]:
    return [(queries.names[image], text, queries.texts[text]) for image, text in queries.pairs]


# Images and texts


def test_every_text_is_looked_for_in_every_image(folder: Path) -> None:
    queries = query_images([folder / "b.png", folder / "more"], ["car", "dog"])
    assert list_queries(queries) == [("b.png", 0, "car"), ("b.png", 1, "dog"), ("a.png", 0, "car"), ("a.png", 1, "dog")]


def test_an_image_that_is_given_twice_counts_once(folder: Path) -> None:
    paths = [folder / "b.png", folder, folder / "more" / ".." / "a.png", Path(os.path.relpath(folder / "b.png"))]
    assert query_images(paths, ["car"]).names == ["b.png", "a.png"]


def test_images_of_one_name_are_told_apart_and_said_so(folder: Path) -> None:
    checked = check_images(query_images([folder / "a.png", folder / "more"], ["car"]))
    assert [checked.name_pair(index) for index in range(2)] == ["a.png/0", "a.png~2/0"]
    assert checked.sizes == [(3, 4), (3, 6)]
    assert checked.remarks == [
        f"{folder / 'more' / 'a.png'} is named a.png~2 in the results: another image has its name"
    ]


def test_a_name_does_not_depend_on_which_images_can_be_read(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"damaged")
    checked = check_images(query_images([folder, folder / "more"], ["car", "dog"]))
    assert list(checked.unreadable) == ["a.png"]
    assert checked.names == ["b.png", "a.png~2"]
    assert [checked.name_pair(index) for index in range(4)] == ["b.png/0", "b.png/1", "a.png~2/0", "a.png~2/1"]


def test_one_path_has_the_fingerprint_of_its_texts_alone_and_several_have_an_order(folder: Path) -> None:
    assert query_images([folder], ["car"]).fingerprint_options() == {"texts": ["car"]}
    assert query_images([folder / "b.png", folder], ["car"]).fingerprint_options() == {
        "texts": ["car"],
        "images": ["b.png", "a.png"],
    }


# Pairs


def write(folder: Path, text: str, name: str = "pairs.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


EXPECTED = [("a.png", 0, "the red, big car"), ("a.png", 2, 'a "dog"'), ("a.png~2", 1, "雪\nsnow")]
CSV = 'image,text\na.png,"the red, big car"\nmore/a.png,"雪\nsnow"\na.png,"a ""dog"""\n'


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CSV, "utf-8"),
        (CSV, "utf-8-sig"),
        (CSV.rstrip("\n"), "utf-8"),
        ("\n  ,\n" + CSV.replace("\nmore", "\n\n,\nmore"), "utf-8"),
        (CSV.replace("image,text", " image ,text"), "utf-8"),
        ('text,note,image\n"the red, big car",x,a.png\n"雪\nsnow",,more/a.png\n"a ""dog""",,a.png\n', "utf-8"),
    ],
)
def test_csv_is_read_with_quotes_marks_of_byte_order_and_other_columns(folder: Path, text: str, encoding: str) -> None:
    assert list_queries(read_pairs(write(folder, text, encoding=encoding))) == EXPECTED


def test_csv_with_line_ends_of_windows_is_read(folder: Path) -> None:
    text = 'image,text\r\na.png,"the red, big car"\r\nmore/a.png,"snow"\r\n\r\na.png,dog\r\n'
    assert [text for *_, text in list_queries(read_pairs(write(folder, text)))] == ["the red, big car", "dog", "snow"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_lines_are_read(folder: Path, newline: str, encoding: str) -> None:
    rows = [("a.png", EXPECTED[0][2]), (str(folder / "more" / "a.png"), EXPECTED[2][2]), ("a.png", EXPECTED[1][2])]
    lines = [json.dumps({"image": image, "text": text, "more": 1}) for image, text in rows]
    assert list_queries(read_pairs(write(folder, newline.join(lines), "pairs.jsonl", encoding))) == EXPECTED


def test_a_separator_of_lines_inside_a_text_is_no_end_of_line(folder: Path) -> None:
    line = json.dumps({"image": "a.png", "text": "one\u2028two"}, ensure_ascii=False)
    assert read_pairs(write(folder, line, "pairs.jsonl")).texts == ("one\u2028two",)


def test_pairs_may_occur_twice_and_images_are_taken_once(folder: Path) -> None:
    queries = read_pairs(write(folder, "image,text\na.png,car\n./a.png,car\nmore/../a.png,car\n"))
    assert list_queries(queries) == [("a.png", 0, "car"), ("a.png", 1, "car"), ("a.png", 2, "car")]
    assert queries.fingerprint_options() == {"texts": ["car"] * 3, "pairs": ["a.png"] * 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is an empty file|holds no pair"),
        ("image,text\n", "pairs.csv: holds no pair; give CSV with the columns image and text"),
        ("a.png,car\n", "line 1: the header has no column image; found a.png, car; begin it with the line image,text"),
        ("image;text\na.png;car\n", "line 1: the header has no column image; found image;text"),
        ("image,text,text\n", "line 1: two columns text"),
        ("\nimage,words\na.png,car", "line 2: the header has no column text"),
        ("image,text\na.png\n", "1 of 1 pairs cannot be used: line 2: 1 fields instead of 2; correct"),
        ("image,text\na.png,the red, big car\n", "line 2: 3 fields instead of 2; put a text with commas in quotes"),
        ('image,text\na.png,"one\ntwo"\nb.png,\n', "1 of 2 pairs cannot be used: line 4: the text is empty"),
        ("image,text\na.png,???\nb.png,car\n", '1 of 2 pairs .*: line 2: the text "\\?\\?\\?" has no word'),
        ("image,text\n,car\n", "line 2: the image is no path"),
        (
            "image,text\ngone.png,car\nmore,car\n",
            "2 of 2 .*: line 2: .*gone.png is no file; line 3: .*more is a folder",
        ),
        ("image,text\na\0.png,car\n", "line 2: the image is no path"),
        ("image,text\n" + "x" * 5000 + ",car\n", "line 2: .*: File name too long"),
        ('image,text\na.png,"car\n', "line 2: is no CSV from here on .*; close quotes, and double those inside"),
        ('image,text\na.png,"car" x\n', "line 2: is no CSV from here on"),
    ],
)
def test_a_csv_that_cannot_be_used_is_an_error_with_its_line(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_pairs(write(folder, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "holds no pair"),
        ("image,text\n", r"line 1: no JSON \(Expecting value\)"),
        ('{"image": "a.png"}\n', '1 of 1 pairs cannot be used: line 1: no "text"'),
        ('{"image": "a.png", "text": "car"}\n\n{"image": 7, "text": "car"}\n', 'line 3: "image" is no text'),
        ('{"image": "a.png", "text": null}', 'line 1: "text" is no text'),
        ('["a.png", "car"]', "line 1: no JSON object"),
        ('{"image": "a.png", "text": "\\ud800 car"}', 'line 1: "text" holds half of a surrogate pair'),
        ("[" * 100_000, "line 1: no JSON"),
    ],
)
def test_json_lines_that_cannot_be_used_are_an_error_with_their_line(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_pairs(write(folder, text, "pairs.jsonl"))


def test_of_many_wrong_lines_the_first_ten_are_named(folder: Path) -> None:
    rows = "".join(f"gone-{row}.png,car\n" for row in range(13))
    with pytest.raises(DataError, match=r"13 of 13 pairs .*: line 2: .*line 11: .*gone-9.png is no file and 3 more"):
        read_pairs(write(folder, "image,text\n" + rows))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pairs.txt", b"image,text\n", "is named .txt, neither .csv nor .jsonl"),
        ("pairs", b"image,text\n", "is named without an ending"),
        ("pairs.csv", b"image,text\na.png,caf\xe9\n", "pairs.csv"),
        ("pairs.csv", b"PK\x03\x04" + bytes(range(200, 256)), "pairs.csv"),
        ("pairs.jsonl", "{}".encode("utf-16"), "pairs.jsonl"),
    ],
)
def test_a_file_of_another_kind_is_refused(folder: Path, name: str, content: bytes, words: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_pairs(folder / name)


def test_a_missing_file_of_pairs_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_pairs(folder / "gone.csv")
