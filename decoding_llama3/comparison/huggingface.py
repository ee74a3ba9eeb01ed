"""transformers' model of a checkpoint, the oracle: it reads Hugging Face's files itself.

For a GGUF file its LlamaForCausalLM is filled with what the library gguf makes of the file: settings, names and
weights come from there, and nothing from our own reader. The order of the rows of queries and keys is undone as
llama.cpp makes it (github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py, permute).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decoding_llama3.comparison.reading import Runner
from decoding_llama3.inference.checkpoint.export import huggingface_settings
from decoding_llama3.inference.checkpoint.find import open_checkpoint
from decoding_llama3.inference.checkpoint.names import HUGGINGFACE_NAMES, Names
from decoding_llama3.inference.checkpoint.rows import split_pairs


def read_directory(path: Path, device: str, dtype: torch.dtype) -> Runner:
    """What transformers makes of a Hugging Face directory. Raises ValueError where it refuses the directory."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    how: Any = {
        "dtype": dtype,
        "attn_implementation": "eager",
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path, **how)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"transformers cannot load {path}, so there is nothing to compare with: {reason}"
        ) from error
    return _runner(model.to(device))


def read_gguf(path: Path, device: str, dtype: torch.dtype) -> Runner:
    """LlamaForCausalLM with the weights of a GGUF file, which `open_checkpoint` has found to be whole."""
    import gguf

    reader = gguf.GGUFReader(path)
    settings = _gguf_settings(reader)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    n_layers, head_dim = settings["num_hidden_layers"], settings["head_dim"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, n_layers)
    settings["tie_word_embeddings"] = "output.weight" not in tensors

    def weights() -> Iterator[tuple[str, Tensor]]:
        for name in _weight_names(n_layers, settings["tie_word_embeddings"]):
            tensor = tensors[f"{names.get_name(name.removesuffix('.weight'))}.weight"]
            weight = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).float()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight = weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
            yield name, weight

    model = _filled(settings, weights(), device, dtype)
    if "rope_freqs.weight" in tensors:  # what llama.cpp divides the frequencies by
        divisors = torch.tensor(tensors["rope_freqs.weight"].data).float()
        model.model.rotary_emb.inv_freq /= divisors.to(device)
    return _runner(model)


def read_converted(path: Path, device: str, dtype: torch.dtype) -> Runner:
    """LlamaForCausalLM filled through our own reader, for a format that transformers does not know.

    So it is no oracle for what a file's names and rows mean, but one for all that is computed from them.
    """
    checkpoint, names = open_checkpoint(path), Names(HUGGINGFACE_NAMES)

    def weights() -> Iterator[tuple[str, Tensor]]:
        for name in _weight_names(checkpoint.config.n_layers, checkpoint.config.tie_embeddings):
            weight = checkpoint.tensors[str(names.ours(name))].read()
            is_rotated = name.endswith(("q_proj.weight", "k_proj.weight"))
            yield name, split_pairs(weight, checkpoint.config.head_dim) if is_rotated else weight

    return _runner(_filled(huggingface_settings(checkpoint.config), weights(), device, dtype))


def _runner(model: Any) -> Runner:
    model.eval()
    inner, layers = "model.layers", range(len(model.model.layers))
    norms = [f"{inner}.{i}.{norm}_layernorm" for i in layers for norm in ("input", "post_attention")]

    def logits(tokens: Tensor, positions: Tensor) -> Tensor:
        mask = torch.ones_like(tokens)  # else gaps in the positions are taken for borders of documents
        return model(tokens, position_ids=positions[None], attention_mask=mask, use_cache=False).logits

    def greedy(ids: list[int], n_new: int) -> list[int]:
        return _greedy(model, ids, n_new)

    return Runner(model, [*norms, "model.norm"], logits, greedy)


def _greedy(model: Any, ids: list[int], n_new: int) -> list[int]:
    """Their own loop and cache, without the settings of generation that a checkpoint may bring along."""
    from transformers import GenerationConfig

    if n_new == 0:
        return []
    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=None, pad_token_id=0)
    tokens = torch.tensor([ids], device=model.device)
    options = {"max_new_tokens": n_new, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    return model.generate(tokens, **options)[0, len(ids) :].tolist()


def _filled(
    settings: dict[str, Any], weights: Iterable[tuple[str, Tensor]], device: str, dtype: torch.dtype
) -> Any:
    """LlamaForCausalLM of those settings, each weight put in its place as it comes: none is there twice."""
    from transformers import AutoModelForCausalLM
    from transformers import LlamaConfig as TransformersConfig

    config = TransformersConfig.from_dict(settings)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)  # computed, and stored in no file
    for name, weight in weights:
        module = model.get_submodule(name.removesuffix(".weight"))
        assert module.weight.shape == weight.shape, name
        module.weight = nn.Parameter(weight.to(device, dtype), requires_grad=False)
    if settings["tie_word_embeddings"]:
        model.lm_head.weight = model.model.embed_tokens.weight
    assert not any(weight.is_meta for weight in model.parameters())
    return model


def _weight_names(n_layers: int, tied: bool) -> Iterator[str]:
    """The weights of LlamaForCausalLM by its own names."""
    yield "model.embed_tokens.weight"
    attention, mlp = [f"self_attn.{x}_proj" for x in "qkvo"], [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    for i in range(n_layers):
        for part in (*attention, *mlp, "input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{i}.{part}.weight"
    yield "model.norm.weight"
    if not tied:
        yield "lm_head.weight"


def _gguf_settings(reader: Any) -> dict[str, Any]:
    """config.json as the fields of a GGUF file have it."""

    def field(key: str, default: Any = None) -> Any:
        found = reader.fields.get(f"llama.{key}")
        return default if found is None else found.contents()

    dim, n_heads = field("embedding_length"), field("attention.head_count")
    (vocab_size,) = {int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == "token_embd.weight"}
    return {
        "vocab_size": vocab_size,
        "hidden_size": dim,
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": field("attention.head_count_kv", n_heads),
        "head_dim": field("attention.key_length", field("rope.dimension_count", dim // n_heads)),
        "intermediate_size": field("feed_forward_length"),
        "max_position_embeddings": field("context_length"),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "rope_theta": field("rope.freq_base", 10_000.0),
    }
