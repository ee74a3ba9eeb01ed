"""Meta's own model, from its package llama-models, with the weights of a checkpoint in Meta's layout, the oracle.

Names, the order of rows and the settings in params.json are taken there as Meta's code takes them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decoding_llama3.benchmark.machine import version
from decoding_llama3.comparison.reading import Runner
from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.inference.checkpoint.meta import CONFIG, PARTS
from decoding_llama3.inference.checkpoint.pth import open_pth
from decoding_llama3.json_files import read_json
from decoding_llama3.rope import rope_frequencies, rope_rotation, scale_frequencies

THEIR_SCALING = RopeScaling(factor=8.0)  # the one in their code, whatever the model


def missing_for_meta() -> str | None:
    """The first package that Meta's model needs and that is not installed, None if all are."""
    return next((name for name in ("llama-models", "fairscale") if version(name) is None), None)


@contextmanager
def meta_model(path: Path, config: LlamaConfig, device: str, dtype: torch.dtype, room: int) -> Iterator[Runner]:
    """Their model with a cache of `room` tokens, in the process group that it needs, here of one process."""
    with _one_process():
        from llama_models.llama3 import model as reference
        from llama_models.llama3.args import ModelArgs

        params = {"rope_theta": config.rope_theta} | read_json(path, CONFIG)[0]  # Llama 2's file states no theta
        args: Any = {"vocab_size": config.vocab_size, "max_batch_size": 1, "max_seq_len": room}
        with torch.device("meta"):
            model: Any = reference.Transformer(ModelArgs(**params | args))
        _fill(model, path, device, dtype)
        for layer in model.layers:
            keys = torch.zeros(1, room, config.n_kv_heads, config.head_dim, device=device, dtype=dtype)
            layer.attention.cache_k, layer.attention.cache_v = keys, keys.clone()
        if config.rope_scaling in (None, THEIR_SCALING):
            scaled = bool(params.get("use_scaled_rope"))
            table = reference.precompute_freqs_cis(
                config.head_dim, config.max_seq_len, params["rope_theta"], scaled
            )
        else:
            table = _our_table(config)
        yield _runner(model, table.to(device))


def _fill(model: Any, path: Path, device: str, dtype: torch.dtype) -> None:
    """Each weight from the parts of the checkpoint, joined where the shape of a part falls short of theirs."""
    parts = [open_pth(file) for file in sorted(path.glob(PARTS))]
    for name, expected in list(model.named_parameters()):
        stored = "tok_embeddings.weight" if name == "output.weight" and name not in parts[0] else name
        shape = parts[0][stored].shape
        short = [axis for axis, n in enumerate(expected.shape) if shape[axis] != n]
        read = [part[stored].read() for part in (parts if short else parts[:1])]
        weight = torch.cat(read, dim=short[0]) if short else read[0]
        assert weight.shape == expected.shape, name
        module = model.get_submodule(name.removesuffix(".weight"))
        module.weight = nn.Parameter(weight.to(device, dtype), requires_grad=False)


def _our_table(config: LlamaConfig) -> Tensor:
    """Their table of rotations, by the scaling that their code does not have."""
    assert config.rope_scaling is not None
    frequencies = scale_frequencies(rope_frequencies(config.head_dim, config.rope_theta), config.rope_scaling)
    return torch.view_as_complex(rope_rotation(frequencies, torch.arange(config.max_seq_len)))


def _runner(model: Any, table: Tensor) -> Runner:
    model.eval()
    norms = [f"layers.{i}.{norm}" for i in range(len(model.layers)) for norm in ("attention_norm", "ffn_norm")]

    def logits(tokens: Tensor, positions: Tensor) -> Tensor:
        model.freqs_cis = table[positions]  # their forward takes the first rows of it
        return model(tokens, 0)

    def greedy(ids: list[int], n_new: int) -> list[int]:
        model.freqs_cis = table
        device, new, tokens, start = table.device, [], ids, 0
        while len(new) < n_new:
            last = model(torch.tensor([tokens], device=device), start)[0, -1]
            start, tokens = start + len(tokens), [int(last.argmax())]
            new += tokens
        return new

    return Runner(model, [*norms, "norm"], logits, greedy)


@contextmanager
def _one_process() -> Iterator[None]:
    """A process group of this process alone, unless there is one already."""
    from fairscale.nn.model_parallel import initialize

    own_group = not torch.distributed.is_initialized()
    own_parallel = own_group or not initialize.model_parallel_is_initialized()
    if own_group:
        store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        if own_parallel:
            with redirect_stdout(io.StringIO()):  # fairscale prints its sizes
                initialize.initialize_model_parallel(1)
        yield
    finally:
        if own_parallel:
            initialize.destroy_model_parallel()
        if own_group:
            torch.distributed.destroy_process_group()
