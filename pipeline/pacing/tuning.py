"""All constants of the throttle in one record, so that a simulation can vary them: `make governor SET="cut=0.8"`."""

from ..job import AUTO_WINDOW
from ..records import Record

WINDOW_FIRST = AUTO_WINDOW
"""Requests in flight at once, at first: few enough for a small server, and four doublings from 128."""

WINDOW_MAX = 1024
"""Requests in flight at once, at most, where the user sets no `limits.concurrency`."""


class Tuning(Record, frozen=True, forbid_unknown_fields=True):
    """The constants of `Throttle`, `Rate`, `Window` and `TokenEstimate`."""

    # the user's limits

    user_limit_share: float = 0.985
    """Share of a limit set by the user at which requests leave. The rest allows for clocks that differ, and for the
    time that a request takes to reach the endpoint."""

    # the rate: the cubic curve of RFC 9438 around a known limit

    cubic_depth: float = 0.03
    """Share of the limit by which the rate is below it at the start of the cubic curve, after a 429. CUBIC takes 0.3
    (1 - beta_cubic), but it only knows where loss began; here the limit was measured."""

    cubic_seconds: float = 30.0
    """Seconds from a 429 until the cubic curve is back at the limit (K in RFC 9438), once the limit is known well. A
    limit that was raised is noticed after about two and a half times K."""

    cubic_seconds_min: float = 10.0
    """Seconds of K (see `cubic_seconds`) while the limit is known only roughly."""

    cubic_seconds_max: float = 90.0
    """Seconds of K (see `cubic_seconds`), at most: it grows each time that the limit is met where it was met before."""

    cubic_seconds_growth: float = 1.5
    """Factor by which K grows when the limit is met where it was met before."""

    cubic_requests: float = 100.0
    """Requests that leave during K, at least: each probe of the limit costs one or two rejections."""

    cubic_requests_min: float = 10.0
    """Requests that leave during K, at least, while the limit is only guessed."""

    cubic_requests_strays: float = 15_000.0
    """Requests that leave during K, in addition, where all 429s come at random; a share of it where a share does. It
    takes several of them to know the limit's."""

    probing_growth: float = 1.1
    """Multiple of the limit at which the cubic curve ends and exponential growth begins: it is no limit any more."""

    doubling_seconds: float = 15.0
    """Seconds in which the rate doubles during exponential growth."""

    doubling_requests: float = 100.0
    """Requests that leave while the rate doubles, at least: they empty the endpoint's bucket, if it was full."""

    headroom: float = 1.25
    """Multiple of the rate at which requests really leave that exponential growth never exceeds: something else than
    the rate may hold them back."""

    unconfirmed_doubling_seconds: float = 5.0
    """Seconds in which the rate doubles while the limit is unconfirmed (it rests on a single 429, which may be
    spurious): within half a minute such a limit is met again or left behind."""

    unconfirmed_doubling_requests: float = 30.0
    """Requests that leave while the rate doubles, at least, while the limit is unconfirmed."""

    unconfirmed_headroom: float = 1.5
    """Multiple of the rate at which requests really leave that exponential growth never exceeds, while the limit is
    unconfirmed."""

    lost_growth: float = 1.5
    """Multiple of the limit beyond which a 429 is treated as the first one: at such a rate the endpoint's bucket
    overflowed in between, so the requests accepted since do not measure the limit."""

    # the rate: what a 429 teaches

    cut: float = 0.85
    """Multiplicative decrease at a 429 whose limit is not known yet: the limit is first taken to be this share of the
    rate at which requests were leaving. Also the most that a single 429 too early to measure anything can take away."""

    first_rate: float = 4.0
    """Requests a second that the first 429 leaves, at least: a job that is rejected at once has met an empty bucket,
    and knows nothing of the limit."""

    header_share: float = 0.95
    """Share of a limit reported by the endpoint's headers that is taken as the first estimate."""

    stated_times_max: float = 3.0
    """Multiple of a limit named in words that may have left in the last minute. If more left, another limit is meant:
    two windows of a minute are never fuller than that."""

    measured_requests: int = 12
    """Requests accepted between two 429s that measure the limit, at least. Fewer show only that it is no higher."""

    measured_well_requests: int = 100
    """Requests accepted between two 429s that measure the limit to a percent or two."""

    agreement: float = 0.05
    """Relative difference up to which two measurements are of the same limit."""

    proofs_max: int = 2
    """Number of proofs that a limit has at most. Several 429s of one moment prove it, or two measurements that agree;
    a single 429 below the limit takes one proof away. Without any, a single 429 changes nothing."""

    burst_seconds: float = 2.0
    """Seconds of the rate that may leave as one burst after a pause: the endpoint's bucket refilled meanwhile."""

    burst_seconds_min: float = 0.05
    """Seconds of the rate that may leave as one burst, at least, where larger bursts were rejected."""

    burst_growth: float = 1.5
    """Factor by which the burst grows back when it was not rejected; a burst that was is halved."""

    refill_share: float = 0.9
    """Share of the tokens that came into the endpoint's bucket during a pause which is counted on."""

    burst_rows: float = 4.0
    """Capacity of the bucket of tokens, at least, in requests of mean size."""

    rounding_seconds: float = 1.2
    """Seconds of a Retry-After that say nothing about when the bucket had room again: endpoints round up to whole
    seconds."""

    period_seconds: float = 61.0
    """Seconds without an accepted request after which 429s teach no rate. Limits are for a minute at most, so there is
    another reason for them."""

    meter_seconds: float = 5.0
    """Seconds over which the rate at which requests leave is averaged (the time constant of an exponential average)."""

    usage_requests: int = 20
    """Requests over which the mean number of tokens of a request is averaged."""

    stale_seconds: float = 3600.0
    """Seconds after which limits learned by an earlier run are probed at once."""

    # 429s that come at random

    unexplained_share: float = 0.65
    """Share of what a measured limit allows since the last 429. If fewer requests were accepted, and more slowly than
    the limit, the next 429 is not the limit's."""

    unexplained_hits: int = 5
    """Hits in a row that came too early, after which the next is not the limit's either."""

    unexplained_requests: int = 4
    """Requests accepted since the last 429, at least: an endpoint that refuses everything does not do it at random."""

    stray_replies: int = 400
    """Replies over which the share of 429s at random is averaged."""

    stray_trial_answers: int = 20
    """Answers that show in a trial that a 429 was a stray one."""

    stray_refusals_more: float = 1.0
    """Number of 429s that is added to those from which the share is first estimated."""

    stray_trial_score: float = 1.5
    """Number of 429s in a trial beyond the tolerated ones, at most: more are a run."""

    stray_trial_tolerance: float = 0.2
    """Number of 429s that are tolerated in a trial, for each answer."""

    stray_check_every: int = 1500
    """Replies after which requests leave slowly for a while, to learn the share of 429s that do not depend on it."""

    stray_check_pace: float = 0.5
    """Share of the rate, or of the window, at which they leave then."""

    stray_check_replies: int = 60
    """Replies to requests that left so slowly."""

    stray_check_weight: float = 1 / 60
    """Weight of each of them in the share."""

    stray_share_min: float = 0.003
    """Share of 429s at random below which there are none."""

    stray_tolerance: float = 3.0
    """Multiple of the share of 429s at random that is still no limit's."""

    stray_tolerance_min: float = 0.01
    """Share that is added to it."""

    stray_score: float = 6.5
    """Recent 429s beyond the tolerated ones after which a limit is hit."""

    # the window: slow start

    window_first: int = WINDOW_FIRST
    """Requests in flight at once when slow start begins."""

    window_max: int = WINDOW_MAX
    """Requests in flight at once, at most, where the user sets no number."""

    stage_answers_max: int = 4 * WINDOW_MAX
    """Latencies that a stage of slow start remembers, the last ones: a window that never fills would collect them for
    the whole run."""

    slow_latency_seconds: float = 8.0
    """Seconds of latency above which slow start opens the window fourfold in a round trip; twofold would take
    an hour."""

    slow_latency_growth: float = 3.0
    """Requests that an answer adds to the window during slow start, above `slow_latency_seconds`; below, it adds
    one, as in TCP."""

    slower: float = 0.5
    """Power of 2 by which answers may get slower when the window doubles. Beyond it, slow start ends, as in HyStart."""

    latency_samples: int = 256
    """Answers over which latency is averaged, at most; fewer while the window is smaller."""

    latency_samples_min: int = 20
    """Answers over which latency is averaged, at least."""

    # the window: trials of another size, after slow start

    wide_step: float = 2.0
    """Factor between the window and the one that is tried, in the first trials."""

    fine_step: float = 1.25
    """Factor between the window and the one that is tried, in the later trials."""

    wide_gain: float = 1.05
    """Multiple of the best throughput that a window larger by `wide_step` has to reach to be kept."""

    fine_gain: float = 1.02
    """Multiple of the best throughput that a window larger by `fine_step` has to reach to be kept."""

    trial_windows: int = 3
    """Answers that measure a window's throughput, as a multiple of the window; one window of answers settles it."""

    trial_answers_min: int = 100
    """Answers that measure a window's throughput, at least."""

    trial_seconds: float = 60.0
    """Seconds between two fine trials, at least."""

    trial_latencies: float = 4.0
    """Latencies between two fine trials, at least."""

    rate_bound_seconds: float = 600.0
    """Seconds after a 429 during which the rate is what binds: the window is not measured, only made wide enough."""

    rate_bound_latencies: float = 6.0
    """Latencies after a 429 during which the rate is what binds, at least."""

    rate_bound_growth: float = 0.25
    """Requests that an answer adds to a full window while the rate is what binds."""

    # the window: overloads

    stray_share: float = 0.01
    """Share of requests that meet an overload at any window, until the endpoint's own share is learned."""

    stray_answers: int = 100
    """Answers over which the endpoint's share of such stray overloads is averaged, once slow start is over."""

    overload_score: float = 0.5
    """Recent overloads beyond the stray ones after which slow start ends with a cut."""

    overload_score_stray: float = 3.0
    """Recent overloads beyond the stray ones after which slow start ends with a cut, where stray ones are frequent."""

    decrease_score: float = 4.0
    """Recent overloads beyond the stray ones after which a window that was good before is decreased; larger windows
    allow for more (`decrease_score_share`)."""

    decrease_score_share: float = 0.15
    """Share of the window that is added to `decrease_score`."""

    decrease: float = 0.7
    """Multiplicative decrease of a window that was good before; the same as beta_cubic in RFC 9438."""

    probe_step: float = 0.02
    """Share by which a window that was cut is opened again as a probe; one request, at least."""

    probe_seconds: float = 2.0
    """Seconds from a cut to the first probe; `probe_latencies` are added."""

    probe_latencies: float = 3.0
    """Latencies that are added to `probe_seconds`."""

    probe_seconds_max: float = 240.0
    """Seconds between two probes, at most: the interval doubles each time that overloads begin at the same window."""

    # pauses

    first_pause_seconds: float = 1.0
    """Seconds of the first pause after a rejection without Retry-After."""

    pause_seconds_max: float = 60.0
    """Seconds of a pause after a rejection without Retry-After, at most."""

    rate_pause_share: float = 1 / 8
    """Share of the time since the last success that a pause after a 429 takes, so that backoff is exponential."""

    window_pause_share: float = 1 / 16
    """Share of the time since the last success that a pause after an overload takes, or one that extends a Retry-After.
    An endpoint that is down for half an hour gets fewer than 100 requests (`retry.UNCOUNTED_ATTEMPTS_MAX`)."""

    long_pause_seconds: float = 5.0
    """Seconds of a pause above which one request goes first when it is over."""

    doubted_pauses: int = 3
    """Pauses in a row after which a Retry-After that never holds is extended by backoff."""

    down_rejections: int = 3
    """Overloads in a row, without an answer between them, that mean that the endpoint is down: everyone pauses, and the
    window is not decreased."""

    accepted_times: float = 4.0
    """Multiple of the usual time of a rejection after which the request that went first is taken for accepted."""

    accepted_seconds_min: float = 1.0
    """Seconds after which the request that went first is taken for accepted, at the earliest."""

    accepted_seconds_max: float = 15.0
    """Seconds after which the request that went first is taken for accepted, at the latest."""

    rejection_seconds: float = 0.5
    """Seconds that a rejection takes, until some have been seen."""

    rejection_weight: float = 0.2
    """Weight of the latest rejection in the average of the time that rejections take."""

    # the estimate of tokens

    forget: float = 0.998
    """Factor by which the weight of all earlier requests shrinks with each one, in the line from bytes to tokens."""

    spread_min: float = 0.02
    """Relative standard deviation of sizes, at least, for them to tell a slope."""

    completion_quantile: float = 0.8
    """Quantile of completion tokens that is set aside for a request under the user's token limit."""

    completions_recent: int = 200
    """Recent answers from which `completion_quantile` is taken."""

    completions_mean: int = 100
    """Answers over which the mean of completion tokens is averaged."""


DEFAULT_TUNING = Tuning()
"""The constants in use, chosen by simulation of the endpoints in `tests/support/scenarios.py`."""
