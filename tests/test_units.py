"""Sizes and durations: read as people write them, and written so that they are read back."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlaunch import units


@pytest.mark.parametrize(
    "text, size",
    [
        ("20GiB", 20 << 30),
        (" 512 MiB ", 512 << 20),
        ("1.5TiB", 3 << 39),
        ("64kB", 64000),
        ("2.3kB", 2300),  # 2299.9999999999995 with floats
        ("0.1GB", 10**8),
        (".5KiB", 512),
        ("1.KiB", 1024),
        ("0B", 0),
        ("4PiB", 1 << 52),
    ],
)
def test_a_size_is_read_to_the_byte(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "'' is not a size; write a number and a unit, such as '20GiB'"),
        ("GiB", "'GiB' is not a size; write a number and a unit, such as '20GiB'"),
        ("1.2.3GiB", "'1.2.3GiB' is not a size; write a number and a unit, such as '20GiB'"),
        (".GiB", "'.GiB' is not a size; write a number and a unit, such as '20GiB'"),
        ("-1GiB", "'-1GiB' is not a size; write a number and a unit, such as '20GiB'"),
        ("٣GiB", "'٣GiB' is not a size; write a number and a unit, such as '20GiB'"),
        ("20", "'20' has no unit; write '20MiB' or '20GiB'"),
        ("20G", "'G' is not a unit of size; use B, KiB, MiB, GiB, TiB, PiB, kB, KB, MB, GB, TB"),
        ("1.1KiB", "'1.1KiB' is not a whole number of bytes"),
        ("9999999PiB", "'9999999PiB' is larger than any disk or memory can be"),
    ],
)
def test_what_is_no_size_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        units.parse_size(text)


@pytest.mark.parametrize("parse", [units.parse_size, units.parse_duration])
@pytest.mark.parametrize("number", ["9" * 400, "1." + "0" * 5000, "9" * 5000])
def test_endless_numbers_are_no_other_error(parse: object, number: str) -> None:
    assert callable(parse)
    with pytest.raises(ValueError, match="too many digits"):
        parse(number + ("B" if parse is units.parse_size else "s"))


@given(st.integers(0, units.MAX_SIZE))
def test_a_size_is_written_so_that_it_is_read_back(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 10**12))
def test_a_duration_is_written_so_that_it_is_read_back(microseconds: int) -> None:
    seconds = microseconds / 10**6
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    for parse in (units.parse_size, units.parse_duration):
        with suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("1.5min", 90), ("200ms", 0.2), ("2h", 7200), ("1d", 86400), ("0s", 0)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text, words",
    [
        ("s", "'s' is not a duration; write a number and a unit, such as '90s'"),
        ("90", "'90' has no unit; write '90s' or '90min'"),
        ("90m", "'m' is not a unit of time; use ms, s, min, h, d"),
    ],
)
def test_what_is_no_duration_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        units.parse_duration(text)


def test_sizes_and_durations_are_written_with_the_largest_unit_that_fits() -> None:
    sizes = [0, 512, 1536, 1536 << 20, 20 << 30]
    assert [units.format_size(size) for size in sizes] == [
        "0B", "512B", "1536B", "1536MiB", "20GiB",
    ]  # fmt: skip
    times = [0, 0.2, 1.5, 90, 3600, 86400, 0.0000014]
    assert [units.format_duration(time) for time in times] == [
        "0s", "200ms", "1500ms", "90s", "1h", "1d", "0.000001s",
    ]  # fmt: skip


def test_tables_get_short_words() -> None:
    sizes = [9, 1536, 312 << 20, 3 << 29, 10 << 30]
    assert [units.short_size(size) for size in sizes] == [
        "9 B", "1.5 KiB", "312 MiB", "1.5 GiB", "10 GiB",
    ]  # fmt: skip
    times = [3, 119, 120, 7200, 200000]
    assert [units.short_duration(time) for time in times] == [
        "3 s", "119 s", "2 min", "2 h", "2 d",
    ]  # fmt: skip
