import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.errors import UserError
from simulations.idx import read_idx


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), packed=st.booleans(), seed=st.integers(0, 99))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, shape: list[int], packed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(encode(array)) if packed else encode(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_anywhere_or_too_long_is_named(tmp_path: Path, packed: bool) -> None:
    whole = encode(np.arange(12, dtype=np.uint8).reshape(3, 4))
    path = tmp_path / "array-idx2-ubyte"
    for raw in [whole[:length] for length in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(gzip.compress(raw) if packed else raw)
        with pytest.raises(UserError, match="array-idx2-ubyte"):
            read_idx(path)


def test_a_gzip_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(encode(np.arange(200, dtype=np.uint8)))
    path = tmp_path / "array.gz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"array\.gz"):
            read_idx(path)


def test_a_gzip_file_with_any_byte_that_counts_flipped_is_named(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, 150, dtype=np.uint8)
    whole = gzip.compress(encode(array))
    path = tmp_path / "array.gz"
    harmless = set(range(4, 10))  # the header's time stamp, extra flags and operating system
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        if position in harmless:
            np.testing.assert_array_equal(read_idx(path), array)
        else:
            with pytest.raises(UserError, match=r"array\.gz"):
                read_idx(path)


@pytest.mark.parametrize("dimensions", [0, 5, 255])
def test_numbers_of_dimensions_that_nobody_needs_are_refused(tmp_path: Path, dimensions: int) -> None:
    path = tmp_path / "array"
    path.write_bytes(bytes([0, 0, 8, dimensions]) + np.ones(dimensions, ">u4").tobytes() + b"\0")
    with pytest.raises(UserError, match=f"{dimensions} dimensions; expected 1 to 4"):
        read_idx(path)


@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (3, 0)])
def test_empty_arrays_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "array"
    path.write_bytes(encode(np.zeros(shape, dtype=np.uint8)))
    with pytest.raises(UserError, match="holds no data"):
        read_idx(path)


def test_sizes_that_overflow_64_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "array"
    # 2**16 * 2**16 * 2**16 * 2**16 is 0 in 64 bits.
    path.write_bytes(bytes([0, 0, 8, 4]) + np.full(4, 2**16, ">u4").tobytes())
    with pytest.raises(UserError, match=f"promises {2**64 + 20}"):
        read_idx(path)


@pytest.mark.parametrize("magic", [b"\1\0\x08\1", b"\0\1\x08\1", b"\0\0\x09\1", b"\0\0\x0d\1", b"\x89PNG"])
def test_another_magic_number_is_refused(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "array"
    path.write_bytes(magic + b"\0\0\0\1" + b"\0")
    with pytest.raises(UserError, match="not an idx file of unsigned bytes"):
        read_idx(path)
