"""Claims about MAKE that the study tests, each a difference of two of its rows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """`better` has a higher metric than `worse`; an "at least" claim also holds if the interval contains 0."""

    text: str
    better: str
    worse: str
    at_least: bool = False


CLAIMS = (
    Claim("weights of Modal Adaptation > mean weights", "full", "mean-weights"),
    Claim("the same with cross-attention", "cross-attention", "cross-attention-mean"),
    Claim("cross-attention > none, same weights", "cross-attention", "full"),
    Claim("both modalities > title alone", "full", "title"),
    Claim("both modalities > image alone", "full", "image"),
    Claim("three encoders > one stream over title and image", "full", "single-stream"),
    Claim("Keyword Enhancement > none", "full", "no-ke"),
    Claim("keywords of attributes > of titles and clicks alone", "full", "ke-without-attributes"),
    Claim("keywords of titles and clicks alone > none", "ke-without-attributes", "no-ke"),
    Claim("enrichment alone > no Keyword Enhancement", "ke-enrichment", "no-ke"),
    Claim("evidence alone > no Keyword Enhancement", "ke-evidence", "no-ke"),
    Claim("false-negative masking alone > no Keyword Enhancement", "ke-masking", "no-ke"),
    Claim("keyword swaps alone > no Keyword Enhancement", "ke-swaps", "no-ke"),
    Claim("AM-Softmax >= softmax", "am-softmax", "full", at_least=True),
    Claim("softmax > sigmoid", "full", "sigmoid"),
    Claim("mean pooling > [CLS]", "full", "cls"),
    Claim("unit length > none", "full", "no-l2"),
    Claim("QIM2 helps", "qim2", "qim"),
)


def verdict(low: float, high: float, claim: Claim) -> str:
    """Returns whether the interval of the difference supports a claim."""
    if low > 0 or (claim.at_least and high >= 0):
        return "held"
    return "failed" if high < 0 else "undecided"
