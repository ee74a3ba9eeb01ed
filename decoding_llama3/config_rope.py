"""Part 2 - the RoPE settings of a `config.json`: transformers 4 and 5 put them in two places.

Version 4 has `rope_theta` and, for long contexts, `rope_scaling`; version 5 has
`rope_parameters` with both in it. A file may have all three. Then they must say the same,
because programs differ in which one they take.
"""

from decoding_llama3.config_schema import SIZE, THETA, Setting, check
from decoding_llama3.json_files import shown

_PLACES = ("rope_parameters", "rope_scaling")
_ALWAYS = {
    "rope_type": Setting("a string"),
    "type": Setting("a string"),  # its old name
    "rope_theta": THETA,
    "partial_rotary_factor": Setting("a number", 0, 1, null=True),
}
_FACTOR = Setting("a number", 1e-6, 10**6, required=True)
_LLAMA3 = {
    "factor": _FACTOR,
    "low_freq_factor": _FACTOR,
    "high_freq_factor": _FACTOR,
    "original_max_position_embeddings": Setting("an integer", 1, SIZE, required=True),
}


def read_rope(config: dict, source: str) -> tuple[float, dict | None]:
    """Theta, and the keyword arguments of `RopeScaling` or None.

    What is not implemented, and what stands in two places and differs, raises ValueError.
    """
    outer = config.get("rope_theta", 10_000)
    theta, scaling = outer, None
    found = {}
    for place in _PLACES:
        if rope := config.get(place):
            scaling = _read_scaling(rope, f"{place} of {source}")
            theta = rope.get("rope_theta", outer)
            found[place] = theta, scaling
            if "rope_theta" in config:
                _agree({"rope_theta": outer, f"rope_theta in {place}": theta}, source)
            context = config.get("original_max_position_embeddings")
            if scaling and context is not None:
                inner = {f"that in {place}": scaling["original_context"]}
                _agree({"original_max_position_embeddings": context} | inner, source)
    if len(found) == 2 and found["rope_parameters"] != found["rope_scaling"]:
        _agree({place: config[place] for place in _PLACES}, source)
    return float(theta), scaling


def _read_scaling(rope: dict, source: str) -> dict | None:
    """The keyword arguments of `RopeScaling` in one of the two places."""
    check(rope, _ALWAYS, source)
    kind = rope.get("rope_type", rope.get("type", "default"))
    _agree({"rope_type": kind, "type": rope.get("type", kind)}, source)
    if kind not in ("default", "llama3"):
        raise ValueError(
            f"{source} sets the rope type to {shown(kind)}, which changes the computation and "
            "is not implemented here; 'default' and 'llama3' are"
        )
    if rope.get("partial_rotary_factor") not in (None, 1):
        raise ValueError(f"{source} rotates only part of each head, not implemented here")
    used = _ALWAYS | _LLAMA3 if kind == "llama3" else _ALWAYS
    for key, value in rope.items():
        if key not in used and value is not None:
            raise ValueError(
                f"{source} sets {shown(key)} to {shown(value)}, which the rope type {kind!r} "
                "does not use: is the type missing or another one?"
            )
    if kind == "default":
        return None
    check(rope, _LLAMA3, source)
    scaling = {key: float(rope[key]) for key in _LLAMA3 if key.endswith("factor")}
    return scaling | {"original_context": rope["original_max_position_embeddings"]}


def _agree(values: dict, source: str) -> None:
    """Of two places for one setting, neither may win in silence."""
    (first, a), (second, b) = values.items()
    if a != b:
        raise ValueError(
            f"{source} sets {first} to {shown(a)}, but {second} to {shown(b)}: which of the "
            "two is right, only its author knows"
        )
