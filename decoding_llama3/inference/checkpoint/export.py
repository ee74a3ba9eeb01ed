"""Write a model in Hugging Face's format."""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.huggingface import CONFIG, INDEX, NAMES, WEIGHTS
from decoding_llama3.inference.checkpoint.rows import split_pairs
from decoding_llama3.inference.checkpoint.stored import check_dtype
from decoding_llama3.inference.empty import empty_model
from decoding_llama3.inference.tokenizers.export import GENERATION, tokenizer_files
from decoding_llama3.json_files import shown
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

_OF_A_TOKENIZER = (  # what is found in a folder before or beside the files that are written
    "tokenizer*",
    "original/tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
_OF_ANOTHER = (  # by these, transformers or `load_model` would read another model or other ids than were saved
    INDEX,
    "model-*-of-*.safetensors",
    "pytorch_model*",
    "adapter_*",
    "params.json",
    "consolidated.*",
)


def save_huggingface(
    model: Transformer,
    directory: str | PathLike,
    dtype: torch.dtype | None = None,
    bos_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write config.json and model.safetensors, readable by `load_model` and by transformers.

    With a `tokenizer`, its files too: vocabulary, chat template, and in generation_config.json all ids that end a
    text. `load_tokenizer` and transformers read the same ids from them.

    Weights are stored in `dtype`, or as they are; those of an int8 model are rows times scales, multiplied out and
    rounded to the dtype of its norms. A model does not know its tokenizer: without one and without ids, null is
    written.
    An earlier pair of files is replaced: who reads it meanwhile, or after a kill, finds a whole pair or no config.
    Raises ValueError for a model that is not that of its configuration, for a dtype that weights are not stored in
    (TypeError if it is none), for a tokenizer with more tokens than the model has rows, and for a directory with
    files of another model or tokenizer; OSError if it cannot be written.
    """
    if dtype is not None:
        check_dtype(dtype)
    directory, others = Path(directory), {}
    if tokenizer is not None:
        others = _tokenizer_files(tokenizer, model.config)
        bos_token_id = tokenizer.bos_id if bos_token_id is None else bos_token_id
        eos_token_id = tokenizer.stop_ids if eos_token_id is None else eos_token_id
    _check_directory(directory, others)
    tensors = _tensors(model, dtype)
    stored_as = str(tensors["model.embed_tokens.weight"].dtype).removeprefix("torch.")
    config = huggingface_settings(model.config) | {
        "bos_token_id": bos_token_id,  # a key that is absent would mean 1, and 2 below
        "eos_token_id": _one_or_all(eos_token_id),
        "dtype": stored_as,
        "torch_dtype": stored_as,
    }
    directory.mkdir(parents=True, exist_ok=True)
    _write_others(directory, others)
    _write(directory, json.dumps(config, indent=2) + "\n", tensors)


def _tokenizer_files(tokenizer: Tokenizer, config: LlamaConfig) -> dict[str, bytes]:
    if tokenizer.n_vocab > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.n_vocab} tokens, but the model has {config.vocab_size} rows for them: "
            "save a model with its own tokenizer"
        )
    return tokenizer_files(tokenizer)


def _one_or_all(ids: int | Sequence[int] | None) -> int | Sequence[int] | None:
    return ids[0] if isinstance(ids, Sequence) and len(ids) == 1 else ids


def _write_others(directory: Path, files: dict[str, bytes]) -> None:
    """Before the model: config.json, which makes a folder a checkpoint, comes last."""
    for name, content in files.items():
        new = directory / f"{name}.partial"
        try:
            new.write_bytes(content)
            new.replace(directory / name)
        finally:
            new.unlink(missing_ok=True)


def _check_directory(directory: Path, own: dict[str, bytes]) -> None:
    """Raise ValueError if the model, or with `own` files its tokenizer, would be read from another file."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file, but a directory is needed for {CONFIG} and {WEIGHTS}")
    patterns = (*_OF_ANOTHER, GENERATION, *(_OF_A_TOKENIZER if own else ()))
    for path in (path for pattern in patterns for path in sorted(directory.glob(pattern))):
        if own.get(path.name) is None or not path.is_file() or path.read_bytes() != own[path.name]:
            raise ValueError(
                f"{directory} holds {shown(path.name)}, with which another model would be read than is saved: "
                "save to a new directory, or move it away"
            )


def _tensors(model: Transformer, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """All weights by Hugging Face's names, on the CPU, each with memory of its own."""
    tensors, taken = {}, set()
    for name, weight in _weights(model).items():
        if name.endswith((".wq.weight", ".wk.weight")):
            weight = split_pairs(weight, model.config.head_dim)
        weight = weight.to("cpu", dtype or weight.dtype).contiguous()
        weight = weight.clone() if weight.data_ptr() in taken else weight
        taken.add(weight.data_ptr())
        tensors[NAMES.theirs(name)] = weight
    return tensors


def _weights(model: Transformer) -> dict[str, Tensor]:
    """The weights of a model by our names: int8 rows times their scales, a tied matrix once."""
    state = model.state_dict()
    for scale in [name for name in state if name.endswith(".scale")]:
        name, steps = f"{scale.removesuffix('.scale')}.weight", state.pop(scale)
        state[name] = (state[name] * steps[:, None]).to(state["norm.weight"].dtype)
    _check_weights(state, model.config)
    if model.config.tie_embeddings:
        output, embedding = state.pop("output.weight"), state["tok_embeddings.weight"]
        if output.data_ptr() != embedding.data_ptr() and not torch.equal(output, embedding):
            raise ValueError("the configuration ties embedding and output, which differ: set tie_embeddings False")
    return state


def _check_weights(state: dict[str, Tensor], config: LlamaConfig) -> None:
    expected = {name: tuple(weight.shape) for name, weight in empty_model(config).state_dict().items()}
    for name in dict.fromkeys((*expected, *state)):
        found = tuple(state[name].shape) if name in state else None
        if found != expected.get(name):
            raise ValueError(
                f"the model's {name} has the shape {found}, but its configuration asks for {expected.get(name)} "
                "(None is no such weight): only a model with all the weights of a Llama, and no others, is saved"
            )
        check_dtype(state[name].dtype)
        if state[name].is_meta:
            raise ValueError(f"the model's {name} is on 'meta' and has no values: load or train the model first")


def _write(directory: Path, config: str, tensors: dict[str, Tensor]) -> None:
    """Both files whole, beside their places, then put there."""
    new_config, new_weights = (directory / f"{name}.partial" for name in (CONFIG, WEIGHTS))
    try:
        new_config.write_text(config, encoding="utf-8")
        save_file(tensors, new_weights, metadata={"format": "pt"})
        new_weights.chmod(new_config.stat().st_mode)  # as the umask says; safetensors writes for its owner alone
        _replace(new_config, new_weights, directory)
    except SafetensorError as error:
        raise OSError(f"{directory / WEIGHTS} cannot be written ({error}): is the disk full?") from error
    finally:
        new_config.unlink(missing_ok=True)
        new_weights.unlink(missing_ok=True)


def _replace(new_config: Path, new_weights: Path, directory: Path) -> None:
    """Between the two renames there is no config.json: a kill there must not pair an old one with new weights."""
    config = directory / CONFIG
    old = config.read_bytes() if config.is_file() else None
    if old is not None and old != new_config.read_bytes():
        config.unlink()
    try:
        new_weights.replace(directory / WEIGHTS)  # not written into: a model may be using the old ones
    except OSError:
        if old is not None:
            config.write_bytes(old)
        raise
    new_config.replace(config)


def huggingface_settings(config: LlamaConfig) -> dict:
    """What Hugging Face's config.json says of a configuration, the ids of special tokens and the dtype apart."""
    scaling = config.rope_scaling and {
        "rope_type": "llama3",
        "factor": config.rope_scaling.factor,
        "low_freq_factor": config.rope_scaling.low_freq_factor,
        "high_freq_factor": config.rope_scaling.high_freq_factor,
        "original_max_position_embeddings": config.rope_scaling.original_context,
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.hidden_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
    }
