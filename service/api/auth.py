"""Who calls, and what they may do: the caller of a request, and the scope that a route wants."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from service.api.errors import ScopeMissingError
from service.keys.key import ANONYMOUS_NAME, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: of the key; ``anonymous`` on an open service.
        scopes: what the key is for; admin is for everything.
    """

    name: str
    scopes: frozenset[Scope]

    @property
    def is_admin(self) -> bool:
        """Whether this caller may see and change everything."""
        return "admin" in self.scopes


ANONYMOUS = Caller(ANONYMOUS_NAME, frozenset({"predict", "adapt", "admin"}))


async def caller_of(connection: HTTPConnection) -> Caller:
    """Dependency: the caller of this request or WebSocket, as ``Authenticate`` found it."""
    caller: Caller = connection.state.caller  # without that middleware there is none, not anybody
    return caller


def requires(scope: Scope) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Make the dependency of routes that want a scope."""

    async def dependency(connection: HTTPConnection) -> Caller:
        caller = await caller_of(connection)
        if scope in caller.scopes or caller.is_admin:
            return caller
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise ScopeMissingError(
            f"The key {caller.name!r} has the scopes: {has}; {scope} is wanted.",
            WWW_Authenticate=f'Bearer realm="nnpm", error="insufficient_scope", scope="{scope}"',
        )

    dependency.__doc__ = f"The caller, who has the scope {scope}."
    return dependency
