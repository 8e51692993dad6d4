"""Kissing configurations: many rows at cosine 1/2, in 6, 13 and 17 to 21 dimensions, beyond sections of lattices.
Before its last step every entry is a + b sqrt(3) for whole a, b, so that a test can count in whole numbers."""

import itertools
import math

import numpy as np

from gnc_models.constructions.binary import golay_words, on_supports, signs
from gnc_models.shapes import Float, Int

Rows = Float[np.ndarray, "_ _"]
Words = Int[np.ndarray, "_ _"]


def thirteen() -> Rows:
    """1,154 rows in 13 dimensions, from 144 words of length 12 at distance 4: the Steiner system S(5, 6, 12) and pairs.
    Source: Zinoviev and Ericson, Problems of Information Transmission 35 (1999); counted in arXiv 1608.07270."""
    golay = golay_words()
    twelve = golay[golay.sum(1) == 12][0] == 1
    hexads = golay[(golay.sum(1) == 8) & (golay[:, twelve].sum(1) == 6)][:, twelve]
    # six disjoint pairs, three of them within the first hexad: then 51 words lie at distance 4 from it
    pairs = np.eye(12, dtype=int)[np.argsort(1 - hexads[0], kind="stable")].reshape(6, 2, 12).sum(1)
    words = np.concatenate([hexads, pairs, 1 - pairs])
    blocks = words ^ hexads[0]
    blocks = blocks[blocks.sum(1) == 4]
    caps = np.concatenate([1.0 - 2.0 * words, 2 * math.sqrt(3) * np.eye(12), -2 * math.sqrt(3) * np.eye(12)])
    layers = [(2 * on_supports(blocks, signs(4)), 0)]
    layers += [(rows, side * height) for rows, height in ((caps, 2), (np.zeros((1, 12)), 4)) for side in (1, -1)]
    return np.concatenate([_beside(rows, [float(height)]) for rows, height in layers])


def odd_golay(length: int) -> Rows:
    """11,948, 19,448 or 29,768 rows in 19, 20 or 21 dimensions, of unequal lengths.
    Pairs and eights of the Golay code on `length` of its places, and words of the code cut to these that lie far apart.
    Source: Cohn and Li, arXiv 2411.04916 (20, 21 dimensions); Ho, arXiv 2603.10425 (19)."""
    words, cut = np.split(golay_words(), [length], axis=1)
    octads = words[(words.sum(1) == 8) & (cut.sum(1) == 0)]
    if length == 19:
        chosen = _far_in_19(words, cut)
    elif length == 20:  # even on one place of each of the five words of weight 4, so that none of the five is chosen
        chosen = words[words[:, words[words.sum(1) == 4].argmax(axis=1)].sum(1) % 2 == 0]
    else:  # words of even weight lie at distance 6
        chosen = words[words.sum(1) % 2 == 0]
    return np.concatenate([odd_eights(octads), 1.0 - 2.0 * chosen])


def odd_eights(octads: Words) -> Rows:
    """Two entries of 2 in all places, and an odd number of minus signs on each word of weight eight: it has holes."""
    return np.concatenate([2 * two_nonzero(octads.shape[1]), on_supports(octads, signs(8, product=-1))])


def two_nonzero(dim: int) -> Rows:
    """All vectors with two entries +-1 and zeros: the roots of D_n."""
    axes = np.eye(dim, dtype=int)
    return on_supports(np.array([axes[i] + axes[j] for i, j in itertools.combinations(range(dim), 2)]), signs(2))


