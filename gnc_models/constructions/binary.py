"""Codes from binary words and quadratic forms over GF(2): the Golay code, rows of signs, signs on words."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from gnc_models.shapes import Float, Int

Points = Float[np.ndarray, "_ _"]  # one point per row; sizes differ between argument and result
# Primitive polynomials over GF(2) by degree, as bits.
PRIMITIVE = {3: 0b1011, 4: 0b10011, 5: 0b100101, 6: 0b1000011, 7: 0b10001001, 8: 0b100011101, 9: 0b1000010001}


@functools.cache
def golay_words() -> Int[np.ndarray, "4096 24"]:
    """The 4,096 words of the extended Golay code, from quadratic residues modulo 23."""
    residues = {(i * i) % 23 for i in range(1, 23)}
    circulant = np.array([[1 if (j - i) % 23 in residues else 0 for j in range(23)] for i in range(23)])
    generators = np.concatenate([circulant, circulant.sum(1, keepdims=True) % 2], axis=1)[:12]
    return (np.array(list(itertools.product((0, 1), repeat=12))) @ generators) % 2


def signs(weight: int, *, product: int = 0) -> Float[np.ndarray, "_ weight"]:
    """Every row of signs of this length, or those with this product."""
    rows = np.array(list(itertools.product((1.0, -1.0), repeat=weight)))
    return rows[rows.prod(1) == product] if product else rows


def on_supports(words: Int[np.ndarray, "_ length"], entries: Float[np.ndarray, "_ weight"]) -> Points:
    """For every word of 0 and 1, all of whose weights are equal, rows with each of the entries on its ones."""
    rows = np.zeros((len(words), len(entries), words.shape[1]))
    for row, word in zip(rows, words, strict=True):
        row[:, word == 1] = entries
    return rows.reshape(-1, words.shape[1])


def kerdock(bits: int) -> Points:
    """d = 2^bits (bits even, at least 4), d (d + 2) rows with cosine 1/sqrt(d): all signs of axes and forms.
    The forms are Q_a + affine, Q_a(x, e) = sum_i Tr((a x)^(2^i + 1)) + e Tr(a x)."""
    field = bits - 1
    power, trace = _field(field)
    axes = np.eye(1 << bits)
    rows = []
    for a in range(1 << field):
        product = _multiples(field, a)
        form = sum(trace[power(product, (1 << i) + 1)] for i in range(1, (field - 1) // 2 + 1)) % 2
        rows.append(np.concatenate([form, (form + trace[product]) % 2]))
    return np.concatenate([axes, -axes, _with_affine(np.array(rows), bits) / math.sqrt(1 << bits)])


def gold(bits: int) -> Points:
    """d = 2^bits - 1 (bits odd), 4^bits rows (-1)^Tr(a x + b x^3), cosine (2^((bits+1)/2) - 1) / d."""
    power, trace = _field(bits)
    x = np.arange(1, 1 << bits)
    linear = np.array([trace[_multiples(bits, a)[x]] for a in range(1 << bits)])
    cubic = linear[:, power(x, 3) - 1]
    return 1.0 - 2.0 * ((linear[:, None] + cubic[None]) % 2).reshape(-1, len(x))


def extended_gold(bits: int) -> Points:
    """d = 2^bits, 2 * 4^bits rows (-1)^(Tr(b x^3) + affine), cosine 2^((bits+1)/2) / d for odd bits."""
    power, trace = _field(bits)
    cubes = power(np.arange(1 << bits), 3)
    return _with_affine(np.array([trace[_multiples(bits, b)[cubes]] for b in range(1 << bits)]), bits)


def quadratic_64() -> Points:
    """65,536 rows (-1)^(Tr(b x^5) + Tr(c x^9) + affine) in 64 dimensions, cosine 1/4: every form has rank >= 4."""
    power, trace = _field(6)
    x = np.arange(64)
    fifths, ninths = power(x, 5), power(x, 9)
    of_fifths, of_ninths = ([trace[_multiples(6, a)[powers]] for a in range(64)] for powers in (fifths, ninths))
    forms = {tuple((first + second) % 2) for first in of_fifths for second in of_ninths}
    return _with_affine(np.array(sorted(forms)), 6)


def _with_affine(forms: np.ndarray, bits: int) -> Points:
    """Signs of every form plus every affine function of `bits` bits."""
    x = np.arange(1 << bits)
    parity = np.array([[int(a & b).bit_count() % 2 for b in x] for a in x])
    flat = ((1.0 - 2.0 * forms)[:, None] * (1.0 - 2.0 * parity)[None]).reshape(-1, 1 << bits)
    return np.concatenate([flat, -flat])


def _field(bits: int) -> tuple[Callable[[np.ndarray, int], np.ndarray], np.ndarray]:
    """GF(2^bits): elementwise powers, and the trace of every element."""
    exponents, logs = _logarithms(bits)
    order = (1 << bits) - 1

    def power(elements: np.ndarray, exponent: int) -> np.ndarray:
        return np.where(elements == 0, 0, exponents[(logs[elements] * exponent) % order])

    everything = np.arange(1 << bits)
    trace = np.zeros_like(everything)
    for i in range(bits):
        trace ^= power(everything, 1 << i)
    return power, trace


@functools.cache
def _logarithms(bits: int) -> tuple[np.ndarray, np.ndarray]:
    exponents, logs = np.zeros((1 << bits) - 1, dtype=np.int64), np.zeros(1 << bits, dtype=np.int64)
    value = 1
    for i in range(len(exponents)):
        exponents[i], logs[value] = value, i
        value <<= 1
        if value >> bits:
            value ^= PRIMITIVE[bits]
    return exponents, logs


def _multiples(bits: int, factor: int) -> np.ndarray:
    exponents, logs = _logarithms(bits)
    x = np.arange(1 << bits)
    if factor == 0:
        return np.zeros_like(x)
    return np.where(x == 0, 0, exponents[(logs[x] + logs[factor]) % len(exponents)])
