"""Says in one line when a run is not learning, and why."""
