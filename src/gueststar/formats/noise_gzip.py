"""Gzip of pixels: Huffman codes and runs, all that there is to find in noise, in half of zlib's time.

One block with codes of its own (RFC 1951, 3.2.7), whose only repetitions are those of the byte before: in the floats
of an image no others pay, while headers and padding are little else. Any gzip reader reads it, and the same bytes
give the same bytes, whatever version of zlib is at hand.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numba import njit

_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
"""Deflate, no name, no time, fastest, unknown system."""
_END = 256
"""Token and symbol of the end; tokens above it are runs, by their length."""
_N_SYMBOLS = 286
_LONGEST_CODE = 15
_SHORTEST_RUN, _LONGEST_RUN = 3, 258
_EXTRA_BITS = np.array([0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0])
"""Of the symbols of runs, from 257 on: how many bits tell the length beyond the first one of the symbol."""
_FIRST_RUN = np.concatenate([_SHORTEST_RUN + np.concatenate([[0], np.cumsum(2 ** _EXTRA_BITS[:27])]), [_LONGEST_RUN]])
"""The first length of each of them; the longest run has one of its own."""
_SYMBOLS = np.concatenate(
    [np.arange(_END + 1), _END + np.searchsorted(_FIRST_RUN, np.arange(1, _LONGEST_RUN + 1), side="right")]
)
"""Symbol of each token."""
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
"""Order in which the lengths of the codes of code lengths are told."""


def gzipped(data: bytes) -> bytes:
    """Return a gzip file of ``data``."""
    plain = np.frombuffer(data, np.uint8)
    words = np.empty(plain.size // 2 + 256, np.uint32)
    n_bytes = _deflate(plain, np.empty(plain.size + 1, np.uint16), words)
    packed = words.astype("<u4", copy=False).view(np.uint8)[:n_bytes].tobytes()
    return _HEAD + packed + struct.pack("<II", zlib.crc32(data), plain.size & 0xFFFFFFFF)


@njit(cache=True)
def _deflate(plain, tokens, words):  # type: ignore[no-untyped-def]
    """Write one final block; return its bytes. ``tokens`` has room for one per byte and the end."""
    counts, n_tokens = np.zeros(_SYMBOLS.size, np.int64), _tokens_of(plain, tokens)
    for k in range(n_tokens):
        counts[tokens[k]] += 1
    weights = np.zeros(_N_SYMBOLS, np.int64)
    for token in range(counts.size):
        weights[_SYMBOLS[token]] += counts[token]
    lengths = _code_lengths(weights)
    state = (np.uint64(0), 0, 0)  # bits not yet written, their number, and words written
    state = _put(words, state, 0b101, 3)  # the last block, of codes of its own
    state = _put(words, state, _N_SYMBOLS - 257, 5)
    state = _put(words, state, 0, 5)  # one distance
    state = _put(words, state, _ORDER.size - 4, 4)
    for length in _ORDER:
        state = _put(words, state, 4 if length <= _LONGEST_CODE else 0, 3)
    # Lengths in four bits each: some bytes more than with the shortest codes for them, and nothing to be found out.
    for symbol in range(_N_SYMBOLS):
        state = _put(words, state, _reversed(lengths[symbol], 4), 4)
    state = _put(words, state, _reversed(1, 4), 4)
    return _put_tokens(words, state, tokens[:n_tokens], *_codes_of_tokens(lengths))


@njit(cache=True)
def _tokens_of(plain, tokens):  # type: ignore[no-untyped-def]
    """Write bytes and runs of the byte before as tokens; return their number."""
    n, k, size = 0, 0, plain.size
    before = np.int64(-1)
    while k < size:
        value = np.int64(plain[k])
        if value == before and k + 2 < size and plain[k + 1] == value and plain[k + 2] == value:
            stop, most = k + _SHORTEST_RUN, min(k + _LONGEST_RUN, size)
            while stop < most and plain[stop] == value:
                stop += 1
            tokens[n] = _END + stop - k
            k = stop
        else:
            tokens[n] = value
            before = value
            k += 1
        n += 1
    tokens[n] = _END
    return n + 1


@njit(cache=True)
def _code_lengths(weights):  # type: ignore[no-untyped-def]
    """Return the lengths of Huffman codes, 0 for what does not occur; weights are evened until none is too long."""
    while True:
        lengths = _huffman_lengths(weights)
        if lengths.max() <= _LONGEST_CODE:
            return lengths
        weights = (weights + 1) // 2


@njit(cache=True)
def _huffman_lengths(weights):  # type: ignore[no-untyped-def]
    known = np.flatnonzero(weights)
    n = known.size
    leaves = known[np.argsort(weights[known], kind="mergesort")]
    nodes, parents = np.empty(2 * n - 1, np.int64), np.zeros(2 * n - 1, np.int64)
    nodes[:n] = weights[leaves]
    leaf, inner = 0, n
    for new in range(n, 2 * n - 1):  # leaves and inner nodes are in order of weight: the next is the less of both
        nodes[new] = 0
        for _ in range(2):
            if leaf < n and (inner >= new or nodes[leaf] <= nodes[inner]):
                least, leaf = leaf, leaf + 1
            else:
                least, inner = inner, inner + 1
            nodes[new] += nodes[least]
            parents[least] = new
    depths = np.zeros(2 * n - 1, np.int64)
    for node in range(2 * n - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    lengths = np.zeros(weights.size, np.int64)
    lengths[leaves] = np.maximum(depths[:n], 1)
    return lengths


@njit(cache=True)
def _codes_of_tokens(lengths):  # type: ignore[no-untyped-def]
    """Return what is written for each token, the first bit lowest, and how many bits."""
    n_of_length, next_code = np.zeros(_LONGEST_CODE + 1, np.int64), np.zeros(_LONGEST_CODE + 1, np.int64)
    for length in lengths:
        n_of_length[length] += 1
    for length in range(2, _LONGEST_CODE + 1):
        next_code[length] = (next_code[length - 1] + n_of_length[length - 1]) << 1
    symbols = np.zeros(lengths.size, np.int64)
    for symbol in range(lengths.size):
        symbols[symbol] = _reversed(next_code[lengths[symbol]], lengths[symbol])
        next_code[lengths[symbol]] += 1
    bits, n_bits = np.zeros(_SYMBOLS.size, np.uint64), np.zeros(_SYMBOLS.size, np.int64)
    for token in range(_SYMBOLS.size):
        symbol = _SYMBOLS[token]
        bits[token], n_bits[token] = symbols[symbol], lengths[symbol]
        if token > _END:  # then the rest of the length, and the distance: one bit, 0
            rest = token - _END - _FIRST_RUN[symbol - _END - 1]
            bits[token] |= np.uint64(rest) << np.uint64(lengths[symbol])
            n_bits[token] += _EXTRA_BITS[symbol - _END - 1] + 1
    return bits, n_bits


@njit(cache=True)
def _reversed(value, n_bits):  # type: ignore[no-untyped-def]
    """Return the lowest bits in the opposite order: codes are written from their highest on."""
    out = 0
    for _ in range(n_bits):
        out, value = (out << 1) | (value & 1), value >> 1
    return out


@njit(cache=True)
def _put(words, state, bits, n_bits):  # type: ignore[no-untyped-def]
    """Append up to 32 bits."""
    held, n_held, n = state
    held |= np.uint64(bits) << np.uint64(n_held)
    n_held += n_bits
    if n_held >= 32:
        words[n] = np.uint32(held & np.uint64(0xFFFFFFFF))
        held, n_held, n = held >> np.uint64(32), n_held - 32, n + 1
    return held, n_held, n


@njit(cache=True)
def _put_tokens(words, state, tokens, bits, n_bits):  # type: ignore[no-untyped-def]
    """Append all tokens; return the number of bytes."""
    held, n_held, n = state
    for k in range(tokens.size):
        token = tokens[k]
        held |= bits[token] << np.uint64(n_held)
        n_held += n_bits[token]
        if n_held >= 32:
            words[n] = np.uint32(held & np.uint64(0xFFFFFFFF))
            held, n_held, n = held >> np.uint64(32), n_held - 32, n + 1
    words[n] = np.uint32(held & np.uint64(0xFFFFFFFF))
    return 4 * n + (n_held + 7) // 8
