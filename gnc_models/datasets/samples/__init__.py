"""What every data set is and what is done to it: draws, long tails, wrong labels, augmentation."""
