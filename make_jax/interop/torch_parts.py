"""What `torch_make.MakeModel` is made of: transformers' encoders, and what they lack. Imports no jax."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its name everywhere
from transformers import BertConfig, BertModel, ViTConfig, ViTModel
from transformers.activations import ACT2FN
from transformers.models.vit.modeling_vit import ViTPatchEmbeddings

from make_jax.config import ImageConfig, InputsConfig, ModelConfig, TextConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
MASKED = -1e30  # a logit that softmax turns into exactly 0


class Product(NamedTuple):
    """Products as vectors."""

    vectors: Tensor  # [B, E], or [B, E + n] with keyword evidence
    weights: Tensor  # [B, 2]: share of title and image, sum 1
    title: Tensor | None = None  # [B, E]: direction of the title, where the two modalities have one each
    image: Tensor | None = None  # [B, E]


def text_config(c: TextConfig, vocabulary: int, length: int, types: int = 1) -> BertConfig:
    """A text encoder's settings as those of BERT; padding is told by the mask, and no word is its."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_width,
        hidden_act=_ACTIVATIONS[c.activation],
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=c.dropout,
        max_position_embeddings=length,
        type_vocab_size=types,
        layer_norm_eps=c.layer_norm_eps,
        pad_token_id=None,
    )


def text_encoder(c: TextConfig, vocabulary: int, length: int, types: int = 1) -> BertModel:
    """BERT without its pooler."""
    return BertModel(text_config(c, vocabulary, length, types), add_pooling_layer=False)


