"""Who calls, and what they may do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

Scope = Literal["predict", "adapt", "admin"]


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


ANONYMOUS = Caller("anonymous", frozenset({"predict", "adapt", "admin"}))


async def caller_of(request: Request) -> Caller:
    """Dependency: the caller of this request."""
    caller: Caller = getattr(request.state, "caller", ANONYMOUS)
    return caller


def requires(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """Make the dependency of routes that want a scope."""

    async def dependency(request: Request) -> Caller:
        return await caller_of(request)

    dependency.__doc__ = f"The caller, who has the scope {scope}."
    return dependency
