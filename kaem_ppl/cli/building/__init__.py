"""From settings to objects: data, devices, model, strategy and optimiser."""
