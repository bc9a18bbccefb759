"""Once igvg is imported, transformers' Auto classes and pipelines load its checkpoint folders."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from pipelines.data.tokenizer import tokenize_expressions
from pipelines.huggingface.registration import register_with_transformers
from pipelines.huggingface.tokenization import IGVGTokenizer
from pipelines.networks import SHIPPED
from pipelines.pretrained import load_checkpoint
from shards.errors import SettingsError
from shards.synthetic.writer import write_refcoco
from tests.support.pipeline_runs import run_here
from tests.support.small_network import save_small_network

CLASSES = {
    "AutoConfig": "IGVGPretrainedConfig",
    "AutoImageProcessor": "IGVGImageProcessor",
    "AutoProcessor": "IGVGProcessor",
    "AutoModel": "IGVGForZeroShotObjectDetection",
    "AutoModelForZeroShotObjectDetection": "IGVGForZeroShotObjectDetection",
}
PROGRAM = """
import json, sys
{imports}
found = {{name: type(getattr(transformers, name).from_pretrained(sys.argv[1])).__name__ for name in {names}}}
found["AutoTokenizer"] = len(transformers.AutoTokenizer.from_pretrained(sys.argv[1])("star")["input_ids"])
find = transformers.pipeline("zero-shot-object-detection", model=sys.argv[1], device="cpu")
answers = find(sys.argv[2], candidate_labels=["red star", "blue star"], threshold=0)
print(json.dumps([found, answers]))
"""


@pytest.mark.parametrize("imports", ["import pipelines, transformers", "import transformers, pipelines"])
def test_auto_classes_and_the_pipeline_load_a_folder_whatever_is_imported_first(tmp_path: Path, imports: str) -> None:
    save_small_network(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    program = PROGRAM.format(imports=imports, names=list(CLASSES))
    words = [sys.executable, "-c", program, str(tmp_path), str(tmp_path / "a.png")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found, answers = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("AutoTokenizer") >= 3
    assert found == CLASSES
    assert {answer["label"] for answer in answers} == {"red star", "blue star"}
    assert all(0 <= answer["box"]["xmin"] <= answer["box"]["xmax"] <= 30 for answer in answers)


def test_the_pipeline_answers_as_the_command_also_to_labels_that_are_cleaned_and_cut(tmp_path: Path) -> None:
    from transformers import pipeline

    write_refcoco(tmp_path, seed=21, train_images=1, held_out_images=1)
    file = min((tmp_path / "images" / "train2014").iterdir())
    labels = ["the red star", "The BLUE square, on the left!", "star " * 60]
    words = [word for label in labels for word in ("--text", label)]
    low = ("--set", "postprocess.score_threshold=0.2", "--set", "workers=0")
    run_here("predict", "--checkpoint", "shapes", "--image", file, *words, "--out", tmp_path / "out", *low)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    find = pipeline("zero-shot-object-detection", model=str(SHIPPED["shapes"]), device="cpu")
    with pytest.warns(UserWarning, match=r"more than the 50 tokens that the network takes; .*\(62 tokens\)"):
        found = find(str(file), candidate_labels=labels, threshold=0.2)
    assert sum(len(line["boxes"]) for line in lines) == len(found) > 2
    for label, line in zip(labels, lines, strict=True):
        answers = [answer for answer in found if answer["label"] == label]
        expected = sorted(zip(line["scores"], line["boxes"], strict=True), reverse=True)
        assert [answer["score"] for answer in answers] == pytest.approx([score for score, _ in expected], abs=1e-5)
        for answer, (_, box) in zip(answers, expected, strict=True):
            # The pipeline cuts coordinates off to whole pixels.
            assert [answer["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] == [int(side) for side in box]


def test_the_auto_classes_prepare_expressions_as_the_command(tmp_path: Path) -> None:
    from transformers import AutoProcessor, AutoTokenizer

    save_small_network(tmp_path)
    _, plain, max_tokens = load_checkpoint(tmp_path)
    texts = ["The RED star!", "blue-star " * 9]
    expected = tokenize_expressions(plain, texts, max_tokens)
    for load in (AutoTokenizer.from_pretrained, AutoProcessor.from_pretrained):
        loaded = load(tmp_path)
        with pytest.warns(UserWarning, match="more than the 9 tokens"):
            inputs = loaded(text=texts)
        assert [list(ids) for ids in inputs["input_ids"]][1] == expected[1]
        assert [token for token in inputs["input_ids"][0] if token != plain.pad_token_id] == expected[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, IGVGTokenizer)
    with pytest.raises(SettingsError, match="has no word"):
        tokenizer("?!")
    tokenizer.save_pretrained(tmp_path)
    assert tokenize_expressions(load_checkpoint(tmp_path)[1], texts, max_tokens) == expected


def test_loading_a_tokenizer_alone_loads_no_network_of_transformers_and_no_class_of_ours_for_it() -> None:
    code = (
        "import re, sys\nfrom pipelines.pretrained import open_checkpoint\nopen_checkpoint('shapes')\n"
        # Other modules of transformers are named modeling_…, too, without a network in them.
        "network = r'transformers\\.(models\\..*\\.modeling_.*|modeling_utils)'\n"
        "print([name for name in sys.modules if re.fullmatch(network, name) or 'pipelines.huggingface.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    ours = {"registration"} if transformers.__version__ >= "5" else {"registration", "configuration", "tokenization"}
    assert set(ast.literal_eval(done.stdout)) == {f"pipelines.huggingface.{name}" for name in ours}


def test_registering_again_changes_nothing() -> None:
    before = list(sys.meta_path)
    register_with_transformers()
    assert sys.meta_path == before
