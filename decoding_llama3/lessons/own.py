"""Your own Llama: functions that passed their check go into a file, and a model computes with them."""

import ast
import builtins
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from decoding_llama3.experiments.files import write_text
from decoding_llama3.inference.generator import generate
from decoding_llama3.inference.own_parts import OWN_PARTS, read_own_parts, with_own_parts
from decoding_llama3.lessons.checks import attention, feed_forward, norm, rope, transformer
from decoding_llama3.lessons.parting import first_parting
from decoding_llama3.lessons.show import show_table
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

FILE = "my_llama.py"
PARTS = {
    "my_rms_norm": "norm",
    "my_apply_rope": "rotary embedding",
    "my_attend": "attention",
    "my_swiglu": "feed-forward network",
    "my_block": "block",
}
CHECKS = {
    "my_rms_norm": norm.rms_norm,
    "my_apply_rope": rope.apply_rope,
    "my_attend": attention.attend,
    "my_swiglu": feed_forward.swiglu,
    "my_block": transformer.block,
}


def keep(function: Callable, file: str | Path = FILE) -> None:
    """Write `function`, one of PARTS by its name, into `file` if it passes its check, over an earlier one.

    The modules that it uses are imported there, and functions of yours that it calls are written with it. What was
    kept is run and checked once more; where that fails, the file stays as it was. Prints what was done.
    """
    if (name := _name(function)) not in CHECKS:
        print(f"{name} is no part of the model; these are: {', '.join(CHECKS)}")
        return
    exercise = CHECKS[name]
    if exercise.mark(function).state != "right":
        print(f"{_name(function)} is not kept yet: it must pass its check")
        return
    try:
        imports, pieces = _needed(function)
    except ValueError as error:
        print(f"{_name(function)} is not kept: {error}")
        return
    path = Path(file)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, _merged(before, imports, pieces))
    kept = exercise.mark(read_own_parts(path).get(function.__name__))
    if kept.state != "right":
        write_text(path, before)
        print(f"{function.__name__} is not kept: read back from {path} it does not pass: {kept.feedback}")
        return
    print(f"{function.__name__} is kept in {path}, line {_line_of(path, function.__name__)}")


def assemble(model: Transformer, text: str, tokenizer: Tokenizer, file: str | Path = FILE) -> Transformer:
    """`model` with your functions of `file` in the place of the package's; says whose part is whose.

    Compares its logits on `text` with the model's; where they differ, prints the first step that does, and why.
    """
    path = Path(file)
    parts = read_own_parts(path) if path.is_file() else {}
    lines = {name: f"yours, {path} line {_line_of(path, name)}" for name in parts}
    show_table(
        [(PARTS[name], name, lines.get(name, "the package's")) for name in OWN_PARTS],
        ["part", "function", "whose"],
    )
    if not parts:
        print(f"There is no {path} yet: keep a function that passed its check, here or in Parts 3 to 6.")
        return model
    tokens = torch.tensor([tokenizer.encode(text, bos=True)])
    parting = first_parting(model, parts, tokens)
    if parting is not None:
        print(parting.sentence)
        print(f"its check says: {CHECKS[parting.name].mark(parts[parting.name]).feedback}")
        return model
    own = with_own_parts(model, parts)
    with torch.no_grad():
        largest = (own(tokens) - model(tokens)).abs().max().item()
    print(f"{len(parts)} of {len(OWN_PARTS)} parts are yours; the logits differ by at most {largest:.1g}")
    return own


def answer_aloud(question: str, model: Transformer, tokenizer: Tokenizer, file: str | Path = FILE) -> None:
    """Print what a model that chats answers, in at most 60 tokens, computing with your functions of `file`."""
    path = Path(file)
    parts = read_own_parts(path) if path.is_file() else {}
    prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
    answer = generate(with_own_parts(model, parts), prompt, 60, stop_ids=tokenizer.stop_ids)
    print(f"{question}\n{tokenizer.decode([id for id in answer if id not in tokenizer.stop_ids])}")
    print(f"computed with {len(parts)} of {len(OWN_PARTS)} parts of yours")


def _name(function: object) -> str:
    return getattr(function, "__name__", repr(function))


def _needed(function: Callable) -> tuple[list[str], dict[str, str]]:
    """The import lines, and the sources by name, of all that `function` needs, itself last."""
    imports: dict[str, None] = {}
    pieces: dict[str, str] = {}

    def add(one: Callable) -> None:
        source = textwrap.dedent(inspect.getsource(one)).rstrip()
        for name in _global_names(source):
            value = one.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                alias = "" if value.__name__ == name else f" as {name}"
                imports[f"import {value.__name__}{alias}"] = None
            elif inspect.isfunction(value) and value.__module__ == function.__module__:
                if name not in pieces and value is not one:
                    add(value)
            elif isinstance(value, (int, float, str, bool)):
                pieces[name] = f"{name} = {value!r}"
            elif isinstance(value, type) or inspect.isroutine(value):
                alias = "" if value.__name__ == name else f" as {name}"
                imports[f"from {value.__module__} import {value.__name__}{alias}"] = None
            elif name in one.__globals__:
                raise ValueError(f"it uses {name}, a {type(value).__name__} of your notebook: make it inside")
        pieces[one.__name__] = source

    add(function)
    return list(imports), pieces


def _global_names(source: str) -> Iterator[str]:
    """Names that are read, in order, without Python's own and those that the function makes itself."""
    tree = ast.parse(source)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    made |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    yield from dict.fromkeys(n.id for n in names if n.id not in made and not hasattr(builtins, n.id))


def _merged(before: str, imports: list[str], pieces: dict[str, str]) -> str:
    """The file with the pieces in it, each in the place of an earlier one of its name; all else stays."""
    lines, new = before.splitlines(), dict(pieces)
    defined = {_defined(node): node for node in ast.parse(before).body}
    for name, node in reversed(defined.items()):
        if name in new:
            lines[node.lineno - 1 : node.end_lineno] = new.pop(name).splitlines()
    missing = [line for line in imports if line not in lines]
    top = [*missing, *([""] if missing and lines and not lines[0].startswith(("import", "from")) else [])]
    return "\n".join([*top, *lines, *(f"\n\n{source}" for source in new.values())]).lstrip("\n") + "\n"


def _defined(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _line_of(path: Path, name: str) -> int:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return next(node.lineno for node in tree.body if _defined(node) == name)
