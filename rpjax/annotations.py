"""One vocabulary of array shapes; checked on every call in the tests.

Sizes: ``b`` records in a batch, ``h w c`` rows, columns and channels of an image or of
a feature map, ``k`` classes, ``n`` records in all, ``m`` members.
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, UInt8

PRNGKey = Key[Array, ""]
MemberKeys = Key[Array, " m"]
"""One root key for each member of the leading axis."""
RootKey = PRNGKey | MemberKeys
"""One root key, from which those of all members follow; or one for each of them."""
RecordKeys = Key[Array, " b"]
RecordIds = Int[Array, " b"]
Images = UInt8[Array, "b h w c"]
Pixels = Float[Array, "b h w c"]
FeatureMap = Float[Array, "b h w c"]
Labels = Int[Array, " b"]
Logits = Float[Array, "b k"]
Valid = Bool[Array, " b"]

PyTree = Any
"""Any nest of arrays: parameters, optimiser states, gradients."""
