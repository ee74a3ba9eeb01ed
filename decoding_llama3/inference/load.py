"""Load real weights, in whichever format they lie: open, check, fill.

Every name, shape and dtype is checked before the first weight is read, and whether memory suffices. Then one
tensor after the other goes to its device in its final form: no second copy of a model ever exists.
"""

from os import PathLike

import torch
from torch import nn

from decoding_llama3.inference.checkpoint.agreement import check_agreement
from decoding_llama3.inference.checkpoint.find import open_checkpoint
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Stored, check_dtype
from decoding_llama3.inference.compile import compile_model
from decoding_llama3.inference.devices import check_device, choose_dtype
from decoding_llama3.inference.empty import empty_model
from decoding_llama3.inference.memory import check_memory
from decoding_llama3.inference.own_parts import read_own_parts, with_own_parts
from decoding_llama3.inference.quantize import Int8Embedding, Int8Linear, is_quantizable, quantized
from decoding_llama3.json_files import shown
from decoding_llama3.transformer import Transformer


def load_model(
    path: str | PathLike,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    compile: bool = False,
    parts: str | PathLike | None = None,
) -> Transformer:
    """The model in a Hugging Face or Meta directory, or "tiny" for the one that comes with the package.

    Without `dtype` the hardware decides, and what it decided is printed. `quantize="int8"` turns each matrix into
    one byte a weight as it is read. `compile=True` compiles the decode step. `parts` is a file with
    functions of yours, such as my_llama.py, with which the model computes in place of the package's: it is run.
    A checkpoint that is not exactly the model its configuration describes, or that does not fit into memory,
    raises ValueError, and nothing is loaded; so does a wrong argument, or TypeError where its type is wrong. The
    model is to be run: its weights have requires_grad False, so to train it, call `model.requires_grad_()`.
    On a CPU, weights stored as they are used stay in the file, mapped into memory: it may be replaced or deleted
    meanwhile, but not written into.
    """
    check_quantize(quantize)
    check_device(device)
    if dtype is not None:
        check_dtype(dtype)
    own = {} if parts is None else read_own_parts(parts)
    checkpoint = open_checkpoint(path)
    check_agreement(checkpoint)
    if dtype is None:
        dtype = choose_dtype(device)
        print(f"{path}: {str(dtype).removeprefix('torch.')} on {device}")
    check_memory(checkpoint.config, device, dtype, quantize)
    model = fill_model(checkpoint, device, dtype, quantize)
    if own:
        model = with_own_parts(model, own)
    return compile_model(model) if compile else model


def check_quantize(quantize: str | None) -> None:
    """Raise ValueError for a quantisation that there is none of."""
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize is None or 'int8', found {quantize!r}")


def fill_model(
    checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype, quantize: str | None = None
) -> Transformer:
    """The model of a checkpoint whose names and shapes are checked; ValueError where tied weights differ."""
    model = empty_model(checkpoint.config)
    for name in _with_weights(model):
        _place(model, name, checkpoint.tensors[f"{name}.weight"], device, dtype, quantize)
    if checkpoint.config.tie_embeddings:
        _tie(model, checkpoint)
    return model


def _with_weights(model: Transformer) -> list[str]:
    """The names of the modules that have a weight of their own. Names, because a module would keep its weight."""
    names = [name for name, module in model.named_modules() if "weight" in module._parameters]
    return [name for name in names if not (model.config.tie_embeddings and name == "output")]


def _place(
    model: Transformer,
    name: str,
    source: Stored,
    device: str | torch.device,
    dtype: torch.dtype,
    quantize: str | None,
) -> None:
    """Give the module of that name its weight; with `quantize`, put int8 in its place."""
    module = model.get_submodule(name)
    to_int8 = quantize is not None and is_quantizable(module)
    as_it_is = torch.device(device).type == "cpu" and source.dtype == dtype and not to_int8
    weight = source.read(keep=as_it_is).to(device, dtype).contiguous()
    module.weight = nn.Parameter(weight, requires_grad=False)
    if quantize is not None and is_quantizable(module):
        model.set_submodule(name, quantized(module))


def _tie(model: Transformer, checkpoint: Checkpoint) -> None:
    output = checkpoint.tensors.get("output.weight")
    if output is not None:
        both = output.read(), checkpoint.tensors["tok_embeddings.weight"].read()
        dtype = torch.promote_types(both[0].dtype, both[1].dtype)
        if not torch.equal(both[0].to(dtype), both[1].to(dtype)):
            raise ValueError(
                f"{checkpoint.path} says that embedding and output are tied, but holds a "
                f"{shown(checkpoint.stored_name('output.weight'))} that differs from the embedding: which of the "
                "two is right, only its author knows"
            )
    embedding: nn.Module = model.tok_embeddings
    if isinstance(embedding, Int8Embedding):
        model.set_submodule("output", Int8Linear(embedding.weight, embedding.scale))
    else:
        model.output.weight = model.tok_embeddings.weight
