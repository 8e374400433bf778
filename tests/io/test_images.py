"""The one image decoder: budgets before anything is made, damage named, pixels as they are stored."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtrack.errors import JaxtrackError
from jaxtrack.io import headers, images

SUFFIXES = [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm", ".pgm"]


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), (width, height))


def encoded(suffix: str, image: np.ndarray | None = None, *flags: int) -> bytes:
    image = picture() if image is None else image
    if suffix == ".pgm":
        image = image[..., 0]
    good, data = cv2.imencode(suffix, image, list(flags))
    assert good
    return data.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_headers_tell_the_size_that_decoders_find(suffix: str) -> None:
    for height, width in ((40, 56), (1, 1), (17, 300)):
        data = encoded(suffix, picture(height, width))
        assert headers.size_of(data) == (height, width)
        assert headers.fault_of(data) is None
        assert images.decode_image(data, "a").shape == (height, width, 3)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_few_bits_in_values_of_sixteen_are_no_black_picture(suffix: str, bits: int) -> None:
    for grey in (False, True):
        image = picture().astype(np.uint16) << (bits - 8)
        data = encoded(suffix, image[..., 1] if grey and suffix != ".pgm" else image)
        with pytest.raises(
            JaxtrackError, match=r"a: the largest of its 16-bit values is \d+ of 65535"
        ):
            images.decode_image(data, "a")


def test_dark_pictures_are_pictures() -> None:
    night = np.full((40, 56, 3), 7, np.uint8)
    np.testing.assert_array_equal(images.decode_image(encoded(".png", night), "a"), night)
    black = np.zeros((40, 56, 3), np.uint16)
    assert not images.decode_image(encoded(".png", black), "a").any()
    clear = np.dstack([black, np.full((40, 56), 65535, np.uint16)])
    assert not images.decode_image(encoded(".png", clear), "a").any()
    full = picture().astype(np.uint16) * 257
    assert images.decode_image(encoded(".png", full), "a").max() > 200


@pytest.mark.parametrize("start", [b"P5 2 1 100 ", b"P5 2 1 4095 ", b"P2 2 1 15 "])
def test_portable_maps_of_another_white_are_told(start: bytes) -> None:
    with pytest.raises(JaxtrackError, match=r"a: its values go up to \d+, not to 255 or 65535"):
        images.decode_image(start + b"1 2 3 4 ", "a")


def test_other_forms_of_the_formats() -> None:
    for flags in ((cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)):
        assert images.check_image(encoded(".jpg", None, *flags), "a") == (40, 56)
    lossless = encoded(".webp", None, cv2.IMWRITE_WEBP_QUALITY, 101)
    assert images.check_image(lossless, "a") == (40, 56)
    deep = encoded(".png", picture().astype(np.uint16) * 256)
    assert images.check_image(deep, "a") == (40, 56)
    clear = encoded(".webp", np.dstack([picture(), picture()[..., 0]]))
    assert images.check_image(clear, "a") == (40, 56)
    assert headers.size_of(b"P3 # a comment\n 7 5\n255\n") == (5, 7)
    wide = struct.pack(">2sHI", b"MM", 42, 8) + struct.pack(
        ">HHHIHHHHIHH", 2, 256, 3, 1, 7, 0, 257, 3, 1, 5, 0
    )
    assert headers.size_of(wide) == (5, 7)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that declares a large picture of one colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * height, 10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        bomb(20_000, 20_000),
        bomb(2**31 - 1, 1),
        bomb(0, 5),
        b"BM" + bytes(8) + struct.pack("<IIii", 54, 40, 30_000, -30_000) + bytes(20),
        b"P6 60000 60000 255\n",
        encoded(".jpg").replace(struct.pack(">HH", 40, 56), struct.pack(">HH", 65_000, 65_000)),
    ],
)
def test_a_small_file_cannot_ask_for_a_large_picture(data: bytes) -> None:
    with pytest.raises(JaxtrackError, match=r"a: \d+x\d+ pixels are declared, at most 134 million"):
        images.decode_image(data, "a")


@pytest.mark.parametrize("flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_jpeg_that_decodes_in_part_is_refused(flags: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    data = encoded(".jpg", image, *flags)
    middle = len(data) // 2
    for broken in (
        data[:middle],
        data[:middle] + bytes(4096) + data[middle + 4096 :],
        data[:middle] + np.random.default_rng(1).bytes(8192) + data[middle + 8192 :],
    ):
        with pytest.raises(JaxtrackError, match=r"a: (truncated|damaged) image"):
            images.decode_image(broken, "a")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_lies_behind_the_end_of_an_image_is_not_looked_at(suffix: str) -> None:
    data = encoded(suffix)
    want = images.decode_image(data, "a")
    for more in (
        b"\0",
        bytes(4096),
        b"\xff\xd8\xff\xd9",
        data,
        data[: len(data) // 2],
        b"\xff" * 700,
    ):
        np.testing.assert_array_equal(images.decode_image(data + more, "a"), want)


@pytest.mark.parametrize("suffix", [".png"])
def test_a_flipped_bit_is_found(suffix: str) -> None:
    data = encoded(suffix)
    for place in range(16, len(data) - 16, 37):
        broken = bytearray(data)
        broken[place] ^= 4
        with pytest.raises(JaxtrackError, match="a: "):
            images.decode_image(bytes(broken), "a")


@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_pixels_come_as_they_are_stored(reduce: int) -> None:
    from PIL import Image

    raw = np.zeros((80, 120, 3), np.uint8)
    raw[:40, :60] = (255, 0, 0)
    for orientation in range(1, 9):
        mark = Image.Exif()
        mark[0x0112] = orientation
        file = io.BytesIO()
        Image.fromarray(raw).save(file, "jpeg", exif=mark, quality=95)
        found = images.decode_image(file.getvalue(), "a", reduce)
        assert found.shape == (80 // reduce, 120 // reduce, 3)
        assert found[2, 2, 0] > 200
        assert found[-2, 2, 0] < 50
        assert found[2, -2, 0] < 50


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(SUFFIXES),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20),
    st.integers(0, 100),
)
def test_damage_is_one_line_or_a_picture_of_the_declared_size(
    suffix: str, changes: list[tuple[int, int]], kept: int
) -> None:
    data = bytearray(encoded(suffix))
    for place, value in changes:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) * kept // 100])
    said = ""
    try:
        found = images.decode_image(damaged, "a")
    except JaxtrackError as error:
        said = str(error)
    assert said.startswith("a: ") or found.shape[:2] == headers.size_of(damaged)
    assert "\n" not in said
    assert len(said) < 300


def test_an_image_is_written_whole(tmp_path: pathlib.Path) -> None:
    images.write_image(tmp_path / "deep" / "a.png", picture())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
