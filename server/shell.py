"""What surrounds every answer: the security headers, and a limit to what may be sent. Streams pass through untouched."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import TooLarge
from server.language import _

# No inline script or style, no third-party host: what a reply smuggles in cannot run or call home.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_AS_SENT = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
# The largest body any route takes from a browser; imports are read from disk by a job, never through a request.
MAX_BODY_BYTES = 1_000_000


def _sentence() -> str:
    return _("At most {most} bytes can be sent at once. Shorten what you send.", most=MAX_BODY_BYTES)


class Shell:
    """ASGI middleware, outside of everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _value in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _AS_SENT if each[0] not in given)]
            await send(message)

        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            await _too_large(scope, receive, send_with_headers)
            return
        received = 0

        async def receive_counted() -> Message:
            # A body sent in chunks has no announced length; it is counted as it comes.
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(TooLarge.status, _sentence())
            return message

        await self.app(scope, receive_counted, send_with_headers)


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    body = {"error": {"code": TooLarge.code, "message": _sentence(), "field": None}}
    await JSONResponse(body, status_code=TooLarge.status)(scope, receive, send)
