"""Images and labels: where they come from, how they are decoded, split, batched and augmented."""
