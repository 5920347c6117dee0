"""What every command that needs the database begins with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import OperationalError

from server.embedded import services
from server.settings import OperatorError, Settings, load_settings


@contextmanager
def connected() -> Iterator[Settings]:
    """Settings whose database and Redis run, beside a running `whetstone up` or for this command alone."""
    settings = load_settings(os.environ)
    try:
        with services(settings) as urls:
            yield settings.connected(urls.database_url, urls.redis_url)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise OperatorError(f"The database did not answer ({reason}); see `whetstone doctor`.") from error
    except RedisConnectionError as error:
        raise OperatorError(f"Redis did not answer ({error}); see `whetstone doctor`.") from error
