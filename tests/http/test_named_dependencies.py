"""A dependency with a parameter named like one of totoms: FastAPI would read it from the request."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Body, Depends, Request

from totoms import ConfigurationError, UserContext, current_user, toto_delegate


def delegate(guard: Any) -> Any:
    async def who(request: Request, guarded: Any) -> Any:
        return guarded

    who.__defaults__ = (Depends(guard),)
    return who


@pytest.mark.parametrize("name", ["user_context", "exec_context", "execution_context"])
@pytest.mark.parametrize("annotation", ["", "=None", ": dict[str, Any] = Body(...)", ": str", ": Any = None"])
def test_what_would_be_read_from_the_request_is_refused(name: str, annotation: str) -> None:
    made: dict[str, Any] = {"Any": Any, "Body": Body}
    exec(f"def guard({name}{annotation}): return {name}", made)
    with pytest.raises(ConfigurationError, match=f"guard, which would read '{name}'"):
        toto_delegate(delegate(made["guard"]))


def test_what_depends_on_the_caller_is_taken() -> None:
    def guard(request: Request, user_context: Annotated[UserContext, Depends(current_user)]) -> Any:
        return user_context

    assert toto_delegate(delegate(guard))
