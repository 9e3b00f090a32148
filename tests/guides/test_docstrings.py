"""Every public module, class, function, method and property says what it is, and which of the errors it raises."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from support.markdown import ROOT

import clip_jax
from clip_jax import errors

PACKAGE = ROOT / "clip_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


@dataclass(frozen=True)
class Members:
    """A class's public names, its attributes included; those that have docstrings; the names of its bases."""

    names: frozenset[str]
    documented: frozenset[str]
    bases: frozenset[str]


def functions(node: ast.AST) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function) and not child.name.startswith("_"):
            yield child


def members(node: ast.ClassDef) -> Members:
    methods = list(functions(node))
    names = {method.name for method in methods}
    for part in ast.walk(node):
        match part:
            case ast.AnnAssign(target=ast.Name(id=name)) if part in node.body:
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    documented = {method.name for method in methods if ast.get_docstring(method)}
    bases = {part.id for base in node.bases for part in ast.walk(base) if isinstance(part, ast.Name)}
    return Members(frozenset(name for name in names if name[0] != "_"), frozenset(documented), frozenset(bases))


def classes(tree: ast.AST) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
CLASSES = [(node.name, members(node)) for tree in TREES.values() for node in classes(tree)]


def is_documented(method: str, of: Members) -> bool:
    """By itself, by a base, or by a protocol whose every name the class has."""
    if method in of.documented:
        return True
    bases = [found for name, found in CLASSES if name in of.bases]
    protocols = [found for _, found in CLASSES if "Protocol" in found.bases and found.names <= of.names]
    return any(is_documented(method, base) for base in bases) or any(method in one.documented for one in protocols)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """The names without a docstring; of an overloaded method, the last definition is the one that has it."""
    yield from (node.name for node in functions(tree) if not ast.get_docstring(node))
    for node in classes(tree):
        if not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            methods = {method.name for method in functions(node)}
            yield from (f"{node.name}.{name}" for name in methods if not is_documented(name, members(node)))


def silent(tree: ast.Module) -> Iterator[str]:
    """Those that raise errors of ours themselves and do not name each; what is as in a protocol says it there."""
    for part in (tree, *(node for node in classes(tree) if not node.name.startswith("_"))):
        for node in functions(part):
            raised = [one.exc for one in own_statements(node) if isinstance(one, ast.Raise) and one.exc]
            names = {part.id for one in raised for part in ast.walk(one) if isinstance(part, ast.Name)}
            said = ast.get_docstring(node)
            if said is not None and not all(name in said for name in names & ERRORS):
                yield node.name


def own_statements(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, but for the functions within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda):
            yield child
            yield from own_statements(child)


def test_everything_public_says_what_it_is():
    assert {
        str(path.relative_to(ROOT)): found for path, tree in TREES.items() if (found := [*undocumented(tree)])
    } == {}
    modules = [str(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert modules == []


def test_what_is_exported_says_what_it_is():
    for name in clip_jax.__all__:
        assert (getattr(clip_jax, name).__doc__ or "").strip(), name


def test_who_raises_an_error_says_so():
    """But for the commands, which turn it into a line and an exit code."""
    trees = {str(path): tree for path, tree in TREES.items() if "cli" not in path.parts}
    assert {path: found for path, tree in trees.items() if (found := [*silent(tree)])} == {}
