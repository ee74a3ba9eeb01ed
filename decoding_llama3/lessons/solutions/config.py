"""Part 2 - solutions of the exercises on the configuration, and the checks of the graded ones."""

from dataclasses import replace

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.checks.config import shapes_of
from decoding_llama3.lessons.practice.same_as import Case, SameAs

FIELDS = ("dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "vocab_size", "tie_embeddings")


def my_n_params(config):
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    block = 2 * config.dim * (queries + keys) + 3 * config.dim * config.hidden_dim + 2 * config.dim
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * config.dim + config.n_layers * block + config.dim


def my_ffn_hidden_dim(dim, multiple_of, multiplier=None):
    hidden = 8 * dim // 3
    if multiplier is not None:
        hidden = int(hidden * multiplier)
    return (hidden + multiple_of - 1) // multiple_of * multiple_of


def my_kv_cache_bytes(config, seq_len, batch, dtype):
    numbers = 2 * config.n_layers * config.n_kv_heads * config.head_dim
    return numbers * dtype.itemsize * seq_len * batch


def my_config_of(shapes, head_dim):
    vocab_size, dim = shapes["tok_embeddings.weight"]
    return {
        "dim": dim,
        "n_layers": len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
        "n_heads": shapes["layers.0.attention.wq.weight"][0] // head_dim,
        "n_kv_heads": shapes["layers.0.attention.wk.weight"][0] // head_dim,
        "hidden_dim": shapes["layers.0.feed_forward.w_gate.weight"][0],
        "vocab_size": vocab_size,
        "tie_embeddings": "output.weight" not in shapes,
    }


def my_wrong_field(config, shapes):
    right = my_config_of(shapes, config.head_dim)
    return next((name for name, value in right.items() if getattr(config, name) != value), None)


def _sizes(name: str, **changes) -> LlamaConfig:
    return replace(LlamaConfig.from_preset(name), **changes)


def _read(name: str, **changes) -> tuple:
    config = _sizes(name, **changes)
    return shapes_of(config), config.head_dim


SORTED = {"n_layers": 12, "hidden_dim": 20}
N_LAYERS = 'len({name.split(".")[1] for name in shapes if name.startswith("layers.")})'
CONFIG_OF = SameAs(
    my_config_of,
    cases=lambda: [
        Case(_read("tiny")),
        Case(_read("llama2-7b", n_layers=3), "where every query has a key of its own"),
        Case(_read("llama3.2-1b", n_layers=12), "where embedding and output are one table, and with 12 blocks"),
        Case(
            _read("llama3-8b", n_layers=2, head_dim=64), "where the heads together are not as wide as the stream"
        ),
    ],
    smallest=lambda: [_read("tiny", n_layers=1)],
    known={
        "vocab_size and dim are exchanged: the embedding has a row per token": (
            ("vocab_size, dim =", "dim, vocab_size ="),
        ),
        "the weights are counted, not the blocks": (
            (N_LAYERS, 'len([name for name in shapes if name.startswith("layers.")])'),
        ),
        "the largest number of a block is returned; they count from 0": (
            (N_LAYERS, 'max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))'),
        ),
        "the numbers of the blocks are compared as texts, in which 9 comes after 11": (
            (N_LAYERS, 'int(max(name.split(".")[1] for name in shapes if name.startswith("layers."))) + 1'),
        ),
        "the rows of wq are returned for n_heads: divide by head_dim": (
            ('shapes["layers.0.attention.wq.weight"][0] // head_dim', 'shapes["layers.0.attention.wq.weight"][0]'),
        ),
        "the rows of wk are returned for n_kv_heads: divide by head_dim": (
            ('shapes["layers.0.attention.wk.weight"][0] // head_dim', 'shapes["layers.0.attention.wk.weight"][0]'),
        ),
        "n_heads is dim // head_dim only where the heads together are as wide as the stream; wq has their rows": (
            ('shapes["layers.0.attention.wq.weight"][0] // head_dim', "dim // head_dim"),
        ),
        "n_kv_heads is read off the columns of wk; they are dim": (
            ('shapes["layers.0.attention.wk.weight"][0]', 'shapes["layers.0.attention.wk.weight"][1]'),
        ),
        "the queries per key are returned for n_kv_heads": (
            (
                'shapes["layers.0.attention.wk.weight"][0] // head_dim',
                'shapes["layers.0.attention.wq.weight"][0] // shapes["layers.0.attention.wk.weight"][0]',
            ),
        ),
        "n_kv_heads is read off wq": (
            ('"layers.0.attention.wk.weight"', '"layers.0.attention.wq.weight" '.strip()),
        ),
        "hidden_dim is read off the columns of w_gate; they are dim": (
            ('"layers.0.feed_forward.w_gate.weight"][0]', '"layers.0.feed_forward.w_gate.weight"][1]'),
        ),
        "tied is the wrong way round: a tied model has no output of its own": (
            ('"output.weight" not in shapes', '"output.weight" in shapes'),
        ),
        "tie_embeddings is always False": (('"output.weight" not in shapes', "False"),),
        "tie_embeddings is missing": (('        "tie_embeddings": "output.weight" not in shapes,\n', ""),),
        "n_kv_heads is missing": (
            ('        "n_kv_heads": shapes["layers.0.attention.wk.weight"][0] // head_dim,\n', ""),
        ),
    },
    shows_right=False,
    kept=("shapes",),
)


def _wrong(field: str | None, **changes) -> Case:
    right = _sizes("tiny", n_layers=3)
    what = f"where {field} is wrong" if field else "where nothing is wrong"
    return Case((replace(right, **changes), shapes_of(right)), what)


READ = "right = my_config_of(shapes, config.head_dim)"
NAMES = "for name, value in right.items()"


def _only(*names: str) -> tuple[tuple[str, str], ...]:
    return ((NAMES, f"for name, value in right.items() if name in {names!r}"),)


WRONG_FIELD = SameAs(
    my_wrong_field,
    cases=lambda: [
        _wrong("n_kv_heads", n_kv_heads=4),
        _wrong(None),
        _wrong("n_layers", n_layers=4),
        _wrong("n_layers", n_layers=2),
        _wrong("hidden_dim", hidden_dim=1024),
        _wrong("vocab_size", vocab_size=500),
        _wrong("dim", dim=320),
        _wrong("n_heads", n_heads=16),
        _wrong("tie_embeddings", tie_embeddings=not LlamaConfig.from_preset("tiny").tie_embeddings),
    ],
    smallest=lambda: [_wrong("n_kv_heads", n_kv_heads=4).arguments, _wrong("n_layers", n_layers=4).arguments],
    known={
        "n_kv_heads is not looked at": _only(
            "dim", "n_layers", "n_heads", "hidden_dim", "vocab_size", "tie_embeddings"
        ),
        "n_layers is not looked at": _only(
            "dim", "n_heads", "n_kv_heads", "hidden_dim", "vocab_size", "tie_embeddings"
        ),
        "hidden_dim is not looked at": _only(
            "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "tie_embeddings"
        ),
        "vocab_size is not looked at": _only(
            "dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "tie_embeddings"
        ),
        "dim is not looked at": _only(
            "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "vocab_size", "tie_embeddings"
        ),
        "n_heads is not looked at": _only(
            "dim", "n_layers", "n_kv_heads", "hidden_dim", "vocab_size", "tie_embeddings"
        ),
        "tie_embeddings is not looked at": _only(
            "dim", "n_layers", "n_heads", "n_kv_heads", "hidden_dim", "vocab_size"
        ),
        "a list is returned; one name was asked": (
            (
                "next((name for name, value in right.items() if getattr(config, name) != value), None)",
                "[name for name, value in right.items() if getattr(config, name) != value]",
            ),
        ),
        "a field that is right is returned": (("!= value", "== value"),),
        "where nothing is wrong an empty text is returned; None was asked": (("), None)", "), '')"),),
        "where nothing is wrong False is returned; None was asked": (("), None)", "), False)"),),
        "the right value is returned; the name of the field was asked": (("next((name for", "next((value for"),),
    },
    shows_right=False,
    kept=("shapes",),
)

CHECKS = {"config_of": CONFIG_OF, "wrong_field": WRONG_FIELD}
