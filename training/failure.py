"""The one error of every job whose reason its owner can act on; no other module needs to be loaded for it."""


class JobFailed(RuntimeError):
    """A run that cannot go on for a reason its owner can understand and act on."""
