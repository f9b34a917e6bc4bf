"""RICE_1 tiles, compiled: a whole plane in one call, with the dithered rounding of floats.

The code of Rice, Yeh & Miller (1993) as tile-compressed FITS uses it (FITS Standard 4.0, section 10.4.1): differences
of neighbours, folded to be positive, in blocks of 32 that share the number of low bits written as they are; what is
above is written in unary. Floats are rounded to multiples of a step, shifted by a known random fraction that is taken
out again when they are read (section 10.2.1).
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Floats64 = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Rows and columns of a tile, half-open: y0, y1, x0, x1. Its rows, cut from the whole plane, lie closely packed in
memory; those of an array cut from it would not be known to do so, and would be walked through pixel by pixel."""

BLOCK = 32
"""Pixels that share a number of low bits, where a file does not say otherwise."""

N_RANDOM = 10_000
"""Length of the standard's random sequence."""

NULL = -2147483647
"""Rounded value that stands for a float that is not a number."""

_MOST_PUSHED = 56
"""Bits that are written at once at most: up to seven of the last byte wait to be written with them."""

_LARGEST_ROUNDED = float(2**31 - 10)
"""Rounded values stay below this and apart from `NULL`."""

_MODULUS = 2**31 - 1


class TileRows(NamedTuple):
    """Compressed tiles one after another, in order of rows of tiles."""

    heap: Bytes
    sizes: Integers
    """Bytes of each tile."""
    zeros: Floats64
    """What is to be added to the rounded floats of each tile, once they are multiplied by the step; 0 for integers."""


@cache
def random_sequence() -> NDArray[np.float32]:
    """Return the standard's sequence of numbers between 0 and 1 (FITS Standard 4.0, appendix I; Park & Miller 1988)."""
    sequence, seed = np.empty(N_RANDOM, np.float32), 1
    for k in range(N_RANDOM):
        seed = 16807 * seed % _MODULUS
        sequence[k] = seed / _MODULUS
    sequence.flags.writeable = False
    return sequence


def encode_integers(plane: NDArray[np.int32], *, tile: tuple[int, int]) -> TileRows:
    """Return the tiles (ny, nx each, smaller at the far edges) of a plane of integers."""
    heap = np.empty(_most_bytes(plane.shape, tile), np.uint8)
    sizes = np.empty(_n_tiles(plane.shape, tile), np.int64)
    end = _encode_integers(plane, tile[0], tile[1], heap, sizes)
    return TileRows(heap[:end], sizes, np.zeros(sizes.size))


def encode_floats(
    plane: NDArray[np.float32],
    *,
    tile: tuple[int, int],
    step: float,
    seed: int = 1,
    restored: NDArray[np.float32] | None = None,
) -> TileRows | None:
    """Return the tiles of a plane of floats, rounded to dithered multiples of ``step``; not finite ones become NaN.

    ``seed`` is the header's ZDITHER0. ``restored`` is filled with what decoding the tiles gives. None where a tile's
    range is too great for its step.
    """
    heap = np.empty(_most_bytes(plane.shape, tile), np.uint8)
    n = _n_tiles(plane.shape, tile)
    sizes, zeros = np.empty(n, np.int64), np.empty(n)
    back = np.empty((0, 0), np.float32) if restored is None else restored
    end = _encode_floats(plane, tile[0], tile[1], float(step), seed, random_sequence(), heap, sizes, zeros, back)
    return TileRows(heap[:end], sizes, zeros) if end >= 0 else None


def decode_integers(
    heap: Bytes, starts: Integers, sizes: Integers, out: NDArray[Any], *, tile: tuple[int, int], bits: int, block: int
) -> bool:
    """Fill ``out`` (int16 or int32, ``[y, x]``) from tiles coded in words of ``bits`` (16 or 32), ``block`` at a time.

    Return False where a tile ends early.
    """
    return bool(_decode_integers(heap, starts, sizes, tile[0], tile[1], bits, block, out))


def decode_floats(
    heap: Bytes,
    starts: Integers,
    sizes: Integers,
    scales: Floats64,
    zeros: Floats64,
    out: NDArray[np.float32],
    *,
    tile: tuple[int, int],
    block: int,
    seed: int,
    null: int | None,
) -> bool:
    """Fill ``out`` from tiles of dithered floats; those rounded to ``null`` become NaN.

    Return False where a tile ends early.
    """
    is_null_known, blank = null is not None, 0 if null is None else null
    return bool(
        _decode_floats(
            heap, starts, sizes, scales, zeros, tile[0], tile[1], block, seed, is_null_known, blank,
            random_sequence(), out,
        )
    )  # fmt: skip


