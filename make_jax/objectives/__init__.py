"""The objectives of training, and what each gave in the ablation study (docs/study.md).

Effect: change of test nDCG@10 (attr English) by using it, `fashion-sparse-mini`, 150 steps of 256; the spread of seeds
is 0.004. Objectives marked "none" had no measurable effect; all of them but keyword swaps are off in all recipes.

| objective                      | setting of `objectives`          | file           | effect           |
|--------------------------------|----------------------------------|----------------|------------------|
| QIC, softmax                   | qic                              | contrastive.py | the base         |
| title and image contrast       | title_contrast, image_contrast   | contrastive.py | +0.015           |
| false-negative masking         | keyword_masking                  | contrastive.py | +0.010, alone    |
| keyword swaps                  | keyword_swaps                    | contrastive.py | none (+0.003)    |
| KEY                            | key                              | keywords.py    | +0.007           |
| AM-Softmax                     | margin                           | contrastive.py | none (+0.001)    |
| sigmoid instead of softmax     | loss_type                        | loss_type.py   | -0.026           |
| QIM                            | qim                              | matching.py    | none (-0.004)    |
| QIM2, with QIM                 | qim2                             | matching.py    | none (+0.002)    |
| MLM                            | mlm                              | masked.py      | none (+0.001)    |
| MPM, contrastive or regression | mpm                              | masked.py      | none (-0.005)    |

Of the model, as ablated in the same study: one stream over title and image instead of three encoders
(`model.adaptation.single_stream`) -0.048; pooling by [CLS] (`model.pooling`) -0.331 after training from scratch.
"""
