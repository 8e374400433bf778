"""Numbers from text: fast, exact to the last bit, and strict about what is a number."""

import codecs
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrack.errors import JaxtrackError
from jaxtrack.io.text import _parse_plain, parse_numbers, read_many, read_numbers, read_text


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_fast_numbers_equal_float(separator):
    """Every number of digits before and behind the dot, signs, bare dots; to the last bit."""
    rng = np.random.default_rng(0)
    rows = []
    for whole in range(9):
        for places in range(-1, 17):
            digits = [
                "".join(map(str, rng.integers(0, 10, whole + max(places, 0)))) for _ in range(4)
            ]
            tail = [d[whole:] for d in digits]
            words = [d[:whole] + (f".{t}" if places >= 0 else "") for d, t in zip(digits, tail)]
            if whole + max(places, 0):
                rows.append([f"-{w}" if rng.random() < 0.3 else w for w in words])
    table = _parse_plain("\n".join(separator.join(r) for r in rows).encode())
    assert table is not None
    np.testing.assert_array_equal(table, [[float(w) for w in r] for r in rows])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=4, max_size=4))
def test_written_floats_come_back_to_the_bit(row):
    text = ",".join(map(repr, row)) + "\n"
    np.testing.assert_array_equal(parse_numbers(text.encode())[0], row)


@pytest.mark.parametrize("separator", [",", "\t", " ", ", ", ";", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_any_separator(separator, end):
    text = (end or "\n").join(separator.join(["1", "2.5", "-3", "4e1"]) for _ in range(3)) + end
    np.testing.assert_array_equal(parse_numbers(text.encode()), [[1, 2.5, -3, 40]] * 3)


def test_odd_text():
    np.testing.assert_array_equal(parse_numbers(b"\xef\xbb\xbf1,2\n"), [[1, 2]])
    assert np.isnan(parse_numbers(b"1,nan\nNaN,2\n")).sum() == 2
    assert parse_numbers(b"-0.5,+1,1e3,.5\n").tolist() == [[-0.5, 1, 1000, 0.5]]
    assert parse_numbers(b"123456789012345678901.5,1\n")[0, 0] == 123456789012345678901.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"1,2,3,4\n1,2,3\n", "line 2: 3 numbers where the first line has 4"),
        (b"1,2,3\n1,2,3,4,5\n", "line 2: 5 numbers where the first line has 3"),
        (b"1,2,3,4\n\n1,2,3,4\n", "line 2 is blank"),
        (b"1,2,3,4\n1,2,x,4\n", "line 2: 'x' is not a number"),
        (b"1,2,3,4\n1,--2,3,4\n", "line 2: '--2' is not a number"),
        (b"1,2,3,4\n1,2.3.4,3,4\n", "line 2: '2.3.4' is not a number"),
        (b"1,2,3,4\n1,-,3,4\n", "line 2: '-' is not a number"),
        (b"1,2,3,4\n1,.,3,4\n", "line 2: '.' is not a number"),
        (b"1,2,3,4\n1,1-2,3,4\n", "line 2: '1-2' is not a number"),
        (b"\n1,2,3,4\n", "line 1 is blank"),
        (b"1,2\n3,4\n", "2 columns where 4 or 8 are expected"),
        # Decimal commas, whatever stands between the numbers.
        (b"10,0;10,0;20,0;20,0\n", "line 1: '10,0;10,0;20,0;20,0' mixes commas and semicolons"),
        (b"1,2,3,4\n10,0 10,0 20,0 20,0\n", "line 2: '10,0 10,0 20,0 20,0' is separated by ','"),
        (b"10,0\t10,0\t20,0\t20,0\n", "is separated by ',' and by blanks"),
        (b"1,2,3 4\n", "is separated by ',' and by blanks"),
        (b"1,,2 3,4\n", "is separated by ',' and by blanks"),
        (b"1,,2,3\n", "line 1: '' is not a number"),
        (b"1;2;;4\n", "line 1: '' is not a number"),
        (b"1,2,3,4\r5,6,7,8\n9,1,2\n", "line 3: 3 numbers"),  # an old Mac's line end is one
        # Digits that Python's int and float take, and others that they do not.
        ("１,2,3,4\n".encode(), "line 1: '１' is not a number"),
        ("1,2,3,4\n①,2,3,4\n".encode(), "line 2: '①' is not a number"),
        ("1,²,3,4\n".encode(), "'²' is not a number"),
        ("1,\u22122,3,4\n".encode(), "'−2' is not a number"),
        (b"1_000,2,3,4\n", "'1_000' is not a number"),
        (b"0x10,2,3,4\n", "'0x10' is not a number"),
        (b"1,2,3,4\ninf,2,3,4\n", "line 2: 'inf' is not finite"),
        (b"1,2,3,-Infinity\n", "'-Infinity' is not finite"),
        (b"1,2,3,1e999\n", "'1e999' is not finite"),
        (b"1,2,3,4\n\xff\xfe,2,3,4\n", r"line 2: '\xff\xfe' is not a number"),
        (b"1,2,3," + b"9" * 300 + b"x\n", "999...' is not a number"),
        (b"1 " * 600_000, "characters, that is no row of a table"),
        (b"\0\0\0\0", r"line 1: '\x00\x00\x00\x00' is not a number"),
    ],
)
def test_bad_text_is_named_with_its_line(text, message, tmp_path):
    path = tmp_path / "Deer.txt"
    path.write_bytes(text)
    for read in (lambda: read_numbers(path, (4, 8)), lambda: read_many([path] * 2, (4, 8))):
        with pytest.raises(JaxtrackError, match=r"Deer\.txt") as error:
            read()
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(JaxtrackError, match=r"none\.txt: no such file"):
        read_numbers(tmp_path / "none.txt")


