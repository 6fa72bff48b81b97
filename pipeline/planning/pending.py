"""The requests that a plan sends, rendered from the table when their turn comes."""

from collections.abc import AsyncIterator
from pathlib import Path

from ..prompts import Prompts
from ..records import Failure, Request, Stopped
from ..tables import Table, read_slices
from .chains import Chains
from .keys import rows_per_slice
from .plan import Plan


async def pending_requests(
    table: Table, prompts: Prompts, plan: Plan, keys: Path, chains: Chains
) -> AsyncIterator[Request]:
    """The next request of each chain that the plan asks, in row order; each is rendered only when it is wanted.

    Where a chain has stored answers already, that is its next follow-up, else its first request. Raises Stopped if the
    input changed, or if a row's requests are not the planned ones in `keys`: no row would find their answers.
    """
    size, offset = rows_per_slice(plan.samples_per_row), 0
    planned = read_slices(keys, ["key"], size * plan.samples_per_row)
    for frame, keyed in zip(table.slices(prompts.columns, size), planned, strict=True):
        ask = plan.ask.slice(offset, keyed.height)
        is_continued = plan.continued.slice(offset, keyed.height).to_list()
        offset += keyed.height
        rows = ask.reshape((-1, plan.samples_per_row)).arr.any()
        is_asked, planned_keys = ask.to_list(), keyed["key"].to_list()
        for number, row in zip(rows.arg_true(), frame.filter(rows).iter_rows(named=True), strict=True):
            for place, request in enumerate(_requests_of(prompts.requests(row)), number * plan.samples_per_row):
                if not is_asked[place]:
                    continue
                if bytes.fromhex(request.key) != planned_keys[place]:
                    raise _other_prompt()
                yield next(chains.follow([request])).next_request if is_continued[place] else request


def _requests_of(rendered: list[Request] | Failure) -> list[Request]:
    if isinstance(rendered, Failure):
        raise _other_prompt()
    return rendered


def _other_prompt() -> Stopped:
    return Stopped(
        "A row's prompt is not the one that was planned: the template's output differs from time to time, or an image "
        "was changed.\nSee what is sent with `pipeline preview`. Every answer so far is kept."
    )
