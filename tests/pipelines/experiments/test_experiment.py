"""Experiment files: what they may say, and what a wrong one is answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.config.presets import train_preset
from pipelines.experiments.experiment import Experiment, Stages, read_experiment, run_stages
from pipelines.networks import SHIPPED
from pipelines.stages.artifact import read_artifact
from shards.errors import ArtifactError, DataError, SettingsError
from shards.progress import set_sink
from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.opened_files import record_opened
from tests.support.pipeline_runs import draw_published
from tests.support.zero_shot_models import save_model

TEXT = """
[prepare.first]
dataset = "grefcoco"
annotations = "a"
images = ["b", "c"]

[prepare.ref-zom]
annotations = "d"
images = "b"

[train]
preset = "tiny"
epochs = 3
optimizer.head_lr = 2e-3

[predict]
splits = ["first/val", "ref-zom/test"]
"""


def read(folder: Path, text: str = TEXT) -> Experiment:
    file = folder / "mine.toml"
    file.write_text(text)
    return read_experiment(file)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    assert experiment.out == tmp_path / "runs" / "mine"
    assert experiment.prepare["first"].annotations == tmp_path / "a"
    assert experiment.prepare["first"].images == (tmp_path / "b", tmp_path / "c")
    assert experiment.prepare["ref-zom"].images == (tmp_path / "b",)


def test_the_files_that_a_training_starts_from_are_relative_to_the_file_too(tmp_path: Path) -> None:
    text = TEXT.replace("epochs = 3", 'epochs = 3\ninit = "beit3.zip"\ntext.tokenizer = "words/beit3.spm"')
    train = read(tmp_path, text).train
    assert (train.init, train.text.tokenizer) == (f"{tmp_path}/beit3.zip", f"{tmp_path}/words/beit3.spm")
    train = read(tmp_path).train
    assert (train.init, train.text.tokenizer) == ("", "")


def test_a_training_s_recipe_lies_between_the_preset_and_its_other_settings(tmp_path: Path) -> None:
    train = read(tmp_path, TEXT.replace("epochs = 3", 'epochs = 3\nrecipe = "refcoco"')).train
    assert (train.preset, train.epochs, train.text.max_tokens, train.optimizer.head_lr) == ("tiny", 3, 20, 2e-3)
    assert train.model.encoder_dim == train_preset("tiny").model.encoder_dim


def test_shards_may_carry_their_ratios_and_a_name_that_ends_like_one_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "own:3").mkdir()
    shards = 'shards = ["first:2", "own:3", "ref-zom:0.5"]'
    experiment = read(tmp_path, TEXT.replace("epochs = 3", shards))
    assert experiment.train_on == ("first", "own:3", "ref-zom")
    assert experiment.train.ratios == (2.0, 1.0, 0.5)
    assert experiment.folders == {"own:3": tmp_path / "own:3"}


def test_sets_to_compare_with_are_names_or_folders(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    text = TEXT.replace("epochs = 3", 'shards = "first"\nheld_out = ["ref-zom", "own"]')
    experiment = read(tmp_path, text)
    assert (experiment.train.held_out, experiment.train_on) == (("ref-zom", "own"), ("first",))
    assert experiment.folders == {"own": tmp_path / "own"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('recipe = "refcco"', r"mine\.toml: no recipe refcco; did you mean refcoco\?"),
        ("recipe = 3", r"mine\.toml: train\.recipe is 3, not a string"),
    ],
)
def test_a_wrong_recipe_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read(tmp_path, TEXT.replace("epochs = 3", line))


def test_a_shipped_network_is_named_from_every_folder_and_a_checkpoint_beside_the_file_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "shapes").mkdir(parents=True)
    (tmp_path / "here" / "shapes" / "config.json").touch()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "shapes").mkdir()
    training = TEXT.replace("epochs = 3", 'init = "shapes"')
    predicting = f'{TEXT[: TEXT.index("[train]")]}[predict]\ncheckpoint = "shapes"\nsplits = ["first/val"]'
    for folder, expected in ((tmp_path, SHIPPED["shapes"]), (tmp_path / "here", tmp_path / "here" / "shapes")):
        assert read(folder, training).train.init == str(expected)
        assert read(folder, predicting).checkpoint == expected


def test_a_table_s_name_is_its_data_set_unless_it_names_one(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    assert [step.settings.dataset for step in experiment.prepare.values()] == ["grefcoco", "ref-zom"]


def test_training_starts_from_its_preset(tmp_path: Path) -> None:
    train, preset = read(tmp_path).train, train_preset("tiny")
    assert (train.epochs, train.optimizer.head_lr) == (3, 2e-3)
    assert (train.model, train.optimizer.encoder_lr) == (preset.model, preset.optimizer.encoder_lr)


def test_all_prepared_sets_are_trained_on_unless_some_are_chosen(tmp_path: Path) -> None:
    assert read(tmp_path).train_on == ("first", "ref-zom")
    chosen = TEXT.replace("epochs = 3", 'shards = ["ref-zom"]')
    assert read(tmp_path, chosen).train_on == ("ref-zom",)


def test_splits_are_pairs_of_name_and_split(tmp_path: Path) -> None:
    assert read(tmp_path).predict_on == (("first", "val"), ("ref-zom", "test"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[train]", "[trian]", "did you mean train?"),
        ("epochs", "epoch", "epochs"),
        ("optimizer.head_lr", "optimizer.hed_lr", "head_lr"),
        ("first/val", "second/val", "second is not prepared; there are first, ref-zom"),
        ('"first/val"', '"val"', "write name/split"),
        ('annotations = "a"', "", "prepare.first has no annotations"),
        ("epochs = 3", "epochs = ", "mine.toml"),
        ('preset = "tiny"', 'preset = "tniy"', "no preset 'tniy'; there are base, large, tiny"),
        ('preset = "tiny"', 'preset = ["tiny"]', "train.preset is ['tiny'], not a string"),
        ("epochs = 3", "shards = 3", "train.shards is 3, not a list of strings"),
        ("epochs = 3", "shards = []", "train has no shards"),
        ("epochs = 3", 'shards = ["first:0", "ref-zom"]', "train.shards first:0: a ratio is a number above 0"),
        (
            "epochs = 3",
            'shards = ["first:2", "first"]',
            "train.shards: [prepare.first] is given twice; give it once, with",
        ),
        ("epochs = 3", 'held_out = ["third"]', "third is not prepared; there are first, ref-zom, and no folder"),
        ("epochs = 3", 'shards = ["first", "third"]', "third is not prepared; there are first, ref-zom, and no folder"),
        ('splits = ["first/val", "ref-zom/test"]', "", "predict has no splits"),
        ("[predict]", '[predict]\ncheckpoint = "runs/other"', "predict has a checkpoint, and train makes one"),
        ("[predict]", "[score]\nresolutoin = 1\n[predict]", "resolution"),
        ("[predict]", '[score]\nsplits = ["first/val"]\n[predict]', "score has predictions or splits of its own"),
        ('[train]\npreset = "tiny"\nepochs = 3\noptimizer.head_lr = 2e-3', "", "predict has no network; write [train]"),
        (TEXT, "out = 'runs'", "names no stage; write a table [prepare], [train], [predict], [score] for each"),
        (TEXT, "train = 3", "train is 3, not a table; write [train]"),
        (TEXT, "[prepare]\nfirst = 3", "prepare.first is 3, not a table"),
        (TEXT, "[train]", "train has no shards; name prepared folders in shards, or write a [prepare.NAME]"),
        (TEXT, "[score]", "score has nothing to score; write [predict], or name predictions and splits"),
        (TEXT, "[score]\npredictions = ['a', 'b']", "score needs as many splits as predictions"),
        (TEXT, "out = 3\n[train]", "out is 3, not a string"),
        ('annotations = "a"', 'annotations = ["a", "b"]', "prepare.first.annotations is ['a', 'b'], not a string"),
        (TEXT, "[predict]\ncheckpoint = ['a', 'b']", "predict.checkpoint is ['a', 'b'], not a string"),
    ],
)
def test_a_wrong_file_is_answered_with_what_would_be_right(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, TEXT.replace(old, new))
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        read_experiment(tmp_path / "nowhere.toml")


# The stages that a file names, no others


SMALL = """
preset = "tiny"
max_steps = 1
batch_size = 4
workers = 0
validation_limit = 2
precision = "fp32"
[train.model]
image_size = 32
patch_size = 8
encoder_dim = 16
encoder_layers = 1
encoder_heads = 2
encoder_ffn = 32
hidden_dim = 16
decoder_layers = 1
decoder_heads = 2
decoder_ffn = 16
generation_ffn = 16
num_queries = 4
"""


def run(folder: Path, text: str) -> Stages:
    file = folder / "mine.toml"
    file.write_text(f'out = "runs"\n{text}')
    return run_stages(read_experiment(file))


def list_stages(folder: Path) -> list[str]:
    """The stages that left a folder."""
    folders = (folder / "runs").iterdir() if (folder / "runs").is_dir() else []
    return sorted(path.name.partition("-")[0] for path in folders)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an experiment that names `prepare` alone."""
    home = tmp_path_factory.mktemp("home")
    draw_published(home / "published", train_images=4)
    run(home, '[prepare.grefcoco]\nannotations = "published/grefcoco"\nimages = "published/images/train2014"\n')
    return home


