"""`models`: what lies on this machine and can be loaded."""

from decoding_llama3.cli.terminal import visible, waiting, write


def models() -> None:
    """List the models on this machine that 'generate' and 'chat' take: by name, and where each lies.

    They are tiny, smollm2, what the cache of the Hugging Face Hub holds, and what Ollama has pulled.
    """
    with waiting("looking"):
        from decoding_llama3.inference.checkpoint.found import models_found

        found = list(models_found())
    width = max(len(name) for name, _ in found)
    for name, what in found:
        write(f"{visible(name):<{width}}  {visible(what)}\n")
