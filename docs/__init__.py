"""The guides, and what makes those of them that follow from the source."""
