"""Snapshots of a training run, in one byte per weight: small enough to keep a handful and watch a model learn."""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.files import make_folder, write_whole
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.quantize import quantize_rows
from decoding_llama3.transformer import Transformer


def save_snapshot(model: Transformer, folder: Path, step: int) -> Path:
    """Write the weights after `step` steps: matrices as int8 rows with a scale each, norms as they are."""
    tensors = {}
    for name, weight in model.state_dict().items():
        if weight.dim() == 1:
            tensors[name] = weight.cpu()
        elif not (model.config.tie_embeddings and name == "output.weight"):
            tensors[name], tensors[f"{name}.scale"] = (part.cpu() for part in quantize_rows(weight))
    make_folder(folder)
    path = folder / f"step-{step}.safetensors"
    write_whole(path, lambda fresh: save_file(tensors, fresh))
    return path


def snapshots(folder: Path | None = None) -> dict[int, Path]:
    """The snapshots of a run, by step; without `folder`, those of tiny that come with the package."""
    folder = checkpoint_path("tiny") / "snapshots" if folder is None else folder
    files = ((re.fullmatch(r"step-([0-9]+)", path.stem), path) for path in folder.glob("step-*.safetensors"))
    return dict(sorted((int(name[1]), path) for name, path in files if name))


def load_snapshot(path: Path, config: LlamaConfig) -> Transformer:
    """The model of a snapshot, in float32; a `config` of another model, or a damaged file, raises ValueError."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as a snapshot ({error}): take another one") from error
    with torch.device("meta"):
        model = Transformer(config)
    state = {name: weight.float() for name, weight in tensors.items() if not name.endswith(".scale")}
    for name in state:
        if f"{name}.scale" in tensors:
            state[name] = state[name] * tensors[f"{name}.scale"][:, None]
    if config.tie_embeddings:
        state["output.weight"] = state["tok_embeddings.weight"]
    expected = {name: weight.shape for name, weight in model.state_dict().items()}
    if {name: weight.shape for name, weight in state.items()} != expected:
        raise ValueError(f"{path} holds a model of another shape: give the configuration that it was trained with")
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:
        model.output.weight = model.tok_embeddings.weight
    return model.eval().requires_grad_(False)