def read_text(encoder: BertModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Token states [B, L, D]."""
    return encoder(input_ids=tokens, attention_mask=readable(mask)).last_hidden_state


def image_encoder(c: ImageConfig, height: int, width: int) -> ViTModel:
    """ViT without its pooler; where our encoder has another count of class tokens than ViT or CLIP's norm before the
    first layer, with `PatchEmbeddings` in place of its own."""
    config = ViTConfig(
        image_size=[height, width],
        patch_size=c.patch_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_width,
        hidden_act=_ACTIVATIONS[c.activation],
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=c.dropout,
        layer_norm_eps=c.layer_norm_eps,
    )
    model = ViTModel(config, add_pooling_layer=False)
    if c.class_tokens != 1 or c.embedding_norm:
        model.embeddings = PatchEmbeddings(config, c.class_tokens, c.embedding_norm)
    return model


class PatchEmbeddings(nn.Module):
    """What precedes the layers of DeiT (two tokens), SigLIP (none) and CLIP (a norm): the rest of them is ViT."""

    def __init__(self, config: ViTConfig, tokens: int, norm: bool) -> None:
        super().__init__()
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, tokens, config.hidden_size)) if tokens else None
        count = tokens + self.patch_embeddings.num_patches
        self.position_embeddings = nn.Parameter(torch.zeros(1, count, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor, **_: Any) -> Tensor:
        """[B, 3, H, W] -> [B, n + P, D]."""
        x = self.patch_embeddings(pixel_values)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.dropout(self.norm(x + self.position_embeddings))


class CrossBlock(nn.Module):
    """A ViT layer whose attention reads `context` [B, M, C] instead of `x` [B, L, D].

    transformers has none with the norm before each branch and a context of another width. A row of `mask` [B, M] with
    nothing to read gets exactly 0 from the attention.
    """

    def __init__(
        self, width: int, context: int, heads: int, mlp_width: int, dropout: float, eps: float, activation: str
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        parts = {"query": width, "key": context, "value": context, "out": width}
        self.attention = nn.ModuleDict({name: nn.Linear(size, width) for name, size in parts.items()})
        self.mlp = nn.ModuleDict({"first": nn.Linear(width, mlp_width), "second": nn.Linear(mlp_width, width)})
        self.activation = ACT2FN[_ACTIVATIONS[activation]]

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """x after one attention to `context` and one feed-forward part."""
        query, key, value = (
            self.attention[name](states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name, states in (("query", self.attention_norm(x)), ("key", context), ("value", context))
        )
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        shares = self._drop(torch.where(mask[:, None, None], logits, MASKED).softmax(-1))
        read = self.attention["out"]((shares @ value).transpose(1, 2).flatten(2))
        x = x + self._drop(read * mask.any(1)[:, None, None])
        return x + self._drop(self.mlp["second"](self.activation(self.mlp["first"](self.mlp_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class SingleStream(nn.Module):
    """One BERT over title tokens (first type) and image patches (second type) together."""

    def __init__(self, model: ModelConfig, inputs: InputsConfig, vocabulary: int) -> None:
        super().__init__()
        self.size, self.how, self.normalise = model.image.patch_size, model.pooling, model.l2_normalize
        count = inputs.image_height * inputs.image_width // self.size**2
        self.encoder = text_encoder(model.title, vocabulary, inputs.max_title_tokens + count, types=2)
        self.length = inputs.max_title_tokens
        self.patch = nn.Linear(self.size**2 * 3, model.title.width)
        self.projection = nn.Linear(model.title.width, model.embedding_dim)

    def forward(self, tokens: Tensor, mask: Tensor, pixels: Tensor, has_title: Tensor, has_image: Tensor) -> Product:
        """Products, `pixels` [B, H, W, 3] normalised."""
        words, pieces = self.encoder.get_input_embeddings()(tokens), self.patch(patches(pixels, self.size))
        shown = torch.cat([mask & has_title[:, None], has_image[:, None].expand(pieces.shape[:2])], dim=1)
        # Patches stand behind the longest title, however long this one is.
        places = torch.cat([torch.arange(words.shape[1]), self.length + torch.arange(pieces.shape[1])])
        kinds = (places >= self.length).long()
        states = self.encoder(
            inputs_embeds=torch.cat([words, pieces], dim=1),
            attention_mask=readable(shown),
            position_ids=places[None].to(tokens.device),
            token_type_ids=kinds[None].expand(shown.shape).to(tokens.device),
        ).last_hidden_state
        vectors = self.projection(pool(states, shown, self.how))
        return Product(unit(vectors) if self.normalise else vectors, equal_weights(has_title, has_image))


def readable(mask: Tensor) -> Tensor:
    """`mask` [B, L] with the first position real in rows without any: attention to nothing is no number, and nobody
    looks at such a row later."""
    first = torch.arange(mask.shape[1], device=mask.device)[None] == 0
    return mask | (first & ~mask.any(1, keepdim=True))


def patches(pixels: Tensor, size: int) -> Tensor:
    """[B, H, W, 3] -> [B, P, size * size * 3], in reading order, each flattened as (row, column, channel)."""
    rows = pixels.unflatten(1, (-1, size)).unflatten(3, (-1, size))  # [B, h, size, w, size, 3]
    return rows.transpose(2, 3).flatten(3).flatten(1, 2)


def masked(states: Tensor, mask: Tensor) -> Tensor:
    """`states` [B, L, D] with exactly 0 where `mask` [B, L] is False."""
    return torch.where(mask[..., None], states, 0.0)


def pool(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """One state a row [B, D]: the mean over real positions, or that of the first position; 0 for an empty row."""
    if how == "cls":
        return states[:, 0] * mask.any(1)[:, None]
    return masked(states, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def unit(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    """Vectors of length 1; a zero vector stays 0 and its gradient is finite."""
    return vectors * vectors.square().sum(-1, keepdim=True).clamp(min=eps * eps).rsqrt()


def equal_weights(has_title: Tensor, has_image: Tensor) -> Tensor:
    """(1/2, 1/2), or all the weight on the one modality that is there."""
    share = torch.stack([has_title, has_image], dim=-1).float()
    return share / share.sum(-1, keepdim=True).clamp(min=1)
