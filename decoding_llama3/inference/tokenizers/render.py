"""Run a chat template of unknown origin: in a sandbox, with bounds on what one expression may make.

`python -m decoding_llama3.inference.tokenizers.render` reads a template and its variables as JSON from standard
input and writes the text, or why there is none, to standard output: a process that can be stopped.
"""

import datetime
import importlib
import json
import sys
from typing import Any

LARGEST_TEXT = 2**20  # characters
LARGEST_PRODUCT = 2**16  # of a text or list that is repeated
LONGEST_RANGE = 10_000
MEMORY = 2**29  # bytes


class Refused(Exception):
    """The template itself refuses these messages, by raise_exception, or goes beyond a bound."""


def render(template: str, variables: dict[str, Any]) -> str:
    """The text that a template makes; `Refused`, MemoryError or an exception of jinja2 for what it may not do."""
    from jinja2.ext import loopcontrols

    environment = _sandbox()(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals.update(raise_exception=_refuse, strftime_now=_now, range=_short_range)
    environment.filters["tojson"] = _to_json
    pieces, length = [], 0
    for piece in environment.from_string(template).generate(**variables):
        length += len(piece)
        if length > LARGEST_TEXT:
            raise Refused(f"it makes more than {LARGEST_TEXT:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _sandbox() -> type:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operands(operator, left, right)
            return super().call_binop(context, operator, left, right)

    return Sandbox


def _check_operands(operator: str, left: Any, right: Any) -> None:
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if operator == "%" and not numbers:
        raise Refused("it formats a text by %")
    if operator == "**" and not (numbers and abs(left) <= 1000 and abs(right) <= 20):
        raise Refused("it raises to too high a power")
    if operator == "*":
        sizes = [abs(x) if isinstance(x, (int, float)) else len(x) for x in (left, right)]
        if sizes[0] * sizes[1] > (2**64 if numbers else LARGEST_PRODUCT):
            raise Refused("it makes too large a product")


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LONGEST_RANGE:
        raise Refused(f"it counts over {len(numbers):,} numbers")
    return numbers


def _refuse(message: object) -> None:
    raise Refused(str(message))


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(str(form)[:100])


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def main() -> None:
    """Render what standard input holds, in bounded memory, and say how it went."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not on Windows: there the time is bounded alone
    for module in ("jinja2.ext", "jinja2.sandbox"):
        importlib.import_module(module)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    given = json.load(sys.stdin)
    try:
        result = {"text": render(given["template"], given["variables"])}
    except Refused as refusal:
        result = {"refused": str(refusal)}
    except Exception as error:  # whatever a template of unknown origin runs into
        result = {"failed": f"{type(error).__name__}: {error}"}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
