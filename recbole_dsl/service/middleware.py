"""What happens to every request: its body is bounded, and its time is counted."""

from collections.abc import Collection
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recbole_dsl.service import metrics


class BodyLimit:
    """Answers 413 to a body of more than ``most`` bytes, and reads no more than that."""

    def __init__(self, app: ASGIApp, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"body: must have at most {self.most} bytes, the service's max_body"
        told = dict(scope["headers"]).get(b"content-length", b"")
        # the server has refused what is no number
        if told and int(told) > self.most:
            await JSONResponse({"detail": detail}, 413)(scope, receive, send)
            return
        left = self.most

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, detail)
            return message

        await self.app(scope, bounded, send)


class Timed:
    """Counts the seconds of each request by its status and its path, if that is one of ``paths``."""

    def __init__(self, app: ASGIApp, paths: Collection[str]):
        self.app, self.paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            # of other paths there may be any number, and each would be kept
            path = scope["path"] if scope["path"] in self.paths else "other"
            metrics.SECONDS.labels(path, status).observe(perf_counter() - start)