def _n_tiles(shape: tuple[int, ...], tile: tuple[int, int]) -> int:
    return -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])


def _most_bytes(shape: tuple[int, ...], tile: tuple[int, int]) -> int:
    """Return the bytes of tiles that do not compress at all: 32 bits a pixel, 5 a block, the first pixel twice."""
    n_pixels = shape[0] * shape[1]
    return 4 * n_pixels + n_pixels // BLOCK + 16 * _n_tiles(shape, tile) + 16


@intrinsic
def _leading_zeros(typing: Any, word: Any) -> Any:
    """Return the number of zeros before the first bit of a word that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


@intrinsic
def _eight_bytes(typing: Any, code: Any, at: Any) -> Any:
    """Return eight bytes of an array, the first the highest; the caller sees to it that they are there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        first = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(first, context.get_value_type(types.uint64).as_pointer()), align=1)
        return builder.bswap(word) if sys.byteorder == "little" else word

    return types.uint64(code, types.int64), generate


@intrinsic
def _put_eight_bytes(typing: Any, code: Any, at: Any, word: Any) -> Any:
    """Write a word into eight bytes of an array, the highest first; the caller sees to it that they are there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        first = builder.gep(array.data, [arguments[1]])
        word = builder.bswap(arguments[2]) if sys.byteorder == "little" else arguments[2]
        builder.store(word, builder.bitcast(first, context.get_value_type(types.uint64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(code, types.int64, types.uint64), generate


@njit(cache=True, error_model="numpy")
def _encode_integers(plane: NDArray[np.int32], tile_y: int, tile_x: int, heap: Bytes, sizes: Integers) -> int:
    values = np.empty(tile_y * tile_x, np.int32)
    position, number = 0, 0
    for y0 in range(0, plane.shape[0], tile_y):
        for x0 in range(0, plane.shape[1], tile_x):
            y1, x1, n = min(y0 + tile_y, plane.shape[0]), min(x0 + tile_x, plane.shape[1]), 0
            for y in range(y0, y1):
                values[n : n + x1 - x0] = plane[y, x0:x1]
                n += x1 - x0
            end = _encode_tile(values[:n], heap, position)
            sizes[number], position, number = end - position, end, number + 1
    return position


@njit(cache=True, error_model="numpy")
def _encode_floats(
    plane: NDArray[np.float32],
    tile_y: int,
    tile_x: int,
    step: float,
    seed: int,
    random: NDArray[np.float32],
    heap: Bytes,
    sizes: Integers,
    zeros: Floats64,
    restored: NDArray[np.float32],
) -> int:
    values = np.empty(tile_y * tile_x, np.int32)
    position, number = 0, 0
    for y0 in range(0, plane.shape[0], tile_y):
        for x0 in range(0, plane.shape[1], tile_x):
            y1, x1 = min(y0 + tile_y, plane.shape[0]), min(x0 + tile_x, plane.shape[1])
            box, start = (y0, y1, x0, x1), (number + seed - 1) % random.size
            zero = step * np.floor(_first_finite(plane, box) / step)
            own = values[: (y1 - y0) * (x1 - x0)]
            if not _round_tile(plane, box, step, zero, start, random, own):
                return -1
            if restored.size:
                _restore_tile(own, step, zero, start, random, True, NULL, restored, box)
            end = _encode_tile(own, heap, position)
            sizes[number], zeros[number] = end - position, zero
            position, number = end, number + 1
    return position


@njit(cache=True, error_model="numpy")
def _first_finite(plane: NDArray[np.float32], box: Box) -> float:
    """Return the first finite value in a box, 0 where there is none."""
    y0, y1, x0, x1 = box
    for y in range(y0, y1):
        for x in range(x0, x1):
            if abs(plane[y, x]) < np.float32(np.inf):
                return float(plane[y, x])
    return 0.0


@njit(cache=True, error_model="numpy")
def _round_tile(
    plane: NDArray[np.float32],
    box: Box,
    step: float,
    zero: float,
    start: int,
    random: NDArray[np.float32],
    values: NDArray[np.int32],
) -> bool:
    """Write the multiples of the step above ``zero`` of a box, shifted by the random sequence; False if over 32 bits.

    Rounding to the nearest whole number after a shift by (random - 1/2) is rounding down after one by random.
    """
    infinite, n, n_far, per_step = np.float32(np.inf), 0, 0, 1.0 / step
    row_of_random, k = start, int(random[start] * np.float32(500))
    y0, y1, x0, x1 = box
    for y in range(y0, y1):
        row, x = plane[y, x0:x1], 0
        while x < row.size:
            run = min(row.size - x, random.size - k)
            line, dither, into = row[x : x + run], random[k : k + run], values[n : n + run]
            for i in range(run):
                is_finite = abs(line[i]) < infinite
                q = np.floor(((float(line[i]) if is_finite else zero) - zero) * per_step + float(dither[i]))
                n_far += 1 if abs(q) > _LARGEST_ROUNDED else 0
                into[i] = np.int32(q) if is_finite else np.int32(NULL)
            n, k, x = n + run, k + run, x + run
            if k == random.size:
                row_of_random = (row_of_random + 1) % random.size
                k = int(random[row_of_random] * np.float32(500))
    return n_far == 0


@njit(cache=True, error_model="numpy")
def _encode_tile(values: NDArray[np.int32], heap: Bytes, position: int) -> int:
    """Write the code of one tile from ``position`` on; return where it ends. The heap has eight bytes to spare."""
    folded = np.empty(BLOCK, np.uint32)
    _put_eight_bytes(heap, position, np.uint64(np.uint32(values[0])) << np.uint64(32))
    position += 4
    word, n_bits = np.uint64(0), 0  # the first ``n_bits`` of ``word``, fewer than eight, are not written yet
    for begin in range(0, values.size, BLOCK):
        n = min(BLOCK, values.size - begin)
        total, largest = _fold(values, begin, folded[:n])
        low = _low_bits(int(total), n)
        header = 0 if total == 0 else low + 1 if low < 25 else 26
        word, n_bits, position = _pushed(heap, position, word, n_bits, np.uint64(header), 5)
        if header == 0:
            continue
        longest = (np.int64(largest) >> low) + 1 + low
        if n == BLOCK and 4 * longest <= _MOST_PUSHED:
            word, n_bits, position = _push_by_four(folded, low, heap, position, word, n_bits)
            continue
        one = np.uint64(1) << np.uint64(low)
        for k in range(n):
            v = np.uint64(folded[k])
            zeros = np.int64(v >> np.uint64(low))
            if header == 26:
                word, n_bits, position = _pushed(heap, position, word, n_bits, v, 32)
                continue
            while zeros + 1 + low > _MOST_PUSHED:
                word, n_bits, position = _pushed(heap, position, word, n_bits, np.uint64(0), 24)
                zeros -= 24
            own = one | (v & (one - np.uint64(1)))
            word, n_bits, position = _pushed(heap, position, word, n_bits, own, zeros + 1 + low)
    if n_bits > 0:
        heap[position] = np.uint8(word >> np.uint64(56))
        position += 1
    return position


@njit(cache=True, error_model="numpy")
def _fold(values: NDArray[np.int32], begin: int, folded: NDArray[np.uint32]) -> tuple[np.int64, np.uint32]:
    """Write differences from the value before (of the first value: 0), folded to be positive.

    Return their sum and the largest.
    """
    before = values[max(begin - 1, 0)]
    own, total = values[begin : begin + folded.size], np.uint64(0)
    for k in range(folded.size):
        difference = np.int32(own[k] - before)
        before = own[k]
        folded[k] = np.uint32((difference << np.int32(1)) ^ (difference >> np.int32(31)))
    largest = np.uint32(0)
    for k in range(folded.size):
        total += np.uint64(folded[k])
        largest = max(largest, folded[k])
    return np.int64(total), largest


@njit(cache=True, error_model="numpy")
def _push_by_four(
    folded: NDArray[np.uint32], low: int, heap: Bytes, position: int, word: np.uint64, n_bits: int
) -> tuple[np.uint64, int, int]:
    """Append the codes of a whole block, four at once: what is written waits for what was written before."""
    down, one = np.uint64(low), np.uint64(1) << np.uint64(low)
    rest = one - np.uint64(1)
    for k in range(0, BLOCK, 4):
        a, b, c, d = np.uint64(folded[k]), np.uint64(folded[k + 1]), np.uint64(folded[k + 2]), np.uint64(folded[k + 3])
        after = np.uint64(low + 1)
        at_b, at_c, at_d = (b >> down) + after, (c >> down) + after, (d >> down) + after
        first = ((one | (a & rest)) << at_b) | (one | (b & rest))
        second = ((one | (c & rest)) << at_d) | (one | (d & rest))
        length = (a >> down) + after + at_b + at_c + at_d
        both = (first << (at_c + at_d)) | second
        word, n_bits, position = _pushed(heap, position, word, n_bits, both, np.int64(length))
    return word, n_bits, position


@njit(cache=True, error_model="numpy")
def _low_bits(total: int, n: int) -> int:
    """Return how many low bits of a block's values are best written as they are."""
    half = max((total - n // 2 - 1) // n, 0) >> 1
    low = 0
    while half > 0:
        low, half = low + 1, half >> 1
    return low


@njit(cache=True, error_model="numpy")
def _pushed(
    heap: Bytes, position: int, word: np.uint64, n_bits: int, value: np.uint64, length: int
) -> tuple[np.uint64, int, int]:
    """Append the last ``length`` (57 at most) bits, and write what are whole bytes now."""
    word |= value << np.uint64(64 - n_bits - length)
    _put_eight_bytes(heap, position, word)
    whole = (n_bits + length) >> 3
    word = (word << np.uint64(4 * whole)) << np.uint64(4 * whole)
    return word, (n_bits + length) & 7, position + whole


@njit(cache=True, error_model="numpy")
def _decode_integers(
    heap: Bytes,
    starts: Integers,
    sizes: Integers,
    tile_y: int,
    tile_x: int,
    bits: int,
    block: int,
    out: NDArray[Any],
) -> bool:
    values = np.empty(min(tile_y, out.shape[0]) * min(tile_x, out.shape[1]), np.int32)
    number = 0
    for y0 in range(0, out.shape[0], tile_y):
        for x0 in range(0, out.shape[1], tile_x):
            y1, x1 = min(y0 + tile_y, out.shape[0]), min(x0 + tile_x, out.shape[1])
            width, first = x1 - x0, starts[number]
            part = values[: (y1 - y0) * width]
            if not _decode_tile(heap[first : first + sizes[number]], bits, block, part):
                return False
            for y in range(y0, y1):
                row, line = out[y, x0:x1], part[(y - y0) * width : (y - y0 + 1) * width]
                for x in range(width):
                    row[x] = line[x]
            number += 1
    return True


@njit(cache=True, error_model="numpy")
def _decode_floats(
    heap: Bytes,
    starts: Integers,
    sizes: Integers,
    scales: Floats64,
    zeros: Floats64,
    tile_y: int,
    tile_x: int,
    block: int,
    seed: int,
    is_null_known: bool,
    null: int,
    random: NDArray[np.float32],
    out: NDArray[np.float32],
) -> bool:
    values = np.empty(min(tile_y, out.shape[0]) * min(tile_x, out.shape[1]), np.int32)
    number = 0
    for y0 in range(0, out.shape[0], tile_y):
        for x0 in range(0, out.shape[1], tile_x):
            y1, x1, first = min(y0 + tile_y, out.shape[0]), min(x0 + tile_x, out.shape[1]), starts[number]
            part = values[: (y1 - y0) * (x1 - x0)]
            if not _decode_tile(heap[first : first + sizes[number]], 32, block, part):
                return False
            start = (number + seed - 1) % random.size
            box = (y0, y1, x0, x1)
            _restore_tile(part, scales[number], zeros[number], start, random, is_null_known, null, out, box)
            number += 1
    return True


@njit(cache=True, error_model="numpy")
def _restore_tile(
    values: NDArray[np.int32],
    step: float,
    zero: float,
    start: int,
    random: NDArray[np.float32],
    is_null_known: bool,
    null: int,
    out: NDArray[np.float32],
    box: Box,
) -> None:
    row_of_random, k, n = start, int(random[start] * np.float32(500)), 0
    y0, y1, x0, x1 = box
    for y in range(y0, y1):
        row, x = out[y, x0:x1], 0
        while x < row.size:
            run = min(row.size - x, random.size - k)
            line, dither, into = values[n : n + run], random[k : k + run], row[x : x + run]
            for i in range(run):
                value = (float(line[i]) - float(dither[i]) + 0.5) * step + zero
                into[i] = np.float32(np.nan) if is_null_known and line[i] == null else np.float32(value)
            n, k, x = n + run, k + run, x + run
            if k == random.size:
                row_of_random = (row_of_random + 1) % random.size
                k = int(random[row_of_random] * np.float32(500))


@njit(cache=True, error_model="numpy")
def _decode_tile(code: Bytes, bits: int, block: int, out: NDArray[np.int32]) -> bool:
    """Fill ``out`` from the code of one tile of words of ``bits``; return False where the code ends early.

    The first ``n_bits`` of ``word`` are what was read and not used yet; 57 or more after it was filled up.
    """
    bits_of_low, most_low = (5, 25) if bits == 32 else (4, 14)
    if bits // 8 > code.size:
        return False
    last, at = np.int32(0), bits // 8
    for k in range(at):
        last = np.int32((last << np.int32(8)) | np.int32(code[k]))
    word, n_bits, n = np.uint64(0), 0, 0
    while n < out.size:
        word, n_bits, at = _filled(code, at, word, n_bits)
        low = int(word >> np.uint64(64 - bits_of_low)) - 1
        word, n_bits = word << np.uint64(bits_of_low), n_bits - bits_of_low
        part = out[n : min(n + block, out.size)]
        n += part.size
        if low < 0:
            part[:] = last
        elif low >= most_low:
            for k in range(part.size):
                word, n_bits, at = _filled(code, at, word, n_bits)
                last = _unfolded(last, word >> np.uint64(64 - bits))
                word, n_bits = word << np.uint64(bits), n_bits - bits
                part[k] = last
        else:
            for k in range(part.size):
                word, n_bits, at = _filled(code, at, word, n_bits)
                zeros = _leading_zeros(word | np.uint64(1))
                if zeros < np.uint64(30):
                    word <<= zeros
                else:
                    zeros, word, n_bits, at = _long_run(code, at, word, n_bits)
                    if at > code.size + 8:
                        return False
                    n_bits += int(zeros)
                folded = (zeros << np.uint64(low)) | ((word << np.uint64(1)) >> np.uint64(1) >> np.uint64(63 - low))
                word, n_bits = word << np.uint64(1 + low), n_bits - int(zeros) - 1 - low
                last = _unfolded(last, folded)
                part[k] = last
    return at - n_bits // 8 <= code.size


@njit(cache=True, error_model="numpy")
def _filled(code: Bytes, at: int, word: np.uint64, n_bits: int) -> tuple[np.uint64, int, int]:
    """Add whole bytes, zeros after the end, to the ``n_bits`` of ``word`` until there is no room for another."""
    if n_bits > 56:
        return word, n_bits, at
    if at + 8 <= code.size:
        word |= _eight_bytes(code, at) >> np.uint64(n_bits)
        n_more = (64 - n_bits) >> 3
        return word, n_bits + 8 * n_more, at + n_more
    while n_bits <= 56:
        byte = np.uint64(code[at]) if at < code.size else np.uint64(0)
        word |= byte << np.uint64(56 - n_bits)
        at, n_bits = at + 1, n_bits + 8
    return word, n_bits, at


@njit(cache=True, error_model="numpy")
def _long_run(code: Bytes, at: int, word: np.uint64, n_bits: int) -> tuple[np.uint64, np.uint64, int, int]:
    """Pass over a long run of zeros: their number, and ``word`` from the one on, filled up."""
    zeros, past = np.uint64(0), np.uint64(64 - n_bits)
    word = (word >> past) << past  # what may stand there already of the byte that comes next
    while word == np.uint64(0) and at <= code.size + 8:
        zeros += np.uint64(n_bits)
        word, n_bits, at = _filled(code, at, np.uint64(0), 0)
    own = _leading_zeros(word | np.uint64(1))
    word, n_bits, at = _filled(code, at, word << own, n_bits - int(own))
    return zeros + own, word, n_bits, at


@njit(cache=True, error_model="numpy")
def _unfolded(last: np.int32, folded: np.uint64) -> np.int32:
    """Return the value after ``last`` whose folded difference was read, in wrapping 32 bits."""
    half = np.int32(np.uint32(folded >> np.uint64(1)))
    return np.int32(last + (half ^ -np.int32(np.uint32(folded & np.uint64(1)))))
