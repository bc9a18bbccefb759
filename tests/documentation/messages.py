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
# Raised inside, and passed on as part of another error's message; in these packages.
CAUSES = frozenset({"UnsafePickleError", "ValueError"})
CAUSING = ("pipelines.config", "pipelines.data", "pipelines.prediction", "shards")
USAGE_ERRORS = frozenset({"BadParameter", "UsageError"})
# Names of variables that would tell a reader nothing.
VAGUE = frozenset(
    {"advice", "error", "found", "how", "mismatch", "others", "reason", "remedy", "state", "there", "what", "words"}
)
# Functions that only list what a run knows.
OPAQUE = frozenset({"join_first", "clean_line", "shorten"})
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
    return frozenset(known) | USAGE_ERRORS


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
    names = list_error_classes() | (CAUSES if module.startswith(CAUSING) else set())
    factories = _list_factories(source)
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef):
            for statement, before in _list_statements(function.body, {}):
                for call in _walk_statement(statement):
                    if isinstance(call, ast.Call) and call.args:
                        called = _name_called(call)
                        if called in names:
                            messages += _read_call(module, call, call.args[0], Scope(source, before))
                        elif called in factories and len(call.args) > factories[called]:
                            messages += _read_call(module, call, call.args[factories[called]], Scope(source, before))
    return messages


def _list_factories(source: Source) -> dict[str, int]:
    """Functions that return an error with one of their parameters as its message, and which parameter that is."""
    factories = {}
    for function in ast.walk(source.tree):
        if isinstance(function, ast.FunctionDef) and isinstance(function.body[-1], ast.Return):
            made = function.body[-1].value
            if isinstance(made, ast.Call) and _name_called(made) in list_error_classes() and made.args:
                parameters = [each.arg for each in function.args.args if each.arg != "self"]
                if getattr(made.args[0], "id", "") in parameters:
                    factories[function.name] = parameters.index(made.args[0].id)
    return factories


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
    if isinstance(statement, ast.Assign | ast.For):
        yield statement


def _list_assignments(nodes: list[ast.AST]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name.

    `a, b = value` assigns `value[0]` and `value[1]`; `for key, … in texts.items()` assigns `*texts`.
    """
    assigned: dict[str, list[ast.expr]] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.NamedExpr(ast.Name(id=name), value):
                assigned.setdefault(name, []).append(value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=value):
                for position, target in enumerate(names):
                    if isinstance(target, ast.Name):
                        element = ast.Subscript(value, ast.Constant(position))
                        assigned.setdefault(target.id, []).append(element)
            case ast.For(ast.Tuple(elts=[ast.Name(id=name), *_]), ast.Call(ast.Attribute(texts, "items"))):
                assigned.setdefault(name, []).append(ast.Starred(texts))
    return assigned


def _name_called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _read_call(module: str, call: ast.Call, text_node: ast.expr, scope: Scope) -> list[Message]:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    remedies = [""]
    if "remedy" in keywords:
        remedies = [text for text in _render(keywords["remedy"], scope) if text != UNKNOWN] or [""]
    messages = []
    for text in _render(text_node, scope):
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
        case ast.Name() | ast.Call(ast.Name()) | ast.Subscript(_, ast.Constant()) | ast.Starred():
            texts = [text for value, inner in _follow(node, scope) for text in _list_texts(value, inner)]
            return [text for text in texts if text != UNKNOWN] or [UNKNOWN]
    return [UNKNOWN]


def _name_placeholder(value: ast.expr) -> str:
    name = getattr(value, "id", getattr(value, "attr", ""))
    return UNKNOWN if len(name) < 3 or name in VAGUE or name.startswith("__") else name.strip("_").upper()


def _join(parts: list[list[str]]) -> list[str]:
    return ["".join(texts) for texts in islice(product(*parts), MAX_ALTERNATIVES)]


def _follow(node: ast.expr, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
    """The expressions that a name, a call, an element of a tuple or a key of a dictionary stands for."""
    if scope.depth >= MAX_DEPTH:
        return
    here = Scope(scope.source, scope.assigned, scope.depth + 1)
    match node:
        case ast.Name(id=name) if name in scope.assigned:
            yield from ((value, here) for value in scope.assigned[name])
        case ast.Name(id=name):
            source, original = _find_source(name, scope.source)
            if original in source.constants:
                yield source.constants[original], Scope(source, {}, scope.depth + 1)
        case ast.Call(ast.Name(id=name)):
            source, original = _find_source(name, scope.source)
            if original in source.functions and original not in OPAQUE:
                for statement, before in _list_statements(source.functions[original].body, {}):
                    if isinstance(statement, ast.Return) and statement.value:
                        yield statement.value, Scope(source, before, scope.depth + 1)
        case ast.Subscript(value, ast.Constant(value=int() as position)):
            for whole, inner in _unfold(value, here):
                if isinstance(whole, ast.Tuple) and position < len(whole.elts):
                    yield whole.elts[position], inner
        case ast.Starred(value):
            for whole, inner in _unfold(value, here):
                if isinstance(whole, ast.Dict):
                    yield from ((key, inner) for key in whole.keys if key)


def _unfold(node: ast.expr, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
    """The tuples and dictionaries that an expression can give."""
    match node:
        case ast.Tuple() | ast.Dict():
            yield node, scope
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*_unfold(body, scope), *_unfold(orelse, scope))
        case ast.Name() | ast.Call():
            for value, inner in _follow(node, scope):
                yield from _unfold(value, inner)


def _find_source(name: str, source: Source) -> tuple[Source, str]:
    """The module that defines a name, and its name there."""
    module, original = source.imported.get(name, ("", name))
    return (read_source(MODULES[module]), original) if module else (source, name)
