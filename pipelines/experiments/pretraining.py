"""`python -m pipelines.experiments.pretraining OUT`: makes the network `shapes` that the package ships.

Draws the RefCOCO layout of the embedded data set, prepares it, trains the preset `tiny` on it and leaves a checkpoint
in float16. Everything stays in OUT; the same command continues an interrupted run. `--install` copies the checkpoint
into the package.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.config.settings import PrepareSettings, TrainSettings
from pipelines.networks import SHIPPED
from pipelines.stages import prepare, train
from pipelines.stages.artifact import Stage
from pipelines.stages.whole_folder import continue_folder
from shards.files import replace_file, write_json
from shards.progress import set_sink
from shards.synthetic import writer as shapes

SEED = 11
"""Another seed than that of `igvg demo`: no image is drawn for both."""
TRAIN_IMAGES, HELD_OUT_IMAGES = 24_000, 60
SETTINGS = ("epochs=2",)
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def run(out: Path, *, train_images: int = TRAIN_IMAGES, settings: TrainSettings | None = None) -> Path:
    """Draw, prepare, train and store the network; returns the checkpoint folder, whose weights are float16.

    Args:
        out: folder for everything.
        train_images: images to draw for training.
        settings: of the training; None takes those of the shipped network.

    Raises:
        ArtifactError: `out` holds something else.
    """
    published = _draw(out / "published", train_images)
    prepare.run(
        PrepareSettings(dataset="refcoco"), published / "refcoco", [published / shapes.IMAGES_FOLDER],
        out / "shards",
    )  # fmt: skip
    settings = settings or read_settings(train_preset("tiny"), None, SETTINGS)
    counts = train.run(settings, [out / "shards"], out / "run").counts
    return store_halves(out / "run", out / "shapes", counts)


def store_halves(checkpoint: Path, folder: Path, counts: dict[str, Any]) -> Path:
    """Copy a checkpoint with its weights as float16, and write beside it what they were made from."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if name != "model.safetensors":
            shutil.copyfile(checkpoint / name, folder / name)
    state = {
        name: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(checkpoint / "model.safetensors").items()
    }
    with replace_file(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    origin = {
        "command": "python -m pipelines.experiments.pretraining OUT --install",
        "data": f"RefCOCO layout of the embedded data set, seed {SEED}, {counts['expressions']} expressions",
        "steps": counts["steps"],
        "mIoU of its validation split in percent": counts["best"],
    }
    write_json(folder / "origin.json", origin)
    return folder


def _draw(folder: Path, train_images: int) -> Path:
    options = {"seed": SEED, "train_pictures": train_images, "held_out_pictures": HELD_OUT_IMAGES}
    stage = Stage(name="shapes", out=folder, inputs={}, options=options)

    def draw(working: Path) -> dict[str, int]:
        sizes = {"train_images": train_images, "held_out_images": HELD_OUT_IMAGES}
        shapes.write_refcoco(working, seed=SEED, **sizes, workers=2)
        return {"images": train_images + HELD_OUT_IMAGES}

    with stage.claim() as cached:
        if not cached:
            continue_folder(stage, draw)
    return folder


def _print_progress(done: int, total: int, remark: str) -> None:
    if done % max(1, total // 50) == 0 or done == total:
        sys.stderr.write(f"{done} of {total} {remark}\n")


def _print_line(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for everything")
    parser.add_argument("--install", action="store_true", help="copy the checkpoint into the package")
    arguments = parser.parse_args()
    with set_sink(progress=_print_progress, log=_print_line):
        folder = run(arguments.out)
    if arguments.install:
        shutil.copytree(folder, SHIPPED["shapes"], dirs_exist_ok=True)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
