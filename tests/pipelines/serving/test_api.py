"""The API of a running server: what it answers, and what it refuses."""

from __future__ import annotations

import io
import json
import socket
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pipelines import Grounder
from pipelines.grounding import Grounding
from pipelines.prediction.raw_output import RawOutput
from shards.masks import decode_mask
from tests.support.drawn_images import draw_shapes
from tests.support.grounding_server import GroundingServer, encode_form, run_server

TEXTS = ("the red square", "the blue circles", "the green star")


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.from_pretrained("shapes", device="cpu")


def ground(grounder: Grounder, data: bytes, **settings: object) -> list[Grounding]:
    return grounder.predict(Image.open(io.BytesIO(data)), TEXTS, **settings)  # type: ignore[arg-type]


def test_answers_are_those_of_grounder(server: GroundingServer, grounder: Grounder) -> None:
    reply = server.predict(draw_shapes(), *TEXTS)
    assert reply.status == 200
    answer = reply.document
    assert (answer["width"], answer["height"]) == (answer["image_width"], answer["image_height"]) == (240, 160)
    for given, expected, text in zip(answer["results"], ground(grounder, draw_shapes()), TEXTS, strict=True):
        assert given["text"] == text
        assert given["no_target"] is expected.no_target
        assert given["existence"] == pytest.approx(expected.existence, abs=1e-5)
        np.testing.assert_allclose(np.reshape(given["boxes"], (-1, 4)), expected.boxes, atol=1e-3)
        np.testing.assert_allclose(given["scores"], expected.scores, atol=1e-5)
        np.testing.assert_allclose(np.reshape(given["points"], (-1, 2)), expected.points)
        np.testing.assert_array_equal(decode_mask(given["mask"]), expected.mask)
        for mask, other in zip(given["instance_masks"], expected.masks, strict=True):
            np.testing.assert_array_equal(decode_mask(mask), other)
        assert len(given["all_points"]) == grounder.model.config.num_queries


SETTINGS = (
    {"threshold": 0.9}, {"threshold": 0.0, "mask_threshold": 0.2}, {"mask_source": "global"},
    {"threshold": 0.3, "nms": True, "nms_iou": 0.1}, {"threshold": 0.1, "existence_weighting": False},
)  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_other_settings_give_what_grounder_gives_with_them_and_the_network_does_not_run_again(
    server: GroundingServer, grounder: Grounder, settings: dict[str, object]
) -> None:
    result = server.predict(draw_shapes(), *TEXTS).document["id"]
    before = server.health()["forward_passes"]
    changes = {("score_threshold" if name == "threshold" else name): value for name, value in settings.items()}
    answer = server.postprocess(result, **changes).document
    assert answer["id"] == result
    assert answer["settings"] == server.health()["defaults"] | changes
    for given, expected in zip(answer["results"], ground(grounder, draw_shapes(), **settings), strict=True):
        np.testing.assert_allclose(np.reshape(given["boxes"], (-1, 4)), expected.boxes, atol=1e-3)
        np.testing.assert_array_equal(decode_mask(given["mask"]), expected.mask)
    assert server.health()["forward_passes"] == before


def test_settings_in_the_form_are_the_same_as_afterwards(server: GroundingServer) -> None:
    changes = {"score_threshold": 0.2, "nms": True, "mask_source": "instance", "max_side": 100}
    first = server.predict(draw_shapes(), *TEXTS, **changes).document
    again = server.postprocess(first["id"], **changes).document
    assert again == first
    assert (first["width"], first["height"]) == (100, 67)
    assert first["results"][0]["mask"]["size"] == [67, 100]


def test_requests_at_once_are_answered_as_if_alone(server: GroundingServer) -> None:
    images = [draw_shapes(width, 160) for width in range(160, 260, 5)]
    alone = [server.predict(image, *TEXTS[:2]).document["results"] for image in images]
    passes = server.health()["forward_passes"]
    with ThreadPoolExecutor(20) as clients:
        together = list(clients.map(lambda image: server.predict(image, *TEXTS[:2]), images))
    assert [reply.status for reply in together] == [200] * 20
    assert server.health()["forward_passes"] - passes <= 20
    for reply, results in zip(together, alone, strict=True):
        for given, expected in zip(reply.document["results"], results, strict=True):
            assert given["no_target"] == expected["no_target"]
            np.testing.assert_allclose(given["scores"], expected["scores"], atol=1e-4)
            assert np.mean(decode_mask(given["mask"]) != decode_mask(expected["mask"])) < 1e-3


def test_masks_are_downloaded_at_the_size_of_the_image(server: GroundingServer) -> None:
    answer = server.predict(draw_shapes(300, 200), *TEXTS, max_side=100).document
    full = server.postprocess(answer["id"], score_threshold=0.3).document["results"]
    reply = server.postprocess(answer["id"], "/masks", score_threshold=0.3)
    assert reply.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        index = json.loads(archive.read("index.json"))
        for number, (entry, result) in enumerate(zip(index, full, strict=True), start=1):
            assert (entry["text"], entry["file"]) == (result["text"], f"{number}.png")
            assert entry["no_target"] is result["no_target"]
            masks = [(entry["file"], result["mask"])]
            masks += zip([each["file"] for each in entry["instances"]], result["instance_masks"], strict=True)
            for name, mask in masks:
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    np.testing.assert_array_equal(np.asarray(image.convert("L")), decode_mask(mask) * np.uint8(255))
    reply = server.postprocess(answer["id"], "/masks/2", score_threshold=0.3)
    assert reply.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(reply.body)) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), decode_mask(full[1]["mask"]) * np.uint8(255))
    assert server.postprocess(answer["id"], "/masks/4").status == 404


