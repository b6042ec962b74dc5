"""Tickets: a browser's WebSocket, EventSource or link can send no key, but a query.

A ticket opens one request, on any replica that shares the database, for the key and for pages of
the origin that it was made for.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import select
from starlette.datastructures import Headers

from ...jobs.database import Database, now, tickets
from ...keys import Scope
from ..errors import TicketRefusedError
from ..headers import REALM
from .origin import is_own_origin

TicketScope = Literal["stream", "events", "report"]

KEY_SCOPES: dict[TicketScope, Scope] = {"stream": "predict", "events": "adapt", "report": "adapt"}
"""What a key needs for a ticket, and all that the ticket permits."""


def ticket_scope(path: str) -> TicketScope:
    """What a ticket opens a path for; the path is one of ``TICKET_PATHS``.

    Examples:
        >>> ticket_scope("/stream"), ticket_scope("/adapt/7f/report")
        ('stream', 'report')
    """
    last: TicketScope
    (last,) = (scope for scope in KEY_SCOPES if path.endswith(f"/{scope}"))
    return last


TICKET_S = 60
"""Seconds until a ticket expires, unless it was redeemed."""

_READ_S = 3600
"""Seconds that a report may be read again with the ticket that opened it."""


class Tickets:
    """The tickets in a database, which holds their digests alone.

    Args:
        database: shared by all replicas.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def issue(self, scope: TicketScope, key_id: str, origin: str) -> str:
        """Make a ticket; those that have long expired are deleted.

        Args:
            scope: what it opens.
            key_id: of the key that asks for it.
            origin: of the page that asks for it; empty if it is none.

        Raises:
            StoreUnavailableError: if the database is unavailable.
        """
        text = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            moment = now(connection)
            old = moment - timedelta(seconds=_READ_S)
            connection.execute(tickets.delete().where(tickets.c.expires_at < old))
            row = {"digest": _digest(text), "scope": scope, "key_id": key_id, "origin": origin}
            expires_at = moment + timedelta(seconds=TICKET_S)
            connection.execute(tickets.insert().values(row | {"expires_at": expires_at}))
        return text

    def holder(self, text: str, scope: TicketScope) -> tuple[str, str]:
        """Find whom a ticket was made for: the id of the key, and the origin of the page.

        Raises:
            TicketRefusedError: if it is unknown, or for something else.
            StoreUnavailableError: if the database is unavailable.
        """
        query = select(tickets).where(tickets.c.digest == _digest(text))
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise ticket_refused(
                "is unknown here; get one by POST /tickets, from a service that shares this one's "
                "NNPM_DATABASE_URL"
            )
        if row["scope"] != scope:
            raise ticket_refused(f"is for {row['scope']}; POST /tickets with the scope {scope}")
        return row["key_id"], row["origin"]

    def use(self, text: str, page: str) -> None:
        """Use a ticket up; one of a report goes on to open the page that it opened.

        Args:
            text: of a ticket that :meth:`holder` found.
            page: path that it opens.

        Raises:
            TicketRefusedError: if it was used before, or has expired.
            StoreUnavailableError: if the database is unavailable.
        """
        query = select(tickets).where(tickets.c.digest == _digest(text)).with_for_update()
        with self._database.write() as connection:
            moment = now(connection)
            row = connection.execute(query).mappings().one_or_none()
            if row is None or row["expires_at"] < moment:
                raise ticket_refused(f"has expired; use it within {TICKET_S} s: get another")
            is_report = row["scope"] == "report"
            if is_report and row["page"] == page:
                return
            if row["page"] is not None:
                raise ticket_refused("was used; each opens one connection: get another")
            changes: dict[str, Any] = {"page": page}
            if is_report:
                changes["expires_at"] = moment + timedelta(seconds=_READ_S)
            this = tickets.c.digest == row["digest"]
            connection.execute(tickets.update().where(this).values(changes))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def ticket_refused(why: str) -> TicketRefusedError:
    """Make the error of a ticket that opens nothing."""
    return TicketRefusedError(f"The ticket {why}.", WWW_Authenticate=REALM)


def wrong_origin(protocol: str, kind: TicketScope, headers: Headers, origin: str) -> str | None:
    """What is wrong with the page that redeems a ticket of a page of ``origin``.

    A browser names the origin of every page that opens a WebSocket, and of one of another site
    that reads events. It names none for a service's own page, and none where a link is followed.
    """
    sent = headers.get("origin", "").lower()
    is_own = bool(origin) and is_own_origin(origin, headers.get("host", ""))
    may_lack_it = protocol == "http" and (kind == "report" or is_own)
    if sent == origin or (not sent and may_lack_it):
        return None
    return (
        f"was made for {f'pages of {origin}' if origin else 'no page'}, and is used by "
        f"{f'one of {sent[:128]}' if sent else 'none'}; a page uses the tickets that it got itself"
    )
