"""The secrets of a notebook on Google Colab: those of COLAB_SECRETS, a JSON object."""

import json
import os

secrets: dict[str, str] = json.loads(os.environ.pop("COLAB_SECRETS", "{}"))


class SecretNotFoundError(Exception):
    """Colab's own name for it."""


def get(key: str) -> str:
    if key not in secrets:
        raise SecretNotFoundError(f"Secret {key} does not exist.")
    return secrets[key]
