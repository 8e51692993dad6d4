"""Data of one's own from Hugging Face `datasets`: a set that was kept on the disk by `save_to_disk`.

GNC_DATA names the folder in which it lies; nothing is downloaded while trials run.
"""

from datasets import load_from_disk


def make_split(data_root, folder="my_set", train="train", test="test"):
    """Training and test split; the column of class labels and the first other column are used."""
    found = load_from_disk(str(data_root / folder))
    return found[train], found[test]
