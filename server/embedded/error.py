"""What can keep a private service from running."""

from server.settings import OperatorError


class ServiceError(OperatorError):
    """An embedded service cannot run; the message says what happened and what to do."""


def explain(output: str) -> str:
    """What to do about a server's last words, or an empty string when they are nothing we know."""
    known = {
        "No space left on device": "The disk is full: free some space and start again.",
        "Disk quota exceeded": "The disk quota is used up: free some space and start again.",
        "could not create shared memory": "The system grants too little shared memory: close other databases.",
        "Read-only file system": "The folder is on a read-only disk: set WHETSTONE_HOME to a writable folder.",
        "Permission denied": "A file or folder belongs to somebody else: check the owner of WHETSTONE_HOME.",
        "Cannot allocate memory": "The machine is out of memory: close other programs and start again.",
        "user does not exist": "The system knows no name for your user id: run as a user listed in /etc/passwd.",
        "incompatible with server": "The data were made by another version of PostgreSQL: use the Whetstone that made "
        "them, export, and import into a new home.",
    }
    return next((advice for words, advice in known.items() if words in output), "")


def last_words(output: str, lines: int = 6) -> str:
    """The end of a log, for a message."""
    return "\n".join(output.strip().splitlines()[-lines:])
