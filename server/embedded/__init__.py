"""The private PostgreSQL and Valkey of a laptop: `services` starts them, finds them, and stops what it started."""

from server.embedded.services import HomeInUse, Urls, services
from server.embedded.error import ServiceError

__all__ = ["HomeInUse", "ServiceError", "Urls", "services"]
