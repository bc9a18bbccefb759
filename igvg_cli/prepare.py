"""`igvg prepare`: a published data set in, shards out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render, webdataset
from igvg_cli.tables import print_table
from shards.datasets import OWN_LAYOUTS, DatasetName

if TYPE_CHECKING:
    from pipelines.config.settings import PrepareSettings
    from pipelines.stages.prepare import Inspection


# Column of the table → count of the artifact.
COLUMNS = {
    "images": "pictures",
    "expressions": "expressions",
    "single": "single",
    "multiple": "multiple",
    "empty": "empty",
}
_NAMES = [*DatasetName, *OWN_LAYOUTS, webdataset.NAME]


def _check_dataset(name: str) -> str:
    # A list of choices as the type would be one long word in the page of help.
    if name not in _NAMES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(_NAMES)}.")
    return name


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help=f"The data set: {', '.join(DatasetName)}; your own: {', '.join(OWN_LAYOUTS)}; "
            f"or {webdataset.NAME}: shards that others wrote.",
            show_default=False,
            autocompletion=lambda: _NAMES,
            callback=_check_dataset,
        ),
    ],
    out: options.Out,
    images: Annotated[
        list[Path] | None, typer.Option(help="Folder of images; repeat to look in several.", show_default=False)
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the published annotation files, under their own names; or your own: a .jsonl file, "
            "COCO's instances.json or a folder of them.",
            show_default=False,
        ),
    ] = None,
    from_hub: Annotated[
        str | None,
        typer.Option(
            metavar="USER/REPO",
            help="Take the annotation files from a data set on the hub instead; @REVISION may follow.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Prepare only this split; repeatable.", show_default="all")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many images of each split; 0: all.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0 works in this one.", show_default="all processors")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out bad records, count and list them, instead of stopping.")
    ] = False,
    cache: Annotated[
        int,
        typer.Option(
            metavar="SIZE",
            min=0,
            max=4096,
            help="Also keep all images at SIZE × SIZE pixels, for igvg train --set cache=true; 0: none.",
        ),
    ] = 0,
    cache_limit: Annotated[
        float, typer.Option(metavar="GB", min=0, help="Gigabytes of these images at most; the rest is left out.")
    ] = 50.0,
    name: Annotated[
        str, typer.Option(help="jsonl, coco: name of the data set in ids of expressions.", show_default="jsonl, coco")
    ] = "",
    phrases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT|FILE",
            help="coco: text of expressions with {category} or its plural {categories}, or a file of one a line; "
            "repeat to draw from several.",
            show_default="all {categories}",
        ),
    ] = None,
    empty: Annotated[
        int | None,
        typer.Option(min=0, help="coco: expressions of an image about what it does not show.", show_default="1"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="coco: of what is drawn.", show_default="0")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files that are missing, and write nothing.")] = False,
    force: options.Force = False,
) -> None:
    """Turn a published data set into shards; a finished folder is recognized, a stopped run continues.

    Example: igvg prepare grefcoco --annotations data/grefcoco --images data/train2014 --out shards/grefcoco

    Example: igvg prepare jsonl --annotations own.jsonl --images own/images --out shards/own
    """
    given = {"name": name or None, "phrases": phrases, "empty": empty, "seed": seed}
    own: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    _check_own(dataset, own, from_hub)
    if dataset == webdataset.NAME:
        refused = {"--images": images, "--from-hub": from_hub, "--limit": limit, "--dry-run": dry_run}
        refused |= {"--skip-invalid": skip_invalid}
        counts = webdataset.prepare_shards(annotations, out, split, force=force, refused=refused)
        if cache:
            webdataset.cache_images(out, cache, cache_limit, workers)
        _print_counts(dataset, out, counts)
        return
    if (annotations is None) == (from_hub is None):
        raise typer.BadParameter("give either --annotations or --from-hub")
    if not images:
        raise typer.BadParameter("--images is missing")

    from pipelines.stages import prepare as stage
    from shards.annotations.coco_phrases import read_templates

    if phrases is not None:
        own["phrases"] = read_templates(phrases)
    if from_hub is not None:
        with render.show_progress("downloading"):
            annotations = stage.download(dataset, from_hub)
    values = {"dataset": dataset, "splits": tuple(split or ()), "limit": limit, "skip_invalid": skip_invalid}
    settings = stage.choose_settings(values | own, "igvg prepare")
    assert annotations is not None  # noqa: S101
    if dry_run:
        with render.show_progress("looking for files"):
            found = stage.inspect(settings, annotations, images)
        _report_inspection(settings, found)
        return
    with render.show_progress("preparing"):
        result = stage.run(settings, annotations, images, out, force=force, workers=workers)
        if cache:
            from pipelines.data.image_cache_building import cache_folder

            cache_folder(out, cache, limit=cache_limit, workers=workers)
    if result.cached:
        render.note(f"{out} is up to date: same files, same settings; nothing to do.")
    _print_counts(dataset, out, result.counts)


def _check_own(dataset: str, own: dict[str, Any], from_hub: str | None) -> None:
    """Refuse options that do not go with the data set."""
    allowed = {"jsonl": {"name"}, "coco": {"name", "phrases", "empty", "seed"}}.get(dataset, set())
    if refused := sorted(own.keys() - allowed):
        raise typer.BadParameter(f"--{refused[0]} does not go with {dataset}")
    if dataset in OWN_LAYOUTS and from_hub is not None:
        raise typer.BadParameter("--from-hub goes with published data sets")


def _print_counts(dataset: str, out: Path, counts: dict[str, Any]) -> None:
    rows = [(split, *(f"{found[key]:,}" for key in COLUMNS.values())) for split, found in counts["splits"].items()]
    listed = []
    for key, words, file in (("skipped", "skipped", "skipped.json"), ("notes", "note", "notes.json")):
        kinds = counts.get(key, {})
        listed += [f"{words}: {count:,} × {kind}" for kind, count in kinds.items()]
        if kinds:
            listed.append(f"all of them are listed in {out / file}")
    print_table(f"{dataset} → {out}", ("split", *COLUMNS), rows, listed)


def _report_inspection(settings: PrepareSettings, found: Inspection) -> None:
    """List missing files; with --skip-invalid missing images are left out like other records, and are no error."""
    from shards.errors import DataError

    for file in found.missing:
        folders = ", ".join(str(folder) for folder in file.folders)
        render.print_line(f"missing: {' or '.join(file.names)} in {folders}")
    if found.missing and (found.unread or not settings.skip_invalid):
        count = len(found.missing)
        raise DataError(f"{count} file{'s are' if count > 1 else ' is'} missing", remedy="put them in place")
    if not settings.skip_invalid:
        found.collector.raise_if_any()
    kinds = {**({"missing picture": len(found.missing)} if found.missing else {}), **found.collector.count_kinds()}
    if not found.images:
        skipped = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        raise DataError(f"no image is left to prepare ({skipped or 'nothing was skipped'})")
    state = "would be prepared" if found.missing else "all files are there"
    render.print_line(f"{state}: {found.images:,} images, {found.expressions:,} expressions")
    for kind, count in kinds.items():
        render.print_line(f"would be skipped: {count:,} × {kind}")
