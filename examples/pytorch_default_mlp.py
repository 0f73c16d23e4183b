"""What torch.nn.Linear draws by default is not He's initialisation: measured by forward hooks, judged by mcverify.

Needs torch."""

import numpy as np
import torch

import mcverify as mv

he = mv.mlp(input_dim=64, widths=[256] * 4, activation="relu", sigma_w2=2.0)  # what one may believe
x = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (2, 64))  # two inputs of unit length
grams = []
for seed in range(512):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(n, 256) for n in (64, 256, 256, 256)]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, h: grams.append((h @ h.T / h.shape[1]).detach().numpy()))
    torch.nn.Sequential(*[m for layer in layers for m in (layer, torch.nn.ReLU())])(torch.from_numpy(x))
report = mv.check(mv.predict(he, x), {"q": np.reshape(grams, (512, 4, 2, 2))}, margin=0.02)
print(report.sentence)
