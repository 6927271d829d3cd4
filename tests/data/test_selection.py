"""The slice behind a data source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowsdeploy.data.selection import parse_selection
from snowsdeploy.errors import DataError

BOUND = st.one_of(st.none(), st.integers(-30, 30))
STEP = st.one_of(st.none(), st.integers(-5, 5).filter(bool))


def text_of(*parts):
    return ":".join("" if p is None else str(p) for p in parts)


@given(start=BOUND, stop=BOUND, step=STEP, size=st.integers(1, 40))
def test_it_selects_what_python_does(start, stop, step, size):
    selection = parse_selection(f"no/such/images[{text_of(start, stop, step)}]")
    expected = tuple(range(size)[start:stop:step])
    assert selection.source == "no/such/images"
    if expected:
        assert selection.indices(size) == expected
    else:
        with pytest.raises(DataError, match="selects no item"):
            selection.indices(size)


@given(start=BOUND, stop=BOUND, step=STEP)
def test_it_reads_its_own_text(start, stop, step):
    selection = parse_selection(f"no/such/images[{text_of(start, stop, step)}]")
    assert parse_selection(str(selection)) == selection


@given(st.text(max_size=12))
def test_anything_in_brackets_is_a_slice_or_a_data_error(inside):
    try:
        selection = parse_selection(f"no-such-source[{inside}]")
    except DataError:
        return
    assert selection.source.startswith("no-such-source")


@given(st.text(alphabet="abc/.-_ ", min_size=1, max_size=20))
def test_without_brackets_everything(source):
    selection = parse_selection(source)
    assert selection.source == source
    assert selection.indices(3) == (0, 1, 2)


@pytest.mark.parametrize("text", ["a[]", "a[1]", "a[1:2:3:4]", "a[x:]", "a[1.5:]", "a[::0]"])
def test_no_slices(text):
    with pytest.raises(DataError, match="not a Python slice"):
        parse_selection(text)


def test_two_elements_are_enough_and_spaces_do_not_matter():
    assert parse_selection("no-such[ 1 : 5 ]").indices(9) == (1, 2, 3, 4)
