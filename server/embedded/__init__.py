"""The private PostgreSQL and Valkey of a laptop: `services` starts them, finds them, and stops what it started."""

from server.embedded.error import ServiceError
from server.embedded.services import HomeInUseError, OwnServices, Urls, holder_of, own_services, services

__all__ = ["HomeInUseError", "OwnServices", "ServiceError", "Urls", "holder_of", "own_services", "services"]
