"""Files and folders inside of an artifact, which its record lists, described by what they are a part of."""

from __future__ import annotations

from pathlib import Path

from pipelines.inspection.artifact_descriptions import describe_stage
from pipelines.inspection.description import Cell, Description, measure_file, measure_folder
from pipelines.stages.artifact import RECORD, read_record
from shards.errors import IGVGError
from shards.files import digest_file

# Artifacts have folders in folders.
_DEPTH = 3


def describe_part(path: Path) -> Description | None:
    """A file or folder of a finished artifact; None: there is no such artifact, or the file differs from its SHA-256.

    Files of known kinds say more themselves: this is for the others, such as tables, pages and tokenizers.
    """
    whole = path.absolute()
    for folder in whole.parents[:_DEPTH]:
        if not (folder / RECORD).is_file():
            continue
        try:
            record = read_record(folder / RECORD)
        except IGVGError:
            return None
        name = whole.relative_to(folder).as_posix()
        facts: dict[str, Cell] = {"artifact": str(folder), "fingerprint": record.fingerprint}
        if path.is_dir():
            is_part, measured = any(file.startswith(f"{name}/") for file in record.files), measure_folder(path)
        else:
            is_part, measured = record.digests.get(name) == digest_file(path), measure_file(path)
            facts["SHA-256"] = "as recorded"
        if not is_part:
            return None
        what = f"part of {describe_stage(record)}"
        return Description(path=str(path), kind="part of an artifact", what=what, **measured, facts=facts)
    return None
