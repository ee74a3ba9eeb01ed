"""A model on the Hugging Face Hub: what its repository holds, and what of it lies on this machine.

huggingface_hub does the transfer. It keeps a file only when all of it has come; what it leaves when it is killed,
it never goes on with (from version 1.18 on), so that is removed before the next attempt.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from decoding_llama3.inference.checkpoint.hub_cache import folder_in_cache, hub_cache
from decoding_llama3.inference.hub_errors import HubError, explained
from decoding_llama3.inference.tokenizers.needed import needed

_LEFT_OVER = f"{'[0-9a-f]' * 8}.incomplete"  # how a name ends that huggingface_hub uses once


class Repository:
    """A repository at one commit. `sizes` has the bytes of each file; each goes to `place`, under its own name."""

    def __init__(self, name: str, revision: str | None = None, to: Path | None = None) -> None:
        """Ask the hub for the files. Raises `HubError` where it does not answer, or knows no such model."""
        hub = needed("huggingface_hub", f"downloading {name}")
        self.name, self.revision, self.to, self._hub = name, revision, to, hub
        self._token = hub_token()
        with self._speaking():
            self.info = hub.HfApi(token=self._token).model_info(name, revision=revision, files_metadata=True)
        files = [file for file in self.info.siblings or () if file.size is not None]
        self.commit = str(self.info.sha)
        self.sizes = {file.rfilename: file.size for file in files}
        self._blobs = {file.rfilename: str(file.lfs.sha256 if file.lfs else file.blob_id) for file in files}
        self.place = to or folder_in_cache(name) / "snapshots" / self.commit

    def is_here(self, file: str) -> bool:
        """Whether all of a file lies on this machine already."""
        return self._size_here(file) == self.sizes[file]

    def is_intact(self, file: str) -> bool:
        """Whether the content of a file that is here is the hub's, by its digest. It reads all of the file."""
        blob, path = self._blobs[file], self.place / file
        found = hashlib.sha256() if len(blob) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as content:
            while piece := content.read(2**24):
                found.update(piece)
        return found.hexdigest() == blob

    def fetch(self, file: str, anew: bool = False) -> Path:
        """The file on this machine, downloaded where it is not there, or not in its full length, or `anew`.

        Raises `HubError`.
        """
        self._remove_left_over(file)
        damaged = anew or self._size_here(file) not in (None, self.sizes[file])
        where = {"cache_dir": str(hub_cache())} | ({} if self.to is None else {"local_dir": str(self.to)})
        options = {"revision": self.commit, "token": self._token, "force_download": damaged}
        with self._speaking():
            path = Path(self._hub.hf_hub_download(self.name, file, **where, **options))
        if (found := path.stat().st_size) != self.sizes[file]:
            raise HubError(f"{path} has {found:,} bytes, but {self.sizes[file]:,} on the hub: delete it")
        return path

    def kept_of(self, file: str) -> int:
        """Bytes of a cut file that the next attempt goes on from, as it does with huggingface_hub before 1.18."""
        return max((path.stat().st_size for path in self._unfinished(file, "incomplete")), default=0)

    def set_main(self) -> None:
        """Note in the cache which version the name means, as every program does that uses the cache."""
        if self.to is not None or self.revision not in (None, "main"):
            return
        refs = folder_in_cache(self.name) / "refs"
        refs.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=refs, prefix="main.", delete=False) as file:
            file.write(self.commit)
        os.replace(file.name, refs / "main")

    def free_space(self) -> int:
        """Bytes free on the disk that the files go to."""
        return shutil.disk_usage(next(folder for folder in self.place.absolute().parents if folder.exists())).free

    def _size_here(self, file: str) -> int | None:
        blob = folder_in_cache(self.name) / "blobs" / self._blobs[file]
        places = (self.place / file,) if self.to is not None else (self.place / file, blob)
        return next((path.stat().st_size for path in places if path.is_file()), None)

    def _unfinished(self, file: str, ending: str) -> list[Path]:
        folder = folder_in_cache(self.name) / "blobs" if self.to is None else _metadata_folder(self.to, file)
        return list(folder.glob(f"*{self._blobs[file]}.{ending}"))

    def _remove_left_over(self, file: str) -> None:
        """Unless another process is at work on it, which holds its lock."""
        locks = hub_cache() / ".locks" / folder_in_cache(self.name).name / f"{self._blobs[file]}.lock"
        lock = locks if self.to is None else _metadata_folder(self.to, file) / f"{Path(file).name}.lock"
        for path in self._unfinished(file, _LEFT_OVER):
            with suppress(Timeout, OSError, NotImplementedError), FileLock(lock, timeout=0):
                path.unlink()

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """The library's warnings, such as the address of each attempt, are left out; its bars stay."""
        logging = self._hub.utils.logging
        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        except (HubError, AssertionError, AttributeError, LookupError, NameError):
            raise
        except Exception as error:
            raise HubError(explained(error, self.name, self.revision)) from error
        finally:
            logging.set_verbosity(before)


def hub_token() -> str | None:
    """The token of HF_TOKEN, of `hf auth login`, or among the secrets of a notebook on Colab; else None.

    Raises ValueError for one with characters that cannot be sent.
    """
    hub: Any = needed("huggingface_hub", "a token of the Hugging Face Hub")
    token = os.environ.get("HF_TOKEN") or hub.get_token() or _colab_secret()
    token = "".join((token or "").split())
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token of the Hugging Face Hub has characters that no token has: copy it anew")
    return token or None


def _colab_secret() -> str | None:
    try:
        from google.colab import userdata  # pyright: ignore[reportMissingImports]

        return userdata.get("HF_TOKEN")
    except Exception:  # no Colab, no such secret, or the reader does not let this notebook see it
        return None


def _metadata_folder(to: Path, file: str) -> Path:
    return (to / ".cache" / "huggingface" / "download" / file).parent
