"""What a run watches for, as it is told when it is not kept."""

from __future__ import annotations

KEPT_PROMISE = "acknowledged changes are never lost"
BYTES_PROMISE = "every byte read is of one version that was written"
ERRORS_PROMISE = "a correct request fails only where the grid cannot serve it"
POLICY_PROMISE = "quotas, policies and the trash hold for what is in a folder"


class Broken(AssertionError):
    """A promise was not kept.

    :ivar promise: which one; :ivar detail: how.
    """

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail
