"""Is a text plain arithmetic of modest size? For expressions that a library is going to evaluate."""

from __future__ import annotations

import ast
from math import ceil

# Sizes are written as by sympy.srepr: Mul(Integer(4), Symbol('s77', positive=True, integer=True)).
_FUNCTIONS = {
    *(
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "Abs",
        "floor",
        "ceiling",
        "sqrt",
    ),
    *("Equality", "Eq", "Unequality", "Ne", "StrictLessThan", "Lt", "LessThan", "Le", "StrictGreaterThan", "Gt"),
    *("GreaterThan", "Ge", "And", "Or", "Not", "Xor"),
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift"),
    *("RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt"),
    *("RoundDecimal", "ToFloat", "Identity", "IsNonOverlappingAndDenseIndicator"),
}
_METHODS = {"size", "stride", "storage_offset"}  # of a tensor, in guards: L['x'].size()[0] >= 1
_LONGEST = 4096
# Their second operand costs more than its text says: 9**9**9, 1 << 10**9, a number of 10**9 digits.
_COSTLY = {"Pow", "PowByNatural", "FloatPow", "LShift", "Float", "RoundDecimal"}
_NUMBERS = {"Integer", "Rational", "Float"}
_LARGEST_OPERAND = 64
_WIDEST = 1 << 14  # bits of a value; no size and no product of sizes comes near
_SYMBOL = 64  # bits of a symbol's value
_NODES = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript),
    *(ast.Call, ast.keyword, ast.Attribute, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def is_plain_expression(text: str) -> bool:
    """Whether a text is one expression of numbers, names, comparisons and a fixed list of arithmetic functions.

    Its value must stay small: a library that evaluates it would never come back from `9**9**9**9`.

    Args:
        text: A Python expression.
    """
    if len(text) > _LONGEST or not text.isascii() or any(mark in text for mark in "#\\\n"):
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    try:
        return all(_allowed(node) for node in ast.walk(tree)) and _bits(tree.body) <= _WIDEST
    except RecursionError:
        return False


def _allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        function = node.func
        return isinstance(function, ast.Attribute) or (isinstance(function, ast.Name) and function.id in _FUNCTIONS)
    if isinstance(node, ast.Attribute):
        return node.attr in _METHODS
    if isinstance(node, ast.Constant):
        # A string is the name of a symbol or of an input, nothing that would be parsed again.
        return not isinstance(node.value, str) or node.value.isidentifier()
    return isinstance(node, _NODES)


def _bits(node: ast.AST) -> int:
    """An upper bound of the bits of an expression's value; above `_WIDEST` where a costly operand is large."""
    if isinstance(node, ast.Constant):
        return node.value.bit_length() if isinstance(node.value, int) else _SYMBOL
    below = [_bits(child) for child in ast.iter_child_nodes(node)]
    bits = min(sum(below) + _SYMBOL * isinstance(node, ast.Name), _WIDEST + 1)
    for operand in _costly_operands(node):
        size = _number(operand)
        bits = _WIDEST + 1 if size is None or abs(size) > _LARGEST_OPERAND else bits * max(ceil(abs(size)), 1)
    return bits


def _costly_operands(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
        return [node.right]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _COSTLY:
        return [*node.args[1:], *(keyword.value for keyword in node.keywords)]
    return []


def _number(node: ast.expr) -> float | None:
    """A number that is written out: `2`, `-1`, `Integer(2)`, `Rational(1, 2)`."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NUMBERS:
        numbers = [number for argument in node.args if (number := _number(argument)) is not None]
        return max(map(abs, numbers)) if numbers and len(numbers) == len(node.args) else None
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else None
