"""What makes an artifact another one: every setting that is not listed here, and the content of every input."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipelines.config.overrides import overlay_settings, to_mapping
from pipelines.config.presets import train_preset
from pipelines.config.settings import (
    PostprocessSettings,
    PredictSettings,
    PrepareSettings,
    ScoreSettings,
    TrainSettings,
)
from pipelines.data.image_queries import query_images
from pipelines.data.tokenizer import train_tokenizer
from pipelines.model import IGVGModel
from pipelines.pretrained import save_checkpoint
from pipelines.stages import predict, predict_images, prepare, score, train
from pipelines.stages.artifact import Stage
from shards.errors import ArtifactError, SettingsError
from shards.reader import ShardReader
from tests.support.drawn_outputs import draw_outputs, write_outputs
from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.small_network import CONFIG, save_small_network

OUT = Path("out")
# What changes how fast or how safely a stage works, and no byte of what it makes.
NOT_FINGERPRINTED = {
    "workers", "cache", "cache_limit", "checkpoint_minutes", "keep_states", "keep_last_state", "max_skipped_steps",
    "keep_validation_predictions", "log_steps", "log_with", "profile_steps", "activation_checkpointing",
}  # fmt: skip
# Files and folders, which count by what they hold.
BY_CONTENT = {"init", "text.tokenizer", "held_out"}
WORDS = (
    "tiny", "base", "large", "fp32", "bf16", "image", "decoder", "step", "cosine", "merge", "instance", "global",
    "l2", "mean", "shifted", "point", "paper", "published", "network", "encoder", "grid", "another",
)  # fmt: skip


def list_keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of nested settings."""
    keys: list[str] = []
    for key, value in values.items():
        keys += list_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return keys


