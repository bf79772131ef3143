"""What a template may say, and how much it may do: Jinja, cut down to what bounds itself. Pure.

A template runs inside the primary, so it is no program: no other files, no attributes of objects, no lists
in lists, and a budget of steps that every loop, call, filter and piece of text is paid from. All parts of the
language that are not in a table here are refused by their line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing
from jinja2.visitor import NodeTransformer

from reconciler.secrets.errors import VariableUnusable
from reconciler.secrets.template_filters import FILTERS, Misuse, cost, flat, text

MAX_STEPS = 100_000
MAX_OUTPUT = 512 * 1024
"""Characters of a rendered file. A task travels as one message of 1 MiB with all files of its target."""

_FILE = "<template>"
"""What Jinja calls the file of a template that was given as a text."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

TEXT_METHODS = frozenset({
    *("split", "rsplit", "splitlines", "partition", "rpartition", "strip", "lstrip", "rstrip"),
    *("startswith", "endswith", "removeprefix", "removesuffix", "lower", "upper", "isdigit"),
})  # fmt: skip
LOOP = frozenset({
    *("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"),
})  # fmt: skip
FUNCTIONS = ("range", "namespace")
TESTS = ("defined", "undefined", "none", "string", "number", "odd", "even")
_LANGUAGE = frozenset({
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Macro),
    *(nodes.Assign, nodes.AssignBlock, nodes.With, nodes.Name, nodes.NSRef, nodes.Const, nodes.List),
    *(nodes.Tuple, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And),
    *(nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div),
    *(nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.Call, nodes.Getattr, nodes.Getitem, nodes.Slice),
    nodes.Keyword,
})  # fmt: skip
_WORDS: Mapping[type[nodes.Node], str] = {
    nodes.FromImport: "import",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.Pow: "**",
    nodes.Dict: "{…: …}",
}
_OF_MACROS = ("varargs", "kwargs", "caller")
"""What Jinja puts into a macro by itself; the first two may hold lists of lists."""
# Names that no template can write, as they hold a space.
_COUNTED, _ITEMS, _FLAT, _TEXT = " counted", " items", " flat", " text"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a template gives no text, in words that hold no value."""

    line: int
    what: str
    remedy: str = ""
    undefined: str = ""
    """The name that nothing defines, where that is the reason."""


def attempt(source: str, variables: Mapping[str, str]) -> str | Flaw:
    """The rendered text, the same for the same arguments; never raises."""
    try:
        template = _compiled(source)
    except _Refused as refused:
        return Flaw(refused.line, refused.what, refused.remedy)
    except TemplateSyntaxError as error:  # about the template's own text alone
        return Flaw(error.lineno, " ".join((error.message or "").split()).rstrip("."), "correct the template")
    except Exception as error:
        return Flaw(1, f"it cannot be read ({type(error).__name__})", "make it simpler")
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(dict(variables)):
            size += len(piece)
            if size > MAX_OUTPUT:
                return Flaw(1, f"it gives more than {MAX_OUTPUT} characters", "make it smaller")
            pieces.append(piece)
        written = "".join(pieces)
        if _HALF_CHARACTER.search(written) is None:
            return written
        return Flaw(1, "what it gives is no valid text", "take half characters (\\ud800) out of it")
    except _Undefined.Error as error:
        name = error.message or ""
        what = f"`{name}` is not defined" if name else "what is read here is not there, or may not be read"
        remedy = "" if name else "docs/secrets.md has the methods and attributes that there are"
        return Flaw(_line_of(error.__traceback__), what, remedy, undefined=name)
    except Misuse as error:
        return Flaw(_line_of(error.__traceback__), error.what, error.remedy)
    except VariableUnusable as error:
        what = "no dotenv line gives this value to every reader unchanged"
        return Flaw(_line_of(error.__traceback__), what, "give the file another format, such as |tojson")
    except Exception as error:
        what = f"this fails with {type(error).__name__}"
        return Flaw(_line_of(error.__traceback__), what, "correct the template")


def _line_of(traceback: TracebackType | None) -> int:
    """Where in the template it happened: the innermost frame that is the template's."""
    line = 1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == _FILE:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


class _Refused(Exception):
    def __init__(self, line: int, what: str, remedy: str) -> None:
        super().__init__(what)
        self.line, self.what, self.remedy = line, what, remedy


class _Undefined(StrictUndefined):
    """Says its name where the template wrote one, and nothing where it may have been computed of a value."""

    class Error(UndefinedError):
        pass

    __slots__ = ()

    def __init__(self, hint: Any = None, obj: Any = missing, name: Any = None, exc: Any = None) -> None:
        del hint, exc  # Jinja's own words, which may hold what was computed
        super().__init__(None, obj, name, _Undefined.Error)

    @property
    def _undefined_message(self) -> str:
        return str(self._undefined_name or "") if self._undefined_obj is missing else ""


