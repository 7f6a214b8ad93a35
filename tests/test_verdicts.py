"""One word a measurement, by one rule; and findings as text."""

import pytest
from known_findings import FEW, LOST, OPEN, WON, claim, measured
from scipy import stats

from hoptm.comparisons import Nothing
from hoptm.errors import ConfigError
from hoptm.verdicts import NO_DIFFERENCE, NOT_REPRODUCED, REPRODUCED, UNTESTED, VERDICTS, Claim, Evidence, Finding, Measured, counts, judge, table, tally


@pytest.mark.parametrize(("found", "word"), [(WON, REPRODUCED), (LOST, NOT_REPRODUCED), (OPEN, NO_DIFFERENCE), (FEW, UNTESTED), (measured(), UNTESTED)])
def test_every_word_can_be_reached(found: Measured, word: str) -> None:
    assert found.verdict == word and word in VERDICTS


def test_a_claim_below_a_bound_is_its_mirror() -> None:
    below = {"bound": 0.5, "above": False}
    assert measured(0.3, 0.31, 0.32, **below).verdict == REPRODUCED
    assert measured(0.6, 0.61, 0.62, **below).verdict == NOT_REPRODUCED
    assert measured(0.4, 0.5, 0.6, **below).verdict == NO_DIFFERENCE


def test_no_word_where_the_interval_holds_the_bound() -> None:
    """Shift the same three seeds across 0: the word turns exactly where an end of scipy's interval passes it."""
    for shift in range(-40, 41):
        values = [0.01 * shift / 4 + part for part in (-0.02, 0.0, 0.02)]
        low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
        assert measured(*values).verdict == (REPRODUCED if low > 0 else NOT_REPRODUCED if high < 0 else NO_DIFFERENCE)
    assert measured(0.0, 0.0, 0.0).verdict == NO_DIFFERENCE, "an interval that only touches the bound holds it"
    assert measured(0.5, 0.5, 0.5, bound=0.5, above=False).verdict == NO_DIFFERENCE


def test_too_few_seeds_are_untested_however_clear() -> None:
    assert measured(0.5, 0.5).verdict == UNTESTED and measured(0.5, 0.5, 0.5).verdict == REPRODUCED
    assert measured(0.5, 0.5, 0.5, 0.5, needs=5).verdict == UNTESTED
    assert "needs 5" in str(measured(0.5, 0.5, 0.5, 0.5, needs=5))
    assert measured(0.5, needs=1).verdict == UNTESTED, "one seed has no interval, whatever a claim asks for"


def test_a_count_stands_for_itself() -> None:
    count = {"above": False, "bound": 0.125, "needs": 1, "sampled": False}
    assert measured(0.1, **count).verdict == REPRODUCED and measured(0.2, **count).verdict == NOT_REPRODUCED
    assert measured(0.125, **count).verdict == NO_DIFFERENCE and measured(**count).verdict == UNTESTED
    assert str(measured(0.1, **count)) == "accuracy +0.100 one count"
    assert str(measured(0.1, **count, form="")) == "accuracy, one count"


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((WON, WON), REPRODUCED),
        ((WON, OPEN), NO_DIFFERENCE),
        ((WON, OPEN, FEW), UNTESTED),
        ((WON, LOST, FEW), NOT_REPRODUCED),
        ((OPEN, LOST), NOT_REPRODUCED),
    ],
)
def test_a_claim_is_as_good_as_its_weakest_part(parts: tuple[Measured, ...], word: str) -> None:
    (finding,) = judge([claim(*parts)], Evidence())
    assert finding.verdict == word and finding.measured == parts


def test_a_claim_needs_something_to_decide_it() -> None:
    with pytest.raises(ConfigError, match="it helps"):
        judge([claim()], Evidence())
    (finding,) = judge([Claim("a word", "", "paper", "abstract", (Nothing("no run decides it"),))], Evidence())
    assert finding.verdict == UNTESTED and table([finding]).endswith("untested            no run decides it")


def test_the_table_names_each_setting_once_and_gives_n() -> None:
    findings = judge([claim(WON, OPEN, where="one"), claim(WON, where="two"), claim(measured(missing="no records of x"), words="it hurts")], Evidence())
    lines = table(findings).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["it helps [a test]", "it hurts [a test]"]
    assert lines[1].startswith("  no difference shown one: accuracy +0.110 [") and "n=3, reproduced;" in lines[1]
    assert lines[1].endswith("n=3, no difference shown")
    assert lines[2].startswith("  reproduced          two: accuracy +0.110 [") and lines[2].endswith("] n=3")
    assert lines[4] == "  untested            here: no records of x"
    (many,) = judge([claim(WON, LOST, FEW)], Evidence())
    assert table([many]).endswith("of 3 comparisons 1 reproduced, 1 not reproduced, 1 untested")


def test_counts_add_up() -> None:
    made = {"first": judge([claim(WON), claim(LOST)], Evidence()), "second": judge([claim(WON)], Evidence())}
    head, *rows = counts(made).splitlines()
    assert [row.split()[-4:] for row in rows] == [["1", "1", "0", "0"], ["1", "0", "0", "0"], ["2", "1", "0", "0"]]
    assert all(word in head for word in VERDICTS) and rows[-1].startswith("all claims")
    assert tally([REPRODUCED, UNTESTED, REPRODUCED]) == "2 reproduced, 1 untested"
    assert isinstance(made["first"][0], Finding)
