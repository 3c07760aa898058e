"""Answers of several servers, waited for together until it is decided what comes of them."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from filegrid.errors import GridError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Decided = TypeVar("Decided")


class Answers(Generic[Asked, Answer, Decided]):
    """Whoever derives from it says in :meth:`judge` when it is over.

    :ivar left: the answers that have not come; once it is over, they are for whoever takes them.
    :ivar over: what was decided. It fails at once with what is no :class:`GridError`, which is a
        bug; then, and where it is cancelled, what is left is cancelled.
    :ivar timer: of the deriver, until it is over.
    """

    def __init__(self) -> None:
        self.left: dict[Asked, Deferred[Answer]] = {}
        self.over: Deferred[Decided] = Deferred(lambda _: self.give_up())
        self.timer: IDelayedCall | None = None

    def wait_for(self, asked: Asked, answer: Deferred[Answer]) -> None:
        self.left[asked] = answer
        answer.addBoth(self._came, asked)

    def judge(self, asked: Asked, outcome: Answer | Failure) -> None:
        """An answer came, or a failure with a :class:`GridError`."""
        raise NotImplementedError

    def end(self, decided: Decided) -> None:
        self._stop_timer()
        self.over.callback(decided)

    def fail(self, failure: Failure) -> None:
        self.give_up()
        self.over.errback(failure)

    def give_up(self) -> None:
        """Wait for nobody any more."""
        self._stop_timer()
        left, self.left = self.left, {}
        for answer in left.values():
            answer.addErrback(lambda _: None)
            answer.cancel()

    def _came(self, outcome: Answer | Failure, asked: Asked) -> Answer | Failure | None:
        if self.over.called or asked not in self.left:
            return outcome  # it is somebody else's, or nobody's
        del self.left[asked]
        if isinstance(outcome, Failure) and not outcome.check(GridError):
            self.fail(outcome)
        else:
            self.judge(asked, outcome)
        return None

    def _stop_timer(self) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