def test_a_photo_is_turned_upright(server: GroundingServer) -> None:
    image = Image.open(io.BytesIO(draw_shapes()))
    image.getexif()[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, format="jpeg", exif=image.getexif())
    answer = server.predict(stream.getvalue(), "the red square").document
    assert (answer["image_width"], answer["image_height"]) == (160, 240)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "ppm", "avif"])
def test_the_named_kinds_of_images_are_read(server: GroundingServer, kind: str) -> None:
    assert server.predict(draw_shapes(kind=kind), "the red square").status == 200


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "data", [b"", b"hello", POSTSCRIPT, draw_shapes()[:300], b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
    ids=["empty", "text", "PostScript", "cut short", "SVG"],
)  # fmt: skip
def test_what_is_no_image_is_refused(server: GroundingServer, data: bytes) -> None:
    reply = server.predict(data, "the red square")
    assert reply.status == 422
    assert reply.document["detail"].startswith("the image")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(("width", "height"), [(30000, 30000), (8000, 8000), (40000, 1), (0x7FFFFFFF, 0x7FFFFFFF)])
def test_a_bomb_is_refused_before_it_is_decoded(server: GroundingServer, width: int, height: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    reply = server.predict(bomb, "the red square")
    assert reply.status == 413
    assert "megapixels" in reply.document["detail"]


@pytest.mark.parametrize("text", ["", "...", "x" * 1001], ids=["empty", "punctuation", "too long"])
def test_an_expression_without_a_word_or_of_too_many_characters_is_refused(server: GroundingServer, text: str) -> None:
    assert server.predict(draw_shapes(), text).status == 422


def test_too_many_expressions_are_refused(server: GroundingServer) -> None:
    assert server.predict(draw_shapes(), *["star"] * 16).status == 200
    assert server.predict(draw_shapes(), *["star"] * 17).status == 422


def test_half_of_a_surrogate_pair_is_refused(server: GroundingServer) -> None:
    body, kind = encode_form([("image", draw_shapes()), ("texts", "a \\ud800 star")])
    reply = server.ask("POST", "/predict", body, Content_Type=f"{kind}; charset=unicode_escape")
    assert reply.status == 422


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"score_threshold": 1.1}, "score_threshold"), ({"score_threshold": float("nan")}, "score_threshold"),
        ({"mask_source": "both"}, "mask_source"), ({"max_side": -1}, "max_side"), ({"nms": "perhaps"}, "nms"),
        ({"image": "/etc/passwd"}, "image"), ({"nms_iou": None}, "nms_iou"),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_settings_are_named_and_not_repeated(
    server: GroundingServer, settings: dict[str, object], word: str
) -> None:
    result = server.predict(draw_shapes(), "the red square").document["id"]
    reply = server.postprocess(result, **settings)
    assert reply.status == 422
    assert reply.document.keys() == {"detail"}
    assert word in reply.document["detail"]
    assert "passwd" not in reply.document["detail"]


def test_a_path_instead_of_an_image_is_refused(server: GroundingServer) -> None:
    body, kind = encode_form([("image", "/etc/passwd"), ("texts", "the red star")])
    reply = server.ask("POST", "/predict", body, Content_Type=kind)
    assert (reply.status, reply.document["detail"]) == (
        422,
        "image: expected a file, found a text; with curl, -F image=@FILE",
    )


def test_a_result_can_be_forgotten(server: GroundingServer) -> None:
    result = server.predict(draw_shapes(), "the red square").document["id"]
    assert server.ask("DELETE", f"/results/{result}").status == 204
    assert server.ask("DELETE", f"/results/{result}").status == 404
    for path in ("", "/masks", "/masks/1"):
        assert server.postprocess(result, path).status == 404
    assert server.postprocess("unknown").status == 404


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/static/index.html", "/static/..%2f..%2fapp.py", "/../app.py"])
def test_no_other_file_is_served(server: GroundingServer, path: str) -> None:
    assert server.ask("GET", path).status == 404


def test_a_larger_upload_is_refused(server: GroundingServer) -> None:
    limit = server.health()["limits"]["upload_bytes"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {limit + 1}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_an_upload_without_a_length_is_refused_when_it_becomes_too_large() -> None:
    with run_server("--set", "max_upload_mebibytes=1") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            )
            head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
            for data in (head, *[bytes(1 << 18)] * 6):
                connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        assert server.predict(draw_shapes(), "the red square").status == 200


def test_the_outputs_that_are_kept_have_arrays_of_their_own(grounder: Grounder) -> None:
    from pipelines.config.settings import ServeSettings
    from pipelines.serving.service import GroundingService

    service = GroundingService(grounder, ServeSettings())
    examples = service._prepare(io.BytesIO(draw_shapes()), ["star", "square"])
    outputs: list[RawOutput] = [future.result(60) for future in service.queue.submit(examples)]
    service.queue.close()
    assert outputs[0].class_logits.base is None
    assert outputs[0].global_mask_logits.base is None
