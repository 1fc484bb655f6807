"""Annotations of delegates: evaluate them, and find the three types that totoms passes anywhere in them.

FastAPI reads every parameter of a type that it does not know from the request: `Optional[UserContext]` would be a
request body. A delegate's request, caller and context must never come from there, so their types are recognised in
every form in which Python lets them be written.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Final, TypeVar, Union

import typing_extensions
from fastapi import Request

from totoms.auth.user import UserContext
from totoms.execution import ExecutionContext

Role = str
"""``request``, ``user`` or ``execution``."""
ROLES: Final[tuple[Role, ...]] = ("request", "user", "execution")
"""The order in which totoms 1.5.0 passed them."""
TYPES: Final[dict[Role, type[Any]]] = {"request": Request, "user": UserContext, "execution": ExecutionContext}
_BY_NAME: Final = {kind.__name__: kind for kind in TYPES.values()}
# `type Caller = UserContext`: Python 3.12's class and its backport.
_ALIASES: Final = tuple({typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", NoneType)} - {NoneType})
_TYPE_VARIABLES: Final[tuple[Any, ...]] = tuple({TypeVar, typing_extensions.TypeVar})
_MAX_DEPTH: Final = 32


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):  # typing probes for many of these
            raise AttributeError(name)
        return _BY_NAME.get(name, cls)

    def __getitem__(cls, _item: object) -> Any:
        return cls

    def __call__(cls, *_arguments: object, **_named: object) -> Any:
        return cls


class Unknown(metaclass=_AnyAttribute):
    """Replaces a name that is unknown at run time, such as one imported under TYPE_CHECKING."""


class Names(Mapping[str, Any]):
    """The names in the scope of a function, to evaluate its annotations.

    Unknown names evaluate to totoms's type of that name, else to `Unknown`.

    Args:
        function: The function, or a class whose constructor is called.

    Attributes:
        missing: The names that were looked up but not found.
    """

    def __init__(self, function: Any) -> None:
        module = vars(sys.modules.get(getattr(function, "__module__", ""), typing))
        self.known: dict[str, Any] = {**module, **getattr(function, "__globals__", {})}
        self.known.update({str(one): one for one in getattr(function, "__type_params__", ())})
        self.missing: set[str] = set()
        code = getattr(function, "__code__", None)
        cells = getattr(function, "__closure__", None) or ()
        for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=False):
            try:
                self.known.setdefault(name, cell.cell_contents)
            except ValueError:  # the variable has no value yet
                continue

    def __getitem__(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        if name in _BY_NAME:
            return _BY_NAME[name]
        self.missing.add(name)
        return Unknown

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def resolve(self, annotation: Any) -> Any:
        """Return `annotation` with every string in it evaluated; `Unknown` if that fails."""
        if isinstance(annotation, type) or annotation is inspect.Parameter.empty:
            return annotation
        holder: Any = SimpleNamespace(__annotations__={"it": annotation})
        try:
            return typing.get_type_hints(holder, self.known, self, include_extras=True)["it"]
        except Exception:  # evaluation runs the user's code
            self.missing.add(str(annotation))
            return Unknown

    def role_of(self, annotation: Any) -> Role | None:
        """Return the role of which `annotation` is the type; None for any other type.

        This includes ``Optional``, unions of one role, ``Annotated``, aliases, ``NewType``, bounds of type variables,
        generics (``ExecutionContext[Config]``) and subclasses.
        """
        return self._role_of(annotation, 0)

    def _role_of(self, annotation: Any, depth: int) -> Role | None:
        if depth > _MAX_DEPTH:
            return None
        core, _ = self.peel(annotation)
        if typing.get_origin(core) in (Union, UnionType):
            roles = {self._role_of(member, depth + 1) for member in typing.get_args(core) if member is not NoneType}
            return roles.pop() if len(roles) == 1 else None
        kind = typing.get_origin(core) or core
        if isinstance(kind, type):
            for role, ours in TYPES.items():
                if issubclass(kind, ours):
                    return role
        return None

    def peel(self, annotation: Any) -> tuple[Any, list[Any]]:
        """Return `annotation` without ``Optional``, aliases and other wrappers, and the metadata of ``Annotated``."""
        metadata: list[Any] = []
        for _ in range(_MAX_DEPTH):
            origin = typing.get_origin(annotation)
            if origin is Annotated:
                metadata += annotation.__metadata__
                annotation = annotation.__origin__
            elif origin in (Union, UnionType):
                members = [member for member in typing.get_args(annotation) if member is not NoneType]
                if len(members) != 1:
                    break
                annotation = members[0]
            elif isinstance(annotation, _ALIASES) or isinstance(origin, _ALIASES):
                annotation = self._value_of(annotation if isinstance(annotation, _ALIASES) else origin)
            elif isinstance(annotation, typing.NewType):
                annotation = annotation.__supertype__
            elif isinstance(annotation, _TYPE_VARIABLES) and getattr(annotation, "__bound__", None) is not None:
                annotation = self.resolve(getattr(annotation, "__bound__"))  # noqa: B009 - mypy sees no type variable
            else:
                break
        return annotation, metadata

    def _value_of(self, alias: Any) -> Any:
        try:
            value = alias.__value__  # evaluated on first access
        except Exception:
            self.missing.add(str(alias))
            return Unknown
        return self.resolve(value)

    def roles_within(self, annotation: Any) -> set[Role]:
        """Return the roles whose types occur anywhere in `annotation`, also in the fields of models."""
        found: set[Role] = set()
        self._collect(annotation, found, {}, 0)
        return found

    def _collect(self, annotation: Any, found: set[Role], seen: dict[int, Any], depth: int) -> None:
        if id(annotation) in seen or depth > _MAX_DEPTH:
            return
        seen[id(annotation)] = annotation
        role = self.role_of(annotation)
        if role is not None:
            found.add(role)
            return
        core, _ = self.peel(annotation)
        if typing.get_origin(core) is typing.Literal:
            return
        parts = [typing.get_origin(core), *typing.get_args(core), *getattr(core, "__constraints__", ()), *_fields(core)]
        for part in parts:
            for one in part if isinstance(part, list) else (part,):  # the arguments of a Callable are a list
                if one is not None:
                    self._collect(self.resolve(one), found, seen, depth + 1)


def _fields(kind: Any) -> list[Any]:
    """Return the annotations of the fields of a pydantic model, a dataclass, a TypedDict or a NamedTuple."""
    if not isinstance(kind, type) or issubclass(kind, tuple(TYPES.values())):
        return []
    made_of_fields = dataclasses.is_dataclass(kind) or typing_extensions.is_typeddict(kind)
    if not (made_of_fields or hasattr(kind, "model_fields") or (issubclass(kind, tuple) and hasattr(kind, "_fields"))):
        return []
    try:
        return list(typing.get_type_hints(kind, include_extras=True).values())
    except Exception:  # a name is unknown at run time
        return [Names(kind).resolve(annotation) for annotation in getattr(kind, "__annotations__", {}).values()]


def names_of(function: Callable[..., Any]) -> Names:
    """Return the names in the scope of `function`, which may be decorated, bound or partial."""
    bare: Any = function
    if not (inspect.isroutine(bare) or isinstance(bare, functools.partial | type)):
        bare = type(bare).__call__
    bare = inspect.unwrap(bare)
    while isinstance(bare, functools.partial):
        bare = inspect.unwrap(bare.func)
    if isinstance(bare, type):
        constructor = inspect.getattr_static(bare, "__init__")
        bare = constructor if hasattr(constructor, "__globals__") else bare
    return Names(getattr(bare, "__func__", bare))
