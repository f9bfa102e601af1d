"""MAKE: three encoders and Modal Adaptation. Read this file first.

    query text  -> query encoder -> mean over tokens -> W_q -> unit length ----------------------- q
    title text  -> title encoder --.
                                    Modal Adaptation (cross-attention, then a gate per product) -- p      score = q . p
    image       -> image encoder --'

That a short query has its own text encoder, apart from the long title's, is [paper]; the settings are in
`config.ModelConfig`; Modal Adaptation is in `model/modal_adaptation.py`.

Letters, here and in every shape of this package: `B` global batch, `b` local batch, `N` devices, `L` tokens (`Lq`
query, `Lt` title), `P` patches, `D` width of an encoder, `E` width of query and product vectors, `H` heads,
`K` products searched, `V` keywords.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from make_jax.config import InputsConfig, ModelConfig
from make_jax.model.image import ImageEncoder
from make_jax.model.modal_adaptation import Adapted, ModalAdaptation
from make_jax.model.single_stream import SingleStream
from make_jax.model.text import TextEncoder
from make_jax.model.transformer import KERNEL_INIT, masked_mean, unit


class Make(nn.Module):
    """The whole model as a Flax Linen module: `init` and `apply` on plain parameter trees.

    `apply(variables, batch)` gives what training needs; `encode_query` and `encode_product` (with `method=`) give
    vectors for search.
    """

    config: ModelConfig
    inputs: InputsConfig
    vocabulary: int  # word pieces of the tokenizer

    def setup(self) -> None:
        c, i = self.config, self.inputs
        dtype = jnp.dtype(c.dtype)
        modalities = c.adaptation.modalities
        self.query_encoder = TextEncoder(c.query, self.vocabulary, i.query_tokens, dtype, c.remat)
        self.query_projection = nn.Dense(c.embedding, kernel_init=KERNEL_INIT)
        if c.adaptation.single_stream:
            self.product_encoder = SingleStream(c, i, self.vocabulary)
        else:
            if modalities != "image":
                self.title_encoder = TextEncoder(c.title, self.vocabulary, i.title_tokens, dtype, c.remat)
            if modalities != "title":
                self.image_encoder = ImageEncoder(c.image, i.image_mean, i.image_std, dtype, c.remat)
            if modalities == "both":
                t = c.title
                self.adaptation = ModalAdaptation(
                    c.adaptation, c.embedding, t.heads, t.mlp_width, t.dropout, c.image.eps, t.activation, dtype
                )
            else:
                self.product_projection = nn.Dense(c.embedding, kernel_init=KERNEL_INIT)
        self.log_scale = self.param("log_scale", nn.initializers.constant(jnp.log(c.initial_scale)), ())
        self.bias = self.param("bias", nn.initializers.constant(-c.initial_scale), ())  # of the sigmoid loss

    def encode_query(
        self, tokens: Int[Array, "B Lq"], mask: Bool[Array, "B Lq"], train: bool = False
    ) -> Float[Array, "B E"]:
        """q = l2(W_q mean(H_q)): unit query vectors [ours]."""
        return unit(self.query_projection(masked_mean(self.query_encoder(tokens, mask, train), mask)))

    def encode_product(
        self,
        title_tokens: Int[Array, "B Lt"],
        title_mask: Bool[Array, "B Lt"],
        image: UInt8[Array, "B H W 3"],
        has_title: Bool[Array, "B"],
        has_image: Bool[Array, "B"],
        train: bool = False,
    ) -> Adapted:
        """Unit product vectors and the weight of title and image in each."""
        modalities = self.config.adaptation.modalities
        if self.config.adaptation.single_stream:
            return self.product_encoder(title_tokens, title_mask, image, has_title, has_image, train)
        if modalities == "title":
            pooled = masked_mean(self.title_encoder(title_tokens, title_mask, train), title_mask & has_title[:, None])
            return self._one_modality(pooled, (1.0, 0.0))
        if modalities == "image":
            states = self.image_encoder(image, train)[:, 1:]
            pooled = masked_mean(states, jnp.broadcast_to(has_image[:, None], states.shape[:2]))
            return self._one_modality(pooled, (0.0, 1.0))
        return self.adaptation(
            self.title_encoder(title_tokens, title_mask, train),
            title_mask,
            self.image_encoder(image, train),
            has_title,
            has_image,
            train,
        )

    def __call__(self, batch: Mapping[str, Array], train: bool = False) -> dict[str, Array]:
        """What the objectives read, of a batch as `inputs/batch.py` describes it.

        `query`, `product` [B, E], `weights` [B, 2], `log_scale`, `bias` []; with Modal Adaptation over both modalities
        also `title` and `image` [B, E], the two directions that it weighs.
        """
        query = self.encode_query(batch["query_tokens"], batch["query_mask"], train)
        product = self.encode_product(
            batch["title_tokens"],
            batch["title_mask"],
            batch["image"],
            batch["has_title"],
            batch["has_image"],
            train,
        )
        out = {
            "query": query,
            "product": product.vectors,
            "weights": product.weights,
            "log_scale": self.log_scale,
            "bias": self.bias,
        }
        if product.title is not None and product.image is not None:
            out |= {"title": product.title, "image": product.image}
        return out

    def _one_modality(self, pooled: Float[Array, "B D"], weights: tuple[float, float]) -> Adapted:
        vectors = unit(self.product_projection(pooled))
        return Adapted(vectors, jnp.broadcast_to(jnp.asarray(weights, jnp.float32), (vectors.shape[0], 2)))
