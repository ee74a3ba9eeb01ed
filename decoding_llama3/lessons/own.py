"""Your own Llama: functions that passed their check go into a file, and a model computes with them."""

import ast
import builtins
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from decoding_llama3.experiments.files import write_text
from decoding_llama3.inference.own_parts import read_own_parts
from decoding_llama3.lessons.exercise import Exercise

FILE = "my_llama.py"


def keep(function: Callable, exercise: Exercise, file: str | Path = FILE) -> None:
    """Write `function` into `file` if it passes its exercise, in the place of an earlier one of its name.

    The modules that it uses are imported there, and functions of yours that it calls are written with it. What was
    kept is run and checked once more; where that fails, the file stays as it was. Prints what was done.
    """
    verdict = exercise.mark(function)
    if verdict.state != "right":
        print(f"{_name(function)} is not kept: {verdict.feedback}")
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
            elif getattr(value, "__module__", None) and hasattr(value, "__name__"):
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
    """The file with the pieces in it, each in the place of an earlier one of its name; all else stays as it was."""
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
