"""docs/defects.md names the tests that there are, and every defect has one."""

from tests.defects import FORK, LANGFUSE, PAGE, marked_tests, page

KNOWN = [defect.id for defect in (*LANGFUSE, *FORK)]


def test_the_page_is_made_from_the_marks() -> None:
    assert PAGE.read_text("utf-8") == page(marked_tests()), "run: python -m tests.defects"


def test_every_defect_has_a_test_and_every_mark_a_defect() -> None:
    marked = {name for test in marked_tests() for name in test.names}
    assert sorted(marked) == sorted(KNOWN)


def test_marks_are_on_tests_that_pytest_collects() -> None:
    functions = [test.function for test in marked_tests()]
    assert [name for name in functions if not name.startswith("test_")] == []


def test_defects_are_listed_once_and_in_order() -> None:
    assert sorted(set(KNOWN), key=lambda name: (name[0], int(name[1:]))) == KNOWN
