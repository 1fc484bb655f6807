"""What `Requires` allows: the fast decision is the one that the fields describe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totoms import Requires, UserContext

NAMES = st.frozensets(st.sampled_from(["a", "b", "role a", "issuer a"]), max_size=2)


def requiring(any_of: st.SearchStrategy[list[Requires]]) -> st.SearchStrategy[Requires]:
    fields = st.fixed_dictionaries({"scopes": NAMES, "roles": NAMES, "issuers": NAMES, "any_of": any_of})
    return fields.filter(lambda found: any(found.values())).map(lambda found: Requires.model_validate(found))


REQUIRES = requiring(st.lists(requiring(st.lists(requiring(st.just([])), max_size=2)), max_size=2))
CALLERS = st.builds(
    lambda issuer, scopes, roles: UserContext("me", issuer=issuer, scopes=scopes, roles=roles),
    st.sampled_from(["", "a", "b"]),
    NAMES,
    NAMES,
)


def has(user: UserContext, requires: Requires) -> bool:
    issuer = not requires.issuers or user.issuer in requires.issuers
    names = requires.scopes <= user.scopes and requires.roles <= user.roles
    return issuer and names and (not requires.any_of or any(has(user, one) for one in requires.any_of))


@given(REQUIRES, CALLERS)
def test_decision_is_what_the_fields_say(requires: Requires, user: UserContext) -> None:
    assert requires.allows(user) == has(user, requires)


OWNER, AUTHOR = Requires(roles={"owner"}), Requires(roles={"author"}, scopes={"read"})
CASES = {
    "one scope": (Requires(scopes={"read"}), True),
    "a scope that is only a role": (Requires(scopes={"author"}), False),
    "all scopes and roles": (Requires(scopes={"read", "write"}, roles={"author"}), True),
    "one role too many": (Requires(scopes={"read", "write"}, roles={"author", "owner"}), False),
    "one of two issuers": (Requires(issuers={"toto", "other"}), True),
    "another issuer": (Requires(issuers={"other"}), False),
    "one of two alternatives": (Requires(any_of=[OWNER, AUTHOR]), True),
    "one of two roles": (Requires(any_of=[OWNER, Requires(roles={"author"})]), True),
    "none of two alternatives": (Requires(any_of=[OWNER, Requires(roles={"editor"})]), False),
    "one of two alternatives, but not the scope": (Requires(scopes={"delete"}, any_of=[OWNER, AUTHOR]), False),
    "issuers that exclude each other": (Requires(issuers={"toto"}, any_of=[Requires(issuers={"other"})]), False),
}


@pytest.mark.parametrize("name", CASES)
def test_caller_is_allowed_by_what_the_token_says(name: str) -> None:
    requires, allowed = CASES[name]
    user = UserContext("me", issuer="toto", scopes={"read", "write"}, roles={"author"})
    assert requires.allows(user) == allowed
