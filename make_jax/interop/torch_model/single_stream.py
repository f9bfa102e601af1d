"""The single-stream product encoder: the twin of `model/single_stream.py`."""

import torch
from torch import Tensor, nn

from make_jax.config import InputsConfig, ModelConfig
from make_jax.interop.torch_model.image import patches
from make_jax.interop.torch_model.modal_adaptation import FusedProduct, equal_weights
from make_jax.interop.torch_model.text import text_encoder
from make_jax.interop.torch_model.transformer import l2_normalize, non_empty_mask, pool
from make_jax.model.layer_config import compute_config


class SingleStream(nn.Module):
    """Self-attention over title tokens (first token type) and image patches (second token type) together."""

    def __init__(self, config: ModelConfig, inputs: InputsConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        patch_size, width = config.image.patch_size, config.title.width
        self.title_length = inputs.max_title_tokens
        num_patches = inputs.image_height * inputs.image_width // patch_size**2
        self.encoder = text_encoder(
            config.title, compute_config(config), vocab_size, self.title_length + num_patches, types=2
        )
        self.patch = nn.Linear(patch_size**2 * 3, width)
        self.projection = nn.Linear(width, config.embedding_dim)

    def forward(
        self, title_tokens: Tensor, title_mask: Tensor, pixels: Tensor, has_title: Tensor, has_image: Tensor
    ) -> FusedProduct:
        """Returns products from token ids [B, Lt] and normalized pixels [B, H, W, 3]."""
        c = self.config
        words = self.encoder.get_input_embeddings()(title_tokens)
        pieces = self.patch(patches(pixels, c.image.patch_size))
        mask = torch.cat([title_mask & has_title[:, None], has_image[:, None].expand(pieces.shape[:2])], dim=1)
        # Positions of patches follow those of the longest title, also for shorter titles.
        positions = torch.cat([torch.arange(words.shape[1]), self.title_length + torch.arange(pieces.shape[1])])
        types = (positions >= self.title_length).long()
        states = self.encoder(
            inputs_embeds=torch.cat([words, pieces], dim=1),
            attention_mask=non_empty_mask(mask),
            position_ids=positions[None].to(title_tokens.device),
            token_type_ids=types[None].expand(mask.shape).to(title_tokens.device),
        ).last_hidden_state
        vectors = self.projection(pool(states, mask, c.pooling))
        weights = equal_weights(torch.stack([has_title, has_image], dim=-1))
        return FusedProduct(l2_normalize(vectors) if c.l2_normalize else vectors, weights)
