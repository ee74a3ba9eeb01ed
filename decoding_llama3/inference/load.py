"""Load real weights: Hugging Face's safetensors or Meta's `consolidated.*.pth`; save in Hugging Face's format.

Both hold the same numbers in two layouts. Names differ, and Hugging Face reorders the rows of every query and
key projection so that RoPE pairs feature i with i + head_dim/2. Both are undone here, once, on load.
Every name, shape and dtype is checked before the first weight is read, and whether memory suffices. Then one
tensor after the other goes to its device in its final form: no second copy of a model ever exists.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.compile import compile_model
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.devices import check_device, choose_dtype
from decoding_llama3.inference.memory import check_memory
from decoding_llama3.inference.quantize import Int8Linear, is_quantizable, quantized
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
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}  # safetensors'
_DERIVED = re.compile(r"rope\.freqs|.*\.rotary_emb\.inv_freq")  # stored by some exporters, computed here


@dataclass(frozen=True)
class _Stored:
    """One tensor of a checkpoint, not yet read. `read(keep=True)` is for tensors that stay as they are read."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    read: Callable[..., Tensor]


class _MappedFile:
    """The tensors of a file, read through memory maps: one for those that are kept, and one to copy from.

    What was read through a map counts as memory of this process for as long as the map is there. So the one to
    copy from is made anew after every twentieth of the file.
    """

    def __init__(self, path: Path, open_map: Callable[[Path], Callable[[str], Tensor]]) -> None:
        self.path, self.open_map = path, open_map
        self.kept = self.copied = None
        self.left = self.share = path.stat().st_size // 20

    def read(self, name: str, keep: bool = False) -> Tensor:
        if keep:
            self.kept = self.kept or self.open_map(self.path)
            return self.kept(name)
        if self.left < 0:
            self.copied, self.left = None, self.share
        self.copied = self.copied or self.open_map(self.path)
        tensor = self.copied(name)
        self.left -= tensor.nbytes
        return tensor


class _Unfilled(TorchFunctionMode):
    """Modules are made without random weights: on "meta" their dice alone would load torch's compiler, for 1 s."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load_model(
    path: str | PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    compile: bool = False,
) -> Transformer:
    """The model in a Hugging Face or Meta directory, or "tiny" for the one that comes with the package.

    Without `dtype` the hardware decides, and what it decided is printed. `quantize="int8"` turns each matrix into
    one byte a weight as it is read. `compile=True` compiles the decode step. A checkpoint that is not exactly the
    model its configuration describes, or that does not fit into memory, raises ValueError, and nothing is loaded.
    On a CPU, weights stored as they are used stay in the file, mapped into memory: it may be replaced or deleted
    meanwhile, but not written into.
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize is None or 'int8', found {quantize!r}")
    check_device(device)
    directory = checkpoint_directory(path)
    if dtype is None:
        dtype = choose_dtype(device)
        print(f"{path}: {str(dtype).removeprefix('torch.')} on {device}")
    _check_dtype(dtype)
    if (directory / "config.json").is_file():
        config = LlamaConfig.from_huggingface(directory / "config.json")
        stored, names = _open_huggingface(directory), HUGGINGFACE_NAMES
    else:
        (config, stored), names = _open_meta(directory), META_NAMES
    model = empty_model(config)
    _check(model, stored, names, directory)
    check_memory(config, device, dtype, quantize)
    for name in _with_weights(model):
        reorder = names is HUGGINGFACE_NAMES and name.endswith(("wq", "wk"))
        source = stored[_rename(f"{name}.weight", names)]
        _place(model, name, source, reorder, device, dtype, quantize)
    if config.tie_embeddings:
        _tie(model, stored, names, directory)
    return compile_model(model) if compile else model


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
    partial_file = directory / "model.safetensors.partial"
    save_file(state, partial_file, metadata={"format": "pt"})
    partial_file.replace(directory / "model.safetensors")  # a model may be using the old one
    stored_as = str(next(iter(state.values())).dtype).removeprefix("torch.")
    text = json.dumps(_huggingface_config(config, stored_as), indent=2)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def interleave_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of each head from Hugging Face's order (x0, x1, ..., y0, y1, ...) to Meta's (x0, y0, x1, y1, ...)."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def split_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `interleave_pairs`."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _check_dtype(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype is a torch.dtype such as torch.bfloat16, found {dtype!r}")
    if dtype not in FLOATS.values():
        raise ValueError(
            f"dtype is one of {', '.join(map(str, FLOATS.values()))}, found {dtype}: for one byte a weight, use "
            "quantize='int8'"
        )


def empty_model(config: LlamaConfig) -> Transformer:
    """A model of shapes alone, on "meta", to be filled."""
    with torch.device("meta"), _Unfilled():
        return Transformer(config).eval().requires_grad_(False)


def _with_weights(model: Transformer) -> list[str]:
    """The names of the modules that have a weight of their own. Names, because a module would keep its weight."""
    names = [name for name, module in model.named_modules() if "weight" in module._parameters]
    return [name for name in names if not (model.config.tie_embeddings and name == "output")]


def _place(
    model: Transformer,
    name: str,
    source: _Stored,
    reorder: bool,
    device: str | torch.device,
    dtype: torch.dtype,
    quantize: str | None,
) -> None:
    """Give the module of that name its weight; with `quantize`, put int8 in its place."""
    module = model.get_submodule(name)
    to_int8 = quantize is not None and is_quantizable(module)
    fits = torch.device(device).type == "cpu" and source.dtype == dtype and not (reorder or to_int8)
    weight = source.read(keep=fits)
    if reorder:
        weight = interleave_pairs(weight, model.config.head_dim)
    weight = weight.to(device, dtype).contiguous()
    module.weight = nn.Parameter(weight, requires_grad=False)
    if to_int8:
        model.set_submodule(name, quantized(module))


def _tie(model: Transformer, stored: dict[str, _Stored], names: dict[str, str], directory: Path) -> None:
    embedding, output = (_rename(f"{name}.weight", names) for name in ("tok_embeddings", "output"))
    if output in stored:
        weight = stored[embedding].read()
        if not torch.equal(stored[output].read().to(weight.dtype), weight):
            raise ValueError(
                f"{directory} says that embedding and output are tied, but holds a {output} that differs from "
                "the embedding: which of the two is right, only its author knows"
            )
    if isinstance(model.tok_embeddings, nn.Embedding):
        model.output.weight = model.tok_embeddings.weight
    else:
        model.output = Int8Linear(model.tok_embeddings.weight, model.tok_embeddings.scale)


def _check(model: Transformer, stored: dict[str, _Stored], names: dict[str, str], directory: Path) -> None:
    shapes = {_rename(name, names): tuple(weight.shape) for name, weight in model.state_dict().items()}
    tied = _rename("output.weight", names) if model.config.tie_embeddings else None
    missing = [name for name in shapes if name not in stored and name != tied]
    extra = [name for name in stored if name not in shapes and not _DERIVED.fullmatch(name)]
    for what, found in (("lacks", missing), ("has, beyond the model its configuration describes,", extra)):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise ValueError(f"{directory} {what} {found[0]}{more}: are configuration and weights of one model?")
    for name in filter(stored.__contains__, shapes):
        if stored[name].shape != shapes[name]:
            raise ValueError(
                f"{directory} holds {name} of shape {stored[name].shape}, but its configuration asks "
                f"for {shapes[name]}: are configuration and weights of one model, and all parts there?"
            )
        if stored[name].dtype not in FLOATS.values():
            raise ValueError(
                f"{directory} holds {name} as {stored[name].dtype}, and quantised weights are not supported: "
                "download the checkpoint in bfloat16, float16 or float32, and use quantize='int8'"
            )


def _open_huggingface(directory: Path) -> dict[str, _Stored]:
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
        file = _MappedFile(path, lambda path: _map_safetensors(path).get_tensor)
        with _map_safetensors(path) as header:
            for name in header.keys():  # noqa: SIM118 (no dict)
                part = header.get_slice(name)
                dtype = FLOATS.get(part.get_dtype(), part.get_dtype())
                stored[name] = _Stored(tuple(part.get_shape()), dtype, partial(file.read, name))
    return stored


def _map_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): download it again") from error


