"""What an error of huggingface_hub means to who wants a model, in one sentence."""

import errno
import os
import sys

from decoding_llama3.json_files import shown

LOG_IN = "log in with 'hf auth login' or set HF_TOKEN"
LOG_IN_ON_COLAB = "put a token among this notebook's secrets, as HF_TOKEN"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HubError(ValueError):
    """The hub does not answer, or refuses, or the file that it sends cannot be kept."""


def explained(error: Exception, name: str, revision: str | None) -> str:
    """The sentence for an error of huggingface_hub about the repository `name`. It never holds a token."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library says first that there is no file here either
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://huggingface.co/{name}"
    if isinstance(error, errors.DisabledRepoError):
        return f"{name} is disabled on the hub, and nobody can download it: see {page}"
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return _refused(error, status, name, page)
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no model {name} that this account may see: check the name on {page}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {shown(revision)}: its branches and tags are listed on {page}/tree/main"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing is downloaded: unset it"
    if isinstance(error, errors.HFValidationError):
        return f"no model can be called {shown(name)}: a name is OWNER/NAME, as on https://huggingface.co/models"
    if status is not None:
        why = (
            " (it asks for a pause)" if status == 429 else " (it is busy, or has a fault)" if status >= 500 else ""
        )
        return f"the hub answers with status {status}{why}: try again later, or look at {page}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return "the disk is full: free some space, or give a place on another disk with --to"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{shown(str(error.filename), 200)} cannot be written ({os.strerror(error.errno).lower()})"
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"the connection to the hub failed ({type(error).__name__}: {shown(reason, 120)}): check the network"


def _refused(error: Exception, status: int | None, name: str, page: str) -> str:
    from huggingface_hub import errors

    said = getattr(error, "response", None)
    log_in = LOG_IN_ON_COLAB if "google.colab" in sys.modules else LOG_IN
    if status == 401 and said is not None and "Invalid credentials" in said.headers.get("X-Error-Message", ""):
        return f"the hub refuses the token, which is wrong or has expired: {log_in} anew"
    if status == 403:
        return (
            f"{name} is gated, and this account or token may not read it: accept its licence on {page}, wait "
            "until access is granted, and let the token read gated repositories"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: accept its licence on {page}, then {log_in}"
    return (
        f"the hub shows nobody a model {name} without an account: check the name on {page}, and if the model is "
        f"gated or private, accept its licence there, then {log_in}"
    )
