"""`info`: what this machine can run, or the numbers of a model."""

from collections.abc import Iterator
from typing import Annotated

import typer

from decoding_llama3.cli.models import config_of
from decoding_llama3.cli.terminal import console, visible


def info(checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint or a preset.")] = None) -> None:
    """Without argument: what this machine can run, and what is missing. With one: the numbers of that model."""
    from rich.table import Table
    from rich.text import Text

    from decoding_llama3.cli.machine import machine

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    rows = machine() if checkpoint is None else _model_rows(checkpoint)
    for name, value in rows:
        table.add_row(name, Text(visible(value), overflow="fold"))
    console().print(table)


def _model_rows(checkpoint: str) -> Iterator[tuple[str, str]]:
    config = config_of(checkpoint)
    for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size"):
        yield name, f"{getattr(config, name):,}"
    for name in ("norm_eps", "rope_theta", "rope_scaling", "tie_embeddings"):
        yield name, str(getattr(config, name))
    yield "context", f"{config.max_seq_len:,} tokens"
    yield "parameters", f"{config.n_params:,}"
    yield (
        "weights",
        f"{2 * config.n_params / 1e9:,.3f} GB in bfloat16, {4 * config.n_params / 1e9:,.3f} GB in float32",
    )
    cache = config.kv_cache_bytes(config.max_seq_len)
    yield (
        "KV cache",
        f"{config.kv_cache_bytes(1):,} bytes per token, {cache / 2**30:,.3f} GiB at full context, bfloat16",
    )
