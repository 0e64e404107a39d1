"""Which layer of a detector a map is made from. To explain another one, change DEFAULT_LAYER.

The four stages of a ResNet are called `layer1` to `layer4` in torchvision, and C2 to C5 in papers,
where the stem counts as the first. A later stage knows more and is coarser. `pyramid` stands for
the feature pyramid on top of them. `cam` takes any other layer too, by its full name.

From cxr-helpers 0.2.0 (MIT license).
Needs: nothing beyond Python.
"""

STAGES = ("layer1", "layer2", "layer3", "layer4")
PYRAMID = "pyramid"
LAYERS = (*STAGES, PYRAMID)
DEFAULT_LAYER = "layer3"

# The paper's name, and how many pixels of the network's input one value of the layer stands for.
LAYER_NAMES = {
    "layer1": "C2, 4 px",
    "layer2": "C3, 8 px",
    "layer3": "C4, 16 px",
    "layer4": "C5, 32 px",
    PYRAMID: "pyramid, at the box's level",
}


def full_name(layer: str) -> str:
    """The layer's name among the detector's `named_modules`; other names are full already.

    >>> full_name("layer3"), full_name("pyramid"), full_name("backbone.body.conv1")
    ('backbone.body.layer3', 'backbone', 'backbone.body.conv1')
    """
    if layer in STAGES:
        return f"backbone.body.{layer}"
    return "backbone" if layer == PYRAMID else layer