def _far_in_19(words: Words, cut: Words) -> Words:
    """1,280 words at distance 5: in a quotient the light words are a Clebsch graph, whose 5 vertices apart are lifted."""
    code = words @ (1 << np.arange(19))
    # words of weight 4 by the place that their octad lacks among the five cut ones, and the word of weight 3
    groups = [code[(words.sum(1) == 4) & (cut[:, i] == 0)] for i in range(5)]
    small = _span([a ^ group[0] for group in groups for a in group] + [code[words.sum(1) == 3][0] ^ groups[0][0]])
    apart = np.concatenate([small ^ groups[0][0] ^ group[0] for group in groups])
    middle = _span([*small, *(group[0] for group in groups)])
    chosen, seen = [], np.zeros(1 << 19, dtype=bool)
    for word in code:
        if not seen[word]:
            seen[middle ^ word] = True
            chosen.append(apart ^ word)
    return np.concatenate(chosen)[:, None] >> np.arange(19) & 1


def _span(generators: list[np.int64]) -> Int[np.ndarray, " _"]:
    span = np.zeros(1, dtype=np.int64)
    for word in generators:
        if word not in span:
            span = np.concatenate([span, span ^ word])
    return span


# Quadratic forms in four variables, as the bits of their six products in the order of itertools.combinations. A form is
# bent where its Pfaffian is 1; a set of forms whose differences are all bent gives words at distance 6.
FAR_FORMS = (0, 13, 33, 46, 50, 60)  # orthogonal to the form 12
BENT_FORMS = (12, 22, 27)  # sums of two are bent, the sum of all is not 0
# Orthogonal to two neighbours of the three.
FAR_BETWEEN = ((0, 33, 46, 50, 60), (14, 37, 43, 55, 56), (18, 35, 45, 49, 62))


def seventeen() -> Rows:
    """5,730 rows in 17 dimensions (Cohn and Li): odd eights, and on both sides sixes, equal entries, a pole."""
    sixes = on_supports(_of_weight(_coset(12), 6), signs(6, product=-1))
    layers = [(3 * odd_eights(_of_weight(_coset(0), 8)), 0.0)]
    for side, shift in ((1, 0), (-1, 1)):
        far = np.concatenate([_coset(form ^ shift) for form in FAR_FORMS])
        layers += [(3 * sixes, 3.0 * side), (2.0 - 4.0 * far, 2.0 * side), (np.zeros((1, 16)), 6.0 * side)]
    return np.concatenate([_beside(rows, [math.sqrt(2) * height]) for rows, height in layers])


def eighteen() -> Rows:
    """8,358 rows in 18 dimensions: odd eights, and a hexagon of rows on sixes with rows of equal entries between them.
    Source: the layout of Cohn and Li, arXiv 2411.04916; three bent cosets as in alexlegeartis/KissingNumbers."""
    layers = [_beside(6 * odd_eights(_of_weight(_coset(0), 8)), [0.0, 0.0])]
    for step in range(6):
        sixes = on_supports(_of_weight(_coset(BENT_FORMS[step % 3]), 6), signs(6, product=-1))
        # opposite angles take forms that differ, since no word may be used twice
        far = np.concatenate([_coset(form ^ (step > 2)) for form in FAR_BETWEEN[step % 3]])
        at = [(6 * sixes, 6, step), (np.zeros((1, 16)), 12, step), (4.0 - 8.0 * far, 4, step + 0.5)]
        for rows, length, turn in at:
            angle = math.pi / 3 * turn
            layers.append(_beside(rows, [math.sqrt(2) * length * f(angle) for f in (math.cos, math.sin)]))
    return np.concatenate(layers)


def _coset(form: int) -> Words:
    """The 32 words of a quadratic form in four variables plus an affine function."""
    x = np.arange(16)[:, None] >> np.arange(4) & 1
    products = np.stack([x[:, i] * x[:, j] for i, j in itertools.combinations(range(4), 2)], axis=1)
    quadratic = products @ (form >> np.arange(6) & 1)
    return (quadratic + np.array([x @ a + b for a in x for b in (0, 1)])) % 2


def _of_weight(words: Words, weight: int) -> Words:
    return words[words.sum(1) == weight]


def _beside(rows: Rows, last: list[float]) -> Rows:
    return np.concatenate([rows, np.broadcast_to(last, (len(rows), len(last)))], axis=1)