def _open_meta(directory: Path) -> tuple[LlamaConfig, dict[str, _Stored]]:
    paths = sorted(directory.glob("consolidated.*.pth"))
    if [path.name for path in paths] != [f"consolidated.{i:02d}.pth" for i in range(len(paths))] or not paths:
        found = ", ".join(path.name for path in paths) or "none"
        raise ValueError(f"{directory} should hold consolidated.00.pth, .01, ... without a gap, found {found}")
    parts = [_open_pth(path) for path in paths]
    if unshared := set().union(*parts) - set(parts[0]).intersection(*parts):
        raise ValueError(f"{directory}: not all parts hold {min(unshared)}: are they parts of one checkpoint?")
    rows = sum(part["output.weight"].shape[0] for part in parts if "output.weight" in part)
    config = LlamaConfig.from_params_json(directory / "params.json", vocab_size=rows or None)
    wanted = {_rename(n, META_NAMES): tuple(w.shape) for n, w in empty_model(config).state_dict().items()}
    return config, {name: _join([part[name] for part in parts], wanted.get(name)) for name in parts[0]}


def _open_pth(path: Path) -> dict[str, _Stored]:
    file = _MappedFile(path, lambda path: _map_pth(path).__getitem__)
    return {
        name: _Stored(tuple(weight.shape), weight.dtype, partial(file.read, name))
        for name, weight in _map_pth(path).items()
    }


def _map_pth(path: Path) -> dict[str, Tensor]:
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


def _join(parts: list[_Stored], wanted: tuple[int, ...] | None) -> _Stored:
    """Model-parallel parts of one tensor. The axis they were cut along is the one that falls short."""
    shape, dtype = parts[0].shape, parts[0].dtype
    if len(parts) > 1 and wanted is not None and len(shape) == len(wanted):
        for axis in range(len(shape)):
            joined = (*shape[:axis], sum(part.shape[axis] for part in parts), *shape[axis + 1 :])
            if shape != wanted and joined == wanted:
                return _Stored(wanted, dtype, partial(_cat, parts, axis))
    return parts[0]


def _cat(parts: list[_Stored], axis: int, keep: bool = False) -> Tensor:
    return torch.cat([part.read() for part in parts], dim=axis)  # a copy, kept or not


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
