"""Load real weights: Hugging Face's safetensors or Meta's `consolidated.*.pth`; save in Hugging Face's format.

Both hold the same numbers in two layouts. Names differ, and Hugging Face reorders the rows of every query and
key projection so that RoPE pairs feature i with i + head_dim/2. Both are undone here, once, on load.
Every name and shape is checked before the first weight is read.
"""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.quantize import quantize_int8
from decoding_llama3.transformer import Transformer

META_NAMES = {
    "feed_forward.w_gate": "feed_forward.w1",
    "feed_forward.w_down": "feed_forward.w2",
    "feed_forward.w_up": "feed_forward.w3",
}
HUGGINGFACE_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "layers": "model.layers",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w_gate": "mlp.gate_proj",
    "feed_forward.w_up": "mlp.up_proj",
    "feed_forward.w_down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "norm": "model.norm",
    "output": "lm_head",
}
_DERIVED = re.compile(r"rope\.freqs|.*\.rotary_emb\.inv_freq")  # stored by some exporters, computed here


@dataclass(frozen=True)
class _Stored:
    """One tensor of a checkpoint, not yet read."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def load_model(
    path: str | PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    compile: bool = False,
) -> Transformer:
    """The model in a Hugging Face or Meta directory, or "tiny" for the one that comes with the package.

    Without `dtype` the hardware decides, and what it decided is printed. `quantize="int8"` stores the matrices
    of the blocks in one byte a weight. `compile=True` compiles the decode step. A checkpoint that is not
    exactly the model its configuration describes raises ValueError, and nothing is loaded.
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize is None or 'int8', found {quantize!r}")
    directory = checkpoint_directory(path)
    if dtype is None:
        dtype = choose_dtype(device)
        print(f"{path}: {str(dtype).removeprefix('torch.')} on {device}")
    with ExitStack() as files:
        if (directory / "config.json").is_file():
            config = LlamaConfig.from_huggingface(directory / "config.json")
            stored, names = _open_huggingface(directory, files), HUGGINGFACE_NAMES
        else:
            config, stored = _open_meta(directory)
            names = META_NAMES
        model = _fill(config, stored, names, directory, device, dtype)
    if quantize == "int8":
        quantize_int8(model)
    if compile:
        compile_decode_step(model)
    return model


def choose_dtype(device: str | torch.device) -> torch.dtype:
    """float32 on CPU; on a GPU bfloat16, or float16 on cards below capability 8.0, which lack it."""
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.float32
    if kind == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16


def compile_decode_step(model: Transformer) -> None:
    """Compile calls of the model itself, which `generate` makes for each new token; prompts stay eager."""
    on_cpu = model.norm.weight.device.type == "cpu"
    if on_cpu and find_compiler() is None:
        print("no C++ compiler found, so the model stays uncompiled: install g++ or clang to use compile=True")
        return
    model.compile(fullgraph=True)


