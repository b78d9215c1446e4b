"""The service: the Recommender's methods behind HTTP, with their arguments, their answers and their lines."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr
from starlette.exceptions import HTTPException

from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.service import metrics
from recbole_dsl.service.live import Live
from recbole_dsl.service.middleware import BodyLimit, Timed

# the environment variable in which worker processes find their settings
VARIABLE = "RECBOLE_DSL_SERVICE"
DIGEST = "X-Artifact"
# users, histories or items of one request
_MOST_ROWS = 1000
_NO_JSON = "body: must be an object in JSON, and sent as application/json"
Tokens = list[StrictStr | StrictInt]


@dataclass(frozen=True)
class Settings:
    """What a service is told, in the words of the command's options."""

    artifact: str
    new_items: str | None = None
    max_k: int = 1000
    max_body: int = 2**20
    reload_interval: float = 1.0

    def to_text(self) -> str:
        return json.dumps(asdict(self))


class _Asked(BaseModel):
    # each description goes on from "must be", for the documentation and for the line of an error
    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(description="an integer >= 1")] = 10
    exclude: Annotated[Tokens | None, Field(description="tokens of items to leave out")] = None


class _Chosen(_Asked):
    items: Annotated[Tokens | None, Field(description="tokens of the items to choose from")] = None
    unknown: Annotated[str, Field(description="one of error, popular")] = "error"


class Users(_Chosen):
    """Arguments of `Recommender.recommend`."""

    users: Annotated[Tokens, Field(description="tokens of users")]
    filter_seen: Annotated[str | None, Field(description="one of all, trained, none")] = None


class Histories(_Chosen):
    """Arguments of `Recommender.recommend_for`."""

    histories: Annotated[list[Tokens], Field(description="lists of tokens of items, oldest first")]
    filter_seen: Annotated[bool, Field(description="true or false")] = True


class Similar(_Asked):
    """Arguments of `Recommender.similar_items`."""

    items: Annotated[Tokens, Field(description="tokens of items")]


_MODELS: dict[str, type[BaseModel]] = {"/recommend": Users, "/recommend_for": Histories, "/similar_items": Similar}


class Answer(BaseModel):
    """For each user, history or item the best items, the best first, and their scores."""

    items: list[list[str]]
    scores: list[list[float]]


def make_app(live: Live, settings: Settings) -> FastAPI:
    """The ASGI application; it starts and stops ``live`` with itself."""
    # a request takes a core: more threads would only make all of them wait for the interpreter
    pool = ThreadPoolExecutor(1, "recommending")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.stop()
        pool.shutdown()

    app = FastAPI(title="recbole-dsl serve", description=settings.artifact, lifespan=lifespan)

    async def answer(method: str, asked: _Asked, what: str) -> Response:
        # read once, so that the answer and its digest are of one artifact
        loaded = live.current
        if loaded is None:
            return _not_ready(settings)
        arguments = asked.model_dump()
        if asked.k > settings.max_k:
            raise refusal("k", asked.k, f"an integer from 1 to {settings.max_k}, the service's max_k")
        rows = arguments.pop(what)
        if len(rows) > _MOST_ROWS:
            raise DSLError(f"{what}: must be at most {_MOST_ROWS} in a request, here {len(rows):,}")

        def ask() -> bytes:
            items, scores = getattr(loaded.recommender, method)(rows, **arguments)
            return _json(items, scores)

        content = await asyncio.get_running_loop().run_in_executor(pool, ask)
        return Response(content, media_type="application/json", headers={DIGEST: loaded.digest})

    @app.get("/recommend", response_model=Answer)
    async def recommend(asked: Annotated[Users, Query()]) -> Response:
        return await answer("recommend", asked, "users")

    @app.post("/recommend", response_model=Answer)
    async def recommend_many(asked: Users) -> Response:
        return await answer("recommend", asked, "users")

    @app.post("/recommend_for", response_model=Answer)
    async def recommend_for(asked: Histories) -> Response:
        return await answer("recommend_for", asked, "histories")

    @app.get("/similar_items", response_model=Answer)
    async def similar_items(asked: Annotated[Similar, Query()]) -> Response:
        return await answer("similar_items", asked, "items")

    @app.post("/similar_items", response_model=Answer)
    async def similar_to_many(asked: Similar) -> Response:
        return await answer("similar_items", asked, "items")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether an artifact is loaded, and which."""
        loaded = live.current
        if loaded is None:
            return _not_ready(settings)
        recommender = loaded.recommender
        what = {name: recommender.header[name] for name in ("model", "dataset")}
        sizes = {"users": len(recommender.users), "items": len(recommender.items)}
        return JSONResponse({"artifact": loaded.digest, **what, **sizes}, headers={DIGEST: loaded.digest})

    @app.get("/metrics", include_in_schema=False)
    def measured() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(DSLError)
    async def refused(_: Request, error: DSLError) -> Response:
        return _detail(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return _detail(422, _line(error.errors()[0], _MODELS[request.url.path]))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        # 400 is FastAPI's for a body that Python's json cannot read
        is_body = error.status_code == 400
        return _detail(422 if is_body else error.status_code, _NO_JSON if is_body else str(error.detail))

    app.add_middleware(BodyLimit, most=settings.max_body)
    app.add_middleware(Timed, paths={route.path for route in app.routes if hasattr(route, "path")})
    return app


def worker_app() -> FastAPI:
    """The application of a worker process, whose settings are in the environment."""
    settings = Settings(**json.loads(os.environ[VARIABLE]))
    return make_app(Live(settings.artifact, settings.new_items, settings.reload_interval), settings)


def _not_ready(settings: Settings) -> Response:
    return _detail(503, f"artifact={shown(settings.artifact)}: is not loaded yet")


def _detail(status: int, line: str) -> Response:
    # in ASCII, as what is wrong with a text may be that it has no UTF-8
    return Response(json.dumps({"detail": line}), status, media_type="application/json")


def _json(items: np.ndarray, scores: np.ndarray) -> bytes:
    """An `Answer`; where fewer than ``k`` items remain, a list is shorter."""
    counts = (items != None).sum(1).tolist()  # noqa: E711
    parts = ([row[:n] for row, n in zip(part.tolist(), counts)] for part in (items, scores))
    return json.dumps(dict(zip(("items", "scores"), parts))).encode()


def _line(error: dict[str, Any], model: type[BaseModel]) -> str:
    """What pydantic found in a request for ``model``, in the words of a DSLError."""
    name = str(error["loc"][1]) if len(error["loc"]) > 1 else "body"
    if error["type"].startswith("json") or name == "body":
        return _NO_JSON
    if error["type"] == "missing":
        return f"{name}: must be given"
    if error["type"] == "extra_forbidden":
        return f"{shown(name)}: must be one of {', '.join(model.model_fields)}"
    field = model.model_fields[name]
    return f"{name}={shown(error['input'])}: must be {field.description}"
