"""Download a model from the Hugging Face Hub: the files that are used here, and no others.

Its configuration comes first, so that a model which is not computed here is refused before its weights have come.
The files go one after the other, so a cut costs one at most.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint import huggingface, meta
from decoding_llama3.inference.checkpoint.find import open_checkpoint
from decoding_llama3.inference.checkpoint.gguf import SUFFIX
from decoding_llama3.inference.checkpoint.hub_cache import HUB_NAME, hub_cache
from decoding_llama3.inference.checkpoint.index import read_index
from decoding_llama3.inference.hub import Repository
from decoding_llama3.inference.hub_errors import HubError
from decoding_llama3.json_files import shown

_BESIDE = (  # what the tokenizer, the end of a text and the template of chats are read from
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
_ORIGINAL = "original/"  # where repositories of Meta's keep a second copy, in Meta's own format
_PART = (
    "one of several files of a model, and one is read here: join them with llama-gguf-split --merge, a program of "
    "llama.cpp"
)
_LLAMA2_ROWS = 32_000  # of an embedding; what a params.json of Llama 2 does not say


@dataclass(frozen=True)
class _Wanted:
    """Files of a repository, in the order in which they come, and where the checkpoint then lies in its folder."""

    files: list[str]
    place: str = ""


def download_model(
    name: str,
    file: str | None = None,
    revision: str | None = None,
    to: Path | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """The directory, or GGUF file, of the model OWNER/NAME on the hub; what is missing of it is downloaded.

    `file` names the GGUF file that is meant in a repository of such. `revision` is a branch, a tag or a commit.
    The files go into the cache that huggingface_hub shares between programs, or into the folder `to`.

    Raises ValueError where the model cannot be had, is not computed here, or the disk has too little room. What
    had come until then is kept, file by file, and the next call goes on from there.
    """
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name of a model on the Hugging Face Hub: it is OWNER/NAME")
    if to is not None and to.is_dir() and any(to.iterdir()) and not (to / ".cache" / "huggingface").is_dir():
        raise ValueError(f"--to {to} is not empty, and its files are not from the hub: give a new folder")
    repository = Repository(name, revision, to)
    wanted = _wanted(repository, file)
    missing = [each for each in wanted.files if not repository.is_here(each)]
    n_bytes = sum(repository.sizes[each] for each in missing)
    _check_space(repository, n_bytes)
    all_bytes = sum(repository.sizes[each] for each in wanted.files)
    here = "all of it here already" if not missing else f"{_size(n_bytes)} of it to come"
    report(f"{name}, version {repository.commit[:7]}: {len(wanted.files)} files, {_size(all_bytes)}, {here}")
    _fetch(repository, wanted.files, report)
    place = repository.place / wanted.place
    try:
        open_checkpoint(place)
    except ValueError as error:
        if not _repaired(repository, wanted.files, report):
            raise ValueError(f"{name} is here as the hub has it, but cannot be loaded: {error}") from error
        open_checkpoint(place)
    repository.set_main()
    return place


def _wanted(repository: Repository, file: str | None) -> _Wanted:
    names = repository.sizes
    if file is not None:
        return _gguf(repository, file)
    if huggingface.CONFIG in names and (huggingface.WEIGHTS in names or huggingface.INDEX in names):
        return _of_huggingface(repository)
    for folder in ("", _ORIGINAL):
        parts = [each for each in names if Path(each).match(meta.PARTS) and _folder(each) == folder]
        if parts and folder + meta.CONFIG in names:
            return _of_meta(repository, folder, parts)
    raise ValueError(f"{repository.name} {_why_nothing(repository)}")


def _of_huggingface(repository: Repository) -> _Wanted:
    names = repository.sizes
    _check_computed(repository, lambda: LlamaConfig.from_huggingface(repository.fetch(huggingface.CONFIG)))
    if huggingface.WEIGHTS in names:
        weights = [huggingface.WEIGHTS]
    else:
        shards = set(read_index(repository.fetch(huggingface.INDEX)).values())
        if absent := sorted(shards - names.keys()):
            raise ValueError(f"the index of {repository.name} names {shown(absent[0])}, which is not on the hub")
        weights = [huggingface.INDEX, *sorted(shards)]
    beside = [each for each in _BESIDE if each in names]
    if not {"tokenizer.json", "tokenizer.model"} & set(beside):
        beside += [each for each in (f"{_ORIGINAL}tokenizer.model",) if each in names]
    return _Wanted([huggingface.CONFIG, *beside, *weights])


def _of_meta(repository: Repository, folder: str, parts: list[str]) -> _Wanted:
    config = folder + meta.CONFIG
    _check_computed(repository, lambda: LlamaConfig.from_params_json(repository.fetch(config), _LLAMA2_ROWS))
    beside = [each for each in (f"{folder}tokenizer.model",) if each in repository.sizes]
    return _Wanted([config, *beside, *sorted(parts)], folder)


def _gguf(repository: Repository, file: str) -> _Wanted:
    if not file.endswith(SUFFIX):
        raise ValueError(f"--file names one GGUF file of a repository, found {shown(file)}")
    if file not in repository.sizes:
        found = _list_of_gguf(repository) or "no GGUF file"
        raise ValueError(f"{repository.name} has no file {shown(file)}: it has {found}")
    if _is_part(file):
        whole = _list_of_gguf(repository)
        raise ValueError(
            f"{repository.name} was not downloaded, because {shown(file)} is {_PART}"
            + (f", or name a whole one: {whole}" if whole else "")
        )
    kind = (getattr(repository.info, "gguf", None) or {}).get("architecture", "llama")
    if kind != "llama":
        raise ValueError(
            f"{repository.name} was not downloaded, because it cannot be computed here: its architecture is "
            f"{shown(kind)}, expected 'llama'"
        )
    return _Wanted([file], file)


def _check_computed(repository: Repository, read: Callable[[], LlamaConfig]) -> None:
    try:
        read()
    except HubError:
        raise
    except ValueError as error:
        raise ValueError(
            f"{repository.name} cannot be computed here, so its weights were not downloaded: {error}"
        ) from error


def _why_nothing(repository: Repository) -> str:
    names = repository.sizes
    if found := _list_of_gguf(repository):
        return f"has GGUF files: name one of them with --file; it has {found}"
    if parts := sorted(filter(_is_part, names)):
        return f"has GGUF files in parts alone: {shown(parts[0])} is {_PART}"
    if "adapter_config.json" in names:
        return huggingface.ADAPTER_ALONE
    if pickles := [each for each in names if each.endswith((".bin", ".pth", ".pt"))]:
        return (
            f"has its weights as a pickle alone ({shown(pickles[0])}), which is not read here: look on the hub "
            "for a version of it in safetensors"
        )
    return "holds no weights of a model that is read here: safetensors, GGUF, or Meta's consolidated.*.pth"


def _is_part(name: str) -> bool:
    """Whether a GGUF file is named as llama.cpp names the parts of one that was split."""
    return bool(re.search(r"-\d{5}-of-(?!00001)\d{5}\.gguf$", name))


def _list_of_gguf(repository: Repository) -> str:
    whole = {each: size for each, size in repository.sizes.items() if each.endswith(SUFFIX) and not _is_part(each)}
    files = sorted((size, each) for each, size in whole.items())
    return ", ".join(f"{each} ({_size(size)})" if each.isprintable() else shown(each) for size, each in files)


def _check_space(repository: Repository, n_bytes: int) -> None:
    free = repository.free_space()
    if n_bytes > free:
        raise ValueError(
            f"{repository.name} needs {_size(n_bytes)} more, but the disk of {repository.to or hub_cache()} has "
            f"{_size(free)} free: free some space, or give a folder on another disk with --to"
        )


def _fetch(repository: Repository, files: list[str], report: Callable[[str], None]) -> None:
    for file in files:
        try:
            repository.fetch(file)
        except ValueError as error:
            raise ValueError(f"{error}; {_kept(repository, files, file)}") from error
        except KeyboardInterrupt:
            report(f"stopped: {_kept(repository, files, file)}")
            raise


def _repaired(repository: Repository, files: list[str], report: Callable[[str], None]) -> bool:
    """Whether some files had the right length but another content, and were downloaded again."""
    damaged = [file for file in files if not repository.is_intact(file)]
    for file in damaged:
        report(f"{file} is damaged and is downloaded again")
        repository.fetch(file, anew=True)
    return bool(damaged)


def _kept(repository: Repository, files: list[str], cut: str) -> str:
    """What is kept after a cut, as it is on the disk, and not as it should be."""
    kept = sum(repository.is_here(each) for each in files)
    part = repository.kept_of(cut)
    of_this = f"{_size(part)} of {cut} are kept" if part else f"what had come of {cut} is lost"
    return f"{kept} of {len(files)} files are kept, {of_this}, and the same command goes on from there"


def _folder(file: str) -> str:
    return file[: file.rfind("/") + 1]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"
