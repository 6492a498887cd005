"""What is drawn and written for people, from the figures of runs."""
