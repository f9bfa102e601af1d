"""The text encoder, transformers' `BertModel`: the twin of `model/text.py`."""

from torch import Tensor
from transformers import BertConfig, BertModel

from make_jax.config import TextConfig
from make_jax.interop.torch_model.transformer import ACTIVATIONS, non_empty_mask
from make_jax.model.layer_config import ComputeConfig, layer_config


def text_encoder(c: TextConfig, compute: ComputeConfig, vocab_size: int, length: int, types: int = 1) -> BertModel:
    """Returns a BERT without its pooler; `length` is the longest text in tokens, `types` counts token types."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.mlp_width,
        hidden_act=ACTIVATIONS[c.activation],
        hidden_dropout_prob=c.dropout,
        attention_probs_dropout_prob=layer_config(c, compute).attention_dropout,
        max_position_embeddings=length,
        type_vocab_size=types,
        layer_norm_eps=c.layer_norm_eps,
        pad_token_id=None,  # the mask marks padding, and no embedding is reserved for it
    )
    return BertModel(config, add_pooling_layer=False)


def text_states(encoder: BertModel, tokens: Tensor, mask: Tensor) -> Tensor:
    """Returns token states [B, L, D]."""
    return encoder(input_ids=tokens, attention_mask=non_empty_mask(mask)).last_hidden_state
