"""Training and evaluation of one model, without knowledge of configs, consoles or where images come from."""
