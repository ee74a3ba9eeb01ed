"""What a command names: the model, its tokenizer, its configuration, its device and dtype."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from decoding_llama3.cli.options import DTYPES
from decoding_llama3.cli.several import check_sharing, is_alone
from decoding_llama3.cli.terminal import note, waiting
from decoding_llama3.json_files import read_json

if TYPE_CHECKING:
    import torch

    import decoding_llama3 as dl
    from decoding_llama3.experiments.corpus import Corpus


def load(
    checkpoint: str,
    tokenizer: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool = False,
) -> tuple[dl.Transformer, dl.Tokenizer]:
    """The model and its tokenizer, by default on the fastest device; says on which, and in which dtype.

    In one of several processes it is this one's share of the model.
    """
    check_sharing("generate", compile)
    if not is_alone():
        return _load_share(checkpoint, tokenizer, device, dtype, quantize)
    with waiting("starting"):
        from decoding_llama3.inference.checkpoint.find import read_config
        from decoding_llama3.inference.devices import best_device
        from decoding_llama3.inference.load import load_model
        from decoding_llama3.inference.memory import choose_fit, name_of
        from decoding_llama3.inference.tokenizers.find import load_tokenizer
    device = device or best_device()
    config = read_config(checkpoint)  # a wrong path is said before a tokenizer is looked for
    kind = dtype_of(dtype, device)
    if dtype is None and quantize is None:
        fit = choose_fit(config, device)
        kind, quantize = fit.dtype, fit.quantize
    with waiting(f"loading {checkpoint}"):
        tokens_of = load_tokenizer(tokenizer or checkpoint, checkpoint)
        model = load_model(checkpoint, device, kind, quantize)
    how = name_of(kind) if quantize is None else f"{quantize}, computed in {name_of(kind)},"
    note(f"{checkpoint}: {how} on {device}")
    return model, tokens_of


def _load_share(
    checkpoint: str, tokenizer: str | None, device: str | None, dtype: str | None, quantize: str | None
) -> tuple[dl.Transformer, dl.Tokenizer]:
    with waiting("starting"):
        from decoding_llama3.inference import parallel
        from decoding_llama3.inference.checkpoint.find import read_config
        from decoding_llama3.inference.ranks import find_ranks
        from decoding_llama3.inference.tokenizers.find import load_tokenizer
    ranks = find_ranks()
    narrow = parallel.narrow_config(read_config(checkpoint), ranks)
    own = parallel.meet(device)
    fit = parallel.choose_share(narrow, own, dtype_of(dtype, own) if dtype else None, quantize)
    with waiting(f"loading {checkpoint}"):
        tokens_of = load_tokenizer(tokenizer or checkpoint, checkpoint)
        model = parallel.load_share(checkpoint, own, fit.dtype, fit.quantize)
    note(f"{checkpoint}: {fit} in {ranks.world} processes, the first on {own}")
    return model, tokens_of


def dtype_of(name: str | None, device: str) -> torch.dtype:
    """The dtype of that name, by default the one that `device` does well. Another name raises ValueError."""
    import torch

    from decoding_llama3.inference.devices import choose_dtype

    if name is not None and name not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, found {name!r}")
    return getattr(torch, name) if name else choose_dtype(device)


def config_of(name: str) -> dl.LlamaConfig:
    """The configuration of a preset or of a checkpoint, by its path or name.

    ValueError where neither is called so.
    """
    from decoding_llama3.config import LlamaConfig
    from decoding_llama3.inference.checkpoint.find import read_config
    from decoding_llama3.inference.checkpoint.named import named_model
    from decoding_llama3.presets import PRESETS

    if name in PRESETS and name != "tiny":
        return LlamaConfig.from_preset(name)
    if Path(name).exists() or "/" in name or named_model(name) is not None:
        return read_config(name)
    raise ValueError(f"no preset and no directory is called {name}; presets are {', '.join(PRESETS)}")


def read_texts(folder: Path, held_out: str) -> Corpus:
    """The texts of a folder, one of them held out; raises ValueError if that one is empty."""
    from decoding_llama3.experiments.corpus import Corpus

    texts = Corpus.read(folder, held_out)
    if not texts.held_out.strip():
        raise ValueError(f"{folder / held_out} is empty: hold out a file with text in it")
    return texts


def say_chat_format(checkpoint: str, tokenizer: dl.Tokenizer) -> None:
    """Say in which format a chat is written, and whether the model seems to be one that was not taught to chat."""
    template = getattr(tokenizer, "template", None)
    taken = template.source if template else "Llama 3's format"
    note(f"chat format: {taken}")
    directory = Path(checkpoint)
    file = directory / "tokenizer_config.json"
    of_meta = (directory / "params.json").is_file() and not (directory / "config.json").is_file()
    base = _is_base(directory) if of_meta else file.is_file() and not _has_template(directory)
    if base:
        found = "is not called a chat or instruct model" if of_meta else "has no chat template"
        note(f"{directory} {found}: a base model, not taught to chat, may ramble; 'generate' suits it")


def _is_base(directory: Path) -> bool:
    """By its name: Meta's files do not say it, but folders are called Llama-3.1-8B and Llama-3.1-8B-Instruct."""
    path = directory.resolve()
    name = (path.parent if path.name == "original" else path).name.lower()
    return "llama" in name and not any(word in name for word in ("chat", "instruct"))


def _has_template(directory: Path) -> bool:
    if any((directory / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(read_json(directory / "tokenizer_config.json", "tokenizer_config.json")[0].get("chat_template"))
