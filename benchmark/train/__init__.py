"""One job from its folder to its result. Imports methods, data and store; every file here may import torch."""
