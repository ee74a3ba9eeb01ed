"""Broken checkpoints, and what loading each gives: here and in transformers, as a table.

`python tests/broken/table.py` writes docs/broken_checkpoints.md; with `--ours` it prints what we say alone, a line
of JSON for each case. Each case is built in a folder of its own and read in a child process with bounded memory
and time.
"""

import contextlib
import io
import json
import logging
import multiprocessing
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_cases import CASES as HUGGINGFACE
from other_cases import GGUF, META, write_gguf

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.gguf import NAMES as GGUF_NAMES
from decoding_llama3.inference.checkpoint.meta import NAMES as META_NAMES

TABLE = Path(__file__).parents[2] / "docs" / "broken_checkpoints.md"
SECONDS, MEMORY = 20, 3 * 2**30  # of computing; bytes beyond those of the process that is forked
LAYOUTS = {"Hugging Face": HUGGINGFACE, "Meta": META, "GGUF": GGUF}


def make_good(folder: Path) -> None:
    """One model in the three layouts, in folders called like them."""
    config = dl.LlamaConfig(
        dim=48,
        n_layers=2,
        n_heads=6,
        n_kv_heads=3,
        hidden_dim=96,
        vocab_size=4096,
        rope_theta=10_000.0,
        max_seq_len=64,
    )
    torch.manual_seed(0)
    model = dl.Transformer(config).eval()
    save_huggingface(model, folder / "Hugging Face", tokenizer=dl.load_tokenizer("tiny"))
    shutil.copy(folder / "Hugging Face" / "model.safetensors", folder)
    (folder / "Meta").mkdir()
    weights = model.state_dict()
    torch.save(
        {META_NAMES.theirs(name): w.clone() for name, w in weights.items()},
        folder / "Meta" / "consolidated.00.pth",
    )
    params = {"dim": 48, "n_layers": 2, "n_heads": 6, "n_kv_heads": 3, "vocab_size": 4096, "multiple_of": 32}
    params |= {"ffn_dim_multiplier": 0.75, "norm_eps": 1e-5, "rope_theta": 10_000.0}
    (folder / "Meta" / "params.json").write_text(json.dumps(params))
    (folder / "GGUF").mkdir()
    named = {GGUF_NAMES.theirs(name): weight.clone() for name, weight in weights.items()}
    torch.save(named, folder / "GGUF" / "weights")
    write_gguf(folder / "GGUF" / "model.gguf", named, {})


def cases(folder: Path, wanted: Callable[[str, str], bool] = lambda *_: True):
    """Layout, name and place of each case, which is removed again before the next."""
    make_good(folder)
    for layout, builds in LAYOUTS.items():
        for name, build in {"nothing broken": lambda _: None, **builds}.items():
            if wanted(layout, name):
                place = folder / "checkpoint"
                shutil.copytree(folder / layout, place)
                build(place)
                files = sorted(place.glob("*.gguf"))
                yield layout, name, files[0] if files else place
                shutil.rmtree(place)


def ours(place: Path) -> str:
    """What our loader says, as a sentence, or 'loads'; two tokens are generated, and a chat is encoded."""
    try:
        model = dl.load_model(place, dtype=torch.float32)
        tokens = list(dl.generate(model, [1, 2, 3], 2))
        if place.is_dir() and any(place.glob("tokenizer*")):
            tokenizer = dl.load_tokenizer(place)
            tokenizer.decode(tokens)
            tokenizer.encode_chat([{"role": "user", "content": "Who?"}])
    except ValueError as error:
        return str(error)
    return "loads"


def theirs(place: Path) -> str:
    """What transformers does: the class of the exception and its first words, or 'loads'."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logging.disable()
    try:
        if place.is_file():
            AutoModelForCausalLM.from_pretrained(place.parent, gguf_file=place.name)
        else:
            AutoModelForCausalLM.from_pretrained(place)
            if any(place.glob("tokenizer*")):
                tokenizer = AutoTokenizer.from_pretrained(place)
                if tokenizer.chat_template:
                    tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        words = " ".join(str(error).split())
        return f"{type(error).__name__}: {words if len(words) <= 60 else words[:60].rstrip() + ' ...'}"
    return "loads"


def told(who: Callable[[Path], str], place: Path, root: Path) -> str:
    """The same in a child process; how it ended, where it was stopped, crashed or raised what it should not."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_tell, args=(who, place, sender))
    child.start()
    sender.close()
    try:
        text = receiver.recv() if receiver.poll(10 * SECONDS) else f"no end in {10 * SECONDS} s of waiting"
    except EOFError:
        child.join()
        late = child.exitcode == -signal.SIGXCPU
        text = f"no end in {SECONDS} s" if late else f"crash (exit code {child.exitcode})"
    child.kill()
    child.join()
    # Of two tensors on the same bytes safetensors complains about the one that it meets first, by chance.
    text = re.sub(r"invalid (shape, .*?or )?offset for tensor( `[^`]*`)?", "invalid offset for tensor", text)
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", text.replace(str(root) + "/", "")).replace("\n", " ")


def _tell(who: Callable[[Path], str], place: Path, sender) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))  # a busy machine makes no case slower
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            text = who(place)
        except BaseException as error:
            text = f"{type(error).__name__} (a fault): {error}"
    sender.send(text)


def rows(folder: Path, with_theirs: bool):
    """Layout, case, what transformers does (if asked for) and what we say, for all cases."""
    for layout, name, place in cases(folder):
        yield layout, name, told(theirs, place, folder) if with_theirs else "", told(ours, place, folder)


HEAD = """# Broken and hostile checkpoints

What loading each gives, in transformers {version} with accelerate, and here: {n} checkpoints, each a good one with
one thing changed. `python tests/broken/table.py` builds them, loads each in a process of its own with
{gigabytes} GB of memory and {seconds} seconds of computing, and writes this page; a test holds our column.
"loads" means that the model was made, two tokens were generated here, and its tokenizer and chat template used.

Some load because nothing is wrong with them: another encoding of the same text, a link into a cache, weights in
several dtypes. Two of Meta's parts exchanged load although they are wrong, because nothing in them says which is
which. A weight that is no number is found when text is generated: to look for one on every load would mean to read
all weights, which are mapped into memory and read when they are used.
"""


def page(found: list[tuple[str, str, str, str]]) -> str:
    import transformers

    n = sum(name != "nothing broken" for _, name, _, _ in found)
    parts = [HEAD.format(version=transformers.__version__, n=n, gigabytes=MEMORY // 2**30, seconds=SECONDS)]
    for layout in LAYOUTS:
        parts.append(f"\n## {layout}\n\n| case | transformers | here |\n|---|---|---|\n")
        parts += [line(name, *said) for kind, name, *said in found if kind == layout]
    return "".join(parts)


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def print_ours() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for layout, name, _, said in rows(Path(folder), with_theirs=False):
            sys.stdout.write(json.dumps((layout, name, said)) + "\n")


def main() -> None:
    # Once, for all children: each would need seconds for it.
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(Path(folder), with_theirs=True))
    TABLE.write_text(page(found), encoding="utf-8")
    sys.stdout.write(f"{len(found)} rows in {TABLE}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_ours() if sys.argv[1:] == ["--ours"] else main()
