"""Whether the configuration of a checkpoint and its tensors are of one model: names, shapes and dtypes."""

from decoding_llama3.inference.checkpoint.names import DERIVED
from decoding_llama3.inference.checkpoint.stored import FLOATS, Checkpoint
from decoding_llama3.inference.empty import in_first_layer, tensor_shapes
from decoding_llama3.json_files import shown

Shapes = dict[str, tuple[int, ...]]  # of the first layer, which stands for all
_REMEDIES = {  # by the prefix that a wrapper gives to all names
    "base_model.model.": "merge the adapter into its base model (merge_and_unload of the package peft), save that",
    "_orig_mod.": "save the model itself, not what torch.compile made of it, or rename them",
    "module.": "save the model itself (its .module), not what runs it on several GPUs, or rename them",
}


def check_agreement(checkpoint: Checkpoint) -> None:
    """Raise ValueError unless the tensors are exactly those of the configuration's model.

    A configuration may claim any number of layers: time and memory go by the names that the files hold.
    """
    shapes, n_layers = tensor_shapes(checkpoint.config), checkpoint.config.n_layers
    known = [name for name in checkpoint.tensors if in_first_layer(name) in shapes]
    extra = [checkpoint.stored_name(name) for name in checkpoint.tensors if in_first_layer(name) not in shapes]
    extra = [name for name in (*extra, *checkpoint.unknown) if not DERIVED.fullmatch(name)]
    _check_prefix(checkpoint, extra, shapes)
    layers = {name.split(".")[1] for name in known if name.startswith("layers.")}
    if layers and len(layers) != n_layers:
        raise ValueError(
            f"the configuration in {checkpoint.path} has {n_layers:,} layers, but the weights have "
            f"{len(layers):,}: are they of one model, and all files there?"
        )
    _check_names(checkpoint, extra, shapes, n_layers if layers else 1)
    for name in known:
        _check_tensor(checkpoint, name, shapes[in_first_layer(name)])


def _check_prefix(checkpoint: Checkpoint, extra: list[str], shapes: Shapes) -> None:
    right = {checkpoint.stored_name(name) for name in shapes if name not in checkpoint.tensors}
    for name in extra[:1]:
        starts = [i + 1 for i, sign in enumerate(name[:1000]) if sign == "."]
        start = next((i for i in starts if in_first_layer(name[i:]) in right), None)
        if start is not None:
            remedy = _REMEDIES.get(name[:start], "rename them")
            raise ValueError(
                f"{checkpoint.path} holds {shown(name, 160)} in place of {shown(name[start:])}: its names begin "
                f"with {shown(name[:start])}, as a wrapper leaves them, so {remedy}"
            )


def _check_names(checkpoint: Checkpoint, extra: list[str], shapes: Shapes, n_layers: int) -> None:
    names = dict.fromkeys(name.replace("layers.0.", f"layers.{i}.", 1) for i in range(n_layers) for name in shapes)
    tied = "output.weight" if checkpoint.config.tie_embeddings else None
    missing = [name for name in names if name not in checkpoint.tensors and name != tied]
    if missing == ["output.weight"] and not extra:
        raise ValueError(
            f"{checkpoint.path} lacks {shown(checkpoint.stored_name(missing[0]))}: if its embedding serves as "
            "output, too, its configuration has to say so (tie_word_embeddings), else download all files again"
        )
    lacks = _list("lacks", [checkpoint.stored_name(name) for name in missing])
    has = _list("has, beyond the model its configuration describes,", extra)
    if lacks or has:
        found = " and ".join(filter(None, (lacks, has)))
        raise ValueError(f"{checkpoint.path} {found}: are configuration and weights of one model?")


def _list(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{what} {shown(names[0])}{more}" if names else ""


def _check_tensor(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    stored, theirs = checkpoint.tensors[name], shown(checkpoint.stored_name(name))
    if stored.shape != shape:
        found = f"shape {stored.shape}" if len(stored.shape) < 10 else f"{len(stored.shape):,} axes"
        raise ValueError(
            f"{checkpoint.path} holds {theirs} of {found}, but its configuration asks for {shape}: "
            "are configuration and weights of one model, and all parts there?"
        )
    if stored.dtype not in FLOATS:
        raise ValueError(
            f"{checkpoint.path} holds {theirs} as {stored.dtype}, and quantised weights are not supported: "
            "download the checkpoint in bfloat16, float16 or float32, and use quantize='int8'"
        )
