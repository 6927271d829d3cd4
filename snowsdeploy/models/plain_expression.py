"""Is a text plain arithmetic? For expressions that a library is going to evaluate."""

from __future__ import annotations

import ast

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
_NODES = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript),
    *(ast.Call, ast.keyword, ast.Attribute, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def is_plain_expression(text: str) -> bool:
    """Whether a text is one expression of numbers, names, comparisons and a fixed list of arithmetic functions.

    Args:
        text: A Python expression.
    """
    if len(text) > _LONGEST or not text.isascii() or any(mark in text for mark in "#\\\n"):
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_allowed(node) for node in ast.walk(tree))


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
