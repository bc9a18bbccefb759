"""docs/errors.md: every message that the code raises, by topic, with what to do."""

from __future__ import annotations

import re

from shards.errors import _SYSTEM_ERRORS
from tests.documentation.messages import UNKNOWN, Message, list_calls, list_messages

NOTE = "<!-- Written by `python -m tests.documentation`: change the messages in the code, and run it again. -->"
INTRODUCTION = """
Every message after `Error:`, with what to do. Words in capitals and "…" stand for what the run knows. In front of a
message stands where it was found: the file, and the record in it. Search this page for a few words of yours; `#` is the
address of a message.
[Troubleshooting](troubleshooting.md) explains the most frequent ones. `--debug` adds the traceback to an error.
"""
# The first prefix of a module that fits decides.
TOPICS = {
    "Command line": ("igvg_cli",),
    "Settings": ("pipelines.config", "pipelines.experiments"),
    "Annotation files": ("shards.annotations", "shards.image_validation", "shards.masks", "pipelines.stages.prepare"),
    "Images": ("pipelines.data.image",),
    "Tokenizers and expressions": ("pipelines.data.tokenizer",),
    "The hub": ("pipelines.hub", "pipelines.stages.push"),
    "Zero-shot models": (
        "pipelines.prediction.families", "pipelines.prediction.transformers_model", "pipelines.prediction.zero_shot"),
    "Predictions and scores": ("pipelines.prediction", "pipelines.evaluation", "pipelines.stages.score",
        "pipelines.stages.compare", "pipelines.stages.convert", "pipelines.stages.sweep", "pipelines.stages.predict"),
    "Reports, and looking at artifacts": ("pipelines.report", "pipelines.stages.report", "pipelines.inspection"),
    "The local page, igvg serve": ("pipelines.serving",),
    "Training": ("pipelines.training", "pipelines.stages.train"),
    "Processes and workers": ("pipelines.runtime", "shards.workers"),
    "Shards": ("shards.index", "shards.reader", "shards.writer", "shards.record", "shards.sampling",
        "pipelines.stages.selection"),
    "Files and folders": ("shards", "pipelines.stages.artifact", "pipelines.stages.inputs",
        "pipelines.stages.whole_folder"),
    "Checkpoints, and Python": ("pipelines",),
}  # fmt: skip
ADVICE = {
    "Command line": "Wrong usage: the exit status is 2. `igvg COMMAND --help` lists the options.",
    "Settings": "[Settings](settings.md) lists every key; `igvg train --show-settings` prints what results.",
    "Annotation files": "The record is named in front. Correct the files, or pass `--skip-invalid`: it leaves such "
    "records out and lists them in `skipped.json`.",
    "Shards": "Shards are made by `igvg prepare`; where nothing else is said, prepare the split again.",
    "Predictions and scores": "[File formats](formats.md#predictions) says what a line of predictions holds.",
    "Training": "A training that stopped continues with the same command from its last saved state.",
    "Checkpoints, and Python": "[Checkpoints](formats.md#checkpoints) says which files a checkpoint has.",
}
ANCHOR_LENGTH = 60


def format_errors() -> str:
    """The page."""
    groups: dict[str, dict[tuple[str, str], None]] = {topic: {} for topic in TOPICS}
    for message in list_messages():
        groups[find_topic(message)][message.what, message.remedy] = None
    used: set[str] = set()
    lines = [NOTE, "", "# Errors", INTRODUCTION]
    for topic, messages in groups.items():
        entries = sorted(messages, key=lambda entry: (sort_key(entry[0]), entry[1]))
        lines += [f"## {topic}", "", *([ADVICE[topic], ""] if topic in ADVICE else [])]
        lines += [*(format_entry(what, remedy, used) for what, remedy in entries), ""]
    lines += ["## Files that are something else", "", KINDS_ADVICE, ""]
    lines += [*(format_entry(f"is {words}, not …", remedy, used) for words, remedy in sorted(list_kinds())), ""]
    lines += ["## The operating system", "", SYSTEM_ADVICE, ""]
    lines += [format_entry(words, remedy, used) for words, remedy in sorted(set(_SYSTEM_ERRORS.values()))]
    return "\n".join(lines) + "\n"


KINDS_ADVICE = "A file that cannot be read is described by its first bytes."
SYSTEM_ADVICE = "The file or folder is named in front."


def find_topic(message: Message) -> str:
    """The topic of a message, by the module that raises it."""
    return next(topic for topic, prefixes in TOPICS.items() if message.module.startswith(prefixes))


def list_kinds() -> set[tuple[str, str]]:
    """What a file can be instead, and what to do about it."""
    contents = list_calls("shards.file_kinds", "Content")
    return {(words, remedy) for _, words, remedy in contents if remedy.strip(UNKNOWN)}


def sort_key(what: str) -> str:
    """Messages are sorted by their first fixed word."""
    return re.sub(r"^([A-Z_…'\d./ :]+ )?", "", what).lower()


def format_entry(what: str, remedy: str, used: set[str]) -> str:
    """One item of the list, with an anchor of its own."""
    slug = re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")[:ANCHOR_LENGTH].strip("-")
    number = 1
    anchor = slug
    while anchor in used:
        number += 1
        anchor = f"{slug}-{number}"
    used.add(anchor)
    text = what.replace("`", "'")
    return f'- <a id="{anchor}" href="#{anchor}">#</a> `{text}`' + (f" → {escape(remedy)}" if remedy else "")


def escape(text: str) -> str:
    """A remedy as Markdown shows it."""
    text = re.sub(r"(?<![\w-])(--[a-z][a-z_-]*)", r"`\1`", text)
    return re.sub(r"([*<>\[\]])", r"\\\1", text)