def find_shards(prepared: Path) -> Path:
    return next((prepared / "runs").glob("prepare-*"))


def test_a_file_that_names_prepare_alone_prepares_and_does_not_train(prepared: Path) -> None:
    assert list_stages(prepared) == ["prepare"]


def test_a_file_that_names_train_alone_trains_on_prepared_folders(prepared: Path, tmp_path: Path) -> None:
    stages = run(tmp_path, f'[train]\nshards = "{find_shards(prepared)}"{SMALL}')
    assert read_artifact(stages.checkpoint, "train").counts["steps"] == 1
    assert list_stages(tmp_path) == ["train"]
    assert stages.scores == []


def test_a_split_that_is_not_there_is_told_before_a_training(prepared: Path, tmp_path: Path) -> None:
    shards = find_shards(prepared)
    with pytest.raises(DataError, match="vall"):
        run(tmp_path, f'[predict]\nsplits = ["{shards}/vall"]\n[train]\nshards = "{shards}"{SMALL}')
    assert list_stages(tmp_path) == []


def test_a_file_that_names_predict_alone_predicts_with_a_checkpoint_and_does_not_score(
    prepared: Path, tmp_path: Path
) -> None:
    text = f'[predict]\ncheckpoint = "shapes"\nsplits = ["{find_shards(prepared)}/val"]\nbatch_size = 3\nworkers = 0\n'
    assert run(tmp_path, text).scores == []
    assert list_stages(tmp_path) == ["predict"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "score").exists()
    assert read_artifact(folder, "predict").options["batch_size"] == 3
    (report,) = run(tmp_path, f"{text}[score]\nbootstrap = 7\n").scores
    assert report.dataset == "grefcoco"
    assert read_artifact(folder / "score", "score").options["bootstrap"] == 7


