"""`python -m decoding_llama3` is the second spelling of the command `decoding-llama3`."""

from decoding_llama3.cli import main

if __name__ == "__main__":
    main("python -m decoding_llama3")