def find_compiler() -> str | None:
    """The C++ compiler that `torch.compile` needs on a CPU, or None."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)


def read_config(path: str | PathLike) -> LlamaConfig:
    """The configuration of a checkpoint, its weights untouched."""
    directory = checkpoint_directory(path)
    if (directory / "config.json").is_file():
        return LlamaConfig.from_huggingface(directory / "config.json")
    return LlamaConfig.from_params_json(directory / "params.json")


def checkpoint_directory(path: str | PathLike) -> Path:
    """The directory of a checkpoint; "tiny" is the one in `data/`."""
    directory = data_directory() / "tiny-llama3" if path == "tiny" else Path(path)
    if not directory.is_dir():
        raise ValueError(f"no directory {path}: pass a Hugging Face or Meta checkpoint directory, or 'tiny'")
    if not any((directory / name).is_file() for name in ("config.json", "params.json")):
        raise ValueError(
            f"{directory} has neither config.json (Hugging Face) nor params.json (Meta): is it a checkpoint?"
        )
    return directory


def save_huggingface(model: Transformer, directory: Path, dtype: torch.dtype | None = None) -> None:
    """Write config.json and model.safetensors, readable by `load_model` and by transformers."""
    config, state = model.config, {}
    for name, weight in model.state_dict().items():
        if config.tie_embeddings and name == "output.weight":
            continue
        if name.endswith(("wq.weight", "wk.weight")):
            weight = split_pairs(weight, config.head_dim)
        state[_rename(name, HUGGINGFACE_NAMES)] = weight.to("cpu", dtype or weight.dtype).contiguous()
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    stored_as = str(next(iter(state.values())).dtype).removeprefix("torch.")
    text = json.dumps(_huggingface_config(config, stored_as), indent=2)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def interleave_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of each head from Hugging Face's order (x0, x1, ..., y0, y1, ...) to Meta's (x0, y0, x1, y1, ...)."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def split_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `interleave_pairs`."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _fill(config: LlamaConfig, stored: dict, names: dict, directory: Path, device, dtype) -> Transformer:
    with torch.device("meta"):
        model = Transformer(config)
    expected = {_rename(name, names): name for name in model.state_dict()}
    tied = _rename("output.weight", names) if config.tie_embeddings else None
    _check(stored, expected, {n: w.shape for n, w in model.state_dict().items()}, tied, directory)
    state = {}
    for theirs, ours in expected.items():
        if theirs == tied:
            continue
        weight = stored[theirs].read()
        if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise ValueError(f"{directory} holds {theirs} as {weight.dtype}: quantised weights are not supported")
        if names is HUGGINGFACE_NAMES and ours.endswith(("wq.weight", "wk.weight")):
            weight = interleave_pairs(weight, config.head_dim)
        state[ours] = weight.to(device, dtype).contiguous()
    if tied is not None:
        state["output.weight"] = state["tok_embeddings.weight"]
        if tied in stored and not torch.equal(stored[tied].read().to(device, dtype), state["output.weight"]):
            raise ValueError(
                f"{directory} says that embedding and output are tied, but holds a {tied} that differs from the "
                "embedding: which of the two is right, only its author knows"
            )
    model.load_state_dict(state, strict=True, assign=True)
    if tied is not None:
        model.output.weight = model.tok_embeddings.weight  # assign=True made two parameters of one tensor
    return model.eval().requires_grad_(False)


def _check(stored: dict, expected: dict, shapes: dict, tied: str | None, directory: Path) -> None:
    missing = [name for name in expected if name not in stored and name != tied]
    extra = [name for name in stored if name not in expected and not _DERIVED.fullmatch(name)]
    for what, found in (("lacks", missing), ("has, beyond the model its configuration describes,", extra)):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise ValueError(f"{directory} {what} {found[0]}{more}: are configuration and weights of one model?")
    for theirs, ours in expected.items():
        if theirs in stored and tuple(stored[theirs].shape) != tuple(shapes[ours]):
            raise ValueError(
                f"{directory} holds {theirs} of shape {tuple(stored[theirs].shape)}, but its configuration asks "
                f"for {tuple(shapes[ours])}: are configuration and weights of one model, and all parts there?"
            )


def _open_huggingface(directory: Path, files: ExitStack) -> dict[str, _Stored]:
    index = directory / "model.safetensors.index.json"
    paths = [directory / "model.safetensors"]
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{index} is no index of shards (JSON with a weight_map): download it again"
            ) from error
        paths = [directory / name for name in shards]
    stored = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{directory} lacks {path.name}: download the checkpoint again, with all its shards")
        try:
            file = files.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error}): download it again") from error
        for name in file.keys():  # noqa: SIM118 (no dict)
            shape = tuple(file.get_slice(name).get_shape())
            stored[name] = _Stored(shape, lambda file=file, name=name: file.get_tensor(name))
    return stored


def _open_meta(directory: Path) -> tuple[LlamaConfig, dict[str, _Stored]]:
    paths = sorted(directory.glob("consolidated.*.pth"))
    if [path.name for path in paths] != [f"consolidated.{i:02d}.pth" for i in range(len(paths))] or not paths:
        found = ", ".join(path.name for path in paths) or "none"
        raise ValueError(f"{directory} should hold consolidated.00.pth, .01, ... without a gap, found {found}")
    parts = [_read_pth(path) for path in paths]
    if unshared := set().union(*parts) - set(parts[0]).intersection(*parts):
        raise ValueError(f"{directory}: not all parts hold {min(unshared)}: are they parts of one checkpoint?")
    rows = sum(part["output.weight"].shape[0] for part in parts if "output.weight" in part)
    config = LlamaConfig.from_params_json(directory / "params.json", vocab_size=rows or None)
    with torch.device("meta"):
        wanted = {_rename(n, META_NAMES): tuple(w.shape) for n, w in Transformer(config).state_dict().items()}
    return config, {name: _join([part[name] for part in parts], wanted.get(name)) for name in parts[0]}


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        part = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as plain weights ({reason}): download it again") from error
    if not isinstance(part, dict) or not all(isinstance(weight, Tensor) for weight in part.values()):
        raise ValueError(
            f"{path} should hold a dictionary of tensors by name: is it a Llama checkpoint of Meta's?"
        )
    return part


def _join(parts: list[Tensor], wanted: tuple[int, ...] | None) -> _Stored:
    """Model-parallel parts of one tensor. The axis they were cut along is the one that falls short."""
    shape = tuple(parts[0].shape)
    if len(parts) > 1 and wanted is not None and len(shape) == len(wanted):
        for axis in range(len(shape)):
            joined = (*shape[:axis], sum(part.shape[axis] for part in parts), *shape[axis + 1 :])
            if shape != wanted and joined == wanted:
                return _Stored(wanted, lambda axis=axis: torch.cat(parts, dim=axis))
    return _Stored(shape, lambda: parts[0])


def _rename(name: str, table: dict[str, str]) -> str:
    pattern = r"\b(" + "|".join(map(re.escape, table)) + r")\b"
    return re.sub(pattern, lambda match: table[match[1]], name)


def _huggingface_config(config: LlamaConfig, stored_as: str) -> dict:
    rope = {"rope_theta": config.rope_theta}
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
        **rope,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.vocab_size - 256,  # numbering of Llama 3's tokenizer.model
        "eos_token_id": config.vocab_size - 255,
        "dtype": stored_as,
        "torch_dtype": stored_as,
    }
