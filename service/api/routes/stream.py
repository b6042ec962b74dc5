"""WS /stream: a microphone or a leg of a phone call, an answer per hop."""

import asyncio
import contextlib
import logging
import time
from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketDisconnect

from ...inference.errors import NnpmError
from ..errors import problem_of
from ..middleware.access import requires
from ..services import Services, services_of
from ..stream import Session, StalledError, close_code, error_text

router = APIRouter()
log = logging.getLogger("nnpm")


@router.websocket("/stream", dependencies=[Depends(requires("predict"))])
async def stream(websocket: WebSocket, services: Annotated[Services, Depends(services_of)]) -> None:
    """Recognise the emotion in a recording while it is being made."""
    await websocket.accept()
    session = Session(websocket, services)
    started = time.perf_counter()
    try:
        with services.streams.opened():
            services.answered(websocket, await session.run())
        end = "final"
        await _close(websocket, 1000)
    except WebSocketDisconnect:
        end = "left"
    except StalledError:  # nothing can be said to it; the server cuts the connection
        end = "stalled"
    except asyncio.CancelledError:
        raise
    except Exception as error:
        end = await _tell(session, websocket, services, error)
    services.streams.ended(end)
    facts = {
        "route": "/stream",
        "end": end,
        "duration_ms": round(1000 * (time.perf_counter() - started), 3),
        "audio_s": round(session.audio_s, 3),
        "segments": session.num_segments,
    }
    log.info("/stream %s, %.1f s of audio", end, session.audio_s, extra=facts)


async def _tell(
    session: Session, websocket: WebSocket, services: Services, error: Exception
) -> str:
    """Send an error, and close; its code comes back."""
    request_id = websocket.state.request_id
    if not isinstance(error, NnpmError):
        log.error("stream %s failed", request_id, exc_info=error)
    problem = problem_of(error).model_copy(update={"request_id": request_id})
    services.metrics.error(problem.code)
    with contextlib.suppress(WebSocketDisconnect, StalledError):
        await session.send(error_text(problem))
        await _close(websocket, close_code(problem.status))
    return problem.code


async def _close(websocket: WebSocket, code: int) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.close(code)
