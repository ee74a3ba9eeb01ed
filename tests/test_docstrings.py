"""Public functions say which errors they raise, and what they take and give."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "decoding_llama3"
FILES = sorted(PACKAGE.rglob("*.py"))
# An exhibit of the museum is shown to a reader as shortly as such a mistake is written.
ANNOTATED = [path for path in FILES if path.parent.name not in ("exhibits", "solutions")]  # as learners write
BUILT_IN = ("__init__", "__post_init__", "__call__")
# A command's docstring is its help: its errors end in a sentence.
COMMANDS = {"bench", "chat", "download", "export"}


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Public functions and methods, each with its docstring and that of its class."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in (tree, *classes):
        of_class = "" if owner is tree else ast.get_docstring(owner) or ""
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and (node.name in BUILT_IN or not node.name.startswith("_")):
                yield node, f"{of_class} {ast.get_docstring(node) or ''}"


def raised(
    function: ast.FunctionDef, helpers: dict[str, ast.FunctionDef], seen: frozenset[str] = frozenset()
) -> set:
    """Names of the errors that leave a function, raised by itself or by a private helper of the same file."""
    found = set()
    for node in uncaught(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found |= error_of(node.exc, helpers)
        called = name_of(node.func) if isinstance(node, ast.Call) else None
        if called in helpers and called.startswith("_") and called not in seen:
            found |= raised(helpers[called], helpers, seen | {called})
    return found - {"AttributeError", "Exit", "Refused"}


def uncaught(node: ast.AST) -> Iterator[ast.AST]:
    """All that stands in a function but for the bodies of `try`, whose errors its handlers take."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try) and child.handlers:
            for handler in (*child.handlers, *child.orelse, *child.finalbody):
                yield from uncaught(handler)
        else:
            yield child
            yield from uncaught(child)


def error_of(call: ast.Call, helpers: dict[str, ast.FunctionDef]) -> set[str]:
    """The class of a raised error; one that a helper makes has the type that the helper promises."""
    name = name_of(call.func)
    made = helpers.get(name)
    if made is not None:
        return {ast.unparse(made.returns)} if made.returns is not None else set()
    return {name} if name and name[0].isupper() else set()


def name_of(called: ast.expr) -> str | None:
    if isinstance(called, ast.Name):
        return called.id
    return called.attr if isinstance(called, ast.Attribute) else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_name_the_errors_that_they_raise(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    helpers = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    lacking = {
        function.name: sorted(name for name in raised(function, helpers) if name not in text)
        for function, text in public_functions(tree)
        if function.name not in COMMANDS
    }
    assert {name: errors for name, errors in lacking.items() if errors} == {}


@pytest.mark.parametrize("path", ANNOTATED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_are_annotated(path):
    bare = set()
    for function, _ in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        named = [each for each in arguments if each.arg not in ("self", "cls")]
        if any(each.annotation is None for each in named) or function.returns is None:
            bare.add(function.name)
    assert bare == set()


def test_a_function_that_does_not_name_its_error_is_seen():
    source = '''
def public(x: int) -> int:
    """Nothing of errors."""
    return _helper(x)

def _helper(x):
    try:
        raise KeyError("caught")
    except KeyError:
        pass
    raise ValueError("not named")
'''
    tree = ast.parse(source)
    helpers = {node.name: node for node in tree.body}
    assert [raised(function, helpers) for function, _ in public_functions(tree)] == [{"ValueError"}]
