"""What is to run: a grid's YAML at a scale becomes a list of jobs, each with a stable id. Imports errors alone."""
