"""What `task=` can name: each module reads like a recipe from top to bottom."""
