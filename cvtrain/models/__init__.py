"""The model zoo: functions that build an `nn.Module` from the facts of the data."""
