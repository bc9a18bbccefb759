"""`igvg train --continue-with`: a training goes on with other settings, where these only matter from then on.

The artifact has the fingerprint of the last settings: the same command, with or without `--continue-with`, finds it.
`counts.changes` in its record says what changed after which step.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import describe_differences
from pipelines.stages.artifact import (
    RECORD,
    UNFINISHED,
    Artifact,
    Stage,
    StageResult,
    compute_fingerprint,
    read_record,
)
from shards.errors import ArtifactError, join_first
from shards.files import remove_stale, write_json

# Settings, and groups of them, that a step reads when it is made. All others decide what is there already: the network,
# the order of the examples and the position in it (`batch_size`), or what the best score is compared with.
CHANGEABLE = (
    "epochs", "max_steps", "micro_batches", "precision", "compile", "mask_targets", "sync_batchnorm",
    "validation_epochs", "loss", "matching", "optimizer",
)  # fmt: skip
# AMSGrad keeps a tensor that Adam without it lacks.
_FIXED = ("optimizer.amsgrad",)


@dataclass(frozen=True, kw_only=True)
class ContinuedStage(Stage):
    """A training that was begun with other settings."""

    state_folder: str
    """Folder of the saved states, in the folder of the training."""

    def find(self, *, force: bool = False) -> StageResult[None] | None:
        """The finished training if it has these settings; None if it can be continued.

        Raises:
            ArtifactError: there is no training to continue, or it cannot be continued with these settings.
        """
        folder, begun = self.folder, self._read_begun()
        if begun is None:
            raise ArtifactError(f"{folder} holds no training to continue; leave --continue-with out")
        finished = not (folder / UNFINISHED).exists()
        changes = self._list_changes(begun)
        if not changes and (finished or _read_fingerprint(folder / RECORD) == self.fingerprint):
            return super().find(force=force)
        self._check_changes(begun, changes)
        if finished and not (folder / self.state_folder).is_dir():
            raise ArtifactError(
                f"{folder} is finished, and its last state was not kept (keep_last_state=true keeps it): train on from "
                f"its weights, --init {folder} --out OTHER"
            )
        return None

    def start(self, *, force: bool = False) -> bool:  # noqa: ARG002
        """Open the folder for work; its record keeps the former settings until `record_changes`."""
        remove_stale(self.folder, deep=True)
        return True

    def record_changes(self, step: int) -> list[str]:
        """Give the unfinished training these settings from a step on; returns what changes."""
        begun = self._read_begun()
        assert begun is not None
        changes = self._list_changes(begun)
        if changes:
            history = [*begun.counts.get("changes", ()), {"step": step, "settings": changes}]
            write_json(self.folder / UNFINISHED, asdict(self._record(counts={"changes": history})))
        if _read_fingerprint(self.folder / RECORD) not in (None, self.fingerprint):
            (self.folder / RECORD).unlink()
        return changes

    def _read_begun(self) -> Artifact | None:
        names = [name for name in (UNFINISHED, RECORD) if (self.folder / name).exists()]
        return read_record(self.folder / names[0]) if names else None

    def _list_changes(self, begun: Artifact) -> list[str]:
        return describe_differences(begun.options, json.loads(json.dumps(self.options)))

    def _check_changes(self, begun: Artifact, changes: list[str]) -> None:
        inputs = describe_differences(begun.inputs, json.loads(json.dumps(self.inputs)))
        refused = [f"input {change.rsplit(' ', 3)[0]}" for change in inputs]
        refused += [change for change in changes if not is_changeable(change.split(" ")[0])]
        if begun.stage != self.name:
            raise ArtifactError(f"{self.folder} was made by igvg {begun.stage}, not by igvg train; give another folder")
        if refused:
            raise ArtifactError(
                f"{self.folder} cannot be continued with other values of {join_first(refused, 6)}; --continue-with can "
                f"change {', '.join(CHANGEABLE)} (without amsgrad)"
            )


def is_changeable(key: str) -> bool:
    """Whether a training can be continued with another value of a setting, e.g. `optimizer.head_lr`."""
    return key.partition(".")[0] in CHANGEABLE and key not in _FIXED


def identify_training(stage: Stage) -> str:
    """A digest of what `--continue-with` cannot change: states that another training saved have another one."""
    fixed = {key: value for key, value in stage.options.items() if key not in CHANGEABLE}
    return compute_fingerprint(stage.name, stage.inputs, fixed)


def read_changes(folder: Path) -> list[dict[str, Any]]:
    """What `--continue-with` changed in an unfinished training so far: the steps and the settings."""
    with contextlib.suppress(ArtifactError):
        changes = read_record(folder / UNFINISHED).counts.get("changes", [])
        return changes if isinstance(changes, list) else []
    return []


def _read_fingerprint(file: Path) -> str | None:
    return read_record(file).fingerprint if file.exists() else None
