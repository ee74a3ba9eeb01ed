"""The command line, and the only folder that knows all the others. Nothing here imports torch before it must."""

from decoding_llama3.cli.commands import app, main

__all__ = ["app", "main"]
