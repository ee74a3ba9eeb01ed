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
_NAMES = {  # their name: the one in `RopeScaling`
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_context",
}


def read_rope(config: dict, source: str) -> tuple[float, dict | None]:
    """Theta, and the keyword arguments of `RopeScaling` or None.

    What is not implemented, and what stands in two places and differs, raises ValueError.
    """
    rope = {"rope_theta": config.get("rope_theta", 10_000.0)}
    found = []
    for place in _PLACES:
        if config.get(place):
            inside = rope | _read_place(config[place], f"{place} of {source}")
            for key in ("rope_theta", "original_max_position_embeddings"):
                if config.get(key) is not None and key in inside:
                    _agree(source, key, config[key], f"that in {place}", inside[key])
            found.append(inside)
    if len(found) == 2:
        for key in found[0] | found[1]:
            values = [inside.get(key) for inside in found]
            _agree(source, f"{key} in {_PLACES[0]}", values[0], f"in {_PLACES[1]}", values[1])
    rope = found[0] if found else rope
    theta = rope.pop("rope_theta")
    return theta, {_NAMES[key]: value for key, value in rope.items()} or None


def _read_place(rope: dict, source: str) -> dict:
    """The settings of one of the two places that are used: theta and those of the scaling."""
    rope = check(rope, _ALWAYS, source)
    kind = rope.get("rope_type", rope.get("type", "default"))
    _agree(source, "rope_type", kind, "type", rope.get("type", kind))
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
    if kind == "llama3":
        rope = check(rope, _LLAMA3, source)
    return {key: rope[key] for key in used if key in ("rope_theta", *_NAMES) and key in rope}


def _agree(source: str, first: str, a: object, second: str, b: object) -> None:
    """Of two places for one setting, neither may win in silence."""
    if a != b:
        raise ValueError(
            f"{source} sets {first} to {shown(a)}, but {second} to {shown(b)}: which of the "
            "two is right, only its author knows"
        )
