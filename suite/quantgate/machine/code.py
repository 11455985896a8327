"""Python code without its words, so that a better comment does not make caches and stored measurements useless."""

from __future__ import annotations

import ast
import io
import tokenize


def without_words(source: str) -> str:
    """Return Python source without comments, docstrings and empty lines. Raises SyntaxError."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str()), lineno=first, end_lineno=int(last)):
                lines[first - 1 : last] = [""] * (last - first + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())
