"""The adapter dW = s · A M Bᵀ as a PEFT tuner: A and B are a mined basis, only M is trained.

::

    from peft import get_peft_model
    from megasynth_train.adapters.subspace import SubspaceConfig

    model = get_peft_model(vggt, SubspaceConfig(basis="subspaces/all.safetensors", attributes=["texture"]))

Layers that ``target_modules`` names and the basis lacks get plain LoRA. A and B are not saved; a hash binds M to its
basis. Importing this package registers the method with PEFT.
"""

from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.adapters.subspace.model import SubspaceModel, register

register()

__all__ = ["SubspaceConfig", "SubspaceLinear", "SubspaceModel"]
