"""Replies from an OpenAI-compatible server (vLLM, transformers serve, a hosted model): streamed where it can stream.

`python -m workers.reply.endpoint JSON` asks a server once and prints what it can, as `whetstone snapshot add --endpoint` needs.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from workers.reply.asks import TOLD_AWAY, TOLD_BROKEN, Ask, CannotAnswer, Failed, Outcome, Written
from workers.reply.spelling import clean
from workers.reply.stream import Pen

log = logging.getLogger("whetstone.reply")

ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0  # seconds between attempts: doubled each time, with jitter, or as the server says
# Connecting is quick or hopeless; a large model may think for a while before its first word.
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
CONCURRENT = 256  # two candidates of each of the 128 turns that a worker has in hand
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class Unanswered(Exception):
    """This attempt failed and another may succeed; `wait` seconds when the server named them."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class EndpointBackend:
    """Writes replies with snapshots that are endpoints."""

    def __init__(self, environ: Mapping[str, str] = os.environ, sleep: Callable[[float], None] = time.sleep) -> None:
        self._environ = environ
        self._sleep = sleep
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="endpoint")
        limits = httpx.Limits(max_connections=CONCURRENT, max_keepalive_connections=32)
        # Redirects are not followed: the key must not travel to an address that nobody registered.
        self._client = httpx.Client(timeout=TIMEOUT, limits=limits, follow_redirects=False)

    def start(self) -> None:
        """Nothing runs before it is asked."""

    def stop(self) -> None:
        """Close its connections; nothing may be under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def write(self, pens: Sequence[Pen]) -> None:
        """Write these replies, each in a thread of its own; each pen's `end` is called once."""
        for pen in pens:
            self._threads.submit(self._write, pen)

    def _write(self, pen: Pen) -> None:
        try:
            outcome = self._attempts(pen)
        except CannotAnswer as error:
            outcome = error.failed
        except Exception as error:  # recorded in the candidate's row
            log.exception("Candidate %d broke.", pen.ask.candidate_id)
            outcome = Failed(f"Asking {pen.ask.source.name} broke: {error!r}"[:2000], TOLD_BROKEN)
        pen.end(outcome)

    def _attempts(self, pen: Pen) -> Outcome:
        ask, name = pen.ask, pen.ask.source.name
        for attempt in range(1, ATTEMPTS + 1):
            if pen.dropped:
                return Failed("Another worker has taken it over.", TOLD_BROKEN)
            try:
                return complete(self._client, ask.source.endpoint or {}, self._environ, request_body(ask), pen.add)
            except Unanswered as error:
                log.warning("%s, attempt %d of %d: %s", name, attempt, ATTEMPTS, error)
                if attempt == ATTEMPTS:
                    reason = f"{name} did not answer in {ATTEMPTS} attempts; the last: {error}"
                    raise CannotAnswer(reason, TOLD_AWAY) from error
                pen.begin_again()
                doubled = FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                self._sleep(min(LONGEST_WAIT, error.wait if error.wait is not None else doubled))
        raise AssertionError("the last attempt returns or raises")


def request_body(ask: Ask) -> dict[str, Any]:
    """What is sent for one candidate, in the words of the chat completions API."""
    endpoint = ask.source.endpoint or {}
    body: dict[str, Any] = {
        "model": endpoint["model"],
        "messages": [dict(message) for message in ask.messages],
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        endpoint.get("limit_name", "max_tokens"): ask.max_new_tokens,
        "stream": ask.source.streams,
    }
    if endpoint.get("seed", True):
        body["seed"] = ask.seed % 2**31  # servers differ in the width they take
    # A server's log-probabilities are those at temperature 1; at another they would not be what the row promises.
    if endpoint.get("logprobs", True) and ask.temperature == 1.0:
        body["logprobs"] = True
    return body


def complete(
    client: httpx.Client,
    endpoint: Mapping[str, Any],
    environ: Mapping[str, str],
    body: Mapping[str, Any],
    on_text: Callable[[str], None],
) -> Written:
    """One attempt. Unanswered when another may help, CannotAnswer when none will."""
    address = f"{endpoint['base_url']}/chat/completions"
    try:
        with client.stream("POST", address, json=body, headers=_headers(endpoint, environ)) as response:
            if response.status_code != httpx.codes.OK:
                raise _refused(response)
            if "text/event-stream" in response.headers.get("content-type", ""):
                return _collect(_streamed(response), on_text)
            response.read()
            return _collect([_object(response.text)], on_text)
    except httpx.HTTPError as error:
        raise Unanswered(f"{address}: {type(error).__name__} {error}".strip()) from error


