"""The examples that the processes of a training see, started by torchrun.

```
python -m tests.support.seen_examples OUT SETTINGS STEP SHARDS …      the steps from STEP to the last
```

Leaves OUT/seen.json, the expression ids of each step and process, and from step 0 a training of one step in OUT/run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate.utils import gather_object

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.runtime.distributed import run_program
from pipelines.stages import train
from pipelines.training.setup import setup_training, start_processes
from pipelines.training.trainer import open_batches
from tests.support.pipeline_runs import SMALL_NETWORK


def main(out: Path, changes: list[str], first: int, shards: list[Path]) -> None:
    """List what each process reads, then train one step if the list is whole."""
    settings = read_settings(train_preset("tiny"), None, [*SMALL_NETWORK, *changes])
    accelerator = start_processes(settings)
    training = setup_training(settings, shards, out, accelerator)
    training.step = first
    seen = [gather_object([batch.ids]) for batch in open_batches(training)]
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        (out / "seen.json").write_text(json.dumps(seen))
    if not first:
        train.run(read_settings(settings, None, ["max_steps=1"]), shards, out / "run")


if __name__ == "__main__":
    words = sys.argv[1:]
    run_program(lambda: main(Path(words[0]), json.loads(words[1]), int(words[2]), [Path(word) for word in words[3:]]))
