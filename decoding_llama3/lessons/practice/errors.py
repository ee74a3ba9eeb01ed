"""What a raised error says about the mistake, for the errors that learners meet most."""

import re

# The first pattern that is found; its groups fill the sentence.
KNOWN = (
    (
        r"mat1 and mat2 shapes cannot be multiplied \((\S+) and (\S+)\)",
        "two matrices do not fit, {} times {}: the inner numbers must be equal; is one to be transposed?",
    ),
    (r"'Linear' object has no attribute", "a layer is called, w(x), and transposes its weight itself"),
    (r"unsupported operand type\(s\) for @: .*'Linear'", "a layer is called, w(x), not multiplied"),
    (r"'Tensor' object is not callable", "a matrix is multiplied, x @ w.T, not called"),
    (r"object is not subscriptable", "what is given has its fields as attributes, thing.field, not in brackets"),
    (
        r"Boolean value of Tensor with more than one value",
        "one `if` cannot decide for many numbers: use torch.where, or clamp",
    ),
    (
        r"'NoneType' object",
        "a None is used as if it were something: does a step return nothing, or is None given and not answered?",
    ),
    (r"for unary ~: 'NoneType'", "mask=None is not answered"),
    (
        r"type must be tuple of ints,? ?but got float",
        "`/` makes a float where a whole number belongs: divide with `//`",
    ),
    (
        r"'float' object cannot be interpreted as an integer",
        "`/` makes a float where a whole number belongs: divide with `//`",
    ),
    (r"view size is not compatible", "after a transpose, `view` cannot join axes: use reshape, or flatten"),
    (
        r"shape '(.+)' is invalid for input of size (\d+)",
        "{1} numbers do not fill the shape {0}: which axis did you mean to cut?",
    ),
    (r"maximum recursion depth", "the function calls itself without end"),
    (r"KeyError: (.+)", "{} is looked up and is not there: test with `in`, or use .get"),
    (
        r"(?:min|max)\(\) (?:arg|iterable argument) is (?:an )?empty",
        "the smallest of nothing is asked: what if there is no candidate?",
    ),
    (r"missing \d+ required positional argument", "a function is called with too few arguments"),
    (
        r"takes \d+ positional arguments? but \d+ (?:was|were) given",
        "a function is called with too many arguments",
    ),
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)",
        "{} and {} stand against each other on axis {}: one of them must be repeated, cut otherwise or transposed",
    ),
    (
        r"index (\d+) is out of bounds for dimension \d+ with size (\d+)",
        "place {} is asked of an axis that has only {}",
    ),
    (
        r"too many values to unpack|not enough values to unpack",
        "other pieces than are unpacked: `chunk(2)` makes two, `split(2)` makes pieces of two",
    ),
    (r"name '(\w+)' is not defined", "{} is not defined inside the function: import it, or make it there"),
    (
        r"same dtype",
        "two dtypes meet: cast one of them",
    ),
    (r"codec can't decode byte", "half a character is decoded: keep its bytes until the rest has come"),
)


def mistake_behind(error: str) -> str:
    """A sentence on the mistake behind an error's text; "" for one that is not known."""
    for pattern, sentence in KNOWN:
        if found := re.search(pattern, error):
            return sentence.format(*found.groups())
    return ""
