"""Models to measure: the shapes there are, and random weights for them, which take as long as trained ones."""

import dataclasses

import torch
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.empty import empty_model
from decoding_llama3.inference.memory import check_memory
from decoding_llama3.inference.quantize import int8_layer, is_quantizable, quantize_rows
from decoding_llama3.presets import PRESETS
from decoding_llama3.transformer import Transformer

SHAPES = {  # beside the presets
    "125m": LlamaConfig(  # this and the next run on a laptop in float32
        dim=768, n_layers=12, n_heads=12, n_kv_heads=4, hidden_dim=2048, vocab_size=32_000, max_seq_len=8192
    ),
    "1.5b": dataclasses.replace(LlamaConfig.from_preset("llama3.2-1b"), tie_embeddings=False),
    # llama3-8b with a context that leaves room after 8,192 tokens
    "8b": dataclasses.replace(LlamaConfig.from_preset("llama3-8b"), max_seq_len=16_384),
}


def preset_config(name: str) -> LlamaConfig:
    """The shape of a preset, or one of SHAPES; another name raises ValueError."""
    if name not in SHAPES and name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join([*SHAPES, *PRESETS])}")
    return SHAPES[name] if name in SHAPES else LlamaConfig.from_preset(name)


def random_model(
    config: LlamaConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    seed: int = 0,
) -> Transformer:
    """A model of full shape with random weights, made one after the other, each in its final form at once.

    Matrices have a standard deviation of 0.02, norms are 1: nothing overflows in float16. With
    `quantize="int8"` they are the same weights, rounded. Raises ValueError where memory does not suffice.
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize is None or 'int8', found {quantize!r}")
    check_memory(config, device, dtype, quantize)
    model = empty_model(config)
    generator, made = torch.Generator(device).manual_seed(seed), {}  # by weight: tied ones stay one
    for module in list(model.modules()):
        for name, child in module.named_children():
            empty = child._parameters.get("weight")
            if empty is None:
                continue
            in_int8 = quantize == "int8" and is_quantizable(child)
            if empty not in made:
                made[empty] = (_random_int8 if in_int8 else _random)(empty.shape, dtype, generator)
            if in_int8:
                setattr(module, name, int8_layer(child, made[empty][0], made[empty][1], dtype))
            else:
                child.weight = made[empty]
    return model.eval()


def _random(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> nn.Parameter:
    weight = torch.ones(shape, dtype=dtype, device=generator.device)
    if len(shape) > 1:
        weight.normal_(std=0.02, generator=generator)
    return nn.Parameter(weight, requires_grad=False)


def _random_int8(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return quantize_rows(_random(shape, dtype, generator))
