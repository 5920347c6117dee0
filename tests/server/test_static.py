"""Style sheets and scripts: kept for a year at an address of their version, compressed, and never another file than is named."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from server import static
from server.models import Person
from tests import factories
from tests.conftest import Cast


def test_a_file_of_this_version_is_kept_and_comes_compressed(client: TestClient) -> None:
    on_disk = (static.FOLDER / "words.js").read_bytes()
    with client.stream("GET", static.address("words.js"), headers={"Accept-Encoding": "br, gzip;q=0.8"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == on_disk
    assert len(raw) < len(on_disk)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "gzip; q=0.0, br"])
def test_who_takes_no_gzip_gets_the_plain_file(client: TestClient, accepted: str) -> None:
    answer = client.get(static.address("style.css"), headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.content == (static.FOLDER / "style.css").read_bytes()
    assert answer.headers["content-type"].startswith("text/css")


def test_what_a_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/static/style.css")
    assert first.headers["cache-control"] == "public, no-cache"
    tag = first.headers["etag"]
    again = client.get("/static/style.css", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    plain = client.get("/static/style.css", headers={"If-None-Match": tag, "Accept-Encoding": "identity"})
    assert plain.status_code == 200  # another form of the file has another tag


def test_a_page_of_another_version_gets_the_files_of_now_and_keeps_none(client: TestClient) -> None:
    answer = client.get("/static/0123456789ab/style.css")
    assert answer.content == (static.FOLDER / "style.css").read_bytes()
    assert answer.headers["cache-control"] == "public, no-cache"


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/nothing.css", "/static/../templates/base.html", "/static/%2e%2e/templates/base.html",
     "/static/a/b/style.css", f"/static/{'x' * 300}", "/static/..%2f..%2fetc%2fpasswd"],
)  # fmt: skip
def test_nothing_else_is_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_files_are_only_read(client: TestClient) -> None:
    assert client.post("/static/style.css").status_code == 405
    assert client.head("/static/style.css").status_code == 200


def test_the_version_follows_names_and_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(files: dict[str, static.File]) -> str:
        monkeypatch.setattr(static, "files", lambda: files)
        return static.version.__wrapped__()

    one, other = static.files()["chat.js"], static.files()["chat.css"]
    found = {version_of(each) for each in ({"a": one}, {"b": one}, {"a": other}, {"a": one, "b": other})}
    assert len(found) == 4


def test_pages_name_files_by_their_version() -> None:
    """A plain address is asked about at every visit."""
    plain = [path.name for path in static.WEB.glob("templates/**/*.html") if "/static/" in path.read_text()]
    assert plain == []


def test_all_that_the_chat_page_names_is_there(
    client: TestClient, db: Session, cast: Cast, sign_in: Callable[[Person | None], str]
) -> None:
    factories.campaign(db, slug="chat")
    db.commit()
    sign_in(cast.alice)
    named = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/chat/chat").text))
    assert {static.address("chat.js"), static.address("chat.css"), static.address("style.css")} <= named
    for path in named:
        answer = client.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"], path
