"""The jobs of a multirun: which there are, where each is at home, who runs them, what becomes of them."""
