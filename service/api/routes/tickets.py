"""POST /tickets: what lets a page of a browser in where it can send no key."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from ..middleware.access import Caller, caller_of, require
from ..middleware.tickets import KEY_SCOPES, TICKET_S, Tickets, TicketScope
from ..openapi import problems
from ..services import Services, services_of

router = APIRouter(tags=["tickets"])


class TicketRequest(BaseModel):
    """What a ticket is for."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    scope: TicketScope
    """stream for WS /stream; events and report for those of one of the caller's jobs."""


class TicketPart(BaseModel):
    """A ticket."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ticket: str
    """Goes into the query: ``?ticket=…``. It opens one connection, for pages of the origin that
    asked for it."""
    expires_in_s: int = TICKET_S
    """Seconds until it has to be used."""


@router.post("/tickets", status_code=201, responses=problems(422, 503))
async def make_ticket(
    wanted: TicketRequest,
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    caller: Annotated[Caller, Depends(caller_of)],
) -> TicketPart:
    """Make a ticket for WS /stream, or for the events or the report of a job.

    A browser cannot send a key with a WebSocket, with server-sent events, or with a link. Where
    requests need no key a ticket is given all the same, and not required.
    """
    require(caller, KEY_SCOPES[wanted.scope])
    origin = request.headers.get("origin", "").lower()
    issue = Tickets(services.jobs.store.database).issue
    return TicketPart(ticket=await asyncio.to_thread(issue, wanted.scope, caller.key_id, origin))
