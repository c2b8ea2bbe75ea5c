"""A request that is not let in."""

from d2f.errors import D2FError


class Refused(D2FError):
    """A request is answered with this HTTP status and the reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
