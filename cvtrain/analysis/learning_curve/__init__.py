"""The learning curve: test accuracy as a function of images per class, what it will be, and what that answers."""
