"""
rl-zoo3's notation, read as data.

rl-zoo3 evaluates the values on its command line, and its files are YAML with tags of Python. Here nothing is evaluated:
literals are read, and of the tags only that of the ordered dict that rl-zoo3 writes. Any other value is :class:`Unread`.
"""

import ast
from collections.abc import Sequence
from reprlib import Repr
from textwrap import shorten

import yaml

_repr = Repr()
_repr.maxstring = _repr.maxother = 120
_repr.maxlevel = 3


def brief(value: object) -> str:
    """
    :param value: A value of a file.
    :return: It in a sentence, however large it is
    """
    return shorten(_repr.repr(value), 200, placeholder=" ...")


def read_literal(text: str) -> object:
    """
    A value as rl-zoo3 takes it on a command line, where it evaluates it. Here it is not evaluated: literals of Python and
    ``dict(...)`` of them are read, and a word without quotes is a string.

    >>> read_literal("dict(norm_obs=True, shape=(2, 3))")
    {'norm_obs': True, 'shape': (2, 3)}

    :param text: The text.
    :return: What it says; the text itself if it is not a literal
    """
    try:
        return ast.literal_eval(_Dict().visit(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return text


def read_arguments(texts: Sequence[str]) -> dict[str, object]:
    """
    >>> read_arguments(["g:9.81", "render_mode:rgb_array"])
    {'g': 9.81, 'render_mode': 'rgb_array'}

    :param texts: Arguments of an environment, each as rl-zoo3 takes it on a command line: ``name:value``.
    :return: The arguments
    :raises ValueError: if one is not written so
    """
    arguments = {}
    for text in texts:
        name, separator, value = text.partition(":")
        if not separator or not name.isidentifier():
            raise ValueError(f"--env-kwargs takes name:value, got '{text}'")
        arguments[name] = read_literal(value)
    return arguments


class _Dict(ast.NodeTransformer):
    """``dict(a=1)`` becomes ``{"a": 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])


class Unread:
    """A value with a tag that is not read."""


class Loader(yaml.SafeLoader):
    """YAML as data; without merges, with which a small file can take any memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """A merge stays what it is, which no constructor knows."""


def _ordered_dict(loader: Loader, node: yaml.Node) -> dict[object, object]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "an ordered dict without a list of pairs", node.start_mark)
    arguments = loader.construct_sequence(node, deep=True)
    return dict(*arguments)


Loader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: Unread())
