"""When a policy that failed is asked again, and how long an outage is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cof_agent.policy.base import PolicyError

if TYPE_CHECKING:
    from tenacity import RetryCallState

Result = TypeVar("Result")

RETRY_SECONDS = 300.0
TRIES = 3  # of a reply that fails for itself (cut off, status 500), the first one included
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
SILENT = 1.0  # seconds: a shorter wait is not told of
TOLD = 300.0  # seconds until another outage of the same policy is told of

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Outage:
    """Since when one policy has answered nobody, by `time.monotonic`, as far as it is known to be down."""

    seconds: float
    wait: float
    since: float | None = None

    def gives_up(self, state: RetryCallState, error: PolicyError) -> bool:
        if not error.outage:
            return state.attempt_number >= TRIES or _passed(state) >= self.seconds
        self.since = time.monotonic() if self.since is None else self.since
        return self._left(state) <= (error.after or 0.0)

    def pause(self, state: RetryCallState, error: PolicyError) -> float:
        """Seconds until the next try; the last one is when time is up."""
        grown = min(self.wait * 4.0 ** min(state.attempt_number - 1, 20), LONGEST_WAIT)
        return min(max(grown, error.after or 0.0), max(self._left(state), 0.0)) if error.outage else grown

    def _left(self, state: RetryCallState) -> float:
        """Seconds for which it is still waited for."""
        down = 0.0 if self.since is None else time.monotonic() - self.since
        return self.seconds - max(down, _passed(state))


@dataclass(eq=False)
class Retries:
    """Asks a policy that failed again; one object for all callers, who wait for an outage together.

    A failure of one reply is tried `TRIES` times. An outage (`PolicyError.outage`) is waited for up to `seconds`: neither a
    caller nor all of them together, since the policy last answered one, wait longer. After that each caller has one try.
    The waits grow fourfold from `wait` seconds, or are as long as the server asks. 0 `seconds`: nothing is asked again.
    """

    seconds: float = RETRY_SECONDS
    wait: float = 0.3
    _outages: dict[str, _Outage] = field(default_factory=dict, repr=False)
    _told: dict[str, float] = field(default_factory=dict, repr=False)

    async def run(self, attempt: Callable[[], Awaitable[Result]], policy: str = "") -> Result:
        """What `attempt` returns, which is called until it returns or this gives up. policy: the name of who is asked.

        Raises:
            PolicyError: of the last try, or of one that says that more would not help.
        """
        from tenacity import AsyncRetrying, retry_if_exception

        async def once() -> Result:  # tenacity awaits only what is declared so
            result = await attempt()
            self._outages.pop(policy, None)
            return result

        def outage() -> _Outage:
            return self._outages.setdefault(policy, _Outage(self.seconds, self.wait))

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, PolicyError) and error.transient),
            stop=lambda state: outage().gives_up(state, _error(state)),
            wait=lambda state: outage().pause(state, _error(state)),
            before_sleep=lambda state: self._tell(state, policy),
            reraise=True,
        )
        return await retrying(once)

    def _tell(self, state: RetryCallState, policy: str) -> None:
        """Once an outage; a server that answers some and turns others away is not told of again and again."""
        error, now = _error(state), time.monotonic()
        if error.outage and state.upcoming_sleep >= SILENT and now - self._told.get(policy, -TOLD) >= TOLD:
            self._told[policy] = now
            _log.warning("%s Waiting for it, for up to %g seconds (--retry-seconds).", error, self.seconds)


def _error(state: RetryCallState) -> PolicyError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, PolicyError)
    return error


def _passed(state: RetryCallState) -> float:
    """Seconds since the first try began."""
    return state.seconds_since_start or 0.0
