"""Arrays come back as they were saved, and a file that lies about their size takes no memory."""

import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.lib import format as npy

from personalization.system.arrays import ArrayFileError, read_arrays

ANY = arrays.arrays(st.sampled_from(("u1", "<f4", ">i8", "U3")), arrays.array_shapes(min_dims=0, min_side=0))


def packed(header: bytes, body: bytes) -> BytesIO:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", header + body)
    return file


@given(ANY, ANY, st.booleans())
def test_what_was_saved_is_read_and_nothing_else(first, second, small):
    file = BytesIO()
    (np.savez_compressed if small else np.savez)(file, a=first, b=second)
    found = read_arrays(file, ("a", "c"))
    assert found.keys() == {"a"}
    assert found["a"].dtype == first.dtype
    np.testing.assert_array_equal(found["a"], first)


def test_zeros_that_deflate_to_almost_nothing_are_read():
    file = BytesIO()
    np.savez_compressed(file, a=np.zeros(10_000_000, np.uint8))
    assert not read_arrays(file, ("a",))["a"].any()


@pytest.mark.parametrize("shape", [(1 << 30,), (1 << 40, 1 << 40), (-1,)])
def test_a_shape_that_lies_takes_no_memory(shape):
    header = BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    file = packed(header.getvalue(), bytes(80))
    tracemalloc.start()
    try:
        with pytest.raises(ArrayFileError):
            read_arrays(file, ("a",))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_objects_and_bare_arrays_are_refused():
    objects, bare = BytesIO(), BytesIO()
    np.savez(objects, a=np.array([{}], dtype=object))
    np.save(bare, np.zeros(3))
    for file in (objects, bare, BytesIO(b""), packed(b"", b"x"), packed(b"\x93NUMPY\x03\x00", b"")):
        with pytest.raises(ArrayFileError):
            read_arrays(file, ("a",))
