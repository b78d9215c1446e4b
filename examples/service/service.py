"""A web service: ARTIFACT=model.rdsl uvicorn service:app, then GET /users/196?k=10 or POST /histories."""

import os

from fastapi import FastAPI, HTTPException

from recbole_dsl.errors import DSLError
from recbole_dsl.serving import Recommender

recommender = Recommender.load(os.environ.get("ARTIFACT", "model.rdsl"))
# the server takes requests when this module has been read, so none of them waits for what is made here
recommender.prepare()
app = FastAPI()


@app.get("/users/{user}")
def of_user(user: str, k: int = 10) -> dict:
    return _answer(lambda: recommender.recommend([user], k, unknown="popular"))


@app.post("/histories")
def of_history(history: list[str], k: int = 10) -> dict:
    return _answer(lambda: recommender.recommend_for([history], k, unknown="popular"))


def _answer(recommend) -> dict:
    try:
        items, scores = recommend()
    except DSLError as error:
        raise HTTPException(422, str(error)) from error
    there = items[0] != None  # noqa: E711
    return {"items": items[0][there].tolist(), "scores": scores[0][there].tolist()}