def test_a_zero_shot_model_is_named_with_its_own_settings_and_with_a_model_for_masks(tmp_path: Path) -> None:
    write_shards(tmp_path / "drawn")
    for family in ("owlvit", "sam"):
        save_model(family, tmp_path / family)
    text = '[predict]\ncheckpoint = "owlvit"\nmasks = "sam"\nsplits = "drawn/shards/val"\nworkers = 0\n'
    (report,) = run(tmp_path, f"{text}threshold = 0.2\n[score]\nbootstrap = 0\n").scores
    assert report.metrics["gIoU"] is not None
    (folder,) = (tmp_path / "runs").iterdir()
    assert read_artifact(folder, "predict").options["threshold"] == 0.2
    with pytest.raises(SettingsError, match=r"no setting predict\.postprocess"):
        read(tmp_path, f"{text}postprocess.nms = true\n")


def test_a_finished_experiment_reads_its_checkpoint_at_most_once_for_each_split(prepared: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(SHIPPED["shapes"], tmp_path / "checkpoint")
    shards = find_shards(prepared)
    text = f'[predict]\ncheckpoint = "{checkpoint}"\nsplits = ["{shards}/train", "{shards}/val"]\nworkers = 0\n'
    run(tmp_path, text)
    with record_opened() as opened:
        run(tmp_path, text)
    # Not at all where the first run remembers its digest, which depends on how new the file was.
    assert opened.count(str(checkpoint / "model.safetensors")) <= 2


def test_a_file_that_names_score_alone_scores_predictions_with_its_settings(tmp_path: Path) -> None:
    write_shards(tmp_path / "drawn")
    write_lines(tmp_path / "found.jsonl", predict_truth())
    (report,) = run(
        tmp_path, '[score]\npredictions = "found.jsonl"\nsplits = "drawn/shards/val"\nresolution = 4\nseed = 5\n'
    ).scores
    assert (report.resolution, report.metrics["gIoU"]) == (4, 100)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("score-shards-val-")
    options = read_artifact(folder, "score").options
    assert (options["resolution"], options["seed"], options["split"]) == (4, 5, "val")


def test_what_looks_wrong_in_predictions_is_told_as_igvg_score_does(tmp_path: Path) -> None:
    write_shards(tmp_path / "drawn")
    lines = [line | {"boxes": [[value / 16 for value in box] for box in line["boxes"]]} for line in predict_truth()]
    write_lines(tmp_path / "found.jsonl", lines)
    lines: list[str] = []
    with set_sink(log=lines.append):
        run(tmp_path, '[score]\npredictions = "found.jsonl"\nsplits = "drawn/shards/val"\n')
    assert sum("look normalized" in line for line in lines) == 1


def test_a_damaged_stage_runs_again_once_its_folder_is_removed_as_the_error_says(tmp_path: Path) -> None:
    write_shards(tmp_path / "drawn")
    write_lines(tmp_path / "found.jsonl", predict_truth())
    text = '[score]\npredictions = "found.jsonl"\nsplits = "drawn/shards/val"\nbootstrap = 2\n'
    (report,) = run(tmp_path, text).scores
    (folder,) = (tmp_path / "runs").iterdir()
    (folder / "scores.json").unlink()
    with pytest.raises(ArtifactError, match=f"{folder}/scores.json is missing: .*; remove its folder"):
        run(tmp_path, text)
    shutil.rmtree(folder)
    assert run(tmp_path, text).scores == [report]
