"""A route that FastAPI documents and otherwise leaves alone: its function takes the request and gives the answer.

Reading parameters and solving dependencies costs a busy route as much as its own work. Gates, body and transaction are then
its own business: `server/edge.py` has them as plain calls.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class BareRoute(APIRoute):
    """For `add_api_route(..., route_class_override=BareRoute)`; the path converts its parameters, as in `{turn_id:row}` (row_id.py)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            given: Response = await self.endpoint(request, **request.path_params)
            return given

        return answer
