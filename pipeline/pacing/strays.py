"""Refusals that do not depend on our pace: stray 429s, told from those of a limit."""

from .in_flight import InFlight
from .tuning import Tuning


class Strays:
    """The 429s that come at random, whatever the pace: of others' traffic, or of a gateway's upstreams.

    A limit refuses in runs: its bucket is empty, and what leaves faster than it fills is refused until everyone pauses;
    what leaves more slowly than the limit is not refused. So a 429 is taken for a limit's, and pauses everyone, unless
    this is known of the endpoint:

    - *Suspicion*: a 429 came although fewer requests had been accepted since the 429 before than the known limit
      allows (`Rate.is_unexplained`): slowing down did not help.
    - *Trial*: nobody pauses, at the same pace. If a few of the next requests are refused, too, it is a run, and so a
      limit's. If requests that left later are accepted, it was a stray one.
    - From then on this share of 429s is expected, and nothing is believed of the limit that they seemed to show. Such
      a 429 concerns its own row alone.
    - More of them than expected are a limit's: each 429 counts 1, each answer takes twice the expected share away, and
      beyond `stray_score` a limit is hit (a CUSUM test: Page, 1954).

    - *Checks*: now and then, and after each hit, requests leave at half the pace for a while. Of the share of 429s,
      what is left then does not depend on the pace. When strays get rare, the share is 0 again.
    """

    def __init__(self, tuning: Tuning) -> None:
        self.share = 0.0
        """The share of requests that meet a stray 429; 0 if none is known."""
        self._recent_share = 0.0
        """The share of requests that met a 429 lately, at any pace."""
        self._tuning = tuning
        self._replies = self._check_replies = 0
        """Replies since the last check, and in this one."""
        self._check_number = 0
        """The number of the request that left last before the check; 0 without one."""
        self._score = 0.0
        """Recent 429s beyond those that are expected."""
        self._trial_answers = tuning.stray_trial_answers
        """Answers that a trial takes."""
        self._trial_number = 0
        """The number of the request that left last before the trial; 0 without one."""
        self._answers_left = 0
        self._accepted = self._refused = 0
        """Requests that were accepted and refused since the 429 before the trial, and in it."""

    @property
    def in_check(self) -> bool:
        """Whether requests leave slowly, to learn the share of strays."""
        return self._check_number > 0

    def suspect(self, last_number: int, accepted: int) -> None:
        """Begin a trial after a 429 that the limit does not explain, unless strays are known.

        `accepted`: the requests accepted since the 429 before.
        """
        if not self.share and not self._trial_number:
            self._trial_number, self._accepted, self._refused = last_number, accepted, 0
            self._answers_left = self._trial_answers

    def on_answer(self, flight: InFlight, last_number: int, *, has_limit: bool) -> bool:
        """Take in an answer, and tell whether it ends a trial that shows strays."""
        tuning = self._tuning
        if self._trial_number and flight.number > self._trial_number:
            self._answers_left -= 1
            self._score = max(0.0, self._score - tuning.stray_trial_tolerance)
            if self._answers_left > 0:
                return False
            requests = self._accepted + tuning.stray_trial_answers + self._refused
            self.share = (self._refused + tuning.stray_refusals_more) / requests
            self._recent_share, self._trial_number, self._score = self.share, 0, 0.0
            self._replies = 0
            return True
        if self.share:
            self._score = max(0.0, self._score - tuning.stray_tolerance * self.share - tuning.stray_tolerance_min)
            self._learn(flight, 0.0, last_number, has_limit=has_limit)
            if self.share < tuning.stray_share_min:
                self.share, self._score, self._check_number = 0.0, 0.0, 0
        return False

    def is_stray(self, flight: InFlight, last_number: int, *, has_limit: bool) -> bool:
        """Take in a 429, and tell whether it is taken for a stray one."""
        tuning = self._tuning
        if not self.share and not self._trial_number:
            return False
        self._score += 1
        self._refused += 1
        if self._score > (tuning.stray_trial_score if self._trial_number else tuning.stray_score):
            if not self._trial_number:
                self._check_number, self._check_replies = last_number, 0
            self._trial_number, self._score = 0, 0.0
            return False
        if self.share:
            self._learn(flight, 1.0, last_number, has_limit=has_limit)
        return True

    def _learn(self, flight: InFlight, is_refused: float, last_number: int, *, has_limit: bool) -> None:
        """Learn the share of strays from a reply, and begin and end the checks."""
        tuning = self._tuning
        self._recent_share += (is_refused - self._recent_share) / tuning.stray_replies
        self._replies += 1
        if not self._check_number:
            self.share = min(self.share, self._recent_share)
            if has_limit and self._replies >= tuning.stray_check_every:
                self._check_number, self._check_replies = last_number, 0
        elif flight.number > self._check_number:
            self.share += (is_refused - self.share) * tuning.stray_check_weight
            self._check_replies += 1
            if self._check_replies >= tuning.stray_check_replies:
                self._check_number = self._replies = 0
