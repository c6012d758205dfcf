"""Every fault of the catalogue has a test that names it, and the page shows what there is."""

from __future__ import annotations

from tests.faults.page import PAGE, catalogue, last_results, page, places


def test_every_fault_has_a_test_or_says_what_it_waits_for() -> None:
    named = {row for rows in places().values() for row in rows}
    unproven = [row.number for row in catalogue() if row.number not in named and not row.later]
    assert unproven == []


def test_no_test_names_a_fault_that_is_not_in_the_catalogue() -> None:
    known = {row.number for row in catalogue()}
    strange = {place: rows for place, rows in places().items() if not known.issuperset(rows)}
    assert strange == {}


def test_what_waits_for_something_has_no_test_yet() -> None:
    named = {row for rows in places().values() for row in rows}
    assert [row.number for row in catalogue() if row.later and row.number in named] == []


def test_the_page_shows_the_faults_and_tests_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(last_results(text)), "run: make faults"
