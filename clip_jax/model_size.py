"""How large a model is and how much it computes, in closed form from its config: nothing is built.

Parameters are the trained ones: the running statistics of batch norms are not counted. FLOPs are those of one forward
pass in matrix products and convolutions, a multiply-add being two; attention is counted in full, causal or not, and
norms, activations, softmax, biases, residuals, embedding lookups and average pooling are left out.
"""

from dataclasses import dataclass

from clip_jax.config import ClipConfig, Projection, ResNetConfig, TextConfig, TransformerConfig, VisionConfig

EXPANSION = 4  # a bottleneck's output has this many times the channels of its middle


@dataclass(frozen=True)
class Size:
    """Numbers of parameters: the image tower's, the text tower's, and all with the logit scale and bias."""

    image: int
    text: int
    total: int


@dataclass(frozen=True)
class Flops:
    """FLOPs of one image and of one text of full context length."""

    image: int
    text: int


@dataclass(frozen=True)
class _Convolution:
    """A convolution without bias over a square output of `side` positions."""

    inputs: int
    outputs: int
    kernel: int
    side: int

    @property
    def parameters(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs

    @property
    def flops(self) -> int:
        return 2 * self.side**2 * self.parameters


def parameters(config: ClipConfig) -> Size:
    """The number of trained parameters of each tower and of the whole model."""
    if isinstance(config.vision, ResNetConfig):
        image = _resnet_parameters(config.vision, config.embed_dim)
    else:
        image = _vision_parameters(config.vision, config.embed_dim)
    text = _text_parameters(config.text, config.embed_dim)
    return Size(image, text, image + text + (2 if config.is_sigmoid else 1))


def flops(config: ClipConfig, patches: int | None = None) -> Flops:
    """FLOPs of one image and of one text through their towers, up to the embedding.

    `patches` is how many patches of an image a vision transformer sees, all of them where it is none.
    """
    if isinstance(config.vision, ResNetConfig):
        image = _resnet_flops(config.vision, config.embed_dim)
    else:
        image = _vision_flops(config.vision, config.embed_dim, patches or config.vision.patches)
    return Flops(image, _text_flops(config.text, config.embed_dim))


def _vision_parameters(config: VisionConfig, embed_dim: int) -> int:
    width = config.transformer.width
    patch_embedding = _linear(3 * config.patch_size**2, width, config.patch_bias)
    class_token = width if config.class_token else 0
    positions = _vision_tokens(config) * width
    norms = _norm(width) * (2 if config.norm_pre else 1)
    pool = 0
    if config.pooling == "map":
        pool = width + _linear(width, 3 * width) + _linear(width, width) + _norm(width) + _mlp(config.transformer)
    return (
        patch_embedding
        + class_token
        + positions
        + norms
        + _blocks(config.transformer)
        + pool
        + _projection(config.projection, width, embed_dim)
    )


def _text_parameters(config: TextConfig, embed_dim: int) -> int:
    width = config.transformer.width
    embeddings = (config.vocab_size + config.context_length) * width
    return embeddings + _blocks(config.transformer) + _norm(width) + _projection(config.projection, width, embed_dim)


def _resnet_parameters(config: ResNetConfig, embed_dim: int) -> int:
    convolutions = sum(layer.parameters + _norm(layer.outputs) for layer in _convolutions(config))
    width = config.pool_width
    positions = (config.grid**2 + 1) * width
    return convolutions + positions + _linear(width, 3 * width) + _linear(width, embed_dim)


def _blocks(config: TransformerConfig) -> int:
    width = config.width
    attention = _linear(width, 3 * width) + _linear(width, width)
    layer_scale = 0 if config.layer_scale is None else 2 * width
    return config.layers * (2 * _norm(width) + attention + _mlp(config) + layer_scale)


def _mlp(config: TransformerConfig) -> int:
    return _linear(config.width, config.mlp_width) + _linear(config.mlp_width, config.width)


def _projection(kind: Projection, width: int, embed_dim: int) -> int:
    return 0 if kind == "none" else _linear(width, embed_dim, kind == "bias")


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _norm(width: int) -> int:
    return 2 * width  # scale and bias


def _vision_flops(config: VisionConfig, embed_dim: int, patches: int) -> int:
    stack, tokens = config.transformer, patches + (1 if config.class_token else 0)
    patch_embedding = _product(patches, 3 * config.patch_size**2, stack.width)
    pool = 0
    if config.pooling == "map":
        pool = _pool_flops(tokens, stack.width, stack.width) + _mlp_flops(1, stack)
    projection = 0 if config.projection == "none" else _product(1, stack.width, embed_dim)
    return patch_embedding + _blocks_flops(tokens, stack) + pool + projection


def _text_flops(config: TextConfig, embed_dim: int) -> int:
    projection = 0 if config.projection == "none" else _product(1, config.transformer.width, embed_dim)
    return _blocks_flops(config.context_length, config.transformer) + projection


def _resnet_flops(config: ResNetConfig, embed_dim: int) -> int:
    convolutions = sum(layer.flops for layer in _convolutions(config))
    return convolutions + _pool_flops(config.grid**2 + 1, config.pool_width, embed_dim)


def _blocks_flops(tokens: int, config: TransformerConfig) -> int:
    width = config.width
    attention = _product(tokens, width, 4 * width) + 2 * _product(tokens, width, tokens)
    return config.layers * (attention + _mlp_flops(tokens, config))


def _mlp_flops(tokens: int, config: TransformerConfig) -> int:
    return 2 * _product(tokens, config.width, config.mlp_width)


def _pool_flops(tokens: int, width: int, outputs: int) -> int:
    """Attention of one query over all tokens, and the projection of what it finds."""
    return (
        _product(1, width, width)
        + _product(tokens, width, 2 * width)
        + 2 * _product(1, width, tokens)
        + _product(1, width, outputs)
    )


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def _vision_tokens(config: VisionConfig) -> int:
    return config.patches + (1 if config.class_token else 0)


def _convolutions(config: ResNetConfig) -> list[_Convolution]:
    """Every convolution of CLIP's ResNet. A stage halves the image behind its first 3x3 convolution, by pooling."""
    side, width = (config.image_size + 1) // 2, config.width
    convolutions = [
        _Convolution(3, width // 2, 3, side),
        _Convolution(width // 2, width // 2, 3, side),
        _Convolution(width // 2, width, 3, side),
    ]
    side, channels = side // 2, width
    for stage, blocks in enumerate(config.layers):
        middle = width * 2**stage
        for block in range(blocks):
            side_out = side // 2 if stage > 0 and block == 0 else side
            convolutions += [
                _Convolution(channels, middle, 1, side),
                _Convolution(middle, middle, 3, side),
                _Convolution(middle, EXPANSION * middle, 1, side_out),
            ]
            if block == 0:
                convolutions.append(_Convolution(channels, EXPANSION * middle, 1, side_out))
            side, channels = side_out, EXPANSION * middle
    return convolutions
