"""The Hugging Face hub: the folder of a snapshot, and one clear message for each way it fails.

Download, progress, resumption, tokens and ``HF_HUB_OFFLINE`` are huggingface_hub's own; no other
module imports it. No code of a repository is downloaded, nor any weight but safetensors.
"""

import errno
from pathlib import Path

from huggingface_hub import constants, get_token, snapshot_download

# The hub's HTTP client has changed, and its errors with it: this name follows.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from d2f.checkpoints.shards import weight_map
from d2f.errors import HubError, LoadError

WANTED = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model"]
# Second copies of the same weights, in another format.
UNWANTED = ["original/*", "metal/*", "onnx/*"]
# Weights in one file: a model's, an adapter's.
SINGLE = ("model.safetensors", "adapter_model.safetensors")
CONFIGS = ("config.json", "adapter_config.json")
LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"


def snapshot(repo_id: str, revision: str) -> Path:
    """The local folder of a repository, downloaded if it is not there.

    Raises:
        HubError: it cannot be had.
    """
    try:
        return _snapshot(repo_id, revision, local=False)
    except (HTTPError, OSError, HFValidationError) as error:
        raise HubError(explain(error, repo_id, revision)) from error


def cached(repo_id: str, revision: str) -> Path | None:
    """The folder of a repository that is downloaded whole; None otherwise. Asks no network."""
    try:
        folder = _snapshot(repo_id, revision, local=True)
    except (LocalEntryNotFoundError, HubError):
        return None
    return folder if _whole(folder) else None


def _whole(folder: Path) -> bool:
    """Whether a model's or an adapter's configuration and all its weights are in the folder."""
    if not any((folder / name).is_file() for name in CONFIGS):
        return False
    try:
        shards = set(weight_map(folder).values())
    except LoadError:
        return True  # a damaged index is told when its model is loaded, and bars no other
    if shards:
        return all((folder / name).is_file() for name in shards)
    return any((folder / name).is_file() for name in SINGLE)


def has_token() -> bool:
    """Whether a token of the hub is set up here; whether it opens a gated repository is unknown."""
    try:
        return get_token() is not None
    except PermissionError:  # the home folder is another user's
        return False


def _snapshot(repo_id: str, revision: str, local: bool) -> Path:
    try:
        Path(constants.HF_HUB_CACHE).expanduser()
    except RuntimeError as error:
        raise HubError("there is no home folder for downloads: set HOME or HF_HOME") from error
    return Path(
        snapshot_download(
            repo_id,
            revision=revision,
            local_files_only=local,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
        )
    )


def explain(error: Exception, repo_id: str, revision: str) -> str:
    """What an error of the hub means to the person who wanted ``repo_id``, in one sentence."""
    page = f"https://huggingface.co/{repo_id}"
    cause = error.__cause__
    match error:
        case GatedRepoError() if get_token() is None:
            return f"{repo_id} is gated: accept its licence at {page}, then {LOG_IN}"
        case GatedRepoError():
            return (
                f"{repo_id} is gated and the token set up here has no access to it: ask for access "
                f"at {page}, or {LOG_IN} as someone who has it"
            )
        case RepositoryNotFoundError():
            return (
                f"the hub shows no repository {repo_id}: check the name at {page}; "
                f"if it is private, {LOG_IN}"
            )
        case RevisionNotFoundError():
            return f"{repo_id} has no revision {revision!r}: see {page}/commits/main"
        case LocalEntryNotFoundError() if isinstance(cause, OfflineModeIsEnabled):
            return (
                f"{repo_id} is not (all) downloaded, and HF_HUB_OFFLINE forbids to: unset it, or "
                "copy the hub's cache folder from a machine that has it"
            )
        case HFValidationError():
            return f"{repo_id!r} is no name of a repository: {error}"
        case HfHubHTTPError() if error.response.status_code == 401:
            return f"the hub refuses the token set up here: {LOG_IN} again"
        case HfHubHTTPError():
            return (
                f"the hub answered {error.response.status_code} for {repo_id}: try again later; "
                "a download goes on where it stopped"
            )
        case OSError() if error.errno == errno.ENOSPC:
            return (
                f"the disk is full: make room for {repo_id}, or set HF_HUB_CACHE to another disk, "
                "and run again; the download goes on where it stopped"
            )
        case HTTPError() | LocalEntryNotFoundError() | ConnectionError() | TimeoutError():
            return (
                f"the hub is out of reach for {repo_id} ({_reason(cause or error)}): check the "
                "network connection and run again; a download goes on where it stopped"
            )
    return f"{repo_id} cannot be downloaded: {_reason(error)}"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
