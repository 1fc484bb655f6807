"""The base of all configuration classes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from totoms.errors import ConfigurationError


class Declaration(BaseModel):
    """Accepts positional arguments in field order, and raises ConfigurationError for invalid ones."""

    # Deferred, so that `import totoms` does not build the schemas.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, defer_build=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = list(type(self).model_fields)
        if len(args) > len(fields):
            raise ConfigurationError(f"{type(self).__name__} takes at most {len(fields)} arguments.")
        given = {**dict(zip(fields, args, strict=False)), **kwargs}
        try:
            super().__init__(**given)
        except pydantic.ValidationError as error:
            raise ConfigurationError(_explain(type(self).__name__, fields, error, len(args))) from None
        _keep_lists(self, given)

    def check(self) -> None:
        """Validate again when a service starts, because lists may have changed.

        Raises:
            ConfigurationError: A value is invalid.
        """
        for value in vars(self).values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, Declaration):
                    one.check()
        type(self)(**{name: getattr(self, name) for name in self.model_fields_set})


def _explain(name: str, fields: list[str], error: pydantic.ValidationError, positional: int) -> str:
    # Name only the field and the rule: the value may be a secret.
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"]) or "configuration"
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1, cutoff=0.5)
            text = "unknown field" + (f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(fields)}")
        if positional > 1 and problem["loc"] and (given := problem["loc"][0]) in fields[:positional]:
            number = fields.index(str(given)) + 1
            text += f" (given as argument {number}: name the arguments, as in {given}=...)"
        problems.append(f"{name}.{field}: {text}")
    return "; ".join(problems)


def _keep_lists(declaration: BaseModel, given: Mapping[str, Any]) -> None:
    """Replace pydantic's copies of lists by the lists that were passed, so that later changes to them count.

    ::

        endpoints = []
        api = APIConfiguration(api_endpoints=endpoints)
        endpoints.append(APIEndpoint("GET", "/posts", read_posts))  # would be lost otherwise

    Args:
        declaration: The validated declaration. A list whose items validation has changed is not replaced.
        given: The arguments, by field.
    """
    for name, value in given.items():
        kept = vars(declaration).get(name)
        if type(value) is list and isinstance(kept, list) and list(map(id, kept)) == list(map(id, value)):
            vars(declaration)[name] = value


def refuse_duplicates(what: str, names: list[str]) -> None:
    """Raise ValueError where a name is given twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two {what}s {name!r}")
