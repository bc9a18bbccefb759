"""Settings from TOML and --set: what is taken, and what every slip is told."""

import hashlib
import json
from pathlib import Path

import pytest

from pipelines.config.overrides import (
    describe_differences,
    fingerprinted_settings,
    from_mapping,
    overlay_settings,
    read_settings,
    read_toml,
    to_mapping,
)
from pipelines.config.presets import train_preset
from pipelines.config.settings import PostprocessSettings, TrainSettings
from shards.errors import SettingsError
from tests.support.foreign_contents import list_foreign_contents


def test_a_dotted_key_reaches_into_a_group() -> None:
    settings = read_settings(train_preset("tiny"), overrides=["optimizer.head_lr=1e-4", "model.num_queries=5"])
    assert settings.optimizer.head_lr == 1e-4
    assert settings.model.num_queries == 5


def test_values_are_read_as_toml_and_names_need_no_quotes() -> None:
    settings = read_settings(
        train_preset("base"), overrides=["optimizer.decay_epochs=[3, 5]", "precision=bf16", "postprocess.nms=true"]
    )
    assert settings.optimizer.decay_epochs == (3, 5)
    assert settings.precision == "bf16"
    assert settings.postprocess.nms is True


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text("epochs = 3\nseed = 1\n[loss]\nattention = 0.5\n")
    settings = read_settings(train_preset("tiny"), file, ["epochs=4"])
    assert (settings.epochs, settings.seed, settings.loss.attention) == (4, 1, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs=3", "no setting epocs; did you mean epochs"),
        ("optimizer.hed_lr=1", "did you mean optimizer.head_lr"),
        ("num_queries=3", "did you mean model.num_queries"),
        ("lr=1", "did you mean optimizer.encoder_lr or optimizer.head_lr"),
        ("zzzz=1", "there are preset, seed"),
        ("optimizer=3", "optimizer is a group; set one of its keys, e.g. optimizer.encoder_lr"),
        ("epochs", "write it as KEY=VALUE"),
        ("epochs=x", "epochs = 'x'"),
        ("epochs=0", "epochs = 0"),
        ("precision=fp8", "should be 'auto', 'fp32', 'tf32', 'bf16' or 'fp16'"),
        ("model.image_size=97", "image_size 97 is not a multiple of patch_size 12"),
        ("splits=testB", r"""splits = 'testB': expected a list, such as \["testB"\]"""),
    ],
)
def test_a_wrong_override_is_an_error_that_helps(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        read_settings(train_preset("tiny"), overrides=[text])


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("epochs = = 3")
    with pytest.raises(SettingsError, match=r"bad\.toml: cannot be read as TOML"):
        read_settings(train_preset("tiny"), file)


def test_a_missing_value_is_named() -> None:
    from pipelines.config.settings import ScoreSettings

    with pytest.raises(SettingsError, match="split is missing"):
        from_mapping(ScoreSettings, {})


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match="tiny"):
        train_preset("huge")  # type: ignore[arg-type]


def test_settings_survive_the_way_to_json_and_back() -> None:
    settings = train_preset("large")
    assert from_mapping(TrainSettings, to_mapping(settings)) == settings


def test_settings_that_change_no_byte_are_left_out_of_the_material_ones() -> None:
    material = fingerprinted_settings(train_preset("base"))
    assert "workers" not in material
    assert material["optimizer"]["encoder_lr"] == 5e-5


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("loss.whole=0.5", "global_mask", 0.5),
        ("loss.global_mask=0.5", "global_mask", 0.5),
        ("model.auxiliary_boxes=published", "auxiliary_boxes", "published"),
        ("loss.auxiliary_boxes=published", "auxiliary_boxes", "published"),
    ],
)
def test_settings_of_earlier_versions_are_read_under_their_present_names(
    override: str, key: str, value: object
) -> None:
    settings = read_settings(train_preset("tiny"), overrides=[override])
    assert getattr(settings.loss, key) == value
    group, _, rest = override.partition(".")
    changes = {group: {rest.partition("=")[0]: value}}
    assert overlay_settings(train_preset("tiny"), changes, "a.toml") == settings


def test_values_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'mask_targets = "picture"\n[loss]\nwhole = 2\n[model]\nauxiliary_boxes = "paper"\n'
    )
    settings = read_settings(train_preset("tiny"), tmp_path / "a.toml")
    assert (settings.mask_targets, settings.loss.global_mask) == ("image", 2)


def test_errors_name_present_keys() -> None:
    with pytest.raises(SettingsError, match=r"loss\.global_mask = -1"):
        read_settings(train_preset("tiny"), overrides=["loss.whole=-1"])
    with pytest.raises(SettingsError, match=r"loss\.auxiliary_boxes = 'no'"):
        read_settings(train_preset("tiny"), overrides=["model.auxiliary_boxes=no"])


def test_fingerprints_are_those_of_earlier_versions() -> None:
    # Computed before the settings were renamed.
    expected = {"tiny": "50609249baa126f2", "base": "3559e90af4b3f9ca", "large": "eb8af643081e1982"}
    for name, digest in expected.items():
        text = json.dumps(fingerprinted_settings(train_preset(name)), sort_keys=True)  # type: ignore[arg-type]
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_differences_are_told_by_dotted_key_and_both_values() -> None:
    old, new = to_mapping(PostprocessSettings()), to_mapping(PostprocessSettings(nms=True))
    assert describe_differences({"postprocess": old}, {"postprocess": new}) == ["postprocess.nms False → True"]
    assert describe_differences({"a": 1}, {"b": 2}) == ["a 1 → unset", "b unset → 2"]


def test_the_defaults_are_the_papers_recipe() -> None:
    settings = train_preset("base")
    assert (settings.epochs, settings.batch_size, settings.model.image_size) == (10, 16, 320)
    assert (settings.optimizer.encoder_lr, settings.optimizer.head_lr) == (5e-5, 5e-4)
    assert (settings.matching.class_cost, settings.matching.box_cost) == (1.0, 5.0)
    assert (settings.matching.giou_cost, settings.matching.point_cost) == (2.0, 2.0)
    assert (settings.loss.detection, settings.loss.existence, settings.loss.negative) == (0.1, 0.2, 0.2)


def test_a_byte_order_mark_before_settings_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[a]\nb = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"a": {"b": 1}}


@pytest.mark.parametrize("kind", [kind for kind in list_foreign_contents(b"") if kind != "half"])
def test_settings_that_are_something_else_are_told(tmp_path: Path, kind: str) -> None:
    content, words = list_foreign_contents(b"[train]\n")[kind]
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"a\.toml: {words}, not settings in TOML; "):
        read_toml(tmp_path / "a.toml")


def test_blank_settings_are_told_and_comments_alone_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("\n \n")
    with pytest.raises(SettingsError, match=r"a\.toml: is blank text, not settings in TOML; give a TOML file"):
        read_toml(file)
    file.write_text("# batch_size = 8\n")
    assert read_toml(file) == {}


def test_no_error_of_the_system_is_shown_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere" / "x.toml", tmp_path / "file" / "x.toml", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(SettingsError) as caught:
            read_toml(path)
        assert str(path) in str(caught.value)
        assert "Errno" not in str(caught.value)
