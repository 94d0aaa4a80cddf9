"""VGGT with the published names and shapes of weights, at any size: see config.SIZES.

``model.VGGT(config)(images)`` predicts; ``checkpoint.load_pretrained`` and ``initialise.random_model`` make models;
``precision.autocast`` says which arithmetic runs where.
"""