def propose(value: Any) -> Iterator[Any]:
    """Other values, some of which a setting may take."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, 2 * value, value / 2, 0.5)
    elif isinstance(value, str):
        yield from (word for word in WORDS if word != value)
    else:
        yield from ([0.5, *value[1:]], [*value, 9], [*value, "another"], [*value, "tensorboard"])


def change(settings: Any, key: str) -> Any:
    """The settings with another value of one key."""
    old: Any = to_mapping(settings)
    for part in key.split("."):
        old = old[part]
    for value in propose(old):
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        try:
            changed = overlay_settings(settings, nested, "test")
        except (SettingsError, ValueError):
            continue
        if changed != settings:
            return changed
    pytest.fail(f"no other value of {key} than {old!r} is known here")


def select_keys(settings: Any, *left_out: str) -> list[str]:
    return [key for key in list_keys(to_mapping(settings)) if key not in {*NOT_FINGERPRINTED, *BY_CONTENT, *left_out}]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_small_network(tmp_path / "run")


# Settings


@pytest.mark.parametrize("key", select_keys(TrainSettings()))
def test_every_setting_of_a_training_is_part_of_its_fingerprint(shards: Path, key: str) -> None:
    settings = train_preset("base")
    before, after = (train.describe(one, [shards], OUT) for one in (settings, change(settings, key)))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("key", select_keys(PredictSettings()))
def test_every_setting_of_a_prediction_is_part_of_its_fingerprint(shards: Path, checkpoint: Path, key: str) -> None:
    settings = PredictSettings(split="val")
    before, after = (predict.describe(one, checkpoint, shards, OUT) for one in (settings, change(settings, key)))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("key", select_keys(PrepareSettings(dataset=""), "dataset"))
def test_every_setting_of_a_preparation_is_part_of_its_fingerprint(tmp_path: Path, key: str) -> None:
    settings = PrepareSettings(dataset="rrefcoco")
    before, after = (describe_prepare(tmp_path, one) for one in (settings, change(settings, key)))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("key", select_keys(ScoreSettings(split=""), "split"))
def test_every_setting_of_a_score_is_part_of_its_fingerprint(shards: Path, tmp_path: Path, key: str) -> None:
    settings = ScoreSettings(split="val", bootstrap=2)
    file = write_lines(tmp_path / "predictions.jsonl", predict_truth())
    score.run(file, shards, settings, out=tmp_path / "score")
    assert score.run(file, shards, settings, out=tmp_path / "score").cached
    with pytest.raises(ArtifactError, match=rf"\b{key}\b"):
        score.run(file, shards, change(settings, key), out=tmp_path / "score")


@pytest.mark.parametrize("key", select_keys(PostprocessSettings()))
def test_every_setting_of_post_processing_is_part_of_the_fingerprint_of_answers(
    shards: Path, tmp_path: Path, key: str
) -> None:
    raw = draw_raw(shards, tmp_path / "raw")
    settings = PostprocessSettings()
    predict.run_on_raw(settings, raw, tmp_path / "out")
    assert predict.run_on_raw(settings, raw, tmp_path / "out").cached
    with pytest.raises(ArtifactError, match=rf"\bpostprocess\.{key}\b"):
        predict.run_on_raw(change(settings, key), raw, tmp_path / "out")


@pytest.mark.parametrize("key", sorted(NOT_FINGERPRINTED))
def test_what_changes_no_byte_is_no_part_of_a_fingerprint(shards: Path, checkpoint: Path, key: str) -> None:
    settings = TrainSettings()
    assert train.describe(change(settings, key), [shards], OUT) == train.describe(settings, [shards], OUT)
    if hasattr(predicting := PredictSettings(split="val"), key):
        described = predict.describe(change(predicting, key), checkpoint, shards, OUT)
        assert described == predict.describe(predicting, checkpoint, shards, OUT)


# Inputs of a training


def identify_training(shards: list[Path], **changes: Any) -> str:
    return train.describe(replace(TrainSettings(), **changes), shards, OUT).fingerprint


def with_tokenizer(path: Path) -> dict[str, Any]:
    return {"text": replace(TrainSettings().text, tokenizer=str(path))}


def test_a_training_is_known_by_the_content_of_its_shards_and_their_order(shards: Path, tmp_path: Path) -> None:
    other, again = write_shards(tmp_path / "other", images=4), write_shards(tmp_path / "again")
    prints = [identify_training(chosen) for chosen in ([shards], [other], [shards, other], [other, shards])]
    assert len(set(prints)) == 4
    assert identify_training([again]) == prints[0]


def test_a_training_is_known_by_the_content_of_the_sets_that_are_held_out(shards: Path, tmp_path: Path) -> None:
    other, again = write_shards(tmp_path / "other", images=4), write_shards(tmp_path / "again")
    sets: list[tuple[str, ...]] = [(), (str(shards),), (str(other),), (str(shards), str(other))]
    assert len({identify_training([shards], held_out=chosen) for chosen in sets}) == 4
    held_out = [identify_training([shards], held_out=(str(folder),)) for folder in (shards, again)]
    assert held_out[0] == held_out[1]


def test_a_training_is_known_by_the_content_of_the_checkpoint_it_starts_from(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    first = identify_training([shards], init=str(checkpoint))
    assert first == identify_training([shards], init=str(moved))
    assert first != identify_training([shards])
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        changed = shutil.copytree(checkpoint, tmp_path / f"changed-{name}")
        append_space(changed / name)
        assert identify_training([shards], init=str(changed)) != first, name


def test_a_training_is_known_by_the_content_of_a_published_encoder_and_its_tokenizer(
    shards: Path, tmp_path: Path
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beit3.zip").write_bytes(b"weights")
        (tmp_path / folder / "beit3.spm").write_bytes(b"pieces")
    (tmp_path / "own.spm").write_bytes(b"pieces")
    (tmp_path / "copy.spm").write_bytes(b"pieces")
    (tmp_path / "other.spm").write_bytes(b"others")
    here, there = (str(tmp_path / folder / "beit3.zip") for folder in ("here", "there"))
    assert identify_training([shards], init=here) == identify_training([shards], init=there)
    own = identify_training([shards], init=here, **with_tokenizer(tmp_path / "own.spm"))
    assert own == identify_training([shards], init=there, **with_tokenizer(tmp_path / "copy.spm"))
    assert own != identify_training([shards], init=here, **with_tokenizer(tmp_path / "other.spm"))
    before = identify_training([shards], init=there)
    (tmp_path / "there" / "beit3.spm").write_bytes(b"others")
    assert identify_training([shards], init=there) != before
    (tmp_path / "there" / "beit3.spm").write_bytes(b"pieces")
    (tmp_path / "there" / "beit3.zip").write_bytes(b"changed")
    assert identify_training([shards], init=there) != before


# Inputs of a prediction, of a preparation, of a score


def test_a_prediction_is_known_by_the_content_of_its_checkpoint_and_of_its_shards(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    settings = PredictSettings(split="val")

    def identify(model: Path, data: Path) -> str:
        return predict.describe(settings, model, data, OUT).fingerprint

    first = identify(checkpoint, shards)
    moved = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    assert identify(moved, shutil.copytree(shards, tmp_path / "copied")) == first
    assert identify(moved / "model.safetensors", shards) == first
    assert identify(checkpoint, write_shards(tmp_path / "other", images=4)) != first
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        changed = shutil.copytree(checkpoint, tmp_path / f"changed-{name}")
        append_space(changed / name)
        assert identify(changed, shards) != first, name
    append_space(moved / "config.json")
    assert identify(moved / "model.safetensors", shards) != first


def test_a_published_file_is_known_with_the_tokenizer_beside_it(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "published.pth").write_bytes(b"weights")
    (tmp_path / "beit3.spm").write_bytes(b"pieces")

    def identify() -> str:
        return predict.describe(PredictSettings(split="val"), tmp_path / "published.pth", shards, OUT).fingerprint

    first = identify()
    (tmp_path / "beit3.spm").write_bytes(b"others")
    assert identify() != first


def test_a_search_in_images_is_known_by_the_images_and_the_texts(checkpoint: Path, tmp_path: Path) -> None:
    for folder, colour in (("one", "red"), ("two", "red"), ("three", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 12), colour).save(tmp_path / folder / "street.png")

    def search(folder: str, text: str) -> bool:
        settings = PredictSettings(workers=0)
        queries = query_images([tmp_path / folder / "street.png"], [text])
        return predict_images.run_on_images(settings, checkpoint, queries, tmp_path / "found").cached

    assert not search("one", "red star")
    assert search("two", "red star")
    with pytest.raises(ArtifactError, match="texts"):
        search("one", "blue star")
    with pytest.raises(ArtifactError, match=r"street\.png"):
        search("three", "red star")


def test_predictions_are_known_by_the_content_of_their_raw_outputs(shards: Path, tmp_path: Path) -> None:
    settings = PostprocessSettings()
    raw = draw_raw(shards, tmp_path / "raw")
    moved = shutil.copytree(raw, tmp_path / "moved")
    other = draw_raw(shards, tmp_path / "other", no_object_bias=1)
    predict.run_on_raw(settings, raw, tmp_path / "out")
    assert predict.run_on_raw(settings, moved, tmp_path / "out").cached
    with pytest.raises(ArtifactError, match="input raw differs"):
        predict.run_on_raw(settings, other, tmp_path / "out")


def test_a_preparation_is_known_by_its_annotations_and_by_the_names_and_sizes_of_its_images(tmp_path: Path) -> None:
    settings = PrepareSettings(dataset="rrefcoco")

    def identify() -> str:
        return describe_prepare(tmp_path, settings).fingerprint

    seen = {identify()}
    assert len(seen) == 1
    for name, content in (
        ("annotations/refs(unc).p", b"x"),
        ("annotations/instances.json", b"{}"),
        ("images/1.jpg", b"22"),
    ):
        (tmp_path / name).write_bytes(content)
        seen.add(identify())
    (tmp_path / "images" / "1.jpg").rename(tmp_path / "images" / "2.jpg")
    seen.add(identify())
    assert len(seen) == 5
    assert describe_prepare(tmp_path, PrepareSettings(dataset="rrefcoco+")).fingerprint not in seen


def test_a_score_is_known_by_the_content_of_predictions_and_shards(shards: Path, tmp_path: Path) -> None:
    settings, out = ScoreSettings(split="val", bootstrap=2), tmp_path / "score"
    truth = write_lines(tmp_path / "truth.jsonl", predict_truth())
    again = write_lines(tmp_path / "again.jsonl", predict_truth())
    lines = predict_truth()
    other = write_lines(tmp_path / "other.jsonl", [lines[0] | {"no_target": False}, *lines[1:]])
    assert not score.run(truth, shards, settings, out=out).cached
    assert score.run(again, shutil.copytree(shards, tmp_path / "copied"), settings, out=out).cached
    with pytest.raises(ArtifactError, match="input predictions differs"):
        score.run(other, shards, settings, out=out)
    with pytest.raises(ArtifactError, match="input shards differs"):
        score.run(truth, write_shards(tmp_path / "four", images=4), settings, out=out)


def describe_prepare(folder: Path, settings: PrepareSettings) -> Stage:
    if not (folder / "annotations").exists():
        (folder / "annotations").mkdir()
        (folder / "images").mkdir()
        for name in ("annotations/refs(unc).p", "annotations/instances.json", "images/1.jpg"):
            (folder / name).write_bytes(b"1")
    return prepare.describe(settings, folder / "annotations", [folder / "images"], OUT)


def draw_raw(shards: Path, folder: Path, **sizes: int) -> Path:
    with ShardReader(shards, "val") as reader:
        return write_outputs(folder, draw_outputs(list(reader.records()), **sizes))


def append_space(file: Path) -> None:
    """Another file that says the same, as far as JSON is concerned."""
    file.write_bytes(file.read_bytes() + b" ")


def test_weights_of_one_bit_s_difference_are_another_checkpoint(shards: Path, tmp_path: Path) -> None:
    model = IGVGModel(CONFIG)
    tokenizer = train_tokenizer(["red star"] * 3, 40)
    save_checkpoint(tmp_path / "one", model, tokenizer, 9)
    with torch.no_grad():
        model.class_head.bias[0] = torch.nextafter(model.class_head.bias[0], torch.tensor(1.0))
    save_checkpoint(tmp_path / "two", model, tokenizer, 9)
    settings = PredictSettings(split="val")
    one, two = (predict.describe(settings, tmp_path / name, shards, OUT) for name in ("one", "two"))
    assert one.fingerprint != two.fingerprint
