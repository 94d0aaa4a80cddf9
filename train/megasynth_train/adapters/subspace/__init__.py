"""The adapter dW = s · A M Bᵀ as a PEFT tuner: A and B are a mined basis, M is all that is trained.

::

    from peft import get_peft_model
    from megasynth_train.adapters.subspace import SubspaceConfig

    model = get_peft_model(vggt, SubspaceConfig(basis="subspaces/all.safetensors", attributes=["texture"]))

Layers of the model that ``target_modules`` names and the basis lacks get plain LoRA. What is saved is M alone, bound to
its basis by a hash. Importing this package registers the method with PEFT.
"""

from megasynth_train.adapters.subspace.config import SubspaceConfig
from megasynth_train.adapters.subspace.layer import SubspaceLinear
from megasynth_train.adapters.subspace.model import SubspaceModel, register

register()

__all__ = ["SubspaceConfig", "SubspaceLinear", "SubspaceModel"]
