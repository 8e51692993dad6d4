"""Sums over all pairs of many points in tiles: the matrix of all pairs would not fit where they do."""

import subprocess
import sys

SCRIPT = """
import resource, torch
from gnc_models.geometry import pairwise as pairs
torch.set_num_threads(1)
points, labels = pairs.unit(torch.randn(5_000, 8)), torch.arange(5_000)
pairs.max_cosine(points[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pairs.max_cosine(points)
pairs.measure_energy(points)
for rows, squares in pairs.squared_distances(points):
    pass
pairs.one_vs_rest_scores(points, labels, points)
assert torch.equal(pairs.nearest_rows(points, points), labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_all_pairs_of_5000_points_are_never_held():
    """Largest cosine, energy, distances (of CDNV), scores and nearest means; all pairs alone would take 191 MiB."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 60
