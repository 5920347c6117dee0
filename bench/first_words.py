"""From sending a message to the first words on the page, and to both replies whole, on a running Whetstone.

    whetstone up --demo        # in another terminal
    python -m bench.first_words --people 1 --messages 20 --json

Each simulated person sends messages one after another; times are from just before the POST to the first `text` event and to `ready`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from server.embedded import services
from server.services.simulated import crowd_sessions
from server.settings import load_settings
from server.transaction import transaction
from simulation.browser import Browser


def one_person(base_url: str, session: dict[str, str], slug: str, messages: int) -> list[tuple[float, float]]:
    """(seconds to the first words, seconds to both replies) for each message."""
    found = []
    with Browser(base_url) as browser:
        browser.use(session)
        for _ in range(messages):
            browser.request("POST", f"/api/campaigns/{slug}/finish", {})
            prompt = browser.prompts(slug, 1)[0]
            started = time.perf_counter()
            turn = browser.send_message(slug, prompt["text"], prompt["id"])
            first = whole = None
            for event, _data in browser.events(turn["id"]):
                now = time.perf_counter() - started
                if event == "text" and first is None:
                    first = now
                if event == "ready":
                    whole = now
                    break
            assert first is not None
            assert whole is not None
            found.append((first, whole))
    return found


def main() -> None:
    """Measure and print medians and 95th percentiles in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--campaign", default="helpful")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    settings = load_settings(os.environ)
    with services(settings) as urls:
        connected = settings.connected(urls.database_url, urls.redis_url)
        with transaction(str(connected.database_url), str(connected.redis_url)) as db:
            sessions = crowd_sessions(db, given.people)
        base_url = f"http://{settings.host}:{settings.port}"
        with ThreadPoolExecutor(given.people) as pool:
            work = [pool.submit(one_person, base_url, session, given.campaign, given.messages) for session in sessions]
            pairs = [pair for done in work for pair in done.result()]
    outcome: dict[str, float] = {"people": given.people, "messages": len(pairs)}
    for name, values in (
        ("first_words", [first for first, _ in pairs]),
        ("both_replies", [whole for _, whole in pairs]),
    ):
        ordered = sorted(values)
        outcome[f"{name}_ms_median"] = round(1000 * statistics.median(ordered), 1)
        outcome[f"{name}_ms_p95"] = round(1000 * ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1)
    print(
        json.dumps(outcome) if given.json else "\n".join(f"{name:>24}: {value:,.1f}" for name, value in outcome.items())
    )


if __name__ == "__main__":
    main()
