"""`python -m decoding_llama3` is the second spelling of the command `decoding-llama3`."""

from decoding_llama3.cli.commands import app

if __name__ == "__main__":
    app(prog_name="python -m decoding_llama3")
