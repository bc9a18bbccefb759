"""Checkpoints whose files are not what their names say: one line that says what they are, and no code is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.data.tokenizer import load_tokenizer
from pipelines.model.convert.instancevg import load_instancevg_checkpoint
from pipelines.pretrained import load_checkpoint, open_checkpoint
from pipelines.training.state_files import read_state, write_state
from shards.errors import CheckpointError, SettingsError
from tests.support.foreign_contents import POINTER, list_foreign_contents
from tests.support.small_network import CONFIG, save_small_network

KINDS = list(list_foreign_contents(b""))
PARTS = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
ADVICE = ("weights_only", "trust_remote_code", "safe_globals", "torch.load", "allow_pickle")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network."""
    return save_small_network(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def refuse(path: Path, load: Callable[[Path], Any] = load_checkpoint) -> str:
    """The one line of a checkpoint that cannot be used; it never advises to read without protection."""
    with pytest.raises((CheckpointError, SettingsError)) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert not [word for word in ADVICE if word in text]
    return text


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_something_else_is_named_with_what_it_is(folder: Path, part: str, kind: str) -> None:
    content, words = list_foreign_contents((folder / part).read_bytes())[kind]
    (folder / part).write_bytes(content)
    error = refuse(folder)
    assert part in error
    assert words in error


@pytest.mark.parametrize("part", [part for part in PARTS if part.endswith(".json")])
def test_a_byte_order_mark_is_passed_over(folder: Path, part: str) -> None:
    (folder / part).write_bytes(b"\xef\xbb\xbf" + (folder / part).read_bytes())
    assert load_checkpoint(folder)[2] == 9


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_file_and_a_state_that_are_something_else_are_named(tmp_path: Path, kind: str) -> None:
    write_state(tmp_path, {"step": 7})
    content, words = list_foreign_contents((tmp_path / "state.pt").read_bytes())[kind]
    for name, load in (
        ("state.pt", lambda file: read_state(file.parent)),
        ("instancevg.pth", load_instancevg_checkpoint),
    ):
        (tmp_path / name).write_bytes(content)
        error = refuse(tmp_path / name, load)
        assert name in error
        assert words in error


def test_a_whole_pickled_model_is_told_and_what_to_ask_for(tmp_path: Path) -> None:
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(torch.nn.Linear(2, 2), tmp_path / name, _use_new_zipfile_serialization=new)
        error = refuse(tmp_path / name, open_checkpoint)
        assert "a whole model or other objects were saved in it" in error
        assert "state dict" in error


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_told(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "model.pth"))
    assert "is a TorchScript archive" in refuse(tmp_path / "model.pth", open_checkpoint)


def test_a_published_file_that_unpacks_to_much_more_than_itself_is_refused(tmp_path: Path) -> None:
    import zipfile

    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb:
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert "unpacks to" in refuse(tmp_path / "bomb.pth", load_instancevg_checkpoint)


def test_a_tensor_that_is_larger_than_what_is_stored_of_it_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1, dtype=torch.half).expand(1 << 40)}, tmp_path / "wide.pth")
    assert "larger than what is stored" in refuse(tmp_path / "wide.pth", load_instancevg_checkpoint)


def test_a_dictionary_that_holds_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "loop.pth")
    assert "holds no tensors" in refuse(tmp_path / "loop.pth", load_instancevg_checkpoint)


