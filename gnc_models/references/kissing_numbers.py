"""Kissing numbers: rows that are published to have cosine 1/2, and how many rows are proven to be too many for it."""

# dimensions, rows at cosine 1/2, source; published with coordinates, but by no rule that is written down here
PUBLISHED = (
    (10, 510, "Ganzhinov, arXiv 2207.08266"),
    (11, 604, "Bianchi, Kwon, Pappu and Zou, arXiv 2606.10402"),
    (12, 841, "Takhanov, Assylbekov and Yun, arXiv 2606.18984"),
    (14, 1932, "Ganzhinov, arXiv 2207.08266"),
    (15, 2564, "Conway and Sloane, Sphere Packings, Lattices and Groups, chapter 5"),
)

# No more rows than these have cosine 1/2 or less. Sources: Schuette and van der Waerden (3), Musin (4), Odlyzko and
# Sloane, Levenshtein (8, 24), Mittelmann and Vallentin, arXiv 0902.1105 (5 to 7, 23), and from semidefinite programs,
# Machado and de Oliveira Filho, arXiv 1609.05167 (9 to 22). Sharper ones are claimed since.
MOST_ROWS = dict(
    zip(
        range(3, 25),
        (
            *(12, 24, 44, 78, 134, 240, 364, 554, 870, 1357, 2069),
            *(3183, 4866, 7355, 11072, 16572, 24812, 36764, 54584, 82340, 124416, 196560),
        ),
        strict=True,
    )
)


def kissing_margin_bound(num_classes: int, feature_dim: int) -> float:
    """1/2 where so many rows have a cosine above 1/2 by proof, else 1: an upper bound of the margin from d + 2 rows on."""
    most = min((rows for dim, rows in MOST_ROWS.items() if dim >= feature_dim), default=num_classes)
    return 0.5 if num_classes > most else 1.0
