"""A right function with one step left out, doubled, moved, transposed, taken over another axis, or exchanged.

A wrong result is often exactly what one of these gives; its sentence then names the mistake.
"""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
# Steps along an axis, in which a whole number beside the tensor is that axis.
AXES = (-1, -2, -3, -4, 0, 1, 2)


@dataclass(frozen=True)
class ChangedStep:
    """`sentence` completes "this is what comes out if ..."; of `rank` 0 are the steps left out."""

    rank: int
    sentence: str
    function: Callable


@cache
def edited(function: Callable, *changes: tuple[str, str]) -> Callable:
    """`function` with each `(old, new)` replaced in its source.

    Raises ValueError unless the source has each `old` exactly once.
    """
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{function.__name__} has {old!r} {source.count(old)} times, expected was once")
        source = source.replace(old, new)
    return _compiled(ast.parse(source), function)


@cache
def variants(function: Callable) -> tuple[ChangedStep, ...]:
    """All one-step changes of `function`, those that learners make most first."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    found: list[tuple[int, str, ast.Module]] = []
    iterated = [node.iter for node in ast.walk(tree) if isinstance(node, ast.For)]
    for i, node in enumerate(_body_nodes(tree)):
        if node in iterated:  # a list that a loop walks and makes longer has no end
            continue
        for rank, sentence, new in _changes(node, _local_names(tree)):
            other = copy.deepcopy(tree)
            _put(other, _body_nodes(other)[i], new)
            found.append((rank, sentence, other))
    found.sort(key=lambda change: change[0])
    return tuple(ChangedStep(rank, sentence, _compiled(other, function)) for rank, sentence, other in found)


def _compiled(tree: ast.Module, function: Callable) -> Callable:
    (definition,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    definition.decorator_list = []
    definition.returns = None
    for argument in (*definition.args.args, *definition.args.kwonlyargs):
        argument.annotation = None
    names = dict(inspect.unwrap(function).__globals__)
    exec(compile(ast.fix_missing_locations(tree), f"<{definition.name}, changed>", "exec"), names)
    return names[definition.name]


def _body_nodes(tree: ast.Module) -> list[ast.AST]:
    (definition,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return [node for statement in definition.body for node in ast.walk(statement)]


def _put(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def _local_names(tree: ast.Module) -> list[str]:
    (definition,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    stored = [n.id for n in _body_nodes(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return list(dict.fromkeys([argument.arg for argument in definition.args.args] + stored))


def _changes(node: ast.AST, local: list[str]) -> Iterator[tuple[int, str, ast.AST]]:
    """Rank, sentence and replacement of each change of this node."""
    if isinstance(node, ast.Call):
        yield from _changed_call(node)
    elif isinstance(node, ast.BinOp):
        yield from _changed_operation(node)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield 1, f"`{ast.unparse(node)}` is `{ast.unparse(node.operand)}`", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        for kind, sign in COMPARISONS.items():
            if not isinstance(node.ops[0], kind):
                new = ast.Compare(node.left, [kind()], node.comparators)
                yield 4, f"`{ast.unparse(node)}` has `{sign}` for `{COMPARISONS[type(node.ops[0])]}`", new
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in local:
        yield from _changed_name(node, local)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        number = node.value
        for value in (number + 1, number - 1, number * 2):
            if not isinstance(number, bool):
                yield 7, f"{value} stands where {number} belongs", ast.Constant(value)


def _changed_call(node: ast.Call) -> Iterator[tuple[int, str, ast.AST]]:
    inner = node.func.value if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value) else None
    first = inner if inner is not None else (node.args[0] if node.args else None)
    step = _named(node, without=inner)
    if first is not None:
        yield 0, f"{step} is left out", first
        yield 5, f"{step} is done twice", _applied_to(node, inner, node)
    if isinstance(first, ast.Call) and inner is not None:
        below = first.func.value if isinstance(first.func, ast.Attribute) else None
        if below is not None and not _is_module(below):
            swapped = _applied_to(first, below, _applied_to(node, inner, below))
            yield 1, f"{step} comes before {_named(first, without=below)}, not after it", swapped
    for place, value in _axes_of(node):
        for axis in AXES:
            if axis != value:
                new = copy.deepcopy(node)
                _set_axis(new, place, axis)
                yield 2, f"{step} is taken over axis {axis} where axis {value} belongs", new


def _changed_operation(node: ast.BinOp) -> Iterator[tuple[int, str, ast.AST]]:
    text = ast.unparse(node)
    yield 1, f"of `{text}` only `{ast.unparse(node.left)}` is done", node.left
    yield 3, f"of `{text}` only `{ast.unparse(node.right)}` is done", node.right
    for kind, sign in OPERATORS.items():
        if type(node.op) in OPERATORS and not isinstance(node.op, kind):
            new = ast.BinOp(node.left, kind(), node.right)
            yield 3, f"`{text}` has `{sign}` for `{OPERATORS[type(node.op)]}`", new
    if isinstance(node.op, ast.MatMult):
        yield 2, f"`{text}` is multiplied in the other order", ast.BinOp(node.right, node.op, node.left)


def _changed_name(node: ast.Name, local: list[str]) -> Iterator[tuple[int, str, ast.AST]]:
    turned = ast.Attribute(ast.Name(node.id, ast.Load()), "mT", ast.Load())
    yield 2, f"`{node.id}` is transposed in its last two axes", turned
    for other in local:
        if other != node.id:
            yield 6, f"`{other}` stands where `{node.id}` belongs", ast.Name(other, ast.Load())


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "F", "math", "nn")


def _named(node: ast.Call, without: ast.AST | None) -> str:
    """The step as it is written, without what it is applied to."""
    if without is None or not isinstance(node.func, ast.Attribute):
        return f"`{ast.unparse(node)}`"
    return f"`{ast.unparse(ast.Call(ast.Name(node.func.attr, ast.Load()), node.args, node.keywords))}`"


def _applied_to(call: ast.Call, inner: ast.expr | None, target: ast.expr) -> ast.Call:
    """The same step on `target`."""
    new = copy.copy(call)
    if inner is not None and isinstance(call.func, ast.Attribute):
        new.func = ast.Attribute(copy.deepcopy(target), call.func.attr, ast.Load())
    else:
        new.args = [copy.deepcopy(target), *call.args[1:]]
    return new


def _axes_of(call: ast.Call) -> Iterator[tuple[int | str, int]]:
    """Where the call names axes by whole numbers, by place or keyword, and which."""
    for place, value in [*enumerate(call.args), *((k.arg or "", k.value) for k in call.keywords)]:
        number = _whole(value)
        if number is not None and (isinstance(place, int) or place in ("dim", "dim0", "dim1")):
            yield place, number


def _whole(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _whole(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    return None


def _set_axis(call: ast.Call, place: int | str, axis: int) -> None:
    if isinstance(place, int):
        call.args[place] = ast.Constant(axis)
    for keyword in call.keywords:
        if keyword.arg == place:
            keyword.value = ast.Constant(axis)
