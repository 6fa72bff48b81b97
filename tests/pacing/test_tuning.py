"""Every constant of the throttle is in `Tuning`, explained, in use, and can be varied in simulation."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from driven_throttle import drive, send, too_many
from scenarios import SCENARIOS, tuning_of
from simulation import simulate

from pipeline.job.sections import Limits
from pipeline.pacing import tuning
from pipeline.pacing.throttle import Throttle
from pipeline.pacing.tuning import DEFAULT_TUNING, WINDOW_FIRST, WINDOW_MAX, Tuning

FOLDER = Path(tuning.__file__).parent


def test_every_constant_is_used_by_a_part_of_the_throttle() -> None:
    source = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py") if path.name != "tuning.py")
    assert [name for name in Tuning.__struct_fields__ if not re.search(rf"tuning\.{name}\b", source)] == []


def test_every_constant_has_a_comment_that_begins_with_its_unit_and_is_whole() -> None:
    [body] = [each.body for each in ast.parse(inspect.getsource(tuning)).body if isinstance(each, ast.ClassDef)]
    comments: dict[str, str] = {}
    for constant, comment in zip(body[1::2], body[2::2], strict=True):
        assert isinstance(constant, ast.AnnAssign)
        assert isinstance(constant.target, ast.Name)
        assert isinstance(comment, ast.Expr)
        comments[constant.target.id] = ast.literal_eval(comment.value)
    assert tuple(comments) == Tuning.__struct_fields__
    for name, comment in comments.items():
        assert comment[0].isupper(), name
        assert comment.endswith((".", ").")), name
        assert "…" not in comment, name
        assert "The same" not in comment, name
        assert not re.search(r"_seconds(_min|_max)?$", name) or comment.startswith("Seconds"), name


def test_the_window_that_others_reckon_with_is_that_of_the_tuning() -> None:
    assert (DEFAULT_TUNING.window_first, DEFAULT_TUNING.window_max) == (WINDOW_FIRST, WINDOW_MAX)


def test_a_throttle_keeps_to_another_tuning() -> None:
    def learned(cut: float) -> float | None:
        throttle = Throttle(Limits(concurrency=50), 0.0, tuning=Tuning(cut=cut))
        drive(throttle, 30)
        throttle.on_rejection(send(throttle, 1, 30.0)[0], too_many(), 30.2)
        return throttle.learned().requests_per_minute

    usual, lower = learned(DEFAULT_TUNING.cut), learned(0.5)
    assert usual is not None
    assert lower == pytest.approx(usual * 0.5 / DEFAULT_TUNING.cut)


def test_a_constant_can_be_set_on_the_command_line_of_the_simulation() -> None:
    assert tuning_of([]) == DEFAULT_TUNING
    assert tuning_of(["cut=0.8", "window_first=16"]) == Tuning(cut=0.8, window_first=16)
    with pytest.raises(ValueError, match="did you mean 'cut'"):
        tuning_of(["cutt=0.8"])
    with pytest.raises(ValueError, match=r"cut=0\.85"):
        tuning_of(["cut"])
    with pytest.raises(ValueError, match="float"):
        tuning_of(["cut=low"])


def test_the_simulation_shows_the_effect_of_another_constant() -> None:
    scenario = next(each for each in SCENARIOS if each.name == "600 requests/min, burst 60")
    usual, steeper = simulate(scenario, 0), simulate(scenario, 0, tuning=Tuning(cubic_depth=0.3))
    assert steeper.rejected > 2 * usual.rejected
