"""The congestion window: how many requests may be in flight at once."""

import math
from collections import deque

from .in_flight import InFlight
from .tuning import Tuning


class Window:
    """The congestion window of one endpoint, found by what its answers and overloads show.

    - Slow start (as in TCP, RFC 5681): each answer adds one request, so the window doubles in a round trip. It ends at
      an overload, at a 429, at its maximum, or when answers get slower by as much as there are more of them (a sign
      that HyStart uses, too: RFC 9406).
    - After slow start, trials: a window of twice or half the size is kept if throughput shows that it is better.
    - An overload (503, 529, timeout, lost connection) in slow start sets the window one below where it was met. Many of
      them at a window that was good before cut it by a multiplicative decrease, as in AIMD. Then the window is probed
      a little above from time to time, and less often each time that it fails in the same place.
    - Overloads that come at random, at any window, are recognised by their share and cut nothing.
    """

    def __init__(self, size: int, most: int, now: float, tuning: Tuning, *, is_set_by_user: bool) -> None:
        """A window that the user set is only narrowed by overloads, and opened again up to that size."""
        self._tuning = tuning
        self._most = float(most)
        self._size = float(min(most, size))
        self.latency_seconds = 0.0
        """The mean latency of answers; 0 before the first."""
        self._is_set_by_user = is_set_by_user
        # slow start
        self._in_slow_start = True
        self._target = self._most
        """The size at which slow start ends."""
        self._stage_size = self._size
        """The size at which the present stage of slow start began; a stage is a doubling."""
        self._stage_logs: deque[float] = deque(maxlen=tuning.stage_answers_max)
        """The logarithms of the latencies of this stage."""
        self._stage_before: tuple[float, float] | None = None
        """The mean of the logarithms in the stage before, and the variance of that mean."""
        # overloads
        self._ceiling = math.inf
        """The size after the last cut; infinity if there was none, or it is outdated."""
        self._probe_at = math.inf
        self._probe_seconds = 0.0
        self._stray_share = 0.0
        """The share of requests that meet an overload in a window that is good."""
        self._overload_score = 0.0
        """Recent overloads, beyond the stray ones."""
        self._ignored_until = 0
        """Overloads of requests up to this number say nothing any more."""
        # trials
        self._best = self._held_at = self._size
        self._best_throughput = 0.0
        self._step, self._direction, self._next_direction = tuning.wide_step, 0, 1
        """The trial's factor; and 1 for a larger window, -1 for a smaller one, 0 for the best once more."""
        self._next_trial_at = now
        self._measured, self._unsettled, self._measured_from = 0, self._size, now
        """Answers that were measured, answers to wait for before that, and when it began."""

    @property
    def requests(self) -> int:
        """The number of requests that may be in flight."""
        return max(1, int(self._size))

    @property
    def in_slow_start(self) -> bool:
        """Whether the window grows with every answer."""
        return self._in_slow_start

    @property
    def is_found(self) -> bool:
        """Whether the size is worth remembering: slow start is over, or went on for a doubling."""
        return not self._in_slow_start or (not self._is_set_by_user and self._size >= 2 * self._tuning.window_first)

    def on_answer(self, flight: InFlight, in_flight: int, *, rate_binds: bool, now: float) -> None:
        """Take in an answer. `in_flight` counts its request, too; `rate_binds`: the rate limit was hit lately."""
        tuning = self._tuning
        took = max(1e-3, now - flight.left_at)
        samples = min(tuning.latency_samples, max(tuning.latency_samples_min, self._size))
        self.latency_seconds += (took - self.latency_seconds) / samples if self.latency_seconds else took
        self._overload_score = max(0.0, self._overload_score - max(tuning.stray_share, 2 * self._stray_share))
        if self._in_slow_start:
            self._grow(took, is_full=in_flight >= self.requests, now=now)
            return
        self._stray_share -= self._stray_share / tuning.stray_answers
        if now >= self._probe_at:
            self._probe(self._size + max(1.0, tuning.probe_step * self._size))
        elif self._ceiling == math.inf and not self._is_set_by_user:
            self._try_sizes(in_flight, rate_binds=rate_binds, now=now)

    def on_overload(self, flight: InFlight, last_number: int, now: float) -> None:
        """Take in an overload, while `last_number` is the number of the request that left last."""
        if flight.number <= self._ignored_until or flight.in_flight == 1:
            return
        tuning = self._tuning
        self._overload_score += 1
        if not self._in_slow_start:
            self._stray_share += (1 - self._stray_share) / tuning.stray_answers
            if self._overload_score > tuning.decrease_score + tuning.decrease_score_share * self._size:
                self._cut(tuning.decrease * self._size, last_number, now)
            return
        has_strays = self._stray_share >= tuning.stray_share
        if self._overload_score > (tuning.overload_score_stray if has_strays else tuning.overload_score):
            self._cut(min(self._size, flight.in_flight - 1.0), last_number, now)

    def ignore_until(self, number: int) -> None:
        """Ignore overloads of requests up to this number: the endpoint was down, or the window is a new one."""
        self._ignored_until = number

    def begin_slow_start(self) -> None:
        """Grow with every answer again."""
        self._probe(self._most)

    def end_slow_start(self, now: float) -> None:
        """Stay at this size, and begin to try others."""
        self._in_slow_start = False
        self._probe_at = math.inf
        self._step, self._direction, self._next_direction = self._tuning.wide_step, 0, 1
        self._next_trial_at = now
        self._best = self._held_at = self._size
        self._start_measuring(now)

    def _grow(self, took: float, *, is_full: bool, now: float) -> None:
        """Grow by an answer in slow start; only a full window grows."""
        tuning = self._tuning
        self._stage_logs.append(math.log(took))
        end = min(self._most, self._target)
        if is_full and self._size < end:
            is_slow = self.latency_seconds > tuning.slow_latency_seconds
            self._size = min(end, self._size + (tuning.slow_latency_growth if is_slow else 1.0))
        if not is_full or len(self._stage_logs) < tuning.window_first:
            return
        if self._size >= 2 * self._stage_size or (self._size >= end and len(self._stage_logs) >= self._size):
            self._end_stage(now)

    def _end_stage(self, now: float) -> None:
        """Go on with slow start, unless answers got slower by as much as there are more of them."""
        doublings = math.log2(self._size / self._stage_size)
        logs = self._stage_logs
        mean = math.fsum(logs) / len(logs)
        variance = math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1)
        before, self._stage_before = self._stage_before, (mean, variance / len(logs))
        self._stage_size = self._size
        logs.clear()
        if self._target < self._most:  # the probe met no overload: the ceiling is gone
            self._ceiling, self._target = math.inf, self._most
        elif self._is_set_by_user:
            return
        elif self._size >= self._most:
            self.end_slow_start(now)
        elif before is not None and doublings >= 0.5:
            slower = mean - before[0] - math.sqrt(before[1] + self._stage_before[1])
            if slower > self._tuning.slower * math.log(2) * doublings:
                self.end_slow_start(now)

    def _probe(self, target: float) -> None:
        """Open a window that was cut up to a size that is a little larger, and further if no overload comes."""
        self._in_slow_start, self._target, self._probe_at = True, target, math.inf
        self._stage_size, self._stage_before = self._size, None
        self._stage_logs.clear()
        self._overload_score = 0.0

    def _cut(self, size: float, last_number: int, now: float) -> None:
        """Cut the window to this size, and set the time of the next probe."""
        tuning = self._tuning
        size = max(1.0, size)
        is_same_place = self._in_slow_start and abs(size - self._ceiling) <= max(1.0, 0.05 * size)
        if is_same_place:
            self._probe_seconds = min(tuning.probe_seconds_max, 2 * self._probe_seconds)
        else:
            self._probe_seconds = tuning.probe_seconds + tuning.probe_latencies * self.latency_seconds
        self._size = self._ceiling = size
        self._in_slow_start = False
        self._probe_at = now + self._probe_seconds
        self._overload_score, self._ignored_until = 0.0, last_number

    def _start_measuring(self, now: float) -> None:
        self._unsettled, self._measured, self._measured_from = self._size, 0, now

    def _try_sizes(self, in_flight: int, *, rate_binds: bool, now: float) -> None:
        """Count an answer for the throughput of this size, and go to another size when it is measured."""
        tuning = self._tuning
        if not self.requests <= in_flight <= self._size + 1:  # something else binds, or a larger window still empties
            self._start_measuring(now)
        elif rate_binds:
            self._size = min(self._most, self._size + tuning.rate_bound_growth)
        elif self._unsettled > 0:
            self._unsettled -= 1
            self._measured_from = now
        else:
            self._measured += 1
            if self._measured >= max(tuning.trial_answers_min, tuning.trial_windows * self._size):
                self._choose_size(self._measured / max(1e-9, now - self._measured_from), now)

    def _choose_size(self, throughput: float, now: float) -> None:
        """Go to the next trial, or back to the best size: hill climbing by answers a second.

        Wide steps come first: up as long as each brings more; if the first brought none, down as long as nothing is
        lost. Then fine steps, up and down by turns.
        """
        tuning = self._tuning
        gain = tuning.wide_gain if self._step == tuning.wide_step else tuning.fine_gain
        is_better = throughput > self._best_throughput * (gain if self._direction > 0 else 1.0)
        if not self._direction or is_better:
            self._best, self._best_throughput = self._size, throughput
        if not self._direction:
            self._direction = self._next_direction if now >= self._next_trial_at else 0
        elif not is_better or self._step == tuning.fine_step:
            if self._step == tuning.wide_step and self._direction > 0 and self._best == self._held_at:
                self._direction = -1
            else:
                pause_seconds = max(tuning.trial_seconds, tuning.trial_latencies * self.latency_seconds)
                self._step, self._next_trial_at = tuning.fine_step, now + pause_seconds
                self._direction, self._next_direction = 0, -self._direction
        self._size = min(self._most, max(1.0, self._best * self._step**self._direction))
        self._start_measuring(now)
