"""How many images are enough: the plan, the trainings and the words of a sample-size sweep."""
