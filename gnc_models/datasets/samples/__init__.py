"""What every data set is and what is done to it: draws, long tails, wrong labels, augmentation.

Does not know where the samples come from.
"""
