"""What a run says before, after a pilot, and at its end: the plan line, the forecast of the rest, the summary."""

import shlex
from collections.abc import Callable, Iterator, Sequence

from ..costs import ForecastInputs, Interval, PilotResult, make_forecast
from ..execution import LocalContext
from ..job import Job, default_job_folder, is_news, served_text
from ..planning import Plan, headline
from ..records import RETRYABLE, STATUSES, Summary
from ..secrecy import hidden_in_command
from ..text import duration, money, one_line

ELSEWHERE_SHARE = 0.001
"""Spending on rows that are not in the table is mentioned above this share of all spending."""
SERVED_LINES = 5
"""How many lines tell of models that others answered for."""
RETRY_HINTED = ("failed", "invalid", "truncated")
"""The statuses for which the summary shows the line that retries them."""


def plan_line(job: Job, plan: Plan, context: LocalContext) -> str:
    """`80,000 rows → api.openai.com, gpt-x · 75,000 answered before, 4,415 to ask · about $2.10, 25 min, cap $5.00`."""
    counts = [f"{plan.answered:,} answered before"] if plan.answered else []
    if plan.reused:
        counts.append(f"{plan.reused:,} of them under an earlier [answer] that are still valid")
    counts.append(f"{plan.to_ask:,} to ask")
    if plan.duplicates:
        counts.append(f"{plan.duplicates:,} equal to others")
    if plan.rows_without_request:
        counts.append(f"{plan.rows_without_request:,} cannot be asked ({plan.first_row_error})")
    forecast = make_forecast(job, forecast_inputs(context), plan.request_bytes, plan.to_ask)
    expected = []
    if plan.to_ask:
        price = forecast.price
        expected.append("price unknown" if price is None else f"about {money(price)}" if price else "free")
    if plan.to_ask and forecast.seconds is not None:
        expected.append(duration(forecast.seconds))
    if job.limits.max_cost is not None:
        expected.append(f"cap {money(job.limits.max_cost)}")
    parts = [headline(job, plan), ", ".join(counts), ", ".join(expected)]
    return " · ".join(part for part in parts if part)


def forecast_inputs(context: LocalContext) -> ForecastInputs:
    """What a run knows by now about prices, tokens and limits: the base of every forecast."""
    return ForecastInputs(context.prices, context.ledger, context.learned_by_model())


def rest_text(job: Job, context: LocalContext, rows: int) -> str:
    """After a run with --limit: what the rows that it left out would cost, and how long they would take."""
    requests = rows * job.samples_per_row
    request_bytes = round(requests * context.ledger.request_bytes / context.ledger.answers)
    forecast = make_forecast(job, forecast_inputs(context), request_bytes, requests)
    price = forecast.price
    cost = "cost nothing" if price == 0 else "cost an unknown amount" if price is None else f"cost about {money(price)}"
    time_left = f" and take about {duration(forecast.seconds)}" if forecast.seconds is not None else ""
    return f"The other {rows:,} rows would {cost}{time_left}: the same line without --sample or --limit asks them."


def pilot_text(pilot: PilotResult, rest: int, command: Sequence[str] | None) -> str:
    """After a pilot: how many answers are valid, their tokens, what the rest would cost, and the line that asks it."""
    lines = [f"{pilot.valid:,} of {pilot.rows:,} sampled rows have a valid answer ({pilot.valid / pilot.rows:.0%})."]
    for what, found in (("prompt", pilot.prompt_tokens), ("answer", pilot.output_tokens)):
        if found:
            low, median, high = found
            lines.append(f"  {what} tokens    median {median:,.0f}, 80 % between {low:,.0f} and {high:,.0f}")
    cost = "cost unknown" if pilot.cost is None else _interval(pilot.cost, money)
    took = "" if pilot.seconds is None else f", {_interval(pilot.seconds, duration)}"
    lines.append(f"  other {rest:,} rows  {cost}{took} (90 % prediction interval)")
    if command is not None:
        words, _ = hidden_in_command(list(_without_sample(command)))
        lines.append(f"  Ask them: pipeline {shlex.join(words)}")
    return "\n".join(lines)


def _interval(interval: Interval, text: Callable[[float], str]) -> str:
    low, high = text(interval.low), text(interval.high)
    return ("free" if not interval.high else f"about {low}") if low == high else f"{low} to {high}"


def _without_sample(command: Sequence[str]) -> Iterator[str]:
    words = iter(command)
    for word in words:
        if word == "--sample":
            next(words, None)
        elif not word.startswith("--sample="):
            yield word


def summary_text(job: Job, summary: Summary) -> str:
    """How a run ended, what is safe, and what to type next."""
    counts = ", ".join(f"{getattr(summary.rows, name):,} {name}" for name in STATUSES if getattr(summary.rows, name))
    rows = f"{counts or '0 rows'} = {summary.rows.rows:,}."
    wrote = f"Wrote {summary.output}." if summary.wrote else f"{summary.output} was not written."
    is_default = job.folder == default_job_folder(job.output_path)
    job_name = shlex.quote(str(job.output_path if is_default else job.folder))
    served = _served(job, summary)
    if not summary.message:
        text = f"Done in {duration(summary.seconds)}: {rows} {_spending(summary)} {wrote}{served}"
        odd = [name for name in (*RETRY_HINTED, *RETRYABLE) if getattr(summary.rows, name)]
        if odd:
            text += f"\n  Look: pipeline show {job_name} --status {odd[0]}"
        if retry := [name for name in RETRY_HINTED if name in odd]:
            text += f"   Retry: pipeline resume {job_name} --retry {','.join(retry)}"
        return text
    text = f"Stopped after {duration(summary.seconds)}: {summary.message}\n{rows} {_spending(summary)} {wrote}{served}"
    text += f"\nEvery answer so far is kept in {job.folder}.\n  Go on: pipeline resume {job_name}"
    return text if summary.wrote else f"{text}   The table so far: pipeline export {job_name} -o OTHER"


def _spending(summary: Summary) -> str:
    spent = f"{money(summary.run.cost)} this run, {money(summary.spent)} in all."
    if summary.run.unpriced:
        spent = f"The cost of {summary.run.unpriced:,} requests is unknown (set [prices]); known: {spent}"
    elif summary.elsewhere > ELSEWHERE_SHARE * summary.spent:
        spent = spent.removesuffix(".") + f", {money(summary.elsewhere)} of it for rows that are not in this table."
    if summary.run.maybe_paid:
        most = f" (up to {money(summary.run.held)})" if summary.run.held else ""
        spent += f" {summary.run.maybe_paid:,} attempts gave no answer and may be billed all the same{most}."
    return spent


def _served(job: Job, summary: Summary) -> str:
    """A line for each asked model that another one answered for, or several; empty where there is none."""
    told = [served_text(*each) for each in summary.served.items() if is_news(job.endpoint.host, *each)]
    shown = told[:SERVED_LINES]
    return "".join(f"\n  {one_line(text)}." for text in shown)
