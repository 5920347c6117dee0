"""Replies from OpenAI-compatible servers: a small double for what goes wrong, and `transformers serve` for the real thing."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import httpx
import pytest
import uvicorn

from workers.reply import endpoint as endpoint_module
from workers.reply.answer import answer
from workers.reply.asks import CannotAnswer
from workers.reply.endpoint import Unanswered, probe

WORDS = ["Boil ", "it ", "for ", "eight ", "minutes. ", "🌱"]


class Double:
    """A chat completions server; the model's name says how it behaves."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self.calls: Counter[str] = Counter()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        content = b""
        while True:
            message = await receive()
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(content)
        self.asked.append(body)
        self.keys.append(dict(scope["headers"]).get(b"authorization", b"").decode() or None)
        model, self.send = body["model"], send
        self.calls[model] += 1
        match model:
            case "busy-twice" if self.calls[model] <= 2:
                await self.plain(429, {"error": "busy"}, retry_after="0")
            case "always-busy":
                await self.plain(503, {"error": "busy"})
            case "refuses":
                await self.plain(400, {"error": "no such model"})
            case "garbage":
                await self.plain(200, "<html>")
            case "no-logprobs" if "logprobs" in body:
                await self.plain(400, {"error": "logprobs?"})
            case "whole":
                await asyncio.sleep(0.3)
                await self.plain(200, {"choices": [{"message": {"content": "".join(WORDS)}, "finish_reason": "stop"}]})
            case "redirects":
                await self.head(302, [(b"location", b"http://127.0.0.1:1/")])
                await send({"type": "http.response.body", "body": b""})
            case _:
                await self.stream(model)

    async def head(self, status, headers) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def plain(self, status, told, retry_after=None) -> None:
        extra = [(b"retry-after", retry_after.encode())] if retry_after else []
        await self.head(status, [(b"content-type", b"application/json"), *extra])
        await self.send({"type": "http.response.body", "body": json.dumps(told).encode()})

    async def stream(self, model) -> None:
        await self.head(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        broken = model == "breaks-once" and self.calls[model] == 1
        words = ["\0", "a\ud800"] if model == "unstorable" else WORDS
        for place, word in enumerate(words):
            if broken and place == 3:
                await self.send({"type": "http.response.body", "body": b""})
                return
            choice = {"delta": {"content": word}, "logprobs": {"content": [{"logprob": -0.5}]}}
            await self.say(f": comment\n\ndata: {json.dumps({'choices': [choice]})}\n\n")
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 7}}
        await self.say(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n")
        await self.send({"type": "http.response.body", "body": b""})

    async def say(self, text) -> None:
        await self.send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def address_and_double():
    double, port = Double(), free_port()
    server = uvicorn.Server(uvicorn.Config(double, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1", double
    server.should_exit = True
    thread.join(5)


@pytest.fixture
def double(address_and_double, monkeypatch):
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.01)
    double = address_and_double[1]
    double.asked.clear()
    double.keys.clear()
    double.calls.clear()
    return double


@pytest.fixture
def address(address_and_double):
    return address_and_double[0]


@pytest.fixture
def remote(chats, address, double):
    return lambda model, **more: chats.endpoint(model, base_url=address, model=model, **more)


def test_a_reply_is_streamed_and_stored_with_its_seed_and_log_probability(chats, worker, remote, double):
    turn_id = chats.turn([remote("plain")] * 2)
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "ready"
    for candidate in turn.candidates:
        assert candidate.text == "".join(WORDS)
        assert (candidate.log_probability, candidate.token_count, candidate.finish_reason) == (-3.0, 7, "stop")
    assert {asked["seed"] for asked in double.asked} == {c.seed % 2**31 for c in turn.candidates}
    assert double.asked[0]["messages"] == [{"role": "user", "content": turn.message}]
    assert double.keys == [None, None]
    assert chats.shown(turn_id) == {0: "".join(WORDS), 1: "".join(WORDS)}


def test_log_probabilities_at_another_temperature_are_not_asked_for(chats, worker, remote, double):
    answer(chats.turn([remote("warm")] * 2, temperature=0.7), worker)
    assert all("logprobs" not in asked and asked["temperature"] == 0.7 for asked in double.asked)


def test_a_busy_server_is_asked_again_and_a_broken_stream_begins_again(chats, worker, remote, double):
    turn_id = chats.turn([remote("busy-twice"), remote("breaks-once")])
    answer(turn_id, worker)
    assert chats.look(turn_id).status == "ready"
    assert double.calls["breaks-once"] == 2
    assert double.calls["busy-twice"] == 3
    assert chats.shown(turn_id) == {0: "".join(WORDS), 1: "".join(WORDS)}
    assert "restart" in [entry["event"] for entry in chats.heard(turn_id)]


@pytest.mark.parametrize(
    ("model", "calls", "word"),
    [
        ("refuses", 1, "answered 400"),
        ("always-busy", 4, "answered 503"),
        ("garbage", 4, "no object"),
        ("redirects", 1, "answered 302"),
    ],
)
def test_a_server_that_does_not_answer_fails_the_turn_with_a_reason(chats, worker, remote, double, model, calls, word):
    turn_id = chats.turn([remote("plain"), remote(model)])
    answer(turn_id, worker)
    turn = chats.look(turn_id)
    assert turn.status == "failed"
    assert turn.candidates[0].status == "done"
    assert word in turn.candidates[1].failure
    assert "127.0.0.1" not in turn.failure
    assert double.calls[model] == calls


def test_nobody_listening_is_a_failure_and_not_a_hang(chats, worker, double):
    closed = chats.endpoint("closed", base_url=f"http://127.0.0.1:{free_port()}/v1", model="m")
    turn_id = chats.turn([closed] * 2)
    answer(turn_id, worker)
    assert "ConnectError" in chats.look(turn_id).candidates[0].failure


def test_the_key_comes_from_the_named_variable_only(chats, worker, remote, double, monkeypatch):
    snapshot = remote("keyed", api_key_variable="A_TEST_KEY")
    without = chats.turn([snapshot] * 2)
    answer(without, worker)
    assert "A_TEST_KEY is not set" in chats.look(without).candidates[0].failure
    assert double.asked == []
    monkeypatch.setenv("A_TEST_KEY", "sesame")
    turn_id = chats.turn([snapshot] * 2)
    answer(turn_id, worker)
    assert double.keys == ["Bearer sesame"] * 2
    assert chats.look(turn_id).status == "ready"


def test_the_rival_of_a_reply_that_cannot_stream_waits_for_it(chats, worker, remote, tiny_policy):
    local = chats.register("tiny", tiny_policy)
    turn_id = chats.turn([local, remote("whole", streams=False)], max_new_tokens=4)
    thread = threading.Thread(target=answer, args=(turn_id, worker))
    thread.start()
    while thread.is_alive():
        turn = chats.look(turn_id)
        if turn.status == "sampling":
            assert all(candidate.text is None for candidate in turn.candidates)  # nor by loading the page anew
        thread.join(0.02)
    heard = chats.heard(turn_id)
    assert [entry["event"] for entry in heard] == ["ready"]
    assert chats.look(turn_id).candidates[1].text == "".join(WORDS)


def test_what_cannot_be_stored_is_replaced(chats, worker, remote):
    turn_id = chats.turn([remote("unstorable")] * 2)
    answer(turn_id, worker)
    assert chats.look(turn_id).candidates[0].text == "�a?"


def test_a_probe_finds_what_a_server_can(address, double):
    assert probe({"base_url": address, "model": "plain"}, {})["logprobs"] is True
    found = probe({"base_url": address, "model": "no-logprobs"}, {})
    assert (found["logprobs"], found["streams"]) == (False, True)
    assert probe({"base_url": address, "model": "plain", "streams": False}, {})["streams"] is False
    with pytest.raises(CannotAnswer, match="400"):
        probe({"base_url": address, "model": "refuses"}, {})
    with pytest.raises(Unanswered, match="503"):
        probe({"base_url": address, "model": "always-busy"}, {})


@pytest.mark.slow
def test_transformers_serve_answers_a_turn(chats, worker, tiny_policy, tmp_path):
    port, log = free_port(), (tmp_path / "serve.log").open("wb")
    command = [
        sys.executable,
        "-c",
        "from transformers.cli.transformers import main; main()",
        "serve",
        str(tiny_policy),
    ]
    serve = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=log,
    )
    try:
        give_up = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.TransportError:
                assert serve.poll() is None and time.monotonic() < give_up, (tmp_path / "serve.log").read_text()
                time.sleep(0.3)
        described = probe({"base_url": f"http://127.0.0.1:{port}/v1", "model": str(tiny_policy)}, {})
        assert described["streams"] is True
        turn_id = chats.turn([chats.endpoint("served", **described)] * 2)
        answer(turn_id, worker)
        turn = chats.look(turn_id)
        assert turn.status == "ready", [c.failure for c in turn.candidates]
        assert chats.shown(turn_id) == {c.position: c.text for c in turn.candidates if c.text}
        assert all(c.finish_reason in ("stop", "length") and c.token_count <= 24 for c in turn.candidates)
    finally:
        serve.terminate()
        serve.wait(20)
        log.close()
