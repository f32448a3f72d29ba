"""One rule per operator: which axes of its tensors carry the same channels."""
