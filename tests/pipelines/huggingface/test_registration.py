"""Once igvg is imported, transformers' Auto classes and pipelines load its checkpoint folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.huggingface.registration import register_with_transformers
from pipelines.networks import SHIPPED
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


def test_the_pipeline_finds_what_the_shipped_network_finds() -> None:
    from transformers import pipeline

    from pipelines import Grounder

    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    (expected,) = Grounder.from_pretrained("shapes", device="cpu").predict(image, "the red star", threshold=0)
    find = pipeline("zero-shot-object-detection", model=str(SHIPPED["shapes"]), device="cpu")
    found = find(image, candidate_labels=["the red star"], threshold=0)
    assert [answer["score"] for answer in found] == pytest.approx(sorted(expected.scores.tolist())[::-1], abs=1e-5)


def test_loading_a_tokenizer_alone_loads_no_model_of_transformers() -> None:
    code = (
        "import sys\nfrom pipelines.pretrained import open_checkpoint\nopen_checkpoint('shapes')\n"
        "print([name for name in sys.modules if name.startswith(('pipelines.huggingface.', 'transformers.modeling'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "['pipelines.huggingface.registration']"


def test_registering_again_changes_nothing() -> None:
    before = list(sys.meta_path)
    register_with_transformers()
    assert sys.meta_path == before
