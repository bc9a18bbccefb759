"""The messages of the errors that the code raises, read off the sources.

A message is built by an f-string, by a local variable, by constants and by small functions. Those are followed inside
their module. What only the run knows becomes the name of its variable in capitals, or "…".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, product
from pathlib import Path

from tests.support.import_graph import MODULES

UNKNOWN = "…"
ROOTS = frozenset({"IGVGError"})
USAGE_ERRORS = frozenset({"BadParameter", "UsageError"})
# Names of variables that would tell a reader nothing.
VAGUE = frozenset(
    {"advice", "error", "found", "how", "mismatch", "others", "reason", "remedy", "state", "there", "what", "words"}
)
# Alternatives of one message, and how deep variables and functions are followed.
MAX_ALTERNATIVES, MAX_DEPTH = 12, 4


@dataclass(frozen=True)
class Message:
    """One message: the module that raises it, what is wrong, and what to do (empty: the message does not say)."""

    module: str
    what: str
    remedy: str


@dataclass
class Source:
    """A module: its strings, its functions, and where its imported names come from."""

    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its module, and what is assigned in its function."""

    source: Source
    assigned: dict[str, list[ast.expr]]
    depth: int = 0


@cache
def read_source(path: Path) -> Source:
    """A module by its file."""
    source = Source(ast.parse(path.read_text(encoding="utf-8")))
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            source.constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.FunctionDef):
            source.functions[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            source.imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return source


@cache
def list_error_classes() -> frozenset[str]:
    """The names of `IGVGError` and of all classes below it, and those of wrong usage."""
    known = set(ROOTS)
    classes = [
        node for file in MODULES.values() for node in ast.walk(read_source(file).tree) if isinstance(node, ast.ClassDef)
    ]
    while new := {c.name for c in classes if {getattr(b, "id", "") for b in c.bases} & known} - known:
        known |= new
    return frozenset(known - {"UnsafePickleError"}) | USAGE_ERRORS


def list_messages() -> list[Message]:
    """Every message, in alphabetical order; without those that only pass on the message of another error."""
    found = {message for module, file in MODULES.items() for message in _scan_module(module, read_source(file))}
    return sorted(found, key=lambda message: (message.what.lower(), message.remedy, message.module))


def list_calls(module: str, name: str) -> set[tuple[str, ...]]:
    """The texts of the arguments of every call of `name` in a module, one of each where there are several."""
    source = read_source(MODULES[module])
    found = set()
    for function in [node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef)]:
        for statement, before in _list_statements(function.body, {}):
            for call in _walk_statement(statement):
                if isinstance(call, ast.Call) and _name_called(call) == name:
                    found |= set(product(*(_render(argument, Scope(source, before)) for argument in call.args)))
    for value in source.constants.values():
        for call in ast.walk(value):
            if isinstance(call, ast.Call) and _name_called(call) == name:
                found |= set(product(*(_render(argument, Scope(source, {})) for argument in call.args)))
    return found


def _scan_module(module: str, source: Source) -> list[Message]:
    messages: list[Message] = []
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef):
            for statement, before in _list_statements(function.body, {}):
                for call in _walk_statement(statement):
                    if isinstance(call, ast.Call) and _name_called(call) in list_error_classes():
                        messages += _read_call(module, call, Scope(source, before))
    return messages


def _list_statements(
    body: list[ast.stmt], before: dict[str, list[ast.expr]]
) -> Iterator[tuple[ast.stmt, dict[str, list[ast.expr]]]]:
    """Every statement of a function, with what may be assigned to each name when it runs."""
    known = dict(before)
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        own = known | _list_assignments(list(_walk_statement(statement)))
        yield statement, own
        for name in ("body", "orelse", "finalbody"):
            yield from _list_statements(getattr(statement, name, []), own)
        for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            yield from _list_statements(part.body, own)
        for name, values in _list_assignments(list(ast.walk(statement))).items():
            # What is assigned inside a condition or a loop may not be.
            known[name] = values if isinstance(statement, ast.Assign) else [*known.get(name, []), *values]


