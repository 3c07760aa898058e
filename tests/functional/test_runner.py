"""The reactor's thread behind the blocking face, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from twisted.trial.unittest import SynchronousTestCase

START = """
    import signal
    from twisted.internet.defer import CancelledError
    from twisted.internet.task import deferLater
    from filegrid.client.runner import ReactorThread

    runner = ReactorThread()
"""


class ReactorThreadTests(SynchronousTestCase):
    def printed(self, program: str) -> str:
        """What a program prints that ends well, within a bounded time."""
        text = textwrap.dedent(START) + textwrap.dedent(program)
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_results(self) -> None:
        """Results and errors of coroutines reach the caller, and the process ends by itself."""
        printed = self.printed("""
            async def work(failing):
                await deferLater(runner.reactor, 0.01)
                if failing:
                    raise FileNotFoundError("gone")
                return 5

            print(runner.run(lambda: work(False)))
            try:
                runner.run(lambda: work(True))
            except FileNotFoundError as error:
                print(error)
        """)
        self.assertEqual(printed, "5\ngone\n")

    def test_interrupt(self) -> None:
        """Ctrl-C cancels what is under way, waits for it to end, and is raised."""
        printed = self.printed("""
            async def work():
                try:
                    await deferLater(runner.reactor, 60)
                except CancelledError:
                    await deferLater(runner.reactor, 0.01)
                    print("cancelled")
                    raise

            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                runner.run(work)
            except KeyboardInterrupt:
                print("interrupted")
        """)
        self.assertEqual(printed, "cancelled\ninterrupted\n")

    def test_quiet(self) -> None:
        """What nobody waits for fails in silence, and Twisted's log stays off standard error."""
        printed = self.printed("""
            from twisted.logger import Logger

            async def work():
                Logger().error("not for everybody's eyes")
                raise KeyError

            async def wait():
                await deferLater(runner.reactor, 0.01)

            runner.post(work)
            runner.run(wait)
        """)
        self.assertEqual(printed, "")
