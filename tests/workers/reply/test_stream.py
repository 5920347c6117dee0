"""The stream shows every reply's text whole and in order, whatever happens to Redis on the way."""

from queue import SimpleQueue

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from server.services.chat.reply_stream import stream_key
from workers.reply.asks import Ask, Failed, Source, Written
from workers.reply.stream import Pen, StreamWriter


class Fickle:
    """A Redis client that is away while told to be."""

    def __init__(self, redis) -> None:
        self.redis, self.away = redis, False

    def pipeline(self, **more):
        if self.away:
            raise RedisConnectionError("away")
        return self.redis.pipeline(**more)


@pytest.fixture
def fickle(redis):
    return Fickle(redis)


@pytest.fixture
def writer(fickle):
    return StreamWriter(fickle)


@pytest.fixture
def pen_for(writer):
    ended = SimpleQueue()

    def make(position=0, *, withheld=False):
        source = Source(1, "one", "local", "p", None, {})
        ask = Ask(position + 1, 7, position, 1, "claim", source, 0, 1.0, 1.0, 8, ())
        return Pen(writer, ask, ended, withheld=withheld)

    return make


@pytest.fixture
def flush(writer):
    return lambda: writer._flush(writer._gather())


@pytest.fixture
def heard(redis):
    return lambda: [fields for _, fields in redis.xrange(stream_key(7))]


def test_pieces_between_two_flushes_are_one_entry(pen_for, flush, heard, redis):
    left, right = pen_for(0), pen_for(1)
    for piece in ("Boil ", "it"):
        left.add(piece)
        right.add(piece.upper())
    flush()
    left.add(".")
    left.end(Written("Boil it.", -1.0, 3, "stop"))
    flush()
    assert heard() == [
        {"event": "text", "position": "0", "text": "Boil it"},
        {"event": "text", "position": "1", "text": "BOIL IT"},
        {"event": "text", "position": "0", "text": "."},
    ]
    assert left.ended.get_nowait()[1].text == "Boil it."
    assert 3500 < redis.ttl(stream_key(7)) <= 3600


def test_what_was_lost_while_redis_was_away_comes_after_a_restart(pen_for, flush, heard, fickle):
    pen = pen_for()
    pen.add("Boil ")
    flush()
    fickle.away = True
    pen.add("it ")
    flush()
    fickle.away = False
    pen.add("well")
    flush()
    pen.end(Written("Boil it well", None, None, "stop"))
    flush()
    assert heard() == [
        {"event": "text", "position": "0", "text": "Boil "},
        {"event": "restart", "position": "0"},
        {"event": "text", "position": "0", "text": "Boil it well"},
    ]


def test_beginning_again_voids_what_was_said_and_what_waits(pen_for, flush, heard):
    pen = pen_for()
    pen.add("Old")
    flush()
    pen.add(" words")
    pen.begin_again()
    pen.add("New")
    flush()
    assert [entry["event"] for entry in heard()] == ["text", "restart", "text"]
    assert heard()[-1]["text"] == "New"


def test_a_whole_text_that_differs_from_what_was_shown_replaces_it(pen_for, flush, heard):
    pen = pen_for()
    pen.add("Boil  it")
    flush()
    pen.end(Written("Boil it", None, None, "stop"))
    flush()
    assert heard()[1:] == [{"event": "restart", "position": "0"}, {"event": "text", "position": "0", "text": "Boil it"}]


def test_withheld_and_failed_replies_show_nothing(pen_for, flush, heard):
    withheld, failed = pen_for(0, withheld=True), pen_for(1)
    withheld.add("Boil")
    withheld.end(Written("Boil", None, None, "stop"))
    failed.end(Failed("no weights", "sorry"))
    flush()
    assert heard() == []
    assert withheld.ended.qsize() == 2
