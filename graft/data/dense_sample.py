"""A picture and what is known of each of its pixels.

Legend: H, W pixels.
"""

from dataclasses import dataclass

from graft.core.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DenseSample:
    """One picture with its segmentation, depth and surface normals.

    ``image_3HW`` is 0 to 1; ``label_HW`` a class index, -1 where nobody knows; ``depth_HW`` in
    metres, 0 where unknown; ``normal_3HW`` unit vectors in the camera's frame, zero vectors
    where unknown.
    """

    image_3HW: FloatArray
    label_HW: IntArray
    depth_HW: FloatArray
    normal_3HW: FloatArray