def _headers(endpoint: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    variable = endpoint.get("api_key_variable")
    if variable is None:
        return {}
    if not environ.get(variable):
        raise CannotAnswer(
            f"The environment variable {variable} is not set for the reply worker; it should hold the key of "
            f"{endpoint['base_url']}.",
            TOLD_AWAY,
        )
    return {"Authorization": f"Bearer {environ[variable]}"}


def _refused(response: httpx.Response) -> Exception:
    response.read()
    said = " ".join(response.text.split())[:300]
    sentence = f"{response.url} answered {response.status_code}: {said}"
    if response.status_code in TRANSIENT:
        after = response.headers.get("retry-after", "")
        return Unanswered(sentence, float(after) if after.isdecimal() else None)
    return CannotAnswer(sentence, TOLD_AWAY)


def _streamed(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The objects of a server-sent event stream up to [DONE]."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue  # comments keep the connection alive
        told = line.removeprefix("data:").strip()
        if told == "[DONE]":
            return
        yield _object(told)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unanswered(f"the server sent something that is not JSON: {text[:200]!r}") from error
    if not isinstance(found, dict):
        raise Unanswered(f"the server sent no object: {text[:200]!r}")
    if found.get("error"):
        raise Unanswered(f"the server said: {json.dumps(found['error'])[:300]}")
    return found


def _collect(objects: Iterator[dict[str, Any]] | list[dict[str, Any]], on_text: Callable[[str], None]) -> Written:
    texts: list[str] = []
    logprobs: list[float] = []
    counted: int | None = None
    finish_reason: str | None = None
    for found in objects:
        counted = (found.get("usage") or {}).get("completion_tokens", counted)
        for choice in (found.get("choices") or [])[:1]:
            text = clean((choice.get("delta") or choice.get("message") or {}).get("content") or "")
            logprobs += [float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or []]
            finish_reason = choice.get("finish_reason") or finish_reason
            if text:
                texts.append(text)
                on_text(text)
    if finish_reason is None:
        raise Unanswered("the answer ended before it was finished")
    total = sum(logprobs) if logprobs else None
    return Written("".join(texts), total, counted or len(logprobs) or None, finish_reason)


# -- what a server can ------------------------------------------------------------------------------------------------
def probe(endpoint: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Ask for a few tokens, with every wish at first and fewer when the server refuses; the endpoint's settings that work.

    Raises CannotAnswer or Unanswered when it answers in no way.
    """
    wishes: dict[str, Any] = {"streams": True, "logprobs": True, "seed": True, "limit_name": "max_tokens"} | dict(
        endpoint
    )
    fewer: list[dict[str, Any]] = [
        {},
        {"limit_name": "max_completion_tokens"},
        {"logprobs": False},
        {"logprobs": False, "seed": False},
        {"logprobs": False, "seed": False, "streams": False},
    ]
    with httpx.Client(timeout=TIMEOUT, follow_redirects=False) as client:
        for change in fewer:
            found = wishes | change
            body: dict[str, Any] = {
                "model": found["model"],
                "messages": [{"role": "user", "content": "Say hello."}],
                found["limit_name"]: 8,
                "stream": found["streams"],
                **({"seed": 1} if found["seed"] else {}),
                **({"logprobs": True} if found["logprobs"] else {}),
            }
            try:
                pieces: list[str] = []
                written = complete(client, found, environ, body, pieces.append)
            except CannotAnswer:
                if change == fewer[-1]:
                    raise
                continue
            # One piece of several tokens: the server takes the word `stream` and answers in one go.
            at_once = len(pieces) == 1 and (written.token_count or 0) > 3
            return found | {
                "streams": found["streams"] and not at_once,
                "logprobs": found["logprobs"] and written.log_probability is not None,
            }
    raise AssertionError("the last wish returns or raises")


def main(arguments: Sequence[str]) -> int:
    """Print the endpoint's settings that work, as JSON; 1 and a sentence when none do."""
    try:
        print(json.dumps(probe(json.loads(arguments[0]), os.environ)))
    except (CannotAnswer, Unanswered) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
