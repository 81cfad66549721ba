"""What data sets share: files, splits, batches, random numbers, augmentation, mixing."""