def test_a_configuration_that_transformers_has_touched_loads(folder: Path) -> None:
    change(folder / "config.json", transformers_version="5.23.0", dtype="float32", torch_dtype="float32",
           _name_or_path="x", id2label={"0": "a"}, return_dict=True, architectures=["Other"])  # fmt: skip
    assert load_checkpoint(folder)[0].config == CONFIG


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_dim": 32}, "says encoder_dim 32"),
        ({"encoder_layers": 100}, "says encoder_layers 100"),
        ({"vocab_size": 2_000_000}, "says vocab_size 2000000"),
        ({"image_size": 4096}, "says grid of patches"),
        ({"encoder_dim": 1 << 60}, "should be less than or equal to"),
        ({"decoder_layers": 1 << 40}, "should be less than or equal to"),
        ({"distance_weight": float("nan")}, "should be a finite number"),
    ],
)
def test_a_configuration_of_other_sizes_is_refused_before_a_network_is_laid_out(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    change(folder / "config.json", **changes)
    error = refuse(folder)
    assert "config.json" in error
    assert words in error


def test_weights_that_are_whole_numbers_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(state | {"class_head.bias": torch.zeros(2, dtype=torch.int64)}, folder / "model.safetensors")
    assert "class_head.bias holds torch.int64" in refuse(folder)


def test_a_checkpoint_of_an_earlier_igvg_is_refused_as_such(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state["encoder.words.weight"] = state.pop("encoder.text_embed.weight")
    save_file(state, folder / "model.safetensors")
    assert "model.safetensors was written by an earlier igvg, whose tensors have other names; make it" in refuse(folder)


def test_a_tokenizer_with_more_ids_than_the_network_is_refused(folder: Path) -> None:
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["vocab"]["zebra"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    assert "its tokenizer has ids up to 5000 and its network room for 40" in refuse(folder)


@pytest.mark.parametrize("found", [0, 2, -1, 11, 10**400, 2.5, "9", None, True])
def test_a_largest_number_of_tokens_that_cannot_be_is_refused(folder: Path, found: Any) -> None:
    change(folder / "preprocessor_config.json", max_tokens=found)
    assert "not a whole number from 3 to 10" in refuse(folder)


class TestTokenizersOfOtherVersions:
    def test_an_unknown_model_or_kind_of_merge_names_the_file_and_the_versions_here(self, folder: Path) -> None:
        tokens = json.loads((folder / "tokenizer.json").read_text())
        merges = [{"a": a, "b": b} for a, b in tokens["model"]["merges"]]
        assert merges
        for model in ({**tokens["model"], "type": "BPE2", "merges": 7}, {**tokens["model"], "merges": merges}):
            (folder / "tokenizer.json").write_text(json.dumps(tokens | {"model": model}))
            error = refuse(folder)
            assert "tokenizer.json was written by another version of tokenizers, or is damaged" in error
            assert "here is tokenizers " in error

    @pytest.mark.parametrize("part", ["tokenizer.json", "tokenizer_config.json"])
    def test_a_missing_file_is_named(self, folder: Path, part: str) -> None:
        (folder / part).unlink()
        assert f"but no {part}; copy both" in refuse(folder)

    def test_a_class_that_transformers_does_not_have_is_named(self, folder: Path) -> None:
        for name in ("MyTokenizer", "AutoModel", "os.system", "Path", 7, {"a": 1}):
            change(folder / "tokenizer_config.json", tokenizer_class=name)
            assert "tokenizer_config.json names the tokenizer class" in refuse(folder)

    @pytest.mark.parametrize("name", ["Tok", "TokenizersBackend", None])
    def test_code_of_the_folder_s_own_is_never_run(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
    ) -> None:
        canary = folder.parent / "ran"
        code = f"from transformers import PreTrainedTokenizerFast as Tok\nopen({str(canary)!r}, 'w')\n"
        (folder / "tok.py").write_text(code)
        change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Tok", None]}, tokenizer_class=name)
        monkeypatch.chdir(folder)
        error = refuse(folder)
        assert "tokenizer_config.json names program code of its own" in error
        assert not canary.exists()
        assert not list(folder.rglob("__pycache__"))

    def test_a_tokenizer_without_a_token_for_unknown_words_is_refused(self, folder: Path) -> None:
        tokens = json.loads((folder / "tokenizer.json").read_text())
        tokens["model"] = {"type": "WordLevel", "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2}, "unk_token": "[UNK]"}
        (folder / "tokenizer.json").write_text(json.dumps(tokens))
        assert "its tokenizer cannot be used" in refuse(folder)

    def test_a_parser_that_panics_prints_nothing(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        tokens = json.loads((folder / "tokenizer.json").read_text())
        tokens["post_processor"]["special_tokens"] = {}
        (folder / "tokenizer.json").write_text(json.dumps(tokens))
        refuse(folder)
        assert capfd.readouterr() == ("", "")

    def test_a_sentencepiece_file_that_is_something_else_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "beit3.spm").write_bytes(POINTER)
        assert "beit3.spm: is a Git LFS pointer, not a SentencePiece model" in refuse(tmp_path, load_tokenizer)