class _Metered(Context):
    """One rendering, and what is left of its steps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.left = MAX_STEPS

    def pay(self, value: object) -> None:
        self.left -= cost(value)
        if self.left < 0:
            raise Misuse(f"it takes more than {MAX_STEPS} steps", "make its loops and texts smaller")


class _Environment(ImmutableSandboxedEnvironment):
    context_class = _Metered
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        del value
        if isinstance(obj, str):
            return attr in TEXT_METHODS
        if isinstance(obj, LoopContext):
            return attr in LOOP
        return isinstance(obj, Namespace) and not attr.startswith("_")

    def wrap_str_format(self, value: Any) -> None:
        """Formats would be let through before `is_safe_attribute` is asked; they can ask for any width."""

    def call(self, context: Any, obj: Any, /, *arguments: Any, **options: Any) -> Any:
        context.pay(getattr(obj, "__self__", None))
        result = super().call(context, obj, *arguments, **options)
        context.pay(result)
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (left, right))
        if not numbers:
            left, right = _defined(left), _defined(right)
            if operator != "+" or type(left) is not type(right) or not isinstance(left, str | list):
                remedy = "put texts together with ~, or convert with |int"
                raise Misuse(f"`{operator}` is for numbers", remedy)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and abs(result) >= 1 << 63:
            raise Misuse("this number has more than 63 bits", "calculate with smaller ones")
        context.pay(result)
        return result


class _Metering(NodeTransformer):
    """Refuses what is not in the language, and lets each part that costs something pay for it."""

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment

    def visit(self, node: nodes.Node, *arguments: Any, **options: Any) -> Any:
        if type(node) not in _LANGUAGE:
            word = _WORDS.get(type(node), type(node).__name__.lower())
            remedy = "write all of it into this file, with variables, `if`, `for`, `set`, `macro` and filters"
            raise _Refused(node.lineno, f"`{word}` cannot be used here", remedy)
        return super().visit(node, *arguments, **options)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        # As a constant it is finalized, and so paid for, also in a loop that writes into a variable.
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise _Refused(node.lineno, "`recursive` cannot be used here", "write one loop for each level")
        self.generic_visit(node)
        node.iter = self._through(_ITEMS, node.iter)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name in _OF_MACROS:
            remedy = "name the macro's arguments, or the variable differently"
            raise _Refused(node.lineno, f"`{node.name}` cannot be used here", remedy)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self._through(_COUNTED, node)  # a slice is a copy

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._through(_COUNTED, node.expr)
        for operand in node.ops:
            operand.expr = self._through(_COUNTED, operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [self._through(_TEXT, each) for each in node.nodes]
        return self._through(_COUNTED, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        node.items = [self._through(_FLAT, each) for each in node.items]
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        if node.ctx == "load":
            node.items = [self._through(_FLAT, each) for each in node.items]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        if node.name not in FILTERS:
            there = f"there are {', '.join(sorted(FILTERS))}"
            raise _Refused(node.lineno, f"there is no filter `{node.name}`", there)
        self.generic_visit(node)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        if node.name not in TESTS:
            there = f"there are {', '.join(TESTS)}"
            raise _Refused(node.lineno, f"there is no test `{node.name}`", there)
        self.generic_visit(node)
        return node

    def _through(self, filter_: str, node: Any) -> nodes.Filter:
        made = nodes.Filter(node, filter_, [], [], None, None, lineno=node.lineno)
        made.set_environment(self._environment)
        return made


def _defined(value: Any) -> Any:
    if isinstance(value, StrictUndefined):
        str(value)  # raises
    return value


def _counted(value: Any) -> Any:
    return value


def _items(value: Any) -> Any:
    if not isinstance(_defined(value), list | tuple | range):
        raise Misuse("a loop needs a list", "make one of a text with .split(',') or .splitlines()")
    return value


def _metered(function: Any) -> Any:
    """A filter that pays for what it gets and for what it gives."""

    @pass_context
    def metered(context: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        context.pay(value)
        result = function(value, *arguments, **options)
        context.pay(result)
        return result

    return metered


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        undefined=_Undefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        finalize=_metered(text),
    )
    own = {_COUNTED: _counted, _ITEMS: _items, _FLAT: flat, _TEXT: text}
    environment.filters = {name: _metered(filter_) for name, filter_ in {**FILTERS, **own}.items()}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    environment.globals = {name: environment.globals[name] for name in FUNCTIONS}
    return environment


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    """Kept, as each target of a project renders the same one."""
    environment = _environment()
    tree = environment.parse(source)
    return environment.from_string(_Metering(environment).visit(tree))
