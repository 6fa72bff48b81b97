"""The results of scoring and comparing; their fields are the keys that `score --json` and `compare --json` print."""

from typing import Literal

from ..records import Record

Kind = Literal["labels", "numbers", "lists"]
"""How a column is scored: texts that are right or wrong, numbers with a distance, lists of labels in any order."""


class Share(Record, frozen=True, omit_defaults=False):
    """A proportion of rows with its 95 % confidence interval."""

    count: int
    rows: int
    share: float
    """`count` divided by `rows`, 0 to 1."""
    low: float
    high: float


class LabelScore(Record, frozen=True, omit_defaults=False):
    """Precision, recall and F1 of one label. None where the divisor is 0."""

    label: str
    support: int
    """Number of rows whose gold is this label."""
    answered: int
    """Number of rows whose answer is this label."""
    precision: float | None
    recall: float | None
    f1: float


class Macro(Record, frozen=True, omit_defaults=False):
    """Unweighted means over all labels. An undefined precision or recall counts as 0, as in scikit-learn."""

    precision: float
    recall: float
    f1: float


class Confusion(Record, frozen=True, omit_defaults=False):
    """One cell of the confusion matrix: the number of rows with this gold and this answer."""

    gold: str
    answer: str
    rows: int


class Distance(Record, frozen=True, omit_defaults=False):
    """How far numbers are from gold.

    Kappa and Spearman's rho are None where a side does not vary; kappa also where a number is not whole.
    """

    mean_absolute_error: float
    quadratic_weighted_kappa: float | None
    spearman: float | None


class Score(Record, frozen=True, omit_defaults=False):
    """The quality of one column of answers. A measure that its kind does not have is None or empty."""

    kind: Kind
    accuracy: Share
    """Answers that equal gold; lists are equal if they hold the same labels in any order."""
    kappa: float | None
    """Cohen's kappa: agreement beyond what is expected by chance."""
    macro: Macro | None
    labels: tuple[LabelScore, ...]
    confusion: tuple[Confusion, ...]
    """The confusion matrix without its empty cells, the largest first."""
    numbers: Distance | None
    mean_jaccard: float | None
    """For lists: labels in both divided by labels in either, averaged over the rows."""
    near_misses: int
    """Number of wrong answers that differ from gold only in case or spaces."""


class PairedTest(Record, frozen=True, omit_defaults=False):
    """Whether one of two jobs is right more often on the same rows."""

    first_alone: int
    """Number of rows that only the first job has right."""
    second_alone: int
    """Number of rows that only the second job has right."""
    difference: float
    """Accuracy of the second job minus that of the first, with its 95 % interval in `low` and `high`."""
    low: float
    high: float
    p_value: float
    """McNemar's exact test: the probability of a difference this large between two equally good jobs."""


class Bill(Record, frozen=True, omit_defaults=False):
    """Tokens and money spent on rows, failed attempts included. A duplicate of an earlier row costs nothing.

    None where the endpoint reported no tokens, or no price is known.
    """

    tokens: float | None
    cost: float | None
    """US dollars."""


class Part(Record, frozen=True, omit_defaults=False):
    """The accuracy over the rows that have one value of the column `--by`."""

    value: str | None
    accuracy: Share


class JobScore(Record, frozen=True, omit_defaults=False):
    """A job's answers scored against gold: the object that `score --json` prints."""

    job: str
    gold: str
    """Name of the input's column of right answers."""
    answer: str
    """Name of the scored column, without the output's prefix."""
    rows: int
    without_gold: int
    without_answer: dict[str, int]
    """Number of rows with gold that could not be scored, by status."""
    score: Score
    accuracy_of_all: Share | None
    """Accuracy if each finished row without an answer counts as wrong; None if there is no such row."""
    by: str | None
    """Name of the column whose values `parts` lists."""
    parts: tuple[Part, ...]
    """The accuracy for each value of the column `by`, the most frequent value first."""
    bill: Bill
    """Spent on all rows that have gold and were asked."""
    tokens_per_right_row: float | None
    cost_per_right_row: float | None
    prompt_shows_gold: bool
    """The prompt contains the column of gold, so the model sees the right answer."""


class ComparedJob(Record, frozen=True, omit_defaults=False):
    """One of the two jobs of a comparison."""

    job: str
    answer: str
    """Name of the compared column, without the output's prefix."""
    rows: int
    answered: int
    """Number of the matched rows that this job answered."""
    bill: Bill
    """Spent on the matched rows."""
    accuracy: Share | None
    """Over the rows that have gold and were answered by both jobs; None without gold."""


class Change(Record, frozen=True, omit_defaults=False):
    """The number of rows that have one answer in the first job and another in the second."""

    first: str
    second: str
    rows: int


class Comparison(Record, frozen=True, omit_defaults=False):
    """Two jobs' answers to the same rows: the object that `compare --json` prints."""

    matched_by: str | None
    """The column by which rows were matched; None if both jobs have the same input, row by row."""
    matched: int
    """Number of rows that are in both jobs."""
    answered: int
    """Number of the matched rows that both jobs answered."""
    agreement: Share
    kappa: float | None
    """Cohen's kappa between the two jobs; None if there are too many different answers."""
    changes: tuple[Change, ...]
    """The most frequent first, at most 1,000."""
    first: ComparedJob
    second: ComparedJob
    gold: str | None
    test: PairedTest | None
    """None without gold."""