def test_many_files_together_are_the_same_as_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    paths, tables = [], []
    for i, form in enumerate(("%d", "%.3f", "%.14f", "%g", "%d")):
        table = rng.uniform(0, 900, (rng.integers(1, 50), 4)).round(i)
        paths.append(tmp_path / f"{i}.txt")
        np.savetxt(paths[-1], table, fmt=form, delimiter=",\t"[i % 2])
        words = [line.replace("\t", ",").split(",") for line in paths[-1].read_text().splitlines()]
        tables.append([[float(w) for w in row] for row in words])
    for found, expected in zip(read_many(paths), tables):
        np.testing.assert_array_equal(found, expected)


def test_commas_with_blanks_beside_them_hold_a_line_together():
    for text in (b"1, 2 ,3,\t4\n5,6,7,8\n", b"1;2; 3 ;4;\n5;6;7;8\n", b"1,2,3,4,\n5,6,7,8,\n"):
        assert parse_numbers(text).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_that_names_its_encoding(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("1,2\n3,4\n".encode(encoding))
    assert read_text(path) == "1,2\n3,4\n"
    assert read_numbers(path).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"\xe9t\xe9", b"a\0b", codecs.BOM_UTF16_LE + b"a"]
)
def test_what_is_no_text(tmp_path, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(JaxtrackError, match=r"a\.txt: not a text file"):
        read_text(path)


def test_files_that_never_end_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JaxtrackError, match="pipe: is a device, pipe or socket"):
        read_numbers(tmp_path / "pipe")
    with pytest.raises(JaxtrackError, match="is a folder, a file is wanted"):
        read_numbers(tmp_path)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"1", b"-2.5", b",", b";", b" ", b"\t", b"\n", b"\r", b"."]), max_size=12
    )
)
def test_the_fast_path_takes_nothing_that_the_strict_one_refuses(parts):
    data = b"".join(parts)
    fast = _parse_plain(data)
    if fast is None:
        return
    # An exponent sends the whole text through the strict path.
    slow = parse_numbers(data.rstrip() + b"\n" + b",".join([b"1e0"] * fast.shape[1]))
    np.testing.assert_array_equal(slow[:-1], fast)