def _walk_statement(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement, without the statements inside it."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from ast.walk(child)
    if isinstance(statement, ast.Assign):
        yield statement


def _list_assignments(nodes: list[ast.AST]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name. A name whose value cannot be followed, e.g. that of a loop, has none."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
                elif isinstance(target, ast.Tuple):
                    values = node.value.elts if isinstance(node.value, ast.Tuple) else []
                    for name, value in zip(target.elts, values, strict=False):
                        if isinstance(name, ast.Name):
                            assigned.setdefault(name.id, []).append(value)
        elif isinstance(node, ast.NamedExpr):
            assigned.setdefault(node.target.id, []).append(node.value)
    return assigned


def _name_called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _read_call(module: str, call: ast.Call, scope: Scope) -> list[Message]:
    if not call.args:
        return []
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    remedies = [""]
    if "remedy" in keywords:
        remedies = [text for text in _render(keywords["remedy"], scope) if text != UNKNOWN] or [""]
    messages = []
    for text in _render(call.args[0], scope):
        what = text.strip(" :")
        if re.search(r"\w{3}", re.sub("[A-Z]+", "", what)) is None:
            continue
        head, stop, tail = what.rpartition("; ")
        head = head.rstrip(" :")
        if "remedy" in keywords or not stop or tail.strip(f"{UNKNOWN} ") == "":
            messages += [Message(module, what, remedy) for remedy in remedies]
        else:
            messages.append(Message(module, head, tail))
    return messages


def _render(node: ast.expr, scope: Scope) -> list[str]:
    """The texts that an expression can give."""
    texts = list(dict.fromkeys(islice(_list_texts(node, scope), MAX_ALTERNATIVES)))
    return [re.sub(rf"{UNKNOWN}[{UNKNOWN}\s]*{UNKNOWN}", UNKNOWN, " ".join(text.split())) for text in texts]


def _list_texts(node: ast.expr, scope: Scope) -> list[str]:
    match node:
        case ast.Constant(value=str()):
            return [node.value]
        case ast.JoinedStr(values=values):
            return _join([_list_texts(value, scope) for value in values])
        case ast.FormattedValue(value=value, conversion=conversion):
            texts = _list_texts(value, scope)
            if texts == [UNKNOWN]:
                texts = [_name_placeholder(value)]
            return [f"'{text}'" if text != UNKNOWN and conversion == ord("r") else text for text in texts]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _join([_list_texts(left, scope), _list_texts(right, scope)])
        case ast.IfExp(body=body, orelse=orelse):
            return [*_list_texts(body, scope), *_list_texts(orelse, scope)]
        case ast.BoolOp(op=ast.Or(), values=values):
            texts = [text for value in values for text in _list_texts(value, scope)]
            return [text for text in texts if text != UNKNOWN] or [UNKNOWN]
        case ast.Name(id=name):
            return _follow_name(name, scope)
        case ast.Call(func=ast.Name(id=name)):
            return _follow_call(name, scope)
    return [UNKNOWN]


def _name_placeholder(value: ast.expr) -> str:
    name = getattr(value, "id", getattr(value, "attr", ""))
    return UNKNOWN if len(name) < 3 or name in VAGUE or name.startswith("__") else name.strip("_").upper()


def _join(parts: list[list[str]]) -> list[str]:
    return ["".join(texts) for texts in islice(product(*parts), MAX_ALTERNATIVES)]


def _follow_name(name: str, scope: Scope) -> list[str]:
    if scope.depth >= MAX_DEPTH:
        return [UNKNOWN]
    deeper = Scope(scope.source, scope.assigned, scope.depth + 1)
    if name in scope.assigned:
        texts = [text for value in scope.assigned[name] for text in _list_texts(value, deeper)]
        return [text for text in texts if text != UNKNOWN] or [UNKNOWN]
    if name in scope.source.constants:
        return _list_texts(scope.source.constants[name], Scope(scope.source, {}, scope.depth + 1))
    if name in scope.source.imported:
        module, original = scope.source.imported[name]
        source = read_source(MODULES[module])
        if original in source.constants:
            return _list_texts(source.constants[original], Scope(source, {}, scope.depth + 1))
    return [UNKNOWN]


def _follow_call(name: str, scope: Scope) -> list[str]:
    """What a function of the same module returns."""
    function = scope.source.functions.get(name)
    if function is None or scope.depth >= MAX_DEPTH:
        return [UNKNOWN]
    texts = [
        text
        for statement, before in _list_statements(function.body, {})
        if isinstance(statement, ast.Return) and statement.value
        for text in _list_texts(statement.value, Scope(scope.source, before, scope.depth + 1))
    ]
    return [text for text in texts if text != UNKNOWN] or [UNKNOWN]
