"""Is the process up, and can it answer? Neither question waits for a worker."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from service.api.errors import NotReadyError
from service.api.openapi import problems
from service.api.services import Services, services_of

router = APIRouter(prefix="/health", tags=["health"])


class Health(BaseModel):
    """A good state."""

    status: Literal["live", "ready"]


@router.get("/live")
async def live() -> Health:
    """Say that the process is up."""
    return Health(status="live")


@router.get("/ready", responses=problems(503))
async def ready(services: Annotated[Services, Depends(services_of)]) -> Health:
    """Say that the default model is loaded and has passed its golden probe."""
    if not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    return Health(status="ready")
