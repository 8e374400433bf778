"""Every loss, cited; training and online adaptation share them. One module per family.

Element-wise losses take logits and labels of one shape and return that shape; the others say what they
reduce over. None of them knows a model.
"""
