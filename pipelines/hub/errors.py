"""Errors of the library `huggingface_hub` in one line of ours.

The library's own text is left out: it has several lines, and may hold signed addresses.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pipelines.hub.names import HubName
from shards.errors import CheckpointError

_LOG_IN = "log in with hf auth login, or set HF_TOKEN"


def explain_download_error(error: Exception, name: HubName) -> Exception:
    """What the user can do about a download that failed; errors of the disk are returned as they are."""
    from huggingface_hub import constants

    if found := _find_disk_error(error, constants.HF_HUB_CACHE):
        return found
    hub, status = _name_hub(), _find_status(error)
    kind, page = ("data set", f"{hub}/datasets/{name.repo}") if name.dataset else ("model", f"{hub}/{name.repo}")
    here = "not" if name.dataset else "neither a path here nor"
    if _has_cause(error, "GatedRepoError"):
        return CheckpointError(f"{name.repo} is gated: ask for access at {page}, then {_LOG_IN}")
    # The hub answers so to strangers, whether or not there is such a repository.
    if _has_cause(error, "RepositoryNotFoundError") or status == 401:
        return CheckpointError(
            f"{name.repo} is {here} a {kind} on {hub} that this machine may read; check the name, or "
            f"if it is private, {_LOG_IN}"
        )
    if _has_cause(error, "RevisionNotFoundError"):
        return CheckpointError(f"{name.repo} on {hub} has no revision {name.revision}; check its branches and tags")
    if _has_cause(error, "HFValidationError"):
        return CheckpointError(f"{name.repo} is no name of the hub; give USER/REPO")
    if status == 403:
        return CheckpointError(f"{hub} refuses this machine access to {name.repo}; {_LOG_IN}")
    if _has_cause(error, "OfflineModeIsEnabled"):
        return CheckpointError(
            f"{name} is {here} complete in the hub's cache, and {_name_offline_switch()} forbids a "
            f"download; unset it, or download the {kind} once on a machine with a network and copy HF_HOME"
        )
    if status is not None:
        return CheckpointError(f"{hub} failed to answer for {name} (HTTP {status}); try again later")
    return CheckpointError(
        f"{name} is {here} complete in the hub's cache, and {hub} could not be read "
        f"({_name_first_cause(error)}); check the name and the network, and try again"
    )


def explain_upload_error(error: Exception, name: HubName) -> Exception:
    """What the user can do about an upload that failed; errors of the disk are returned as they are."""
    if found := _find_disk_error(error, ""):
        return found
    hub, status = _name_hub(), _find_status(error)
    if _has_cause(error, "LocalTokenNotFoundError") or status in (401, 403, 404):
        return CheckpointError(
            f"{hub} refuses the upload to {name.repo}; {_LOG_IN}, with a token that may write there, and check the name"
        )
    if _has_cause(error, "HFValidationError"):
        return CheckpointError(f"{name.repo} is no name of the hub; give USER/REPO")
    if _has_cause(error, "OfflineModeIsEnabled"):
        return CheckpointError(f"{_name_offline_switch()} forbids the upload to {name.repo}; unset it")
    if status is not None:
        return CheckpointError(f"{hub} failed to take the upload to {name.repo} (HTTP {status}); try again later")
    return CheckpointError(
        f"{name.repo} could not be uploaded to {hub} ({_name_first_cause(error)}); check the network, and try again"
    )


def _list_causes(error: BaseException) -> list[BaseException]:
    """An error and those behind it, from the last one to the first."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    return causes


def _has_cause(error: Exception, kind: str) -> bool:
    """Whether an error of the library of that name is among the causes; not every version has every name."""
    from huggingface_hub import errors

    found = getattr(errors, kind, None)
    return found is not None and any(isinstance(cause, found) for cause in _list_causes(error))


def _find_status(error: Exception) -> int | None:
    """The status of the answer that an error of HTTP carries."""
    for cause in _list_causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _find_disk_error(error: Exception, place: str) -> OSError | None:
    """An error of the disk, with the file or else `place`; those of the network come wrapped, and have no number."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, error.filename or place)
    return None


def _name_first_cause(error: Exception) -> str:
    return type(_list_causes(error)[-1]).__name__


def _name_offline_switch() -> str:
    """The environment variable that forbids the network."""
    hub = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return "HF_HUB_OFFLINE" if hub else "TRANSFORMERS_OFFLINE"


def _name_hub() -> str:
    """The hub's address without a user name and password."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
